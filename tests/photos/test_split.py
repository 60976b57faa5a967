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
from wildtune.photos.groups import group_photos
from wildtune.photos.split import Split, save_split, split_photos
from wildtune.recipe import SplitOptions

ROOT = Path("/photos")


def photo(i: int, label: str, **values: str) -> Photo:
    return Photo(f"{label}/{i}.jpg", label, hashlib.sha256(str(i).encode()).hexdigest(), **values)


def split(photos: list[Photo], near: dict[str, str] | None = None, **options: float | str) -> Split:
    findings = Findings(create_catalogue(ROOT, photos), (), near or {})
    return split_photos(findings, SplitOptions.model_validate(options))


def sides_by_content(result: Split) -> dict[str, str]:
    return {p.sha256: side for p, side in zip(result.photos, result.sides, strict=True)}


def counts_of(result: Split) -> Counter[tuple[str, str]]:
    return Counter((p.label, side) for p, side in zip(result.photos, result.sides, strict=True))


def shot_at(second: int) -> str:
    return f"2021-05-02T{10 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}" if second >= 0 else ""


def grouped_photos(number: int, count: int, share: float, places: int) -> tuple[list[Photo], dict[str, str]]:
    """Photos of three classes and their near copies by path: each kind of tie takes about `share` of the photos."""
    rng = random.Random(number)

    def tie(name: str, groups: int) -> str:
        return f"{name}{rng.randrange(groups)}" if rng.random() < share else ""

    photos, near = [], {}
    for i in range(count):
        label, place = rng.choice("abc"), tie("cam", places)
        second = rng.choice(range(0, 60 * count, 45)) if rng.random() < share else -1
        values = {"group": tie("g", 1 + count // 6), "camera": place, "taken": shot_at(second)}
        photos.append(Photo(f"{label}/{place or 'x'}/{i}.jpg", label, photo(i, label).sha256, **values))
        near[photos[-1].path] = tie("n", 1 + count // 6)
    return photos, {path: name for path, name in near.items() if name}


drawn = st.tuples(st.integers(0, 10**6), st.integers(12, 90), st.sampled_from([0.1, 0.3, 0.6]), st.integers(2, 20))
groupings = drawn.map(lambda values: grouped_photos(*values))
ratios = st.tuples(st.floats(0.02, 0.45), st.one_of(st.just(0.0), st.floats(0.02, 0.45)))


@settings(max_examples=80, deadline=None)
@given(
    groupings,
    ratios,
    st.integers(0, 3),
    st.sampled_from(["auto", "none", "folder", "camera"]),
    st.randoms(use_true_random=False),
)
def test_no_group_is_on_two_sides(
    grouping: tuple[list[Photo], dict[str, str]],
    shares: tuple[float, float],
    seed: int,
    group_by: str,
    shuffler: random.Random,
) -> None:
    photos, near = grouping
    options = {"val": shares[0], "test": shares[1], "seed": seed, "group_by": group_by}
    try:
        result = split(photos, near, **options)
    except PhotosError:
        return
    groups, _ = group_photos(result.photos, near, {}, group_by)
    for group in groups:
        assert len({result.sides[i] for i in group.photos}) == 1, "a group is on two sides"
    if group_by != "none":
        sides_of = defaultdict(set)
        for p, side in zip(result.photos, result.sides, strict=True):
            sides_of["near", near.get(p.path, p.path)].add(side)
            sides_of["given", p.group or p.path].add(side)
            if group_by == "camera" and p.camera:
                sides_of["camera", p.camera].add(side)
        assert all(len(sides) == 1 for sides in sides_of.values())
    assert {p.label for p in result.side("train")} == set(result.class_names), "a class is not trained on"
    assert ("test" in result.sides) <= (shares[1] > 0)
    shuffled = [*photos]
    shuffler.shuffle(shuffled)
    assert sides_by_content(split(shuffled, near, **options)) == sides_by_content(result), "the order matters"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 90), min_size=2, max_size=5), st.integers(0, 5))
def test_names_do_not_matter_and_every_class_is_on_every_side(sizes: list[int], seed: int) -> None:
    photos = [photo(c * 1000 + i, f"c{c}") for c, size in enumerate(sizes) for i in range(size)]
    result = split(photos, seed=seed)
    found = counts_of(result)
    for c, size in enumerate(sizes):
        assert min(found[f"c{c}", side] for side in ("train", "val", "test")) >= 1
        held = size - found[f"c{c}", "train"]
        assert held <= max(2, 0.625 * size), "training keeps at least half of its share"
    renamed = [replace(p, path=f"other/{p.path}") for p in photos]
    assert sides_by_content(split(renamed, seed=seed)) == sides_by_content(result)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(90, 250), min_size=2, max_size=4),
    st.integers(1, 4),
    st.integers(0, 20),
    st.integers(0, 10**6),
)
def test_adding_photos_moves_none_of_the_old(sizes: list[int], per_group: int, seed: int, salt: int) -> None:
    def photos_of(c: int, numbers: range) -> list[Photo]:
        # New photos join old groups of the user and make new ones.
        name = "" if per_group == 1 else "{0}-{1}"
        return [photo(salt + c * 10000 + i, f"c{c}", group=name.format(c, i // per_group)) for i in numbers]

    old = [p for c, size in enumerate(sizes) for p in photos_of(c, range(size))]
    new = [p for c, size in enumerate(sizes) for p in photos_of(c, range(size, size + size // 10))]
    before, after = split(old, seed=seed), split(old + new, seed=seed)
    moved = {p.sha256 for p in before.photos} - {
        p.sha256
        for p, side in zip(after.photos, after.sides, strict=True)
        if sides_by_content(before).get(p.sha256) == side
    }
    # Only a class of which no hash fell on a side, so that one group had to be put there, may take that back.
    by_hash = {
        p.sha256
        for p, group in zip(before.photos, before.groups, strict=True)
        if sides_by_content(before)[p.sha256] == _side_by_hash(group or p.sha256, seed)
    }
    assert moved <= {p.sha256 for p in before.photos} - by_hash
    assert len({p.group or p.sha256 for p in before.photos if p.sha256 in moved}) <= 2 * len(sizes)


def _side_by_hash(key: str, seed: int) -> str:
    place = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:6]) / 2**48
    return "test" if place < 0.15 else "val" if place < 0.25 else "train"


def test_shares_come_as_near_as_hashes_bring_them() -> None:
    photos = [photo(i, f"c{i % 4}") for i in range(8000)]
    found = counts_of(split(photos))
    for name in ("c0", "c1", "c2", "c3"):  # within four standard deviations
        assert abs(found[name, "test"] - 300) < 4 * (2000 * 0.15 * 0.85) ** 0.5
        assert abs(found[name, "val"] - 200) < 4 * (2000 * 0.10 * 0.90) ** 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=8, max_size=60), min_size=2, max_size=4),
    st.integers(0, 10**6),
)
def test_classes_get_the_shares_that_their_groups_allow(classes: list[list[int]], seed: int) -> None:
    photos = [
        photo(c * 10**6 + g * 100 + i, f"c{c}", group=f"{c}-{g}")
        for c, sizes in enumerate(classes)
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    found = counts_of(split(photos, seed=seed))
    for c, sizes in enumerate(classes):
        total, squares = sum(sizes), sum(size**2 for size in sizes)
        for side, share in (("test", 0.15), ("val", 0.10)):
            deviation = (squares * share * (1 - share)) ** 0.5  # of groups drawn by lot
            off = abs(found[f"c{c}", side] - share * total)
            assert off <= 5.5 * deviation + max(sizes), f"{side} is too far from its share"
            assert found[f"c{c}", side] > 0
        assert found[f"c{c}", "train"] >= 0.375 * total - max(sizes)


def test_another_share_of_val_leaves_the_test_photos_alone() -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(300)]
    few, many = ({p.sha256 for p in split(photos, val=val).side("test")} for val in (0.05, 0.3))
    assert few == many


def test_a_huge_group_is_trained_on() -> None:
    for seed in range(30):
        photos = [photo(i, "a", group="" if i % 5 == 0 else "camera") for i in range(50)]
        photos += [photo(100 + i, "b") for i in range(50)]
        result = split(photos, seed=seed)
        assert counts_of(result)["a", "train"] >= 40


def test_targets_seed_and_file(tmp_path: Path) -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(60)]
    first, second = split(photos), split(photos, seed=1)
    assert sides_by_content(first) != sides_by_content(second)
    targets = first.targets("val")
    assert targets.dtype == np.int64
    assert [first.class_names[t] for t in targets] == [p.label for p in first.side("val")]
    save_split(first, tmp_path / "split.csv")
    lines = (tmp_path / "split.csv").read_text().splitlines()
    assert lines[0] == "path,label,split,group,sha256"
    assert len(lines) == 61
    with pytest.raises(ValueError, match="side must be"):
        first.side("valid")


def test_groups_in_the_file_are_the_united_ones(tmp_path: Path) -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(30)]
    photos[0], photos[1] = replace(photos[0], group="pond"), replace(photos[1], group="pond")
    result = split(photos, {photos[1].path: "n", photos[2].path: "n", photos[3].path: "m", photos[4].path: "m"})
    names = dict(zip((p.path for p in result.photos), result.groups, strict=True))
    assert [names[p.path] for p in photos[:3]] == ["pond"] * 3
    leader = min(photos[3:5], key=lambda p: p.sha256).path
    assert [names[p.path] for p in photos[3:6]] == [leader, leader, ""]


def test_an_earlier_split_is_kept(tmp_path: Path) -> None:
    old = [photo(i, "ab"[i % 2]) for i in range(60)]
    before = split(old, seed=7)
    save_split(before, tmp_path / "split.csv")
    near = {old[0].path: "n", f"a/{1000}.jpg": "n"}
    new = [*old, *(photo(1000 + i, "ab"[i % 2]) for i in range(300))]
    after = split(new, near, seed=1, keep=str(tmp_path / "split.csv"))
    sides = sides_by_content(after)
    assert all(sides[sha] == side for sha, side in sides_by_content(before).items())
    assert sides[photo(1000, "a").sha256] == sides[old[0].sha256]
    # A photo that ties two old groups together: they go where most are, and a notice counts what moved.
    other = next(p for p in old if sides[p.sha256] != sides[old[0].sha256])
    tied = split(new, {old[0].path: "n", other.path: "n"}, keep=str(tmp_path / "split.csv"))
    assert sides_by_content(tied)[other.sha256] == sides_by_content(tied)[old[0].sha256]
    assert any("1 photos could not keep" in notice for notice in tied.notices)
    own = [replace(p, split="test") if p is old[0] else p for p in old]
    assert sides_by_content(split(own, keep=str(tmp_path / "split.csv")))[old[0].sha256] == "test"


@pytest.mark.parametrize(
    ("text", "message"),
    [("path,label\n", None), ("path,split\na,b\n", "columns split and sha256"), ("split,sha256\nx,1\n", "must say")],
)
def test_a_wrong_file_to_keep(tmp_path: Path, text: str, message: str | None) -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(40)]
    with pytest.raises(PhotosError, match="cannot be read: no such file"):
        split(photos, keep=str(tmp_path / "none.csv"))
    (tmp_path / "split.csv").write_text(text)
    if message is None:
        assert split(photos, keep=str(tmp_path / "split.csv")).sides == split(photos).sides
    else:
        with pytest.raises(PhotosError, match=message):
            split(photos, keep=str(tmp_path / "split.csv"))


def test_small_classes_train_first() -> None:
    for seed in range(20):
        photos = [photo(i, "big") for i in range(20)] + [photo(100, "one"), photo(200, "two"), photo(201, "two")]
        photos += [photo(300 + i, "three") for i in range(3)]
        result = split(photos, seed=seed)
        found = counts_of(result)
        assert found["one", "train"] == 1
        assert (found["two", "train"], found["two", "val"], found["two", "test"]) == (1, 1, 0)
        assert (found["three", "train"], found["three", "val"], found["three", "test"]) == (1, 1, 1)
        assert len(result.notices) == 2


@settings(max_examples=60, deadline=None)
@given(groupings, st.lists(st.sampled_from(["", "train", "val", "test"]), min_size=90, max_size=90), st.integers(0, 3))
def test_the_users_sides_are_obeyed(grouping: tuple[list[Photo], dict[str, str]], sides: list[str], seed: int) -> None:
    given_to = [replace(p, split=side) for p, side in zip(grouping[0], sides, strict=False)]
    has = {p.split for p in given_to}
    try:
        result = split(given_to, grouping[1], seed=seed)
    except PhotosError:
        return
    for p, side in zip(result.photos, result.sides, strict=True):
        lent = "val" not in has and p.split == "train" and side == "val"
        assert p.split in ("", side) or lent
    if has != {""} and "test" not in has:
        assert "test" not in result.sides


def test_blank_follows_its_group_and_torn_groups_are_noticed() -> None:
    photos = [photo(i, "ab"[i % 2]) for i in range(40)]
    photos += [photo(100, "a", group="g", split="test"), photo(101, "b", group="g")]
    photos += [photo(102, "a", group="h", split="val"), photo(103, "a", group="h", split="train")]
    result = split(photos)
    sides = sides_by_content(result)
    assert [sides[p.sha256] for p in photos[-4:]] == ["test", "test", "val", "train"]
    assert any("several sides" in notice for notice in result.notices)


def test_val_is_taken_from_the_users_train_photos() -> None:
    photos = [photo(i, "ab"[i % 2], split="train" if i < 800 else "test") for i in range(1000)]
    result = split(photos)
    assert all(side == "test" for p, side in zip(result.photos, result.sides, strict=True) if p.split == "test")
    found = Counter(result.sides)
    assert found["test"] == 200
    assert 50 < found["val"] < 110
    only_train = split([replace(p, split="train") for p in photos])
    assert set(only_train.sides) == {"train", "val"}
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
    assert 1800 < Counter(split(photos).sides)["val"] < 2200


def test_more_folds_than_the_largest_class_has_photos_are_refused_in_words() -> None:
    photos = [photo(i, "abc"[i % 3]) for i in range(9)]
    assert counts_of(split(photos, folds=3, fold=1)).keys() >= {(name, "test") for name in "abc"}
    with pytest.raises(PhotosError, match=r"(?s)4 folds need a class with as many photos\. The largest has 3\..*fewer"):
        split(photos, folds=4, fold=1)
