"""Learning curves: known laws are found again, intervals hold the truth, groups stay whole, order changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from shapes import BACKBONE, small_recipe
from wildtune import job
from wildtune.evaluate import growing_heads, learning_curve, power_law
from wildtune.evaluate.growing_heads import SHARES, measure_errors
from wildtune.evaluate.learning_curve import (
    LearningCurve,
    Needed,
    describe_learning_curve,
    load_learning_curve,
    measure_learning_curve,
    save_learning_curve,
)
from wildtune.evaluate.power_law import PowerLaws, fit_power_laws
from wildtune.intervals import clustered_wilson_interval
from wildtune.model.backbone import create_classifier
from wildtune.photos.catalogue import Photo
from wildtune.train import doubts

SIZES = np.array(SHARES)


def make_set(seed: int, classes: int = 4, per_class: int = 40, burst: int = 1) -> tuple[list[Photo], np.ndarray]:
    """Return photos in bursts of one class, and (N, 16) features of classes that overlap."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(classes), per_class)
    centres = rng.normal(0, 1, (classes, 16))
    features = (centres[targets] + rng.normal(0, 1.3, (len(targets), 16))).astype(np.float32)
    photos = [
        Photo(f"{i}.jpg", "abcdefgh"[t], f"{i * 7919 % 100003:064x}", group=f"burst {i // burst}")
        for i, t in enumerate(targets)
    ]
    return photos, features


def groups_of(photos: list[Photo]) -> list[str]:
    return [photo.group for photo in photos]


@pytest.mark.parametrize(("exponent", "floor"), [(0.3, 0.0), (0.6, 0.0), (0.5, 0.4)])
def test_an_exact_power_law_is_found_again(monkeypatch: pytest.MonkeyPatch, exponent: float, floor: float) -> None:
    targets = np.arange(8_000) % 2
    now = np.array([0.05, 0.15])
    wrong = now[targets] * (floor + (1 - floor) * SIZES[:, None] ** -exponent)

    def fit() -> PowerLaws:
        return fit_power_laws(SIZES, wrong, targets, np.arange(len(targets)), seed=0, draws=60)

    def truth(factor: float) -> np.ndarray:
        return now * (floor + (1 - floor) * factor**-exponent)

    cautious = fit()
    assert cautious.error.shape == (60,)
    for factor in (1.0, 2.0, 4.0):
        low, high = np.quantile(cautious.errors(factor), (0.025, 0.975))
        assert low <= truth(factor).mean() <= high
        low, high = np.quantile(cautious.class_errors(factor), (0.025, 0.975), axis=0)
        assert ((low <= truth(factor)) & (truth(factor) <= high)).all()
    monkeypatch.setattr(power_law, "_MISFIT", 1e-4)  # as if errors were known to follow a power law
    laws = fit()
    for factor in (1.0, 2.0, 4.0):
        assert float(np.median(laws.errors(factor))) == pytest.approx(truth(factor).mean(), rel=0.03)
        assert np.median(laws.class_errors(factor), axis=0) == pytest.approx(truth(factor), rel=0.10)
    aim = float(truth(3.0)[1])
    assert float(np.median(laws.factors(aim)[:, 1])) == pytest.approx(3.0, rel=0.2)


def simulate(rng: np.random.Generator, classes: int, per_class: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (S, N) errors of photos that are hard or easy at every size, targets, and the true (K,) error at 2 x."""
    targets = np.repeat(np.arange(classes), per_class)
    now = np.exp(rng.normal(np.log(0.12), 0.6, classes))
    exponent = np.exp(rng.normal(np.log(0.5), 0.3, classes))
    floor = rng.uniform(0, 0.4)
    chance = np.minimum(now * (floor + (1 - floor) * SIZES[:, None] ** -exponent), 0.98)[:, targets]
    hardness = rng.normal(size=len(targets))
    wrong = np.zeros((len(SIZES), len(targets)))
    limit = np.array([[np.quantile(_NORMAL, c) for c in row] for row in chance[:, ::per_class]])[:, targets]
    for place, draws in enumerate((5, 3, 2, 1, 1)):
        for _ in range(draws):
            wrong[place] += (0.9 * hardness + 0.19**0.5 * rng.normal(size=len(targets)) < limit[place]) / draws
    return wrong, targets, now * (floor + (1 - floor) * 2.0**-exponent)


_NORMAL = np.sort(np.random.default_rng(1).normal(size=20_000))


def test_intervals_hold_the_truth_of_simulated_classes() -> None:
    held = []
    for seed in range(10):
        wrong, targets, truth = simulate(np.random.default_rng(seed), classes=12, per_class=40)
        laws = fit_power_laws(SIZES, wrong, targets, np.arange(len(targets)), seed, draws=120)
        low, high = np.quantile(laws.class_errors(2.0), (0.025, 0.975), axis=0)
        held += ((low <= truth) & (truth <= high)).tolist()
        assert (high - low).mean() < 0.2  # they say something
    assert 0.90 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("burst", [1, 4])
def test_a_set_without_any_error_is_not_called_certain(burst: int) -> None:
    targets, groups = np.repeat(np.arange(4), 40), np.arange(160) // burst
    laws = fit_power_laws(SIZES, np.zeros((len(SIZES), 160)), targets, groups, seed=0)
    low, high = np.quantile(1 - laws.errors(1.0), (0.025, 0.975))
    least, most = clustered_wilson_interval(np.ones(160), groups)
    assert 0.3 * (most - least) < high - low < 2 * (most - least)
    assert high > 0.998


def test_a_small_class_is_drawn_towards_the_others() -> None:
    wrong, targets, _ = simulate(np.random.default_rng(0), classes=8, per_class=60)
    few = np.r_[np.flatnonzero(targets == 0)[:12], np.flatnonzero(targets > 0)]
    wild = wrong[:, few].copy()
    wild[:, :12] = (np.arange(12) < np.array([11, 9, 6, 3, 1])[:, None]).astype(float)  # falls far faster than others
    laws = fit_power_laws(SIZES, wild, targets[few], np.arange(len(few)), seed=0)
    steep = float(np.median(laws.class_exponent[:, 0]))
    assert steep < 0.9  # alone it would be log(11) / log(8) = 1.15
    assert steep > float(np.median(laws.exponent))


def test_groups_are_never_torn_and_shares_hold_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, features = make_set(0, burst=4)
    targets = np.array(["abcd".index(p.label) for p in photos])
    groups = np.arange(len(photos)) // 4
    asked: list[list[np.ndarray]] = []
    train = growing_heads.train_heads

    def spy(inputs: torch.Tensor, labels: torch.Tensor, rows: list[np.ndarray]) -> list[torch.Tensor]:
        asked.append(list(rows))
        return train(inputs, labels, rows)

    monkeypatch.setattr(growing_heads, "train_heads", spy)
    found = measure_errors(features, targets, groups, seed=0)
    for rows in asked:
        for some in rows:
            assert np.bincount(groups[some], minlength=40)[np.unique(groups[some])].tolist() == [4] * (len(some) // 4)
            assert set(targets[some]) == {0, 1, 2, 3}
    for fold in range(5):
        for smaller, larger in itertools.pairwise(asked):
            assert set(smaller[fold]) <= set(larger[fold])
    assert set(np.concatenate(asked[-1])) == set(range(len(photos)))
    # At each size every photo is judged by heads that learned none of its group.
    held = [set(range(len(photos))) - set(some) for some in asked[-1]]
    assert sorted(i for fold in held for i in fold) == list(range(len(photos)))
    assert found.trained.tolist() == sorted(found.trained.tolist())
    assert found.trained[0] < 0.2 * found.trained[-1]


def test_the_same_photos_in_any_order_and_on_any_number_of_threads_give_the_same_curve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning_curve, "remember", lambda kind, question, work_out: work_out())
    photos, features = make_set(1, burst=2)
    curve = measure_learning_curve(photos, features, groups_of(photos), 3)
    mixed = np.random.default_rng(0).permutation(len(photos))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    again = measure_learning_curve(
        [photos[i] for i in mixed], features[mixed], [f"other {photos[i].group}" for i in mixed], 3
    )
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert again == curve
    assert measure_learning_curve(photos, features, groups_of(photos), 4) != curve


def test_a_curve_rises_and_says_what_more_photos_bring(tmp_path: Path) -> None:
    photos, features = make_set(2)
    curve = measure_learning_curve(photos, features, groups_of(photos))
    assert curve.reason == ""
    assert [point.share for point in curve.measured] == list(SHARES)
    assert curve.measured[0].accuracy < curve.measured[-1].accuracy
    assert [f.factor for f in curve.forecasts] == [1, 2, 4]
    values = [f.value for f in curve.forecasts]
    assert values == sorted(values)
    assert curve.forecasts[0].value == pytest.approx(curve.measured[-1].accuracy, abs=0.04)
    for forecast in (*curve.forecasts, *curve.band, *(f for c in curve.classes for f in c.forecasts)):
        assert 0 <= forecast.interval[0] <= forecast.value <= forecast.interval[1] <= 1
    assert [c.name for c in curve.classes] == list("abcd")
    assert all(c.photos == 40 for c in curve.classes)
    assert "with twice the photos" in describe_learning_curve(curve)
    save_learning_curve(curve, tmp_path / "learning_curve.json")
    assert load_learning_curve(tmp_path / "learning_curve.json") == curve


def test_an_interval_is_no_narrower_than_so_few_held_out_photos_allow() -> None:
    photos, features = make_set(3, classes=3, per_class=40)
    curve = measure_learning_curve(photos, features, groups_of(photos))
    for known in curve.classes:
        recall = dict(zip("abc", curve.measured[-1].recalls, strict=True))[known.name]
        right = np.arange(40) < round(recall * 40)
        low, high = clustered_wilson_interval(right, np.arange(40))
        found = known.forecasts[0].interval
        assert found[1] - found[0] > 0.4 * (high - low)


@pytest.mark.parametrize(
    ("classes", "per_class", "burst", "words"),
    [
        (3, 10, 1, "100 training and validation photos or more; there are 30"),
        (8, 15, 1, "two classes with 20 photos"),
        (4, 40, 20, "10 groups"),
    ],
)
def test_too_few_photos_give_a_clear_sentence(classes: int, per_class: int, burst: int, words: str) -> None:
    photos, features = make_set(0, classes, per_class, burst)
    curve = measure_learning_curve(photos, features, groups_of(photos))
    assert curve == LearningCurve(photos=len(photos), reason=curve.reason)
    assert words in curve.reason
    assert describe_learning_curve(curve).startswith("no learning curve: a curve needs")
    assert measure_learning_curve([], np.empty((0, 4), np.float32), []).reason


def test_a_class_too_small_for_a_curve_is_named_and_still_counts() -> None:
    photos, features = make_set(4)
    keep = [i for i in range(len(photos)) if photos[i].label != "d" or i % 40 < 6]
    curve = measure_learning_curve([photos[i] for i in keep], features[keep], groups_of([photos[i] for i in keep]))
    assert curve.left_out == ("d",)
    assert curve.photos == 126
    assert len(curve.measured[0].recalls) == len(curve.classes) == 3


def test_what_cannot_be_said_is_not_said() -> None:
    assert Needed(factor=0.8, low=0.5, high=3.0).is_reached
    assert not Needed(factor=None, low=2.0, high=None).is_reached
    assert Needed(factor=None, low=2.0, high=None).is_known
    assert not Needed(factor=3.0, low=0.9, high=None).is_known


def test_a_run_measures_its_curve_without_the_test_photos_and_a_resumed_one_has_it_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("LEAST_PHOTOS", 20), ("LEAST_OF_CLASS", 8), ("LEAST_GROUPS", 5)):
        monkeypatch.setattr(learning_curve, name, few)
    asked: list[set[str]] = []

    def spy(given: list[Photo], features: np.ndarray, groups: list[str], seed: int) -> LearningCurve:
        asked.append({photo.path for photo in given})
        return measure_learning_curve(given, features, groups, seed)

    monkeypatch.setattr(doubts, "measure_learning_curve", spy)
    torch.manual_seed(0)
    torch.save(create_classifier(BACKBONE, 7).state_dict(), tmp_path / "start.pth")
    recipe = small_recipe("stages.0.epochs=1", "stages.1.epochs=1")
    run = job.train(photos, recipe.model_copy(update={"weights": str(tmp_path / "start.pth")}), tmp_path / "run")
    lines = (run.folder / "split.csv").read_text("utf-8").splitlines()[1:]
    sides = {line.split(",")[0]: line.split(",")[2] for line in lines}
    assert "test" in sides.values()
    assert asked == [{path for path, side in sides.items() if side != "test"}]
    curve = load_learning_curve(run.folder / "learning_curve.json")
    assert curve.photos == len(asked[0])
    assert curve.measured
    page = (run.folder / "report" / "index.html").read_bytes()
    assert b"If every class had twice as many photos" in page
    assert (run.folder / "report" / "learning-curve.svg").exists()
    (run.folder / "learning_curve.json").unlink()
    job.resume(run.folder)
    assert load_learning_curve(run.folder / "learning_curve.json") == curve
    assert (run.folder / "report" / "index.html").read_bytes() == page
