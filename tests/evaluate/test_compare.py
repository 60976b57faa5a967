"""Runs against one another: tests by hand, groups, Holm, power, and the error rate on simulated equal runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from wildtune.evaluate.calibration import CalibrationGap, calibration_gap
from wildtune.evaluate.compare import (
    Contender,
    compare_contenders,
    describe_comparison,
    false_call_rate,
    gap_p_value,
    holm,
    sign_flip_p_value,
    smallest_detectable,
)
from wildtune.intervals import paired_interval, skewed_interval, wilson_interval
from wildtune.predict.predictions import Predictions


def a_run(name: str, right: np.ndarray, group: int = 1, used: dict[str, str] | None = None) -> Contender:
    """A run of two classes that is right on the photos of `right`, in groups of `group` photos."""
    targets = np.arange(len(right)) // group % 2
    answers = np.where(right, targets, 1 - targets)
    logits = np.where(answers[:, None] == np.arange(2), 2.0, 0.0).astype(np.float32)
    names = tuple(map(str, range(len(right))))
    return Contender(
        name=name,
        predictions=Predictions(names, tuple("ab"[t] for t in targets), ("",) * len(names), logits, ("a", "b")),
        contents=names,
        groups=tuple(f"g{row // group}" if group > 1 else "" for row in range(len(names))),
        used={**dict.fromkeys(names, "test"), **(used or {})},
    )


def test_the_mid_p_value_by_hand() -> None:
    # 9 against 2: twice the tail of a fair coin, with half of the probability of what was seen.
    sums = np.array([1] * 9 + [-1] * 2 + [0] * 30)
    expected = 2 * (binom.cdf(1, 11, 0.5) + binom.pmf(2, 11, 0.5) / 2)
    assert sign_flip_p_value(sums) == pytest.approx(expected)
    assert sign_flip_p_value(np.array([3])) == 0.5  # one group says nothing, however many photos it has
    assert sign_flip_p_value(np.zeros(5)) == sign_flip_p_value(np.array([1, -1])) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    least = smallest_detectable(300, 0.1)
    assert least is not None
    assert 0.03 < least < 0.08
    better, worse = (0.1 + least) / 2, (0.1 - least) / 2
    drawn = rng.multinomial(300, [better, worse, 0.9], 1500)
    found = [sign_flip_p_value(np.r_[np.ones(a), -np.ones(b)]) < 0.05 for a, b, _ in drawn]
    assert 0.76 < np.mean(found) < 0.84
    assert smallest_detectable(4, 0.5) is None


def test_equal_runs_are_called_different_in_five_cases_of_a_hundred() -> None:
    rng, rounds = np.random.default_rng(0), 2000
    counts = rng.multinomial(392, [0.06, 0.06, 0.88], rounds)
    called = [sign_flip_p_value(np.r_[np.ones(a), -np.ones(b)]) < 0.05 for a, b, _ in counts]
    assert 0.04 <= np.mean(called) <= 0.06


def test_the_error_rate_that_is_stated_is_the_one_that_few_photos_allow() -> None:
    assert false_call_rate(np.ones(3)) == 0  # even three of three is p = 0.125
    assert false_call_rate(np.array([1, -1, 1, 1, 0, 1])) == 2 * 0.5**5
    assert false_call_rate(np.ones(4000)) == pytest.approx(0.05, abs=0.002)
    rng, rounds = np.random.default_rng(0), 1500
    for sizes in (np.ones(8), np.array([4, 4, 3, 2, 2, 1, 1, 1, 1])):
        signs = rng.choice([-1, 1], (rounds, len(sizes)))
        called = [sign_flip_p_value(sizes * some) < 0.05 for some in signs]
        assert np.mean(called) == pytest.approx(false_call_rate(sizes), abs=0.015)


def test_a_rate_that_is_not_five_per_cent_is_said() -> None:
    right = np.ones(300, dtype=bool)

    def say(*wrong: int, group: int = 1) -> str:
        runs = [a_run(str(count), np.arange(300) >= count, group) for count in wrong]
        return describe_comparison(compare_contenders([*runs, a_run("y", right, group)]))

    assert "equal runs" not in say(60).lower()
    assert "equal runs" not in say(0).lower()  # runs that answer alike
    few = "Equal runs that differ on these alone would"
    assert f"{few} be called different in accuracy in 3.1 % of cases instead of 5 %. With 300" in say(6)
    assert "of 5 %, before the correction for 3 pairs" in say(6, 12)
    assert f"{few} never be called different in accuracy" in say(60, group=20)


def test_photos_of_one_group_count_as_one() -> None:
    right = np.repeat(np.arange(20) >= 4, 10)  # the first run is wrong on four whole groups
    alone = compare_contenders([a_run("x", right), a_run("y", right | True)]).pairs[0].differences["accuracy"]
    tied = compare_contenders([a_run("x", right, 10), a_run("y", right | True, 10)]).pairs[0].differences["accuracy"]
    assert alone.value == tied.value == pytest.approx(0.2)
    assert alone.measurable
    assert not tied.measurable
    assert tied.p_value == 2 * 0.5**4 / 2
    assert tied.interval[1] - tied.interval[0] > 2 * (alone.interval[1] - alone.interval[0])


def test_what_one_run_ties_is_tied_whatever_the_order_of_the_runs() -> None:
    right = np.repeat(np.arange(20) >= 4, 10)
    tied, loose = a_run("a", right, group=10), a_run("b", np.ones(200, dtype=bool))
    first, second = compare_contenders([tied, loose]), compare_contenders([loose, tied])
    assert first.groups == second.groups == 20
    assert first.pairs[0].differences["accuracy"].p_value == second.pairs[0].differences["accuracy"].p_value


def test_a_few_right_answers_do_not_make_a_model_surely_miscalibrated() -> None:
    """A calibrated model is right 30 times of 30 at a confidence of 95 % in every fifth case."""
    low, high = calibration_gap(np.full(30, 0.95), np.ones(30, dtype=bool)).interval
    assert low == 0
    assert high > 0.05


def test_answers_given_as_certain_leave_room_for_doubt() -> None:
    low, high = calibration_gap(np.ones(100), np.ones(100, dtype=bool)).interval
    assert low == 0
    assert 0.005 < high < 0.05
    assert 0.9 < calibration_gap(np.ones(100), np.zeros(100, dtype=bool)).interval[0] < 0.985
    assert calibration_gap(np.ones(100), np.ones(100, dtype=bool), np.arange(100) // 25).interval[1] > 0.4
    assert calibration_gap(np.full(10, 0.9), np.arange(10) > 0).interval[1] > 0.1, "as calibrated as ten photos can be"
    assert calibration_gap(np.full(5, 0.9), np.arange(5) > 1, np.zeros(5, dtype=int)).interval == (0.0, 1.0)
    hardly = calibration_gap(
        np.array([0.14, 0.81, 0.12, 0.72, 1, 0.56, 0.02, 0.11]), np.array([1, 0, 0, 1, 0, 1, 1, 0], bool)
    )
    assert hardly.interval == (0.0, 1.0), "two photos in one bin, the others alone in theirs"


def test_photos_that_another_run_learned_from_do_not_count() -> None:
    right = np.arange(100) % 10 > 0
    learned = {str(row): "train" for row in range(0, 100, 10)}
    found = compare_contenders([a_run("x", right), a_run("y", right, used=learned), a_run("z", ~right)])
    assert found.photos == 90
    assert "y (10)" in found.notes[0]
    assert [run.scores["accuracy"].value for run in found.runs] == [1.0, 1.0, 0.0]
    assert [pair.differences["accuracy"].measurable for pair in found.pairs] == [False, True, True]
    said = describe_comparison(found)
    assert "no measurable difference" in said
    assert "corrected for 3 pairs" in said


def test_intervals_of_differences_hold_the_truth_where_few_photos_differ() -> None:
    """Tango's score interval."""
    rng, rounds = np.random.default_rng(1), 2000
    counts = rng.multinomial(392, [0.0145, 0.0145, 0.971], rounds)
    spans = [paired_interval(first, second, 392) for first, second, _ in counts]
    assert 0.935 <= np.mean([low <= 0 <= high for low, high in spans]) <= 0.965
    assert paired_interval(9, 2, 41) == pytest.approx((-0.33173, -0.01409), abs=1e-5)
    assert paired_interval(2, 9, 41) == pytest.approx((0.01409, 0.33173), abs=1e-5)


def drawn_gaps(rng: np.random.Generator, lowest: tuple[float, float], sure: float) -> list[CalibrationGap]:
    """Two runs on 300 photos, confidence even from `lowest` to 1; the second's is `sure` higher than it should be."""
    gaps = []
    for low, more in zip(lowest, (0.0, sure), strict=True):
        share = rng.uniform(low, 1, 300)
        gaps.append(calibration_gap(np.minimum(share + more, 1.0), rng.random(300) < share))
    return gaps


@pytest.mark.parametrize(
    ("lowest", "sure", "rounds", "least", "most"),
    [
        ((0.6, 0.6), 0.0, 150, 0.01, 0.09),  # equal runs, 5 %
        ((0.6, 0.9), 0.0, 150, 0.0, 0.07),  # calibrated both, though one is worse
        ((0.6, 0.6), 0.15, 30, 0.8, 1.0),
    ],
)
def test_runs_are_told_apart_in_calibration_where_they_differ_in_it(
    lowest: tuple[float, float], sure: float, rounds: int, least: float, most: float
) -> None:
    rng = np.random.default_rng(2)
    called = [gap_p_value(*drawn_gaps(rng, lowest, sure)) < 0.05 for _ in range(rounds)]
    assert least <= np.mean(called) <= most


def test_the_same_predictions_are_as_well_calibrated() -> None:
    gap = drawn_gaps(np.random.default_rng(0), (0.6, 0.6), 0.0)[0]
    assert gap_p_value(gap, gap) == 1.0
    one = calibration_gap(np.full(9, 0.9), np.arange(9) > 4, np.zeros(9, dtype=int))
    other = calibration_gap(np.full(9, 0.6), np.arange(9) > 4, np.zeros(9, dtype=int))
    assert gap_p_value(one, other) >= 0.5  # one group says nothing


def test_the_calibration_error_without_chance_is_found_again() -> None:
    rng = np.random.default_rng(3)
    right = rng.random((300, 400)) < 0.8
    gaps = [calibration_gap(np.full(400, 0.9), row) for row in right]
    assert np.mean([gap.square for gap in gaps]) == pytest.approx(0.01, rel=0.05)
    assert np.mean([gap.interval[0] <= 0.1 <= gap.interval[1] for gap in gaps]) >= 0.92
    alike = np.repeat(right[0, :40], 10)
    alone, tied = (calibration_gap(np.full(400, 0.5), alike, np.arange(400) // size) for size in (1, 10))
    assert tied.interval[1] - tied.interval[0] > 2 * (alone.interval[1] - alone.interval[0])


def test_a_calibration_error_is_within_its_interval() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        count = int(rng.integers(1, 60))
        clusters = np.unique(rng.integers(0, count, count), return_inverse=True)[1]
        confidence = rng.choice([rng.random(count), np.ones(count), np.full(count, 0.9)])
        gap = calibration_gap(confidence, rng.random(count) < rng.random(), clusters)
        low, high = gap.interval
        assert 0 <= low <= gap.root <= high <= 1
        assert low < high


@pytest.mark.parametrize(("sure", "group"), [(0.0, 1), (0.1, 1), (0.1, 4)])
def test_the_interval_of_a_calibration_error_holds_the_truth(sure: float, group: int) -> None:
    """A run that is as sure as it is right, and one that is surer where it errs; photos alike in fours too."""
    rng, photos = np.random.default_rng(5), np.arange(200)

    def draw(count: int, tied: int) -> tuple[np.ndarray, np.ndarray]:
        share = np.repeat(rng.beta(4, 1, count // tied), tied)
        return share + sure * (1 - share), np.repeat(rng.random(count // tied), tied) < share

    true = calibration_gap(*draw(400_000, 1), np.arange(400_000) // 100).root
    spans = [calibration_gap(*draw(200, group), photos // group).interval for _ in range(400)]
    assert 0.92 <= np.mean([low <= true <= high for low, high in spans]) <= 0.99


def test_the_interval_of_a_loss_reaches_further_up_and_covers() -> None:
    rng, photos = np.random.default_rng(4), np.arange(150)
    spans = [skewed_interval(rng.lognormal(0, 1, 150), photos) for _ in range(600)]
    assert 0.91 <= np.mean([low <= np.exp(0.5) <= high for low, high in spans]) <= 0.98


def test_a_perfect_accuracy_in_few_groups_is_not_called_certain() -> None:
    right = np.ones(100, dtype=bool)
    scores = compare_contenders([a_run("x", right, 10), a_run("y", right, 10)]).runs[0].scores
    assert scores["accuracy"].interval == pytest.approx(wilson_interval(10, 10))
    assert scores["balanced accuracy"].interval[0] < 0.75
