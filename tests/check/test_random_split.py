"""A split that tears groups apart: measured where it flatters, and said to make no difference where it makes none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shapes import small_recipe
from wildtune import job
from wildtune.check import random_split
from wildtune.check.label_suspects import rank_labels
from wildtune.check.random_split import describe_random_split, known_answers, measure_random_split
from wildtune.intervals import clustered_interval, clustered_wilson_interval, wilson_interval
from wildtune.photos.catalogue import Photo

CLASSES = ("bear", "deer", "fox", "wolf")


def make_bursts(seed: int, burst: int, place: float) -> tuple[list[Photo], np.ndarray, list[str]]:
    """Return 240 photos in bursts; `place` is how far the bursts of a class lie apart, which gives mates away."""
    rng = np.random.default_rng(seed)
    count = 240 // burst
    targets = np.repeat(np.arange(count) % len(CLASSES), burst)
    groups = np.repeat(np.arange(count), burst)
    centres, places = rng.normal(0, 1, (len(CLASSES), 32)), rng.normal(0, place, (count, 32))
    features = centres[targets] + places[groups] + rng.normal(0, 0.5, (len(targets), 32))
    photos = [Photo(f"{i}.jpg", CLASSES[t], f"{seed}{burst}{i:060}") for i, t in enumerate(targets)]
    return photos, features.astype(np.float32), [f"burst {g}" for g in groups]


def test_bursts_flatter_a_random_split_and_it_is_said_by_how_much_and_why() -> None:
    photos, features, groups = make_bursts(0, burst=6, place=2.0)
    found = measure_random_split(photos, features, groups)
    assert found is not None
    assert (found.photos, found.tied, found.parted) == (240, 240, 240)
    assert found.measurable
    assert found.difference == pytest.approx(found.random - found.grouped)
    assert found.difference > 0.1
    said = describe_random_split(found)
    assert "would flatter by" in said
    assert "240 photos of 240 belong with others" in said
    # Heads whose answers are known already need not be trained again.
    again = random_split._measure(photos, features, groups, 0, known_answers(rank_labels(photos, features, groups)))
    assert again == found


@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_give_nothing_away_make_no_measurable_difference(seed: int) -> None:
    photos, features, groups = make_bursts(seed, burst=2, place=0.0)
    found = measure_random_split(photos, features, groups)
    assert found is not None
    assert 150 < found.parted < 240  # now and then both of a pair fall into one fold
    assert not found.measurable
    assert "no measurable difference" in describe_random_split(found)


def test_without_groups_nothing_is_said() -> None:
    photos, features, _ = make_bursts(0, burst=2, place=0.0)
    assert measure_random_split(photos, features, [photo.path for photo in photos]) is None
    assert measure_random_split([], np.empty((0, 4)), []) is None


def test_intervals_allow_for_photos_that_fare_alike() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        clusters = np.repeat(np.arange(40), 5)
        values = np.repeat(rng.normal(0.3, 1, 40), 5) + rng.normal(0, 0.2, 200)
        low, high = clustered_interval(values, clusters)
        held += low <= 0.3 <= high
    assert 0.91 <= held / 300 <= 0.98
    right = np.repeat(rng.random(40) < 0.8, 5)
    low, high = clustered_wilson_interval(right, np.repeat(np.arange(40), 5))
    alone = wilson_interval(int(right.sum()) / 5, 40)
    assert (low, high) == pytest.approx(alone, abs=0.01)
    singles = clustered_wilson_interval(right, np.arange(200))
    assert singles == pytest.approx(wilson_interval(int(right.sum()), 200), abs=1e-3)


@pytest.mark.usefixtures("blank_charts")
def test_check_and_training_say_it_where_photos_belong_together(
    photos: Path, start_weights: Path, tmp_path: Path
) -> None:
    lines = [f"{p.parent.name}/{p.name},{p.parent.name},{p.parent.name}{int(p.stem) // 2}" for p in photos.glob("*/*")]
    source = photos.parent / "grouped.csv"
    source.write_text("\n".join(["path,label,group", *("shapes/" + line for line in sorted(lines))]) + "\n")
    recipe = small_recipe("stages.0.epochs=1", "stages.1.epochs=1")
    recipe = recipe.model_copy(update={"weights": str(start_weights)})
    job.check(source, recipe=recipe, out=tmp_path / "checked")
    assert "A split at random" in (tmp_path / "checked" / "check.html").read_text("utf-8")
    run = job.train(source, recipe, tmp_path / "run")
    assert "A split at random" in (run.folder / "report" / "analysis.md").read_text("utf-8")
    saved = json.loads((run.folder / "evaluation.json").read_text("utf-8"))["random_split"]
    assert saved["tied"] == run.plan.side_size("train") + run.plan.side_size("val")
    assert job.saved_scores(run.folder).headline == run.evaluation.headline
