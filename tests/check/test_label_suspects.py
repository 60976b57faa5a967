"""Planted label errors come first, photos of one group do not vouch for each other, nothing is said without cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wildtune.check import label_suspects
from wildtune.check.groups import create_groups
from wildtune.check.label_suspects import (
    MODEL,
    describe_ranking,
    held_out_probabilities,
    load_ranking,
    rank_labels,
    rank_predictions,
    save_ranking,
    suspect_findings,
)
from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import Photo, create_catalogue

CLASSES = ("bear", "cat", "deer", "dog", "wolf", "zebra")


def make_features(seed: int, per_class: int = 40, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 24) features around a centre for each class, and the (N,) right targets."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(CLASSES)), per_class)
    centres = rng.normal(0, 2, (len(CLASSES), 24))
    return (centres[targets] + rng.normal(0, spread, (len(targets), 24))).astype(np.float32), targets


def make_photos(targets: np.ndarray) -> list[Photo]:
    return [Photo(f"{CLASSES[t]}/{i}.jpg", CLASSES[t], f"{i:064}") for i, t in enumerate(targets)]


def alone(photos: list[Photo]) -> list[str]:
    return [photo.path for photo in photos]


@pytest.mark.parametrize("seed", range(5))
def test_planted_errors_stand_in_the_first_tenth(seed: int) -> None:
    features, right = make_features(seed)
    rng = np.random.default_rng(seed)
    bad = rng.choice(len(right), len(right) // 20, replace=False)
    given = right.copy()
    given[bad] = (right[bad] + rng.integers(1, len(CLASSES), len(bad))) % len(CLASSES)
    photos = make_photos(given)
    ranking = rank_labels(photos, features, alone(photos), seed)
    assert [row.rank for row in ranking.rows] == list(range(1, len(photos) + 1))
    assert sorted(row.path for row in ranking.rows) == sorted(alone(photos))
    planted = {photos[i].path: CLASSES[right[i]] for i in bad}
    first = ranking.rows[: len(photos) // 10]
    assert sum(row.path in planted for row in first) >= 0.8 * len(bad)
    found = [row for row in ranking.suspects if row.path in planted]
    assert len(found) >= 0.6 * len(bad)
    assert sum(row.suggestion == planted[row.path] for row in found) >= 0.9 * len(found)
    assert len(ranking.suspects) <= 2 * len(bad)


def test_a_clean_set_has_hardly_any_suspects() -> None:
    features, right = make_features(7)
    photos = make_photos(right)
    assert len(rank_labels(photos, features, alone(photos)).suspects) <= 0.01 * len(photos)


def test_the_same_input_gives_the_same_ranking() -> None:
    features, right = make_features(1, spread=3)
    photos = make_photos(right)
    assert rank_labels(photos, features, alone(photos), 3) == rank_labels(photos, features, alone(photos), 3)


def test_features_that_tell_nothing_accuse_nobody() -> None:
    _, right = make_features(2)
    photos = make_photos(right)
    noise = np.random.default_rng(0).normal(size=(len(photos), 24))
    ranking = rank_labels(photos, noise, alone(photos))
    assert ranking.suspects == ()
    assert "too poorly" in ranking.reason
    assert "not looked for" in describe_ranking(ranking)


def test_a_wrong_label_does_not_vouch_for_its_near_duplicate() -> None:
    features, right = make_features(3)
    given = right.copy()
    given[:8] = 1  # eight frames of one bear, all called cats
    features[:8] = features[0] + 0.01
    photos = make_photos(given)
    copies = {photos[i].path: photos[0].path for i in range(8)}
    findings = Findings(create_catalogue(Path("x"), photos), (), copies)
    groups = create_groups(findings, photos)
    assert len(set(groups[:8])) == 1
    assert len(set(groups)) == len(photos) - 7
    together = held_out_probabilities(features, given, groups)
    apart = held_out_probabilities(features, given, alone(photos))
    assert together[:8, 1].max() < 0.2 < apart[:8, 1].min()


def test_groups_of_the_source_are_joined_by_near_duplicates() -> None:
    photos = [Photo("1", "a", group="g"), Photo("2", "a", group="g"), Photo("3", "a"), Photo("g", "a")]
    catalogue = create_catalogue(Path("x"), photos)
    assert len(set(create_groups(Findings(catalogue, ()), photos))) == 3
    joined = Findings(catalogue, (), {"3": "1", "1": "1"})
    assert len(set(create_groups(joined, photos))) == 2


def test_classes_of_few_photos_are_not_judged_and_stay_in_the_ranking() -> None:
    features, right = make_features(4)
    keep = np.r_[0:2, 40:240]  # two bears only
    photos = [make_photos(right)[i] for i in keep]
    ranking = rank_labels(photos, features[keep], alone(photos))
    last = ranking.rows[-2:]
    assert {row.label for row in last} == {"bear"}
    assert [row.rank for row in last] == [0, 0]
    assert all(np.isnan(row.score) and not row.suspect for row in last)
    assert "2 photos of classes too small" in describe_ranking(ranking)


def test_a_class_within_one_group_is_not_judged() -> None:
    features, right = make_features(5)
    groups = ["one" if t == 0 else str(i) for i, t in enumerate(right)]
    probs = held_out_probabilities(features, right, groups)
    assert np.isnan(probs[right == 0]).all()
    assert not np.isnan(probs[right != 0]).any()


def test_two_photos_or_one_class_end_quietly() -> None:
    for labels in ("ab", "aaaa", ""):
        photos = [Photo(str(i), label) for i, label in enumerate(labels)]
        ranking = rank_labels(photos, np.zeros((len(labels), 4)), alone(photos))
        assert ranking.suspects == ()
        assert len(ranking.rows) == len(labels)
        assert ranking.reason


def test_the_ranking_is_saved_and_read(tmp_path: Path) -> None:
    features, right = make_features(6)
    keep = np.r_[0:2, 40:240]
    photos = [make_photos(right)[i] for i in keep]
    ranking = rank_labels(photos, features[keep], alone(photos))
    save_ranking([ranking, ranking], tmp_path / "label_ranking.csv")
    rows = load_ranking(tmp_path / "label_ranking.csv")
    assert len(rows) == 2 * len(photos)
    for row, read in zip(ranking.rows, rows, strict=False):
        assert (read.path, read.label, read.suggestion, read.rank, read.suspect, read.judge) == (
            (row.path, row.label, row.suggestion, row.rank, row.suspect, row.judge)
        )
        assert read.score == pytest.approx(row.score, abs=1e-6, nan_ok=True)


def test_findings_say_label_suggestion_and_rank() -> None:
    probs = np.full((40, 2), 0.02)
    targets = np.arange(40) % 2
    probs[np.arange(40), targets] = 0.98
    probs[3] = (0.99, 0.01)
    probs[5] = np.nan
    paths = [f"{i}.jpg" for i in range(40)]
    ranking = rank_predictions(paths, ["ab"[t] for t in targets], probs, ("a", "b"), MODEL)
    (found,) = suspect_findings(ranking, of_test=True)
    assert (found.path, found.kind, found.severity) == ("3.jpg", "label_suspect", "warning")
    for part in ("'b'", "'a'", "0.99", "number 1 of 40", "the final model takes", "kept:", "A test photo"):
        assert part in found.detail
    assert ranking.rows[-1].path == "5.jpg"
    assert label_suspects.FOLDS == 5
