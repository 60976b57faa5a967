"""Photos of a Camtrap DP 1.0 data package: datapackage.json with deployments.csv, media.csv and observations.csv.

The names of tables and columns are those of the standard, https://camtrap-dp.tdwg.org.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.decode import IMAGE_SUFFIXES
from wildtune.photos.sources.camera_traps import EMPTY, TrapPhoto, create_trap_catalogue
from wildtune.photos.sources.listing import (
    describe_kind,
    describe_missing_column,
    describe_problems,
    path_below,
    read_rows,
)
from wildtune.photos.times import iso_time
from wildtune.wording import counted

PACKAGE_NAME = "datapackage.json"
_NEEDED = {
    "deployments": ("deploymentID",),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath", "fileMediatype"),
    "observations": ("observationID", "deploymentID", "observationLevel", "observationType"),
}
_LEVELS = ("media", "event")
# The class of each type of observation that is no animal; "" for what says nothing.
_CLASSES = {"blank": EMPTY, "human": "human", "vehicle": "vehicle", "unknown": "", "unclassified": ""}
_TYPES = ("animal", *_CLASSES)
_WEB_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_REMOTE = "at a web address: download it into the package's folder and write its path there"

# A row's place, for messages, and its cells by column.
Row = tuple[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Observation:
    """What one row says: a class ("" for none), whether a machine said so, and of which event or its own photo."""

    label: str
    machine: bool
    event: bool
    sequence: str


@dataclass
class _Events:
    """The event-based observations of one deployment."""

    rows: list[tuple[datetime, datetime, _Observation]] = field(default_factory=list)
    starts: list[datetime] = field(default_factory=list)
    latest_ends: list[datetime] = field(default_factory=list)

    def sort(self) -> None:
        """Bring the rows into the order of their starts, once all are there."""
        self.rows.sort(key=lambda row: row[:2])
        self.starts = [start for start, _, _ in self.rows]
        self.latest_ends = list(accumulate((end for _, end, _ in self.rows), max))

    def at(self, time: datetime) -> list[_Observation]:
        """Return the observations whose event covers a time, both ends included."""
        found = []
        place = bisect_right(self.starts, time) - 1
        while place >= 0 and self.latest_ends[place] >= time:
            if self.rows[place][1] >= time:
                found.append(self.rows[place][2])
            place -= 1
        return found


def is_camtrap_dp(content: Any) -> bool:
    """Say whether JSON content is that of a data package."""
    return isinstance(content, dict) and "resources" in content


def load_camtrap_dp(path: Path, content: Any, read: bool, labelled: bool = True) -> Catalogue:
    """Load the photos of a Camtrap DP; `content` is the JSON of its datapackage.json, `path`.

    The class is the scientific name of an animal, else `empty`, `human` or `vehicle`. What people classified
    counts before what a machine did, an observation of the photo itself before one of its event. The camera is
    the deployment's locationID, locationName or, without these, deploymentID. A photo at a web address is kept
    with `error` set; videos are left out. Raises PhotosError with all problems of the tables.
    """
    problems: list[str] = []
    tables = _read_tables(path, content, problems)
    if problems:
        raise PhotosError(describe_problems(path, problems))
    cameras = {row["deploymentID"]: _camera(row) for _, row in tables["deployments"]}
    media, videos = _media(path.parent, tables["media"], cameras, problems)
    of_photo, of_event = _observations(tables["observations"], tables["media"], cameras, problems)
    if problems:
        raise PhotosError(describe_problems(path, problems))
    traps, by_event, by_machine = [], 0, 0
    for identity, (photo, deployment, time) in media.items():
        seen = of_photo[identity] + of_event[deployment].at(time)
        deciding = _deciding(seen)
        sequence = next((one.sequence for one in seen if one.sequence), "")
        traps.append(TrapPhoto(photo, {one.label for one in deciding}, sequence))
        by_event += any(one.event for one in deciding)
        by_machine += any(one.machine for one in deciding)
    remote = sum(photo.error == _REMOTE for photo, _, _ in media.values())
    if remote and remote == len(media):
        raise PhotosError(
            f"All {remote} photos of {path} are at web addresses, such as {traps[0].photo.path}.\n"
            "wildtune downloads no photos: download them into the package's folder and write their paths, relative "
            "to it, into the column filePath of media.csv."
        )
    notices = []
    if videos:
        notices.append(
            f"{counted(len(videos), 'video or other file', 'videos and other files')} that "
            f"{'is no photo' if len(videos) == 1 else 'are no photos'} left out, such as {videos[0]}."
        )
    if remote:
        notices.append(f"{counted(remote, 'photo')} only at a web address, and not read: wildtune downloads none.")
    if by_event:
        notices.append(
            f"{counted(by_event, 'photo')} labelled as part of an event: a frame may show nothing of its label."
        )
    if by_machine:
        notices.append(f"{counted(by_machine, 'photo')} with a label that a machine gave and no person.")
    return create_trap_catalogue(path, traps, read, labelled, notices)


def _read_tables(path: Path, content: Any, problems: list[str]) -> dict[str, list[Row]]:
    """Return the rows of the three tables; what is wrong with the package or a header goes to the problems."""
    resources = content.get("resources") if isinstance(content, dict) else None
    if not isinstance(resources, list):
        found = f"{describe_kind(content)} without it" if resources is None else describe_kind(resources)
        problems.append(f"it must be an object whose resources are a list. Got {found}")
        return {}
    places = {r["name"]: r.get("path") for r in resources if isinstance(r, dict) and isinstance(r.get("name"), str)}
    tables: dict[str, list[Row]] = {}
    for name, needed in _NEEDED.items():
        place = places.get(name)
        if isinstance(place, list) and len(place) == 1:
            place = place[0]
        below = path_below(path.parent, place) if isinstance(place, str) and not _WEB_ADDRESS.match(place) else None
        if name not in places:
            found = ", ".join(sorted(places)) or "none"
            problems.append(f"there is no resource '{name}', so it is no Camtrap DP (found: {found})")
        elif below is None:
            problems.append(
                f"resource '{name}': path must lead to a file below the package. Got {describe_kind(place)}"
            )
        elif not (path.parent / below).is_file():
            problems.append(f"resource '{name}': there is no file {below}")
        else:
            tables[name] = _read_table(path.parent / below, needed, problems)
    return tables


def _read_table(path: Path, needed: tuple[str, ...], problems: list[str]) -> list[Row]:
    """Return the rows of one table by column, each with its place; ids (the first column needed) are there once."""
    header, lines = read_rows(path, f"a header with the columns {', '.join(needed)}")
    names = [name.strip() for name in header]
    before = len(problems)
    problems += [f"{path.name}: {describe_missing_column(c, names)}" for c in needed if c not in names]
    if len(problems) > before:
        return []
    rows: list[Row] = []
    first_lines: dict[str, int] = {}
    for line, cells in lines:
        row = {name: _cell(cell) for name, cell in zip(names, cells, strict=False)}
        where = f"{path.name}, line {line}"
        empty = [column for column in needed if not row.get(column)]
        problems += [f"{where}: {column} is empty" for column in empty]
        identity = row.get(needed[0], "")
        if identity and (first := first_lines.setdefault(identity, line)) != line:
            problems.append(f"{where}: {needed[0]} '{identity}' is that of line {first} already")
        if not empty:
            rows.append((where, row))
    return rows


def _cell(text: str) -> str:
    """Return a cell's value, "" for what the standard takes as missing."""
    text = unicodedata.normalize("NFC", text.strip())
    return "" if text in ("NaN", "nan") else text


def _camera(deployment: dict[str, str]) -> str:
    return deployment.get("locationID") or deployment.get("locationName") or deployment["deploymentID"]


def _media(
    root: Path, rows: list[Row], cameras: dict[str, str], problems: list[str]
) -> tuple[dict[str, tuple[Photo, str, datetime]], list[str]]:
    """Return each photo with its deployment and time by mediaID, and the paths of the media that are none."""
    photos: dict[str, tuple[Photo, str, datetime]] = {}
    others: list[str] = []
    places: dict[str, str] = {}
    for where, row in rows:
        written, deployment = row["filePath"], row["deploymentID"]
        _check_deployment(where, deployment, cameras, problems)
        time = _time(where, "timestamp", row["timestamp"], problems)
        remote = _WEB_ADDRESS.match(written) is not None
        below = written if remote else path_below(root, written)
        if below is None:
            problems.append(f"{where}: filePath must lead to a file below the package. Got '{written}'")
        elif not _is_photo(row["fileMediatype"], below):
            others.append(below)
        elif (first := places.setdefault(below, where)) != where:
            problems.append(f"{where}: {below} is listed in {first.rpartition(', ')[2]} already")
        elif time is not None:
            camera = cameras.get(deployment, "")
            photo = Photo(below, camera=camera, taken=iso_time(row["timestamp"]) or "")
            photos[row["mediaID"]] = replace(photo, error=_REMOTE) if remote else photo, deployment, time
    return photos, others


def _is_photo(media_type: str, path: str) -> bool:
    return media_type.lower().startswith("image/") or (
        "/" not in media_type and PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
    )


def _observations(
    rows: list[Row], media: list[Row], cameras: dict[str, str], problems: list[str]
) -> tuple[dict[str, list[_Observation]], dict[str, _Events]]:
    """Return the media-based observations by mediaID, and the event-based ones by deployment."""
    of_photo: dict[str, list[_Observation]] = defaultdict(list)
    of_event: dict[str, _Events] = defaultdict(_Events)
    known = {row["mediaID"] for _, row in media}
    for where, row in rows:
        level, kind, identity = row["observationLevel"], row["observationType"], row.get("mediaID", "")
        _check_deployment(where, row["deploymentID"], cameras, problems)
        if level not in _LEVELS:
            problems.append(f"{where}: observationLevel must be {' or '.join(_LEVELS)}. Got '{level}'")
        if kind not in _TYPES:
            problems.append(f"{where}: observationType must be one of {', '.join(_TYPES)}. Got '{kind}'")
        observation = _Observation(
            label=row.get("scientificName", "") if kind == "animal" else _CLASSES.get(kind, ""),
            machine=row.get("classificationMethod", "") == "machine",
            event=level == "event",
            sequence=row.get("eventID", ""),
        )
        if level == "media" and not identity:
            problems.append(f"{where}: a media-based observation must have a mediaID")
        elif identity and identity not in known:
            problems.append(f"{where}: mediaID '{identity}' is not in media.csv")
        elif level == "media":
            of_photo[identity].append(observation)
        elif level == "event":
            start, end = (_time(where, key, row.get(key, ""), problems) for key in ("eventStart", "eventEnd"))
            if start is not None and end is not None:
                of_event[row["deploymentID"]].rows.append((start, end, observation))
    for events in of_event.values():
        events.sort()
    return of_photo, of_event


def _deciding(seen: list[_Observation]) -> list[_Observation]:
    """Return the observations with a label that count: by people before machines, of the photo before its event."""
    named = [one for one in seen if one.label]
    best = min(((one.machine, one.event) for one in named), default=None)
    return [one for one in named if (one.machine, one.event) == best]


def _check_deployment(where: str, deployment: str, cameras: dict[str, str], problems: list[str]) -> None:
    if deployment not in cameras:
        problems.append(f"{where}: deploymentID '{deployment}' is not in deployments.csv")


def _time(where: str, column: str, text: str, problems: list[str]) -> datetime | None:
    """Return a time that can be compared with others; one without a UTC offset is taken as UTC."""
    written = iso_time(text)
    if written is None:
        problems.append(f"{where}: {column} must be a time as 2020-03-24T11:21:46Z. Got '{text}'")
        return None
    time = datetime.fromisoformat(written)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
