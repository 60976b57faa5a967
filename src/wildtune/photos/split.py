"""Which photos train, which choose the epoch, and which are looked at once at the end."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import SPLITS, Photo
from wildtune.recipe import SplitOptions


@dataclass(frozen=True)
class Split:
    """The third door: the usable photos and the side of each.

    root         folder the photos' paths are relative to
    photos       usable photos in the catalogue's order
    sides        "train", "val" or "test" for each of them
    class_names  classes of the usable photos; a class's index is its target
    notices      sentences for the user about what the split had to do
    """

    root: Path
    photos: tuple[Photo, ...]
    sides: tuple[str, ...]
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = field(default=())

    def side(self, name: str) -> tuple[Photo, ...]:
        """Return the photos of one side ("train", "val" or "test") in the catalogue's order."""
        _check_side(name)
        return tuple(photo for photo, side in zip(self.photos, self.sides, strict=True) if side == name)

    def targets(self, name: str) -> np.ndarray:
        """Return the class indices of one side's photos, int64 (N,), in the order of `side(name)`."""
        index = {class_name: target for target, class_name in enumerate(self.class_names)}
        return np.array([index[photo.label] for photo in self.side(name)], dtype=np.int64)


@dataclass(eq=False)
class _Group:
    """Photos that stay together: those of a user's group, or one photo by itself.

    counts  photos for each class
    side    where they go; "" while open
    fixed   whether the user said so
    """

    order: str
    photos: list[Photo] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    side: str = ""
    fixed: bool = False


def split_photos(findings: Findings, options: SplitOptions) -> Split:
    """Divide the usable photos into train, val and test, class by class, the same way every time.

    Groups are ordered by a hash of the seed and their key (the user's group, else the photo's own SHA-256),
    so neither names nor the kind of source matter. A side the user set is obeyed. Raises PhotosError when
    there are fewer than two classes, unlabelled photos, or no photos to train or validate on.
    """
    photos = findings.usable
    catalogue = findings.catalogue
    _check_labels(photos)
    labels = {photo.label for photo in photos}
    class_names = tuple(name for name in catalogue.class_names if name in labels)
    notices: list[str] = []
    if len(class_names) < len(catalogue.class_names):
        lost = ", ".join(name for name in catalogue.class_names if name not in labels)
        notices.append(f"Classes without usable photos were left out: {lost}.")
    chosen = {side for photo in photos if (side := photo.split)}
    groups = _create_groups(photos, options.seed, notices)
    if chosen and "test" not in chosen:
        notices.append("Your split has no test photos, so there is no test side: accuracy is measured on val only.")
    if not chosen or "test" in chosen:
        _fill_side("test", _quotas(groups, class_names, options, "test"), groups)
    _fill_val(groups, class_names, options, chosen)
    for group in groups:
        group.side = group.side or "train"
    side_of = {id(photo): photo.split or group.side for group in groups for photo in group.photos}
    if "val" not in chosen:  # photos the user meant for training, some of which had to become val
        side_of.update((id(p), group.side) for group in groups if group.side == "val" for p in group.photos)
    sides = tuple(side_of[id(photo)] for photo in photos)
    _check_sides(photos, sides, class_names, notices)
    notices += _small_classes(groups, class_names, chosen)
    return Split(catalogue.root, photos, sides, class_names, tuple(notices))


def save_split(split: Split, path: Path) -> None:
    """Write every photo as a CSV row with the columns path, label, split, group."""
    rows = ((p.path, p.label, side, p.group) for p, side in zip(split.photos, split.sides, strict=True))
    files.write_text(path, files.csv_text(("path", "label", "split", "group"), rows))


def _create_groups(photos: Iterable[Photo], seed: int, notices: list[str]) -> list[_Group]:
    """Gather the photos into groups in the order of their hashes, with the user's sides set."""
    groups: dict[str, _Group] = {}
    for photo in photos:
        key = photo.group or photo.sha256 or photo.path
        order = hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
        group = groups.setdefault(key, _Group(order))
        group.photos.append(photo)
        group.counts[photo.label] += 1
    torn = []
    for key, group in groups.items():
        sides = Counter(photo.split for photo in group.photos if photo.split)
        if sides:
            # Where the user tore a group apart its other photos go where most are, train first.
            group.side = max(SPLITS, key=lambda side: sides[side])
            group.fixed = True
        if len(sides) > 1:
            torn.append(key)
    if torn:
        notices.append(
            f"Your split puts photos of one group on several sides "
            f"({len(torn)} groups, such as '{min(torn)}'): obeyed, but results may look better than they are."
        )
    return sorted(groups.values(), key=lambda group: group.order)


def _fill_val(groups: list[_Group], class_names: tuple[str, ...], options: SplitOptions, chosen: set[str]) -> None:
    """Choose val photos among the open groups; where the user set sides but no val, then from train."""
    quotas = _quotas(groups, class_names, options, "val")
    if not chosen or "val" in chosen:
        _fill_side("val", quotas, groups)
        return
    _fill_side("val", quotas, groups)
    for group in groups:
        if group.side == "val":
            quotas.subtract(group.counts)
    lent = [g for g in groups if g.fixed and {photo.split for photo in g.photos} <= {"train", ""}]
    for group in lent:
        group.side = ""
    _fill_side("val", quotas, groups)
    for group in lent:
        group.side = group.side or "train"


def _quotas(groups: list[_Group], class_names: tuple[str, ...], options: SplitOptions, side: str) -> Counter[str]:
    """Return how many photos of each class the side still needs, beyond those that the user put there."""
    quotas: Counter[str] = Counter()
    parts_of: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        for name in group.counts:
            parts_of[name].append(group)
    for name in class_names:
        parts = parts_of[name]
        total = sum(group.counts[name] for group in parts)
        wanted = {}
        for part, fraction in (("test", options.test), ("val", options.val)):
            least = 1 if fraction > 0 and len(parts) >= 3 else 0
            wanted[part] = max(least, round(fraction * total)) if len(parts) >= 3 else 0
        if len(parts) == 2:  # one to train on comes first, then one to validate with
            wanted["val"] = min(group.counts[name] for group in parts)
        while sum(wanted.values()) >= max(total, 1):
            larger = max(wanted, key=lambda part: wanted[part])
            wanted[larger] -= 1
        there = sum(_placed(group, name, side) for group in parts)
        quotas[name] = max(0, wanted[side] - there)
    return quotas


def _placed(group: _Group, name: str, side: str) -> int:
    """Return how many photos of a class in a group are on a side already."""
    return sum((photo.split or group.side) == side for photo in group.photos if photo.label == name)


def _fill_side(side: str, quotas: Counter[str], groups: list[_Group]) -> None:
    """Put open groups on a side until each class is as near to its quota as whole groups allow.

    First those that fit, in the order of their hashes; then, as long as that brings the counts nearer, the
    group that does so most; at last the smallest group of a class that would have none there.
    """
    needs = Counter(quotas)
    open_groups = [group for group in groups if not group.side]
    # Groups of each class that can still train; some must stay, and one more for val while test is filled.
    left = Counter(name for group in groups if group.side in ("", "train") for name in group.counts)
    reserve = 2 if side == "test" else 1

    def place(group: _Group) -> None:
        group.side = side
        needs.subtract(group.counts)
        left.subtract(group.counts.keys())

    def allowed(group: _Group) -> bool:
        return all(left[name] > reserve for name in group.counts)

    def gain(group: _Group) -> int:
        return sum(abs(needs[name]) - abs(needs[name] - count) for name, count in group.counts.items())

    for group in open_groups:
        if allowed(group) and all(count <= needs[name] for name, count in group.counts.items()):
            place(group)
    while any(need > 0 for need in needs.values()):
        best = max((g for g in open_groups if not g.side and allowed(g)), key=gain, default=None)
        if best is None or gain(best) <= 0:
            break
        place(best)
    for name in sorted(quotas):
        if quotas[name] > 0 and needs[name] == quotas[name]:
            holders = [g for g in open_groups if not g.side and g.counts[name] and allowed(g)]
            if holders:
                place(max(holders, key=gain))


def _check_side(name: str) -> None:
    if name not in SPLITS:
        raise ValueError(f"side must be one of {', '.join(SPLITS)}. Got '{name}'")


def _check_labels(photos: tuple[Photo, ...]) -> None:
    unlabelled = [photo.path for photo in photos if not photo.label]
    if unlabelled:
        raise PhotosError(
            f"{len(unlabelled)} photos have no label, such as {unlabelled[0]}.\n"
            "To train, put each photo in the folder of its class or list it with a label in a CSV file."
        )
    classes = sorted({photo.label for photo in photos})
    if len(classes) < 2:
        raise PhotosError(
            f"A classifier needs at least 2 classes with usable photos. Found {len(classes)}"
            f"{': ' + classes[0] if classes else ''}.\n"
            "`wildtune check` shows which photos were set aside and why."
        )


def _check_sides(
    photos: tuple[Photo, ...], sides: tuple[str, ...], class_names: tuple[str, ...], notices: list[str]
) -> None:
    """Raise PhotosError when a side that must be there is empty; note the classes that cannot be learnt."""
    found = Counter(sides)
    where = ", ".join(f"{found[side]} {side}" for side in SPLITS)
    for side in ("train", "val"):
        if not found[side]:
            raise PhotosError(
                f"There are no {side} photos ({where}).\n"
                "Add photos, at least 3 for each class and in more than 2 groups, "
                f"or put some on the {side} side in your split."
            )
    trained = {photo.label for photo, side in zip(photos, sides, strict=True) if side == "train"}
    untrained = [name for name in class_names if name not in trained]
    if untrained:
        notices.append(f"Classes with no train photos cannot be learnt: {', '.join(untrained)}.")


def _small_classes(groups: list[_Group], class_names: tuple[str, ...], chosen: set[str]) -> list[str]:
    """Return a notice for the classes with too few photos or groups for every side."""
    if chosen:
        return []
    group_counts = Counter(name for group in groups for name in group.counts)
    sizes: dict[int, list[str]] = defaultdict(list)
    for name in class_names:
        sizes[group_counts[name]].append(name)
    notices = []
    for size, goes in (
        (1, "it is only trained on"),
        (2, "one is trained on, one is for validation, none for the test"),
    ):
        if sizes[size]:
            count = "1 photo or group" if size == 1 else "2 photos or groups"
            notices.append(f"Classes with only {count}, so that {goes}: {', '.join(sizes[size])}.")
    return notices
