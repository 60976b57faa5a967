from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wildtune.errors import PhotosError
from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import Photo, create_catalogue
from wildtune.photos.split import Split, save_split, split_photos
from wildtune.recipe import SplitOptions

ROOT = Path("/photos")


def photo(i: int, label: str, **values: str) -> Photo:
    return Photo(f"{label}/{i}.jpg", label, hashlib.sha256(str(i).encode()).hexdigest(), **values)


def split(photos: list[Photo], **options: float) -> Split:
    return split_photos(Findings(create_catalogue(ROOT, photos), ()), SplitOptions(**options))


def sides_by_content(result: Split) -> dict[str, str]:
    return {p.sha256: side for p, side in zip(result.photos, result.sides, strict=True)}


photo_lists = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "", "g1", "g2", "g3", "g4"])),
    min_size=12,
    max_size=80,
).map(lambda rows: [photo(i, label, group=group) for i, (label, group) in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(photo_lists, st.integers(0, 3), st.randoms(use_true_random=False))
def test_properties(photos: list[Photo], seed: int, shuffler: random.Random) -> None:
    try:
        result = split(photos, seed=seed)
    except PhotosError:
        return
    sides_of = defaultdict(set)
    for p, side in zip(result.photos, result.sides, strict=True):
        sides_of[p.group or p.sha256].add(side)
    assert all(len(sides) == 1 for sides in sides_of.values()), "a group is on two sides"
    trained = {p.label for p in result.side("train")}
    assert trained == set(result.class_names), "a class is not trained on"
    renamed = [replace(p, path=f"other/{shuffler.random()}") for p in photos]
    shuffler.shuffle(renamed)
    assert sides_by_content(split(renamed, seed=seed)) == sides_by_content(result), "order or names matter"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=5), st.integers(0, 5))
def test_single_photos_meet_the_quotas_exactly(sizes: list[int], seed: int) -> None:
    photos = [photo(c * 1000 + i, f"c{c}") for c, size in enumerate(sizes) for i in range(size)]
    result = split(photos, seed=seed)
    found = Counter((p.label, side) for p, side in zip(result.photos, result.sides, strict=True))
    for c, size in enumerate(sizes):
        assert found[f"c{c}", "test"] == max(1, round(0.15 * size))
        assert found[f"c{c}", "val"] == max(1, round(0.10 * size))


def test_targets_seed_and_file(tmp_path: Path) -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(60)]
    first, second = split(photos), split(photos, seed=1)
    assert sides_by_content(first) != sides_by_content(second)
    targets = first.targets("val")
    assert targets.dtype == np.int64
    assert [first.class_names[t] for t in targets] == [p.label for p in first.side("val")]
    save_split(first, tmp_path / "split.csv")
    lines = (tmp_path / "split.csv").read_text().splitlines()
    assert lines[0] == "path,label,split,group"
    assert len(lines) == 61
    with pytest.raises(ValueError, match="side must be"):
        first.side("valid")


def test_groups_come_near_the_quotas() -> None:
    photos = [photo(i, "ab"[i % 2], group=f"g{i // 10}") for i in range(400)]
    result = split(photos)
    found = Counter(result.sides)
    assert found["test"] == 60
    assert found["val"] == 40


def test_small_classes_train_first() -> None:
    photos = [photo(i, "big") for i in range(20)] + [photo(100, "one"), photo(200, "two"), photo(201, "two")]
    result = split(photos)
    found = Counter((p.label, side) for p, side in zip(result.photos, result.sides, strict=True))
    assert found["one", "train"] == 1
    assert (found["two", "train"], found["two", "val"], found["two", "test"]) == (1, 1, 0)
    assert len(result.notices) == 2


def test_user_split_is_obeyed() -> None:
    given_sides = ["train", "train", "val", "test", ""]
    photos = [photo(i, "ab"[i % 2], split=given_sides[i // 2 % 5]) for i in range(100)]
    result = split(photos)
    assert all(p.split in ("", side) for p, side in zip(result.photos, result.sides, strict=True))


def test_blank_follows_its_group_and_torn_groups_are_noticed() -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(40)]
    photos += [photo(100, "a", group="g", split="test"), photo(101, "b", group="g")]
    photos += [photo(102, "a", group="h", split="val"), photo(103, "a", group="h", split="train")]
    result = split(photos)
    sides = sides_by_content(result)
    assert [sides[p.sha256] for p in photos[-4:]] == ["test", "test", "val", "train"]
    assert any("several sides" in notice for notice in result.notices)


def test_val_is_taken_from_the_users_train_photos() -> None:
    photos = [photo(i, "ab"[i % 2], split="train" if i < 80 else "test") for i in range(100)]
    result = split(photos)
    assert all(side == "test" for p, side in zip(result.photos, result.sides, strict=True) if p.split == "test")
    assert Counter(result.sides) == {"train": 70, "val": 10, "test": 20}
    only_train = split([replace(p, split="train") for p in photos])
    assert Counter(only_train.sides) == {"train": 90, "val": 10}
    assert any("no test" in notice for notice in only_train.notices)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([photo(i, "a") for i in range(9)], "at least 2 classes"),
        ([photo(0, "a"), photo(1, "b")], "no val photos"),
        ([photo(i, "ab"[i % 2], split="val") for i in range(9)], "no train photos"),
        ([photo(0, "a"), photo(1, "")], "no label"),
    ],
)
def test_errors(photos: list[Photo], message: str) -> None:
    with pytest.raises(PhotosError, match=message):
        split(photos)


def test_many_photos_take_little_time() -> None:
    photos = [photo(i, f"c{i % 500}") for i in range(20000)]
    assert Counter(split(photos).sides)["val"] == 2000
