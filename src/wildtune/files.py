"""Files as every room reads and writes them: whole or not at all, addressed by their content."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from wildtune.errors import CommandError, PhotosError

# The index of a cross-validation; a folder that has one holds several runs.
FOLDS_INDEX = "folds.json"


def user_path(path: str | Path) -> Path:
    """Return a path as its user means it: a `~` before it is their home; that of a user who is not known stays."""
    return Path(os.path.expanduser(path))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's shape, dtype and values as 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def require_place(path: Path) -> None:
    """Raise CommandError where no file or folder can be made at `path`, that of --out: ask before any work is done."""
    folder = path if path.is_dir() else next((p for p in path.absolute().parents if os.path.lexists(p)), None)
    if folder is None or not folder.is_dir():
        raise CommandError(f"--out {path} lies below {folder or path.anchor}, which is no folder. Choose another.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"--out {path} cannot be written: you may not write to {folder}. Choose another.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there replaces `path` when the block ends well.

    The bytes reach the disk before the name does, so a power cut leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        # mkstemp makes the file private to its owner; a result should be as readable as any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def creating_folder(folder: Path, prefix: str = "") -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which takes that name when the block ends well, and else goes.

    Its own name begins with `prefix` and ends in ".part". Where another process was quicker, its folder stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix, suffix=".part"))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private to its owner, and a cache may be shared
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def names_in(folder: Path) -> set[str]:
    """Return the names of what a folder holds, but for what a killed process has left half written."""
    return {path.name for path in folder.iterdir() if not (path.name[:1] == "." and path.suffix == ".part")}


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, making its folder if need be."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8 with the line ends it has."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a plain value to `path` atomically as indented JSON, other letters than English ones as they are."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise CommandError where a file that wildtune wrote turns out to be missing or damaged within the block."""
    try:
        yield
    except FileNotFoundError as error:
        raise CommandError(f"{path} is missing. Bring back the file that wildtune wrote there.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # The first lines of pydantic's message count the mistakes and name one.
        reason = f"{error} is not in it" if isinstance(error, KeyError) else " ".join(str(error).split("\n")[:3])
        raise CommandError(
            f"{path} is damaged, or of another version of wildtune: {reason}.\n"
            "Bring back the file that wildtune wrote there."
        ) from error


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Return the table that wildtune wrote to `path` as JSON.

    Raises CommandError where the file is missing or damaged, or `keys` are not all in it.
    """
    with reading(path):
        table = json.loads(path.read_text("utf-8"))
        if not isinstance(table, dict):
            raise ValueError(f"expected a table, got {json.dumps(table)[:60]}")
        missing = [key for key in keys if key not in table]
        if missing:
            raise ValueError(f"{', '.join(missing)} is not in it")
        return table


def is_folds(folder: Path) -> bool:
    """Say whether a folder holds a cross-validation, finished or not."""
    return (folder / FOLDS_INDEX).exists()


def require_single_run(folder: Path) -> None:
    """Raise CommandError where a folder holds a cross-validation and one run, or its bundle, is asked for."""
    if is_folds(folder):
        raise CommandError(f"{folder} holds a cross-validation. Give one of its runs, such as {folder / 'fold-1'}.")


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]], quoted: bool = False) -> str:
    """Return a header and rows as CSV with line feeds; `quoted` puts every cell in quotation marks.

    So does a carriage return in any cell, as in the name of a macOS folder's icon: readers take it for a line's end.
    """
    table = [["" if cell is None else str(cell) for cell in row] for row in (columns, *rows)]
    quoted = quoted or any("\r" in cell for row in table for cell in row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(table)
    return text.getvalue()


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file by column; raises PhotosError when the columns are others than `columns`."""
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        if reader.fieldnames != list(columns):
            raise PhotosError(f"{path} must have the columns {', '.join(columns)}. Got {reader.fieldnames}.")
        return list(reader)


def cache_folder(kind: str) -> Path:
    """Return the folder for one kind of reusable file.

    The kinds are `features`, `store`, `shards`, `memo`, `networks`, `kernels` and `compiled`. `WILDTUNE_CACHE` names
    another place than the user's own cache folder. Everything in it can be deleted: it is made again when needed.
    """
    base = os.environ.get("WILDTUNE_CACHE") or platformdirs.user_cache_dir("wildtune", appauthor=False)
    return Path(base) / kind
