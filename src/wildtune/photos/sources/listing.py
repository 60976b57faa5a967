"""What every source that lists photos in a file shares: its rows or JSON, paths, times, and problems in one message."""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
from pathlib import Path, PureWindowsPath
from typing import Any

from wildtune.errors import PhotosError

_SHOWN_PROBLEMS = 5


def describe_problems(
    path: Path, problems: list[str], shown: int = _SHOWN_PROBLEMS, advice: str = "Mend the file and try again."
) -> str:
    """Return one message for all that is wrong with a file: the first problems, how many more, and what to do."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"  - {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  - and {len(problems) - shown} more")
    return f"{path} has {count}:\n" + "\n".join(lines) + f"\n{advice}"


def read_rows(path: Path, expected: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of a CSV file and each row that is not blank, with its line number.

    The delimiter may be a comma, semicolon or tab, the text UTF-8 with or without byte order mark. Raises
    PhotosError for what cannot be read; `expected` says what an empty file should have held.
    """
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
        raise PhotosError(f"{path} is empty.\nExpected {expected}.")
    return rows[0][1], rows[1:]


def describe_missing_column(column: str, names: list[str]) -> str:
    """Say that a CSV file lacks a column, which it has, and which may be meant."""
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.4)
    found = ", ".join(name for name in names if name) or "none"
    hint = f"; rename '{near[0]}' if that is meant" if near else ""
    return f"there is no column '{column}'{hint} (found: {found})"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raises PhotosError where it is not JSON in UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text)
        if "\\ud" in text.lower():  # half of an escaped pair of surrogates could not be written to any file
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise PhotosError(
            f"{path} is not UTF-8 text (near character {error.start}).\nSave it again as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise PhotosError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.\n"
            "Copy or export it again; it may be cut off."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise PhotosError(f"{path} is JSON that cannot be read: {error}.\nExport it again.") from error
    except OSError as error:
        raise PhotosError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions.") from error


def describe_kind(value: Any) -> str:
    """Return what a JSON value is, in the words of an error message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text '{value[:60]}'"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, list):
        return "a list"
    return f"an object with the keys {', '.join(sorted(value)[:8])}" if value else "an empty object"


def normal_path(root: Path, written: str) -> str:
    """Return the path relative to `root` where it lies below it, else absolute; with `/` either way."""
    # A backslash may be part of a name on Linux and macOS; only where no such file exists is it a separator.
    if "\\" in written and os.sep == "/" and not os.path.lexists(root / written):
        written = PureWindowsPath(written).as_posix()
    absolute = Path(os.path.normpath(root / written))
    try:
        return absolute.relative_to(os.path.normpath(root)).as_posix()
    except ValueError:
        return absolute.as_posix()


def path_below(root: Path, written: str) -> str | None:
    """Return a path as `normal_path` does, or None where it leads out of `root` or to `root` itself."""
    # A null character cannot be in a path, and a drive letter would look like a folder on Linux and macOS.
    if "\0" in written or PureWindowsPath(written).drive:
        return None
    path = normal_path(root, written)
    return None if path == "." or os.path.isabs(path) else path
