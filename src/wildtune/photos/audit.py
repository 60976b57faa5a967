"""Faults in the photos, found before anything is trained: what is wrong, and what was done about it."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import PIL

from wildtune import files
from wildtune.language import recorded
from wildtune.memo import Memo
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.decode import FORMAT_OF_SUFFIX, DecodeError, PhotoFacts, decode_with_facts, quiet_warnings
from wildtune.photos.disjoint_sets import DisjointSets
from wildtune.photos.hashes import THUMBNAIL_SIDE, create_thumbnail_pixels
from wildtune.photos.near import NearPair, find_near_pairs
from wildtune.photos.same import find_same_pictures, fingerprint_pixels
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
_VERSION = 4
_AT_ONCE = 4096
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
    """What decoding one photo shows: why it cannot be used, or its facts, small picture and whether it is blank.

    `thumbnail` is that of `create_thumbnail_pixels` in base 64, `fingerprint` that of `fingerprint_pixels`; `lasting`
    says whether all this follows from the photo's bytes alone.
    """

    reason: str = ""
    facts: PhotoFacts | None = None
    thumbnail: str = ""
    fingerprint: str = ""
    blank: bool = False
    lasting: bool = True


def sets_aside(finding: Finding) -> bool:
    """Say whether a finding keeps its photo from being used; a conflict with a mere near copy does not."""
    return finding.kind in SET_ASIDE and (finding.kind != "label_conflict" or finding.severity == "error")


def audit(
    catalogue: Catalogue, progress: ProgressCallback | None = None, features: np.ndarray | None = None
) -> Findings:
    """Decode every photo, compare their contents and return what is wrong with them.

    What a photo's bytes have shown before is remembered, so that only new ones are decoded. `progress(done, total)`
    is called in this thread after each photo. `features`, float32 (N, D), are vectors of the catalogue's photos from
    one backbone: they bring together near copies that no hash does. Never raises for a fault of a photo.
    """
    photos = catalogue.photos
    if features is not None and len(features) != len(photos):
        raise ValueError(f"features must have a row for each of the {len(photos)} photos. Got {len(features)}")
    found: list[Finding] = []
    facts: dict[str, PhotoFacts] = {}
    contents: dict[str, list[Photo]] = {}  # photos with the same bytes that show something
    firsts: list[int] = []
    fingerprints: list[str] = []
    thumbnails = np.zeros((len(photos), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    with closing(_look_at_all(catalogue, progress)) as looks:
        for i, (photo, look) in enumerate(zip(photos, looks, strict=True)):
            found += _judge(photo, look)
            if look.facts is None:
                continue
            facts[photo.path] = look.facts
            if look.blank:
                continue
            same = contents.setdefault(photo.sha256 or photo.path, [])
            same.append(photo)
            if len(same) == 1:
                pixels = np.frombuffer(base64.b64decode(look.thumbnail), np.uint8)
                thumbnails[len(firsts)] = pixels.reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE)
                fingerprints.append(look.fingerprint)
                firsts.append(i)
    thumbnails = thumbnails[: len(firsts)]
    facts_of = [facts[photos[i].path] for i in firsts]
    aspects = np.array([each.width / each.height for each in facts_of], np.float32)
    if features is not None and len(firsts) < len(features):
        features = features[firsts]
    pairs = find_near_pairs(thumbnails, aspects, features)
    proven = find_same_pictures(catalogue, [photos[i] for i in firsts], facts_of, fingerprints, pairs)
    copies, kept = _compare_copies(list(contents.values()), facts, proven)
    near, near_groups = _near_copies(kept, facts, pairs)
    found = sorted([*found, *copies, *near], key=lambda finding: (KINDS.index(finding.kind), finding.path))
    return Findings(catalogue, tuple(found), near_groups, facts)


def save_findings(findings: Findings, path: Path) -> None:
    """Write the findings as a CSV file with the columns path, kind, severity, detail, other_path."""
    files.write_text(path, files.csv_text(_COLUMNS, map(astuple, findings.findings)))


def load_findings(path: Path) -> tuple[Finding, ...]:
    """Read the rows that `save_findings` wrote; raises PhotosError when the columns are others."""
    return tuple(Finding(**row) for row in files.read_csv(path, _COLUMNS))


def _look_at_all(catalogue: Catalogue, progress: ProgressCallback | None) -> Generator[_Look, None, None]:
    """Yield what each photo of a catalogue shows, decoding those whose bytes have not been looked at before.

    What was seen is remembered every few thousand photos, and when the caller stops early.
    """
    memo, photos = Memo(f"audit-{_VERSION}"), catalogue.photos
    for start in range(0, len(photos), _AT_ONCE):
        some = photos[start : start + _AT_ONCE]
        keys = ["" if photo.error else f"{photo.sha256} {PIL.__version__}" for photo in some]
        known = {key: _restore(answer) for key, answer in memo.load(keys).items()}
        looks: list[_Look] = []
        with quiet_warnings():
            try:
                answers = zip(map(known.get, keys), some, strict=True)
                for look in map_in_threads(lambda pair: pair[0] or _look_at(catalogue, pair[1]), answers, _THREADS):
                    looks.append(look)
                    if progress is not None:
                        progress(start + len(looks), len(photos))
                    yield look
            finally:  # what an interrupted look has seen is not lost
                fresh = zip(keys, looks, strict=False)
                memo.save({key: astuple(look) for key, look in fresh if look.lasting and key not in known})


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
    return _Look("", facts, thumbnail, fingerprint_pixels(pixels, facts), _is_blank(pixels), lasting=known)


def _judge(photo: Photo, look: _Look) -> list[Finding]:
    """Return the faults that one photo shows by itself."""
    if look.facts is None:
        return [
            Finding(photo.path, "unreadable", "error", recorded("finding", "set aside: {reason}", reason=look.reason))
        ]
    found, facts = [], look.facts
    suffix = PurePosixPath(photo.file_name).suffix.lower()
    if FORMAT_OF_SUFFIX.get(suffix, facts.format) != facts.format:
        detail = recorded("finding", "kept: a {name} image named {path}", name=facts.format, path=suffix)
        found.append(Finding(photo.path, "misnamed", "note", detail))
    if min(facts.width, facts.height) < TINY_SIDE:
        size = {"width": facts.width, "height": facts.height, "least": TINY_SIDE}
        if photo.box:
            detail = recorded(
                "finding", "kept: only {width} x {height} pixels in the crop, shorter side under {least}", **size
            )
        else:
            detail = recorded("finding", "kept: only {width} x {height} pixels, shorter side under {least}", **size)
        found.append(Finding(photo.path, "tiny", "warning", detail))
    if look.blank:
        detail = recorded("finding", "set aside: one even colour, nothing to be seen")
        found.append(Finding(photo.path, "blank", "warning", detail))
    return found


def _is_blank(pixels: np.ndarray) -> bool:
    """Say whether uint8 pixels (H, W, 3) hardly differ within each channel."""
    # A sparse look settles it for nearly every photo; only one that seems blank is looked at whole.
    step = max(1, min(pixels.shape[:2]) // _DECODE_SIDE)
    sparse = pixels[::step, ::step].reshape(-1, 3)
    if float(sparse.std(axis=0).max()) >= BLANK_DEVIATION:
        return False
    return step == 1 or float(pixels.reshape(-1, 3).std(axis=0).max()) < BLANK_DEVIATION


def _compare_copies(
    contents: Sequence[list[Photo]], facts: Mapping[str, PhotoFacts], proven: Sequence[tuple[int, int]]
) -> tuple[list[Finding], list[Photo | None]]:
    """Return the findings about copies of one picture, and for each content the photo that is kept, None where none is.

    `contents` are the photos with the same bytes, `proven` the pairs of contents, by number, that are one picture.
    """
    sets = DisjointSets(len(contents))
    for i, j in proven:
        sets.unite(i, j)
    pictures: dict[int, list[Photo]] = defaultdict(list)
    for i, photos in enumerate(contents):
        pictures[sets.root(i)] += photos
    found: list[Finding] = []
    kept: dict[int, Photo | None] = {}
    for root, same in pictures.items():
        # The copy that the JPEG was made of is kept before the JPEG.
        same.sort(key=lambda p: (not p.label, _KEEP_ORDER[p.split], facts[p.path].format == "JPEG", p.path))
        first, labels = same[0], {photo.label for photo in same if photo.label}
        # Of copies with different labels none is kept: the surplus ones are still counted, once each.
        kept[root] = first if len(labels) < 2 else None
        for photo in same[1:]:
            detail = _duplicate_text(photo, first, facts)
            if len(labels) > 1:
                detail = recorded(
                    "finding", "{duplicate}, which is set aside too because their labels differ", duplicate=detail
                )
            found.append(Finding(photo.path, "exact_duplicate", "warning", detail, first.path))
        if len(labels) > 1:
            found += _conflicts(same, facts)
    return found, [kept[sets.root(i)] for i in range(len(contents))]


def _duplicate_text(photo: Photo, other: Photo, facts: Mapping[str, PhotoFacts]) -> str:
    """Return in words what a surplus copy has in common with the one that is kept."""
    here, there = facts[photo.path].format, facts[other.path].format
    if photo.sha256 == other.sha256:
        return recorded("finding", "set aside: same bytes as {path}", path=other.path)
    if here == there:
        return recorded("finding", "set aside: same pixels as {path}", path=other.path)
    return recorded(
        "finding",
        "set aside: same picture as {path} ({name_here} here, {name_there} there)",
        path=other.path,
        name_here=here,
        name_there=there,
    )


def _conflict_text(photo: Photo, other: Photo, facts: Mapping[str, PhotoFacts]) -> str:
    """Return in words under which labels two copies are there."""
    here, there = facts[photo.path].format, facts[other.path].format
    values = {"name": photo.label, "name_other": other.label, "path": other.path}
    if photo.sha256 == other.sha256:
        return recorded(
            "finding",
            "set aside: '{name}' here, but the same bytes are '{name_other}' as {path}; which is right cannot be "
            "known, so no copy is used",
            **values,
        )
    if here == there:
        return recorded(
            "finding",
            "set aside: '{name}' here, but the same pixels are '{name_other}' as {path}; which is right cannot be "
            "known, so no copy is used",
            **values,
        )
    return recorded(
        "finding",
        "set aside: '{name}' here, but the same picture is '{name_other}' as {path} ({name_here} here, {name_there} "
        "there); which is right cannot be known, so no copy is used",
        name_here=here,
        name_there=there,
        **values,
    )


def _conflicts(same: list[Photo], facts: Mapping[str, PhotoFacts]) -> list[Finding]:
    """Return one finding for each copy of a photo that has several labels."""
    found = []
    for photo in same:
        other = next(o for o in same if o.label and o.label != photo.label)
        found.append(Finding(photo.path, "label_conflict", "error", _conflict_text(photo, other, facts), other.path))
    return found


def _near_copies(
    kept: Sequence[Photo | None], facts: Mapping[str, PhotoFacts], pairs: Sequence[NearPair]
) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings about near copies among the photos that are kept, and the group of each by path.

    The largest photo of a group stands for it. Crops of one photo stay together anyway and are not compared.
    """
    related: dict[Photo, dict[Photo, str]] = defaultdict(dict)
    for pair in sorted(pairs, key=lambda pair: pair.detail):  # of two that became one, the likest is the last
        first, second = kept[pair.first], kept[pair.second]
        if first is None or second is None or first is second or (first.box and first.file_name == second.file_name):
            continue
        related[first][second] = related[second][first] = pair.relation
    found: list[Finding] = []
    groups: dict[str, str] = {}
    for group in _connected(related):
        sizes = {photo: facts[photo.path].width * facts[photo.path].height for photo in group}
        head = min(group, key=lambda photo: (-sizes[photo], photo.path))
        groups.update((photo.path, head.path) for photo in group)
        waiting, reached = [head], {head}
        for photo in waiting:  # grows: from the head to its copies, then to theirs
            for copy in sorted(related[photo].keys() - reached, key=lambda photo: photo.path):
                detail = _near_text(related[photo][copy], photo.path, head.path)
                found.append(Finding(copy.path, "near_duplicate", "warning", detail, head.path))
                reached.add(copy)
                waiting.append(copy)
        if len({photo.label for photo in group if photo.label}) > 1:
            found += _near_conflicts([photo for photo in group if photo.label])
    return found, groups


def _near_text(relation: str, path: str, head: str) -> str:
    """Return in words of what a photo is a near copy; `head` is the path of the photo that stands for its group."""
    if path == head:
        return recorded(
            "finding", "kept, on the same side of the split: {relation} against {path}", relation=relation, path=path
        )
    return recorded(
        "finding",
        "kept, on the same side of the split: {relation} against {path}, itself a near copy of {path_head}",
        relation=relation,
        path=path,
        path_head=head,
    )


def _connected(related: Mapping[Photo, Mapping[Photo, str]]) -> list[list[Photo]]:
    """Return the photos that are related to each other, directly or through others, in the order of their paths."""
    photos = sorted(related, key=lambda photo: photo.path)
    numbers = {photo: i for i, photo in enumerate(photos)}
    sets = DisjointSets(len(photos))
    for photo, others in related.items():
        for other in others:
            sets.unite(numbers[photo], numbers[other])
    return [[photos[i] for i in members] for members in sets.members()]


def _near_conflicts(group: Sequence[Photo]) -> list[Finding]:
    """Return one finding for each labelled photo of a group of near copies that has several labels."""
    found = []
    for photo in group:
        other = next(o for o in group if o.label != photo.label)
        detail = recorded(
            "finding",
            "kept: '{name}' here, but what looks like the same picture is '{name_other}' as {path}; one of the two "
            "labels may be wrong",
            name=photo.label,
            name_other=other.label,
            path=other.path,
        )
        found.append(Finding(photo.path, "label_conflict", "warning", detail, other.path))
    return found
