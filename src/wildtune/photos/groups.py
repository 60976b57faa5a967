"""Which photos must stay on one side of a split, because each would give away the answer to another."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from wildtune.language import recorded, recorded_counted
from wildtune.photos.catalogue import Photo
from wildtune.photos.decode import PhotoFacts
from wildtune.photos.disjoint_sets import DisjointSets
from wildtune.photos.times import read_time

BURST_GAP_S = 60.0


@dataclass(frozen=True, slots=True)
class PhotoGroup:
    """Photos that stay together.

    key     what decides the group's side: a name, or the SHA-256 of the photo that leads the group
    name    what people read: that name, or the leading photo's path; "" for a photo by itself
    photos  their places in the sequence that was grouped
    """

    key: str
    name: str
    photos: tuple[int, ...]


def group_photos(
    photos: Sequence[Photo], near_groups: Mapping[str, str], facts: Mapping[str, PhotoFacts], group_by: str
) -> tuple[list[PhotoGroup], list[str]]:
    """Unite the photos that belong together; return the groups, each photo in one, and notices for the user.

    `near_groups` gives the group of near copies by path, `facts` what a photo says of camera and time where its
    source does not; `group_by` is `SplitOptions.group_by`, which says what counts. A group's key is the first of its
    names in alphabetical order where it has any, then the photo taken first, then the one with the least SHA-256:
    adding photos seldom changes that.
    """
    photos = [_with_origin(photo, facts.get(photo.path)) for photo in photos]
    sets = DisjointSets(len(photos))
    names: dict[int, str] = {i: photo.group for i, photo in enumerate(photos) if photo.group}
    notices: list[str] = []
    _tie(sets, ((name, i) for i, name in names.items()))
    if group_by != "none":
        _tie(sets, ((near_groups[photo.path], i) for i, photo in enumerate(photos) if photo.path in near_groups))
        notices += _tie_bursts(sets, photos)
    if group_by == "auto":
        below = {folder_of(photo) for photo in photos if photo.label in PurePosixPath(photo.path).parts} - {""}
        if len(below) > 1:
            notices.append(
                recorded_counted(
                    "notice",
                    "Photos lie in {n} sub-folders of their classes. Where each is a camera or a sequence, keep it on "
                    "one side: --set split.group_by=folder.",
                    "Photos lie in {n} sub-folders of their classes. Where each is a camera or a sequence, keep it on "
                    "one side: --set split.group_by=folder.",
                    len(below),
                )
            )
    wider = {"folder": folder_of, "camera": lambda photo: photo.camera}.get(group_by)
    if wider is not None:
        found = {i: name for i, photo in enumerate(photos) if (name := wider(photo))}
        _tie(sets, ((name, i) for i, name in found.items()))
        names = {**{i: f"{group_by} {name}" for i, name in found.items()}, **names}
        notices.append(
            recorded_counted(
                "notice",
                "{n} photos are kept together by {key}: {count} different ones.",
                "{n} photos are kept together by {key}: {count} different ones.",
                len(found),
                key=group_by,
                count=len(set(found.values())),
            )
            if found
            else recorded("notice", "No photo has a {key} to be kept together by (split.group_by).", key=group_by)
        )
    return [_create_group(photos, names, members) for members in sets.members()], notices


def folder_of(photo: Photo) -> str:
    """Return the folder that stands for a photo's camera or sequence, "" for none.

    That is the first folder below the one named after the photo's class, whatever lies deeper; where no folder
    is named after the class, the folder the photo lies in.
    """
    folders = PurePosixPath(photo.path).parts[:-1]
    if photo.label in folders:
        below = folders[folders.index(photo.label) + 1 :]
        return below[0] if below else ""
    return "/".join(folders)


def _with_origin(photo: Photo, facts: PhotoFacts | None) -> Photo:
    """Return a photo with camera and time from its own bytes where its source gives none."""
    if facts is None or not (facts.camera or facts.serial or facts.taken):
        return photo
    camera = facts.body
    if camera and not facts.serial:  # two cameras of one model are told apart by where their photos lie
        camera += f" in {PurePosixPath(photo.path).parent}"
    return replace(photo, camera=photo.camera or camera, taken=photo.taken or facts.taken)


def _tie(sets: DisjointSets, ties: Iterable[tuple[str, int]]) -> None:
    """Unite the numbers that come with the same name."""
    first: dict[str, int] = {}
    for name, i in ties:
        sets.unite(first.setdefault(name, i), i)


def _tie_bursts(sets: DisjointSets, photos: Sequence[Photo]) -> list[str]:
    """Unite the photos that one camera took within a minute of the next; say how many."""
    shots: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for i, photo in enumerate(photos):
        taken = _time_of(photo.taken)
        if taken is not None:
            shots[photo.camera or f"in {PurePosixPath(photo.path).parent}"].append((taken, i))
    in_burst: Counter[int] = Counter()
    for taken_by_one in shots.values():
        taken_by_one.sort()
        for (before, i), (after, j) in itertools.pairwise(taken_by_one):
            if after - before <= timedelta(seconds=BURST_GAP_S):
                sets.unite(i, j)
                in_burst.update((i, j))
    if not in_burst:
        return []
    bursts = len({sets.root(i) for i in in_burst})
    return [
        recorded_counted(
            "notice",
            "{n} photos are of {bursts} bursts, at most 60 s from shot to shot; each stays on one side.",
            "{n} photos are of {bursts} bursts, at most 60 s from shot to shot; each stays on one side.",
            len(in_burst),
            bursts=bursts,
        )
    ]


def _time_of(taken: str) -> datetime | None:
    """Return a time that can be compared with others of its camera, None where it is unknown or only a date."""
    time = read_time(taken)
    if time is None:
        return None
    if time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    # Midnight to the second is what a date without a time, or a clock that was never set, looks like.
    return None if (time.hour, time.minute, time.second) == (0, 0, 0) else time


def _create_group(photos: Sequence[Photo], names: Mapping[int, str], members: list[int]) -> PhotoGroup:
    named = [names[i] for i in members if i in names]
    if named:
        return PhotoGroup(min(named), min(named), tuple(members))
    leader = min((photos[i] for i in members), key=lambda p: (not p.taken, p.taken, p.sha256, p.path))
    name = leader.path if len(members) > 1 else ""
    return PhotoGroup(leader.sha256 or leader.path, name, tuple(members))
