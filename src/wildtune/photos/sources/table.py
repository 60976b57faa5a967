"""Photos listed in a CSV file with the columns path, label and, as the user likes, group and split."""

from __future__ import annotations

import csv
import difflib
import io
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue
from wildtune.photos.sources.reading import hash_photos

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
_COLUMNS = ("path", "label", "group", "split")
_SPLITS = {"": "", "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SHOWN_PROBLEMS = 5


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
    header, lines = _read_rows(path)
    names = [name.strip().lower() for name in header]
    needed = ("path", "label") if labelled else ("path",)
    problems = [_missing(column, names) for column in needed if column not in names]
    problems += [f"the column '{c}' is there {names.count(c)} times" for c in _COLUMNS if names.count(c) > 1]
    if problems:
        raise PhotosError(_problem_list(path, problems))
    rows = _Rows()
    for line, cells in lines:
        table = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        _add_row(path.parent, line, table, labelled, rows)
    if rows.problems:
        raise PhotosError(_problem_list(path, rows.problems))
    notices = []
    ignored = [name for name in names if name and name not in _COLUMNS]
    if ignored:
        notices.append(f"{path.name}: columns that are not used: {', '.join(ignored)}.")
    if rows.repeated:
        notices.append(f"{path.name}: {rows.repeated} repeated rows were left out.")
    photos = list(rows.photos.values())
    return create_catalogue(path.parent, hash_photos(path.parent, photos) if read else photos, notices)


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and each row that is not blank with its line number."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PhotosError(
            f"{path} is not UTF-8 text (byte {error.start}).\n"
            "Save it again as 'CSV UTF-8' in the spreadsheet program, then try again."
        ) from error
    except OSError as error:
        raise PhotosError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions.") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise PhotosError(f"{path}, line {reader.line_num}: not valid CSV ({error}).\nMend that line.") from error
    if not rows:
        raise PhotosError(f"{path} is empty.\nExpected a header with the columns path and label, then one row a photo.")
    return rows[0][1], rows[1:]


def _missing(column: str, names: list[str]) -> str:
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.4)
    found = ", ".join(name for name in names if name) or "none"
    hint = f"; rename '{near[0]}' if that is meant" if near else ""
    return f"there is no column '{column}'{hint} (found: {found})"


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
    if len(rows.problems) > before:
        return
    photo = Photo(_normal_path(root, written), label=label, group=table.get("group", ""), split=split or "")
    earlier = rows.photos.setdefault(photo.path, photo)
    first_line = rows.lines.setdefault(photo.path, line)
    if earlier is photo:
        return
    rows.repeated += 1
    for column in ("label", "split", "group"):
        old, new = getattr(earlier, column), getattr(photo, column)
        if old != new:
            rows.problems.append(
                f"line {line}: {photo.path} has {column} '{new}' here and '{old}' in line {first_line}"
            )


def _normal_path(root: Path, written: str) -> str:
    """Return the path relative to `root` where it lies below it, else absolute; with `/` either way."""
    # A backslash may be part of a name on Linux and macOS; only where no such file exists is it a separator.
    if "\\" in written and os.sep == "/" and not os.path.lexists(root / written):
        written = PureWindowsPath(written).as_posix()
    absolute = Path(os.path.normpath(root / written))
    try:
        return absolute.relative_to(os.path.normpath(root)).as_posix()
    except ValueError:
        return absolute.as_posix()


def _problem_list(path: Path, problems: list[str]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"  - {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  - and {len(problems) - _SHOWN_PROBLEMS} more")
    return f"{path} has {count}:\n" + "\n".join(lines) + "\nMend the file and try again."
