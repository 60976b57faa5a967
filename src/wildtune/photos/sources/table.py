"""Photos listed in a CSV file with the columns path, label and, as the user likes, group, split, camera and taken."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue
from wildtune.photos.sources.listing import (
    describe_missing_column,
    describe_problems,
    normal_path,
    read_rows,
)
from wildtune.photos.sources.reading import hash_photos
from wildtune.photos.times import iso_time
from wildtune.wording import counted

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
_COLUMNS = ("path", "label", "group", "split", "camera", "taken")
_EXPECTED = "a header with the columns path and label, then one row a photo"
_SPLITS = {"": "", "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class _Rows:
    """Photos by path as the rows are gone through, and everything wrong with them."""

    photos: dict[str, Photo] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    repeated: int = 0


def load_table(path: Path, read: bool, labelled: bool = True) -> Catalogue:
    """Load the photos a CSV file lists; paths are relative to its folder, or absolute.

    The delimiter may be a comma, semicolon or tab, the text UTF-8 with or without byte order mark. The case
    of the header does not matter, nor do other columns. A listed file that does not exist is kept with
    `error` set. `labelled` demands a label in every row. Raises PhotosError with all problems.
    """
    header, lines = read_rows(path, _EXPECTED)
    names = [name.strip().lower() for name in header]
    needed = ("path", "label") if labelled else ("path",)
    problems = [describe_missing_column(column, names) for column in needed if column not in names]
    problems += [f"the column '{c}' is there {names.count(c)} times" for c in _COLUMNS if names.count(c) > 1]
    if problems:
        raise PhotosError(describe_problems(path, problems))
    rows = _Rows()
    for line, cells in lines:
        table = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        _add_row(path.parent, line, table, labelled, rows)
    if rows.problems:
        raise PhotosError(describe_problems(path, rows.problems))
    notices = []
    ignored = [name for name in names if name and name not in _COLUMNS]
    if ignored:
        notices.append(f"{path.name}: columns that are not used: {', '.join(ignored)}.")
    if rows.repeated:
        notices.append(f"{path.name}: {counted(rows.repeated, 'repeated row')} left out.")
    photos = list(rows.photos.values())
    return create_catalogue(path.parent, hash_photos(path.parent, photos) if read else photos, notices)


def _add_row(root: Path, line: int, table: dict[str, str], labelled: bool, rows: _Rows) -> None:
    """Turn one row into a photo, or add to the problems what is wrong with it."""
    before = len(rows.problems)
    written, label = table.get("path", ""), unicodedata.normalize("NFC", table.get("label", ""))
    split = _SPLITS.get(table.get("split", "").lower())
    if not written:
        rows.problems.append(f"line {line}: the path is empty")
    if not label and labelled:
        rows.problems.append(f"line {line}: the label is empty ({written})")
    if split is None:
        rows.problems.append(f"line {line}: split must be train, val, test or empty. Got '{table['split']}'")
    taken = iso_time(table["taken"]) if table.get("taken") else ""
    if taken is None:
        rows.problems.append(f"line {line}: taken must be a time as 2022-12-31T09:52:50. Got '{table['taken']}'")
    if len(rows.problems) > before:
        return
    photo = Photo(
        normal_path(root, written),
        label=label,
        group=table.get("group", ""),
        split=split or "",
        camera=unicodedata.normalize("NFC", table.get("camera", "")),
        taken=taken or "",
    )
    earlier = rows.photos.setdefault(photo.path, photo)
    first_line = rows.lines.setdefault(photo.path, line)
    if earlier is photo:
        return
    rows.repeated += 1
    for column in ("label", "split", "group", "camera", "taken"):
        old, new = getattr(earlier, column), getattr(photo, column)
        if old != new:
            rows.problems.append(
                f"line {line}: {photo.path} has {column} '{new}' here and '{old}' in line {first_line}"
            )
