from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from wildtune.evaluate.calibration import expected_calibration_error
from wildtune.evaluate.evaluation import (
    compare,
    evaluate,
    evaluate_run,
    load_evaluation,
    save_evaluation,
    wilson_interval,
)
from wildtune.predict.predictions import Predictions


def create_predictions(
    targets: list[int], predicted: list[int], classes: int = 3, confidence: float = 4
) -> Predictions:
    names = tuple("abcdefgh"[:classes])
    logits = np.zeros((len(targets), classes), dtype=np.float32)
    logits[np.arange(len(targets)), predicted] = confidence
    return Predictions(
        paths=tuple(f"{i}.jpg" for i in range(len(targets))),
        labels=tuple(names[t] if t >= 0 else "" for t in targets),
        errors=("",) * len(targets),
        logits=logits,
        class_names=names,
    )


def test_scores_by_hand() -> None:
    scores = evaluate(create_predictions([0, 0, 0, 1, 1, -1], [0, 0, 1, 1, 0, 2]))
    assert scores.photos == 5
    assert scores.accuracy == 0.6
    assert scores.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 0))
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.classes[2].recall is None
    assert scores.classes[0].taken_for == "b"
    assert [m.path for m in scores.mistakes] == ["2.jpg", "4.jpg"]


def test_rows_without_a_prediction_are_counted_not_scored() -> None:
    base = create_predictions([0, 1, 2], [0, 1, 2])
    logits = base.logits.copy()
    logits[1] = np.nan
    broken = Predictions(base.paths, base.labels, ("", "empty file", ""), logits, base.class_names)
    scores = evaluate(broken)
    assert (scores.photos, scores.without_prediction, scores.accuracy) == (2, 1, 1.0)
    assert list(broken.predicted) == [0, -1, 2]


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="no photo"):
        evaluate(create_predictions([-1], [0]))


def test_log_loss_is_exact_for_confident_mistakes() -> None:
    assert evaluate(create_predictions([0], [1], confidence=900)).log_loss == pytest.approx(900)
    assert evaluate(create_predictions([0], [0], classes=2, confidence=0)).log_loss == pytest.approx(np.log(2))


def test_wilson_by_its_formula() -> None:
    z, n, p = stats.norm.ppf(0.975), 293, 277 / 293
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson_interval(277, 293) == pytest.approx((centre - half, centre + half))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mcnemar_is_exact() -> None:
    right, wrong = [0] * 20, [1] * 20
    first = create_predictions(right, [0] * 12 + [1] * 8)
    second = create_predictions(right, [0] * 11 + [1] + [0] * 8)
    result = compare(first, second, ("head", "all"))
    assert (result.only_first, result.only_second, result.photos) == (1, 8, 20)
    assert result.p_value == pytest.approx(2 * sum(stats.binom.pmf(k, 9, 0.5) for k in (0, 1)))
    assert result.significant
    assert result.difference == pytest.approx(0.35)
    assert result.interval[0] < result.difference < result.interval[1]
    back = compare(second, first)
    assert back.interval == pytest.approx((-result.interval[1], -result.interval[0]))
    assert wrong  # the labels are all "a": every photo predicted "b" is wrong


def test_interval_of_a_small_paired_table() -> None:
    """36 photos right with both, 12 with the second only, 2 with the first only, none with neither."""
    targets = [0] * 50
    first = create_predictions(targets, [0] * 36 + [1] * 12 + [0] * 2)
    second = create_predictions(targets, [0] * 36 + [0] * 12 + [1] * 2)
    result = compare(first, second)
    assert result.difference == pytest.approx(0.20)
    low, high = result.interval
    assert 0.04 < low < 0.09
    assert 0.30 < high < 0.35


def test_intervals_of_differences_cover() -> None:
    """Over simulated pairs of classifiers the interval holds the true difference about as often as it says."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        base = rng.random(200) < 0.85
        flip_up, flip_down = rng.random(200) < 0.4, rng.random(200) < 0.04
        second = np.where(base, ~flip_down, flip_up)
        truth = 0.15 * 0.4 - 0.85 * 0.04
        result = compare(
            create_predictions([0] * 200, list(1 - base.astype(int))),
            create_predictions([0] * 200, list(1 - second.astype(int))),
        )
        held += result.interval[0] <= truth <= result.interval[1]
    assert 0.92 <= held / 300 <= 0.99


def test_identical_models_do_not_differ() -> None:
    same = create_predictions([0, 1, 2], [0, 2, 2])
    result = compare(same, same)
    assert (result.p_value, result.difference, result.only_first) == (1.0, 0.0, 0)


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, False, True, False])
    assert expected_calibration_error(confidence, right) == pytest.approx((0.9 + 0.1) / 4)


def test_a_runs_scores_survive_their_file(tmp_path: Path) -> None:
    final = {"val": create_predictions([0, 1], [0, 1]), "test": create_predictions([2, 1, 0], [2, 1, 1])}
    before = {("transfer", "test"): create_predictions([2, 1, 0], [0, 1, 1])}
    scores = evaluate_run(final, before, "finetune")
    save_evaluation(scores, tmp_path / "evaluation.json")
    assert load_evaluation(tmp_path / "evaluation.json") == scores
    assert scores.headline.side == "test"


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 7), (3, 7), (150, 293), (293, 293), (13999, 14000)])
def test_interval_and_exact_test_are_scipys(right: int, total: int) -> None:
    theirs = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    first = create_predictions([0] * total, [0] * right + [1] * (total - right))
    second = create_predictions([0] * total, [1] * right + [0] * (total - right))
    expected = stats.binomtest(right, total).pvalue
    assert compare(first, second).p_value == pytest.approx(expected, rel=1e-9, abs=1e-300)
