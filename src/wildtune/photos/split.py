"""Which photos train, which choose the epoch, and which are looked at once at the end."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.language import recorded, recorded_counted
from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import SPLITS, Photo
from wildtune.photos.folds import most_folds, number_folds
from wildtune.photos.groups import group_photos
from wildtune.photos.sources.reading import explain_os_error
from wildtune.recipe import SplitOptions
from wildtune.runtime import seed_from


@dataclass(frozen=True)
class Split:
    """The third door: the usable photos and the side of each.

    root         folder the photos' paths are relative to
    photos       usable photos in the catalogue's order
    sides        "train", "val" or "test" for each of them
    class_names  classes of the usable photos; a class's index is its target
    notices      sentences for the user about what the split had to do
    groups       for each photo the name of the group that kept it with others, "" where it was by itself
    """

    root: Path
    photos: tuple[Photo, ...]
    sides: tuple[str, ...]
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = field(default=())
    groups: tuple[str, ...] = field(default=())

    def side(self, name: str) -> tuple[Photo, ...]:
        """Return the photos of one side ("train", "val" or "test") in the catalogue's order."""
        _check_side(name)
        return tuple(photo for photo, side in zip(self.photos, self.sides, strict=True) if side == name)

    def without(self, name: str) -> Split:
        """Return the split as if the photos of one side were not there; classes and their targets stay."""
        _check_side(name)
        kept = [i for i, side in enumerate(self.sides) if side != name]
        photos, sides = tuple(self.photos[i] for i in kept), tuple(self.sides[i] for i in kept)
        groups = tuple(self.groups[i] for i in kept) if self.groups else ()
        return replace(self, photos=photos, sides=sides, groups=groups)

    def targets(self, name: str) -> np.ndarray:
        """Return the class indices of one side's photos, int64 (N,), in the order of `side(name)`."""
        index = {class_name: target for target, class_name in enumerate(self.class_names)}
        return np.array([index[photo.label] for photo in self.side(name)], dtype=np.int64)


@dataclass(eq=False)
class _Group:
    """Photos that stay together: those that `group_photos` united, or one photo by itself.

    place   its place in [0, 1), by a hash of the seed and its key alone
    counts  photos for each class
    side    where they go; "" while open
    fixed   whether the user said so
    """

    place: float
    key: str
    name: str
    photos: list[Photo]
    counts: Counter[str]
    side: str = ""
    fixed: bool = False


class _Tally:
    """How many photos of each class are on each side, kept up to date while groups move."""

    def __init__(self, groups: list[_Group]) -> None:
        self.on: Counter[tuple[str, str]] = Counter()
        self.groups_of: dict[str, list[_Group]] = defaultdict(list)
        for group in groups:
            for photo in group.photos:
                self.on[photo.label, _side_in(group, photo)] += 1
            for name in group.counts:
                self.groups_of[name].append(group)

    def move(self, group: _Group, side: str) -> None:
        """Put a group on another side."""
        for name, count in group.counts.items():
            self.on[name, group.side] -= count
            self.on[name, side] += count
        group.side = side

    def spares(self, group: _Group) -> bool:
        """Say whether each class of a group has other photos on its side."""
        return all(self.on[name, group.side] > count for name, count in group.counts.items())


def split_photos(findings: Findings, options: SplitOptions) -> Split:
    """Divide the usable photos into train, val and test, the same way every time.

    A group's side follows from a hash of the seed and its key: the name of the user's group, else the SHA-256 of
    the photo or of the one that leads the group (`group_photos`). So photos added later move none that were
    there, but for what `_mend` has to do for small classes. A side the user set is obeyed, then one from
    `options.keep`. With `options.folds` the test photos are those of one fold, and sides the user set count for
    nothing. Raises PhotosError when there are fewer than two classes, unlabelled photos, or no photos to train or
    validate on, when there are fewer groups than folds, or when the split to keep cannot be read.
    """
    photos = findings.usable
    catalogue = findings.catalogue
    _check_labels(photos)
    labels = {photo.label for photo in photos}
    class_names = tuple(name for name in catalogue.class_names if name in labels)
    notices: list[str] = []
    if len(class_names) < len(catalogue.class_names):
        lost = ", ".join(name for name in catalogue.class_names if name not in labels)
        notices.append(recorded("notice", "Classes without usable photos were left out: {names}.", names=lost))
    chosen = {side for photo in photos if (side := photo.split)}
    if options.folds and chosen:
        notices.append(
            recorded("notice", "The split of your photos is passed over: every photo is tested in one of the folds.")
        )
        photos, chosen = tuple(replace(photo, split="") for photo in photos), set()
    groups = _create_groups(findings, photos, options, notices)
    if chosen and "test" not in chosen:
        notices.append(
            recorded(
                "notice", "Your split has no test photos, so there is no test side: accuracy is measured on val only."
            )
        )
    if options.folds:
        _hold_fold_out(groups, class_names, options, notices)
    movable = _place_groups(groups, options, chosen)
    _mend(groups, movable, class_names, options, wants_test=not options.folds and (not chosen or "test" in chosen))
    side_of = {id(photo): _side_in(group, photo) for group in groups for photo in group.photos}
    group_of = {id(photo): group.name for group in groups for photo in group.photos}
    sides = tuple(side_of[id(photo)] for photo in photos)
    _check_sides(photos, sides, class_names, notices)
    notices += [] if options.folds else _small_classes(groups, class_names, chosen)
    return Split(catalogue.root, photos, sides, class_names, tuple(notices), tuple(group_of[id(p)] for p in photos))


def save_split(split: Split, path: Path) -> None:
    """Write every photo as a CSV row with the columns path, label, split, group, sha256."""
    groups = split.groups or tuple(photo.group for photo in split.photos)
    rows = (
        (photo.path, photo.label, side, group, photo.sha256)
        for photo, side, group in zip(split.photos, split.sides, groups, strict=True)
    )
    files.write_text(path, files.csv_text(("path", "label", "split", "group", "sha256"), rows))


def load_split(findings: Findings, path: Path) -> Split:
    """Return the split that `save_split` wrote of these photos, whatever sides would be given them today.

    Photos are known by their SHA-256, or by their paths where the file has none. Those that are set aside by now but
    were not then are in it. Raises PhotosError where photos are missing or new, or the file cannot be read.
    """
    rows = _read_rows(path)
    listed = {row.get("sha256") or row["path"]: row for row in rows}
    named = "sha256" not in (rows or [{}])[0]
    keys = {id(photo): photo.path if named else photo.sha256 for photo in findings.catalogue.photos}
    found = {keys[id(photo)]: photo for photo in (*reversed(findings.catalogue.photos), *findings.usable)}
    photos = tuple(photo for photo in findings.catalogue.photos if photo is found[keys[id(photo)]])
    photos = tuple(photo for photo in photos if keys[id(photo)] in listed)
    if len(photos) < len(listed) or any(keys[id(photo)] not in listed for photo in findings.usable):
        raise PhotosError(f"{path} lists other photos than there are now in {findings.catalogue.root}.")
    mine = [listed[keys[id(photo)]] for photo in photos]
    labels = {photo.label for photo in photos}
    class_names = tuple(name for name in findings.catalogue.class_names if name in labels)
    sides, groups = tuple(row["split"] for row in mine), tuple(row["group"] for row in mine)
    return Split(findings.catalogue.root, photos, sides, class_names, groups=groups)


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a split.csv; raises PhotosError where it cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    except OSError as error:
        raise PhotosError(f"{path} cannot be read: {explain_os_error(error)}.\nGive a run's split.csv.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise PhotosError(f"{path} must be a CSV file, as runs have it ({error}).") from error


def _load_kept_sides(path: str) -> dict[str, str]:
    """Return the side of each photo of an earlier split.csv, by SHA-256."""
    if not path:
        return {}
    try:
        kept = {row["sha256"]: row["split"] for row in _read_rows(files.user_path(path)) if row["sha256"]}
    except PhotosError as error:
        raise PhotosError(f"split.keep: {error}") from error
    except KeyError as error:
        raise PhotosError(
            f"split.keep: {path} must have the columns split and sha256, as runs write them. {error} is missing."
        ) from error
    wrong = sorted(set(kept.values()) - set(SPLITS))
    if wrong:
        raise PhotosError(f"split.keep: {path} must say {', '.join(SPLITS)} in the column split. Got '{wrong[0]}'.")
    return kept


def _create_groups(
    findings: Findings, photos: tuple[Photo, ...], options: SplitOptions, notices: list[str]
) -> list[_Group]:
    """Gather the usable photos into groups in the order of their hashes, with the sides that are given set."""
    kept = _load_kept_sides(options.keep)
    if kept:  # a photo follows the copies of it that are set aside, so that no picture changes its side
        digests = {photo.path: photo.sha256 for photo in findings.catalogue.photos}
        for finding in findings.findings:
            side = kept.get(digests[finding.path]) if finding.kind == "exact_duplicate" else None
            if side:
                kept.setdefault(digests[finding.other_path], side)
    united, found = group_photos(photos, findings.near_groups, findings.facts, options.group_by)
    notices += found
    groups, torn, moved = [], [], 0
    for part in united:
        digest = hashlib.sha256(f"{options.seed}:{part.key}".encode()).digest()
        members = [photos[i] for i in part.photos]
        place = int.from_bytes(digest[:6]) / 2**48
        group = _Group(place, part.key, part.name, members, Counter(photo.label for photo in members))
        groups.append(group)
        own = Counter(photo.split for photo in members if photo.split)
        earlier = Counter(kept[photo.sha256] for photo in members if photo.sha256 in kept)
        given = own or earlier
        if given:
            # Where a group was torn apart its other photos go where most are, train first.
            group.side = max(SPLITS, key=lambda side: given[side])
            group.fixed = True
        if len(own) > 1:
            torn.append(part.name or part.key)
        elif earlier:
            moved += sum(count for side, count in earlier.items() if side != group.side)
    if torn:
        notices.append(
            recorded_counted(
                "notice",
                "Your split puts photos of one group on several sides ({n} groups, such as '{name}'): obeyed, but "
                "results may look better than they are.",
                "Your split puts photos of one group on several sides ({n} groups, such as '{name}'): obeyed, but "
                "results may look better than they are.",
                len(torn),
                name=min(torn),
            )
        )
    if moved:
        notices.append(
            recorded_counted(
                "notice",
                "{n} photos could not keep their earlier side, so that no group is on two.",
                "{n} photos could not keep their earlier side, so that no group is on two.",
                moved,
            )
        )
    return sorted(groups, key=lambda group: (group.place, group.key))


def _hold_fold_out(
    groups: list[_Group], class_names: tuple[str, ...], options: SplitOptions, notices: list[str]
) -> None:
    """Put the groups of the fold that is asked for on the test side, to stay there."""
    if len(groups) < options.folds:
        raise PhotosError(
            f"{options.folds} folds need as many groups of photos that stay together. Found {len(groups)}.\n"
            "Ask for fewer folds, or keep less together (split.group_by)."
        )
    index = {name: target for target, name in enumerate(class_names)}
    members = [(number, index[photo.label]) for number, group in enumerate(groups) for photo in group.photos]
    numbers, targets = np.array(members, dtype=np.int64).T
    most = most_folds(targets, numbers)
    if most < options.folds:
        raise PhotosError(
            f"{options.folds} folds need a class with as many photos. The largest has {most}.\n"
            "Ask for fewer folds, or add photos."
        )
    folds = number_folds(targets, numbers, options.folds, seed_from(options.seed, "folds"))
    if len(np.unique(folds)) < options.folds:
        raise PhotosError(
            f"The photos cannot be divided into {options.folds} folds: too few groups have most of them.\n"
            "Ask for fewer folds, or keep less together (split.group_by)."
        )
    held = set(numbers[folds == options.fold - 1].tolist())
    for number in held:
        groups[number].side, groups[number].fixed = "test", True
    notices.append(
        recorded("notice", "The test photos are fold {fold} of {folds}.", fold=options.fold, folds=options.folds)
    )


def _side_in(group: _Group, photo: Photo) -> str:
    """Return the side of one photo: the user's, where that is still the group's to follow, else the group's."""
    lent = group.side == "val" and photo.split == "train" and not group.fixed
    return group.side if lent else photo.split or group.side


def _place_groups(groups: list[_Group], options: SplitOptions, chosen: set[str]) -> list[_Group]:
    """Give each open group the side its place says, test lowest, then val; return the groups that are ours to place.

    Where the user set sides but none is val, groups that the user meant for training are ours too.
    """
    movable = []
    for group in groups:
        lent = chosen and "val" not in chosen and {photo.split for photo in group.photos} <= {"train", ""}
        if group.side and not lent:
            continue
        meant_to_train = bool(group.side)
        group.fixed = False
        group.side = "train"
        # Of a fold's rest the share for validation is that of all photos.
        test, val = (0.0, options.val / (1 - options.test_share)) if options.folds else (options.test, options.val)
        if group.place < test:
            group.side = "test" if not meant_to_train and (not chosen or "test" in chosen) else "train"
        elif group.place < test + val:
            group.side = "val"
        movable.append(group)
    return movable


def _mend(
    groups: list[_Group], movable: list[_Group], class_names: tuple[str, ...], options: SplitOptions, wants_test: bool
) -> None:
    """Move as few groups as the least needs of each class take, the same way whatever the photos' order.

    Each class has photos to train on first of all; at least half of the share that training should have; photos
    to validate with where it has two groups, and to test with where it has three. Classes of few groups come
    first. These are the only moves that depend on other photos than a group's own.
    """
    tally, ours = _Tally(groups), set(map(id, movable))
    most_held = (1 + options.val + options.test_share) / 2
    order = sorted(class_names, key=lambda name: (len(tally.groups_of[name]), name))
    for name in order:
        parts = [group for group in tally.groups_of[name] if id(group) in ours]
        total = sum(group.counts[name] for group in tally.groups_of[name])
        if len(tally.groups_of[name]) < 3:
            for group in parts:
                if group.side == "test":
                    tally.move(group, "train")
        for group in sorted((g for g in parts if g.side != "train"), key=lambda g: (-g.counts[name], -g.place, g.key)):
            untrained = not tally.on[name, "train"]
            if not untrained and total - tally.on[name, "train"] <= most_held * total:
                break
            if untrained or group.counts[name] > most_held * total or tally.spares(group):
                tally.move(group, "train")
    testable = [
        group
        for group in movable
        if all(len(tally.groups_of[name]) >= 3 for name in group.counts) and not any(p.split for p in group.photos)
    ]
    for side, least, allowed in (("test", 3, testable), ("val", 2, movable)):
        if side == "test" and not (wants_test and options.test > 0):
            continue
        ours = set(map(id, allowed))
        for name in order:
            if len(tally.groups_of[name]) >= least and not tally.on[name, side]:
                _promote(name, side, [g for g in tally.groups_of[name] if id(g) in ours], tally, most_held)


def _promote(name: str, side: str, parts: list[_Group], tally: _Tally, most_held: float) -> None:
    """Put one group of a class on a side that has none of it: the lowest in place of those that can be spared."""
    total = sum(tally.on[name, other] for other in SPLITS)
    room = most_held * total - (total - tally.on[name, "train"])

    def rank(group: _Group) -> tuple[bool, bool, int, float, str]:
        too_large = group.side == "train" and group.counts[name] > room
        return too_large, group.side != "train", group.counts[name] if too_large else 0, group.place, group.key

    spare = [group for group in parts if tally.spares(group)]
    if spare:
        tally.move(min(spare, key=rank), side)


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
        notices.append(
            recorded("notice", "Classes with no train photos cannot be learnt: {names}.", names=", ".join(untrained))
        )


def _small_classes(groups: list[_Group], class_names: tuple[str, ...], chosen: set[str]) -> list[str]:
    """Return a notice for the classes with too few photos or groups for every side."""
    if chosen:
        return []
    group_counts = Counter(name for group in groups for name in group.counts)
    sizes: dict[int, list[str]] = defaultdict(list)
    for name in class_names:
        sizes[group_counts[name]].append(name)
    notices = []
    if sizes[1]:
        names = ", ".join(sizes[1])
        notices.append(
            recorded(
                "notice", "Classes with only 1 photo or group, so that it is only trained on: {names}.", names=names
            )
        )
    if sizes[2]:
        names = ", ".join(sizes[2])
        notices.append(
            recorded(
                "notice",
                "Classes with only 2 photos or groups, so that one is trained on, one is for validation, none for the "
                "test: {names}.",
                names=names,
            )
        )
    return notices
