"""Faults in the photos, found before anything is trained: what is wrong, and what was done about it."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import PIL

from wildtune import files
from wildtune.memo import Memo
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.decode import FORMAT_OF_SUFFIX, DecodeError, PhotoFacts, decode_with_facts, quiet_warnings
from wildtune.photos.disjoint_sets import DisjointSets
from wildtune.photos.hashes import THUMBNAIL_SIDE, create_thumbnail_pixels
from wildtune.photos.near import NearPair, find_near_pairs
from wildtune.photos.sources.reading import explain_os_error
from wildtune.photos.threads import map_in_threads
from wildtune.progress import ProgressCallback

KINDS = (
    "unreadable",
    "misnamed",
    "tiny",
    "blank",
    "exact_duplicate",
    "near_duplicate",
    "label_conflict",
    "label_suspect",
    "confound",
)
SET_ASIDE = frozenset({"unreadable", "blank", "exact_duplicate", "label_conflict"})
TINY_SIDE = 32
BLANK_DEVIATION = 2.0
_DECODE_SIDE = 64
_THREADS = 2
# Another number looks at every photo anew; raise it when the same bytes would be judged differently.
_VERSION = 3
# A copy on the user's test side is the one to keep, so that nothing the test asks about was trained on.
_KEEP_ORDER = {"test": 0, "val": 1, "train": 2, "": 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one photo.

    path        the photo's, as in the catalogue; "" for a fault of the whole set (confound)
    kind        one of KINDS
    severity    "error", "warning" or "note"
    detail      in plain words what is wrong and what was done
    other_path  the other photo it is about, such as the copy that was kept; "" for none
    """

    path: str
    kind: str
    severity: str
    detail: str
    other_path: str = ""


_COLUMNS = tuple(field.name for field in fields(Finding))


@dataclass(frozen=True)
class Findings:
    """The second door: a catalogue and what was found in it.

    catalogue    the photos
    findings     ordered by kind (as in KINDS), then path or rank
    near_groups  the group of each near copy, by path: the path of the photo that stands for the group
    facts        what each photo that could be decoded says of itself beside its pixels, by path
    """

    catalogue: Catalogue
    findings: tuple[Finding, ...]
    near_groups: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, PhotoFacts] = field(default_factory=dict)

    @cached_property
    def usable(self) -> tuple[Photo, ...]:
        """The photos that no finding sets aside, in the catalogue's order."""
        aside = {finding.path for finding in self.findings if sets_aside(finding)}
        return tuple(photo for photo in self.catalogue.photos if photo.path not in aside)


@dataclass(frozen=True, slots=True)
class _Look:
    """What decoding one photo shows: why it cannot be used, or its facts, grey thumbnail and whether it is blank.

    `thumbnail` is that of `create_thumbnail_pixels` in base 64; `lasting` says whether all this follows from the
    photo's bytes alone.
    """

    reason: str = ""
    facts: PhotoFacts | None = None
    thumbnail: str = ""
    blank: bool = False
    lasting: bool = True


def sets_aside(finding: Finding) -> bool:
    """Say whether a finding keeps its photo from being used; a conflict with a mere near copy does not."""
    return finding.kind in SET_ASIDE and (finding.kind != "label_conflict" or finding.severity == "error")


def audit(catalogue: Catalogue, progress: ProgressCallback | None = None) -> Findings:
    """Decode every photo, compare their contents and return what is wrong with them.

    What a photo's bytes have shown before is remembered, so that only new ones are decoded. `progress(done, total)`
    is called in this thread after each photo. Never raises for a fault of a photo.
    """
    photos, found = catalogue.photos, []
    facts: dict[str, PhotoFacts] = {}
    thumbnails = np.zeros((len(photos), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    for i, (photo, look) in enumerate(zip(photos, _look_at_all(catalogue, progress), strict=True)):
        found += _judge(photo, look)
        if look.facts is not None:
            facts[photo.path] = look.facts
            thumbnails[i] = np.frombuffer(base64.b64decode(look.thumbnail), np.uint8).reshape(thumbnails.shape[1:])
    aside = {finding.path for finding in found if sets_aside(finding)}
    found += _compare_copies(photo for photo in photos if photo.path not in aside)
    aside = {finding.path for finding in found if sets_aside(finding)}
    used = [i for i, photo in enumerate(photos) if photo.path not in aside]
    sizes = np.array([(facts[photos[i].path].width, facts[photos[i].path].height) for i in used]).reshape(-1, 2)
    pairs = find_near_pairs(thumbnails[used], (sizes[:, 0] / sizes[:, 1]).astype(np.float32))
    near, near_groups = _near_copies([photos[i] for i in used], sizes.prod(axis=1), pairs)
    found = sorted([*found, *near], key=lambda finding: (KINDS.index(finding.kind), finding.path))
    return Findings(catalogue, tuple(found), near_groups, facts)


def save_findings(findings: Findings, path: Path) -> None:
    """Write the findings as a CSV file with the columns path, kind, severity, detail, other_path."""
    files.write_text(path, files.csv_text(_COLUMNS, map(astuple, findings.findings)))


def load_findings(path: Path) -> tuple[Finding, ...]:
    """Read the rows that `save_findings` wrote; raises PhotosError when the columns are others."""
    return tuple(Finding(**row) for row in files.read_csv(path, _COLUMNS))


def _look_at_all(catalogue: Catalogue, progress: ProgressCallback | None) -> list[_Look]:
    """Return what each photo of a catalogue shows, decoding those whose bytes have not been looked at before."""
    memo, photos = Memo(f"audit-{_VERSION}"), catalogue.photos
    keys = ["" if photo.error else f"{photo.sha256} {PIL.__version__}" for photo in photos]
    known = {key: _restore(answer) for key, answer in memo.load(keys).items()}
    looks: list[_Look] = []
    with quiet_warnings():
        try:
            seen = map_in_threads(
                lambda pair: known.get(pair[0]) or _look_at(catalogue, pair[1]),
                zip(keys, photos, strict=True),
                _THREADS,
            )
            for look in seen:
                looks.append(look)
                if progress is not None:
                    progress(len(looks), len(photos))
        finally:  # what an interrupted look has seen is not lost
            fresh = zip(keys, looks, strict=False)
            memo.save({key: astuple(look) for key, look in fresh if look.lasting and key not in known})
    return looks


def _restore(answer: list[Any]) -> _Look:
    """Return the look that was remembered, as JSON gives it back."""
    reason, facts, *rest = answer
    return _Look(reason, None if facts is None else PhotoFacts(*facts), *rest)


def _look_at(catalogue: Catalogue, photo: Photo) -> _Look:
    if photo.error:
        return _Look(photo.error, lasting=False)
    try:
        data = catalogue.read_bytes(photo)
    except OSError as error:
        return _Look(explain_os_error(error), lasting=False)
    known = photo_sha256(data, photo.box) == photo.sha256  # else it has changed since it was listed
    try:
        pixels, facts = decode_with_facts(data, _DECODE_SIDE, photo.box)
    except DecodeError as error:
        return _Look(str(error), lasting=known and not isinstance(error.__cause__, MemoryError))
    thumbnail = base64.b64encode(create_thumbnail_pixels(pixels).tobytes()).decode()
    return _Look("", facts, thumbnail, _is_blank(pixels), lasting=known)


def _judge(photo: Photo, look: _Look) -> list[Finding]:
    """Return the faults that one photo shows by itself."""
    if look.facts is None:
        return [Finding(photo.path, "unreadable", "error", f"set aside: {look.reason}")]
    found, facts = [], look.facts
    suffix = PurePosixPath(photo.file_name).suffix.lower()
    if FORMAT_OF_SUFFIX.get(suffix, facts.format) != facts.format:
        found.append(Finding(photo.path, "misnamed", "note", f"kept: a {facts.format} image named {suffix}"))
    if min(facts.width, facts.height) < TINY_SIDE:
        crop = " in the crop" if photo.box else ""
        detail = f"kept: only {facts.width} x {facts.height} pixels{crop}, shorter side under {TINY_SIDE}"
        found.append(Finding(photo.path, "tiny", "warning", detail))
    if look.blank:
        found.append(Finding(photo.path, "blank", "warning", "set aside: one even colour, nothing to be seen"))
    return found


def _is_blank(pixels: np.ndarray) -> bool:
    """Say whether uint8 pixels (H, W, 3) hardly differ within each channel."""
    # A sparse look settles it for nearly every photo; only one that seems blank is looked at whole.
    step = max(1, min(pixels.shape[:2]) // _DECODE_SIDE)
    sparse = pixels[::step, ::step].reshape(-1, 3)
    if float(sparse.std(axis=0).max()) >= BLANK_DEVIATION:
        return False
    return step == 1 or float(pixels.reshape(-1, 3).std(axis=0).max()) < BLANK_DEVIATION


def _compare_copies(photos: Iterable[Photo]) -> list[Finding]:
    """Return the findings about photos with the same bytes."""
    copies = defaultdict(list)
    for photo in photos:
        if photo.sha256:
            copies[photo.sha256].append(photo)
    found: list[Finding] = []
    for same in copies.values():
        if len(same) < 2:
            continue
        same.sort(key=lambda photo: (not photo.label, _KEEP_ORDER[photo.split], photo.path))
        kept, labels = same[0], {photo.label for photo in same if photo.label}
        # Of copies with different labels none is kept: the surplus ones are still counted, once each.
        kept_too = "" if len(labels) < 2 else ", which is set aside too because their labels differ"
        for photo in same[1:]:
            detail = f"set aside: same bytes as {kept.path}{kept_too}"
            found.append(Finding(photo.path, "exact_duplicate", "warning", detail, kept.path))
        if len(labels) > 1:
            found += _conflicts(same)
    return found


def _conflicts(same: list[Photo]) -> list[Finding]:
    """Return one finding for each copy of a photo that has several labels."""
    found = []
    for photo in same:
        other = next(o for o in same if o.label and o.label != photo.label)
        detail = (
            f"set aside: '{photo.label}' here, but the same bytes are '{other.label}' as {other.path}; "
            "which is right cannot be known, so no copy is used"
        )
        found.append(Finding(photo.path, "label_conflict", "error", detail, other.path))
    return found


def _near_copies(
    photos: Sequence[Photo], sizes: np.ndarray, pairs: Sequence[NearPair]
) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings about near copies, and the group of each by path.

    `sizes`, int64 (N,), are the photos' pixels: the largest photo of a group stands for it.
    """
    sets = DisjointSets(len(photos))
    related: dict[int, dict[int, str]] = defaultdict(dict)
    for pair in pairs:
        sets.unite(pair.first, pair.second)
        related[pair.first][pair.second] = related[pair.second][pair.first] = pair.relation
    members: dict[int, list[int]] = defaultdict(list)
    for i in sorted(related):
        members[sets.root(i)].append(i)
    found: list[Finding] = []
    groups: dict[str, str] = {}
    for group in members.values():
        head = min(group, key=lambda i: (-int(sizes[i]), photos[i].path))
        path = photos[head].path
        groups.update((photos[i].path, path) for i in group)
        waiting, reached = [head], {head}
        for i in waiting:  # grows: from the head to its copies, then to theirs
            for j in sorted(set(related[i]) - reached):
                of = path if i == head else f"{photos[i].path}, itself a near copy of {path}"
                detail = f"kept, on the same side of the split: {related[i][j]} against {of}"
                found.append(Finding(photos[j].path, "near_duplicate", "warning", detail, path))
                reached.add(j)
                waiting.append(j)
        if len({photos[i].label for i in group if photos[i].label}) > 1:
            found += _near_conflicts([photos[i] for i in group if photos[i].label])
    return found, groups


def _near_conflicts(group: Sequence[Photo]) -> list[Finding]:
    """Return one finding for each labelled photo of a group of near copies that has several labels."""
    found = []
    for photo in group:
        other = next(o for o in group if o.label != photo.label)
        detail = (
            f"kept: '{photo.label}' here, but what looks like the same picture is '{other.label}' as {other.path}; "
            "one of the two labels may be wrong"
        )
        found.append(Finding(photo.path, "label_conflict", "warning", detail, other.path))
    return found
