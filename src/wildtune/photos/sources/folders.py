"""Photos in folders: one folder per class, the user's own train, val and test folders, or unsorted."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue
from wildtune.photos.decode import IMAGE_SUFFIXES
from wildtune.photos.sources.reading import explain_os_error, hash_photos
from wildtune.wording import counted

SPLIT_OF_NAME = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db"})
# What prediction does not even try: files that are plainly something else.
_OTHER_SUFFIXES = frozenset(
    {
        ".txt",
        ".md",
        ".rst",
        ".html",
        ".htm",
        ".css",
        ".js",
        ".pdf",
        ".log",
        ".doc",
        ".docx",
        ".odt",
        ".ppt",
        ".pptx",
    }
    | {
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".xml",
        ".xmp",
        ".xls",
        ".xlsx",
        ".ods",
        ".db",
        ".sqlite",
        ".svg",
        ".lnk",
    }
    | {".ini", ".cfg", ".toml", ".yaml", ".yml", ".py", ".r", ".ipynb", ".sh", ".bat", ".exe", ".dll"}
    | {
        ".zip",
        ".tar",
        ".gz",
        ".tgz",
        ".7z",
        ".rar",
        ".npy",
        ".npz",
        ".h5",
        ".pt",
        ".pth",
        ".safetensors",
        ".onnx",
    }
    | {".tfrecord", ".tfrecords", ".tfrec", ".record"}
    | {".mp4", ".mov", ".avi", ".mkv", ".m4v", ".wmv", ".mpg", ".mts", ".wav", ".mp3"}
)


@dataclass
class _Found:
    """What a walk gathers, with what it passed over, for one notice each."""

    photos: list[Photo] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def visible_entries(folder: Path) -> list[Path]:
    """Return the entries of a folder by name, without hidden ones and those that systems leave behind."""
    return [
        folder / name
        for name in sorted(os.listdir(folder))
        if not name.startswith(".") and name.lower() not in _SYSTEM_NAMES
    ]


def describe_missing(path: Path) -> str:
    """Say which part of a path is not there, and the nearest name that is. Raises OSError where none can be read."""
    if os.path.lexists(path):
        return f"{path} is a link to what is not there." if path.is_symlink() else f"{path} is neither file nor folder."
    while not os.path.isdir(path.parent):
        path = path.parent
    by_lower = {entry.name.lower(): entry for entry in visible_entries(path.parent)}
    near = difflib.get_close_matches(path.name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f" Did you mean {by_lower[near[0]]}?" if near else ""
    return f"{path.parent} has no '{path.name}'.{hint}"


def load_class_folders(root: Path, read: bool) -> Catalogue:
    """Load photos whose class is the name of the folder they lie below; empty when there are none.

    Sub-folders named train, val and test that hold folders themselves are the user's own split, with the
    classes below. Photos in no class folder and files of other kinds are passed over with a notice.
    """
    found = _Found()
    folders = [entry for entry in visible_entries(root) if os.path.isdir(entry)]
    sides = [folder for folder in folders if folder.name.lower() in SPLIT_OF_NAME]
    if _is_split(sides):
        extra = [folder.name for folder in folders if folder not in sides]
        if extra:
            found.notices.append(
                f"{_names(extra)} passed over: the photos were taken from {_names([s.name for s in sides])}."
            )
        _pass_over_loose(root, root, found)
        for side in sides:
            _add_classes(root, side, SPLIT_OF_NAME[side.name.lower()], found)
    else:
        if len(sides) > 1:
            found.notices.append(
                f"{_names([s.name for s in sides])} were taken as classes: they hold no class folders."
            )
        _add_classes(root, root, "", found)
    if found.others:
        found.notices.append(
            f"{counted(len(found.others), 'file')} passed over, not images by suffix, such as {found.others[0]}."
        )
    photos = hash_photos(root, found.photos) if read else found.photos
    return create_catalogue(root, photos, found.notices)


def load_unsorted_folder(root: Path, read: bool) -> Catalogue:
    """List every file below a folder that may be a photo by its suffix; `label` is the first folder."""
    photos = []
    for path in _walk(root):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES or suffix not in _OTHER_SUFFIXES:
            parts = path.relative_to(root).parts
            photos.append(_create_photo(root, path, parts[0] if len(parts) > 1 else "", ""))
    return create_catalogue(root, hash_photos(root, photos) if read else photos)


def load_single_file(path: Path, read: bool) -> Catalogue:
    """Return a catalogue of one photo without a label."""
    photos = [_create_photo(path.parent, path, "", "")]
    return create_catalogue(path.parent, hash_photos(path.parent, photos) if read else photos)


def _is_split(sides: list[Path]) -> bool:
    """Say whether folders with names of sides are a split: train and another, with classes below."""
    kinds = {SPLIT_OF_NAME[side.name.lower()] for side in sides}
    trains = [side for side in sides if side.name.lower() == "train"]
    return len(kinds) > 1 and any(os.path.isdir(e) for train in trains for e in visible_entries(train))


def _add_classes(root: Path, parent: Path, split: str, found: _Found) -> None:
    _pass_over_loose(root, parent, found)
    for folder in visible_entries(parent):
        if not os.path.isdir(folder):
            continue
        before = len(found.photos)
        for path in _walk(folder):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.photos.append(_create_photo(root, path, folder.name, split))
            else:
                found.others.append(_shown(path.relative_to(root).as_posix()))
        if len(found.photos) == before:
            name = _shown(folder.relative_to(root).as_posix())
            found.notices.append(f"The folder {name} holds no photos, so it is no class.")


def _pass_over_loose(root: Path, folder: Path, found: _Found) -> None:
    """Note the files that lie beside the class folders rather than in one."""
    loose: list[str] = []
    for entry in visible_entries(folder):
        if os.path.isdir(entry):
            continue
        name = _shown(entry.relative_to(root).as_posix())
        (loose if entry.suffix.lower() in IMAGE_SUFFIXES else found.others).append(name)
    if loose:
        place = "" if folder == root else f" in {folder.name}"
        found.notices.append(
            f"{counted(len(loose), 'photo')} passed over{place}, in no class folder, such as {loose[0]}. "
            "Move them into the folder of their class to use them."
        )


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder by name, following links, each folder once however links lead to it."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = visible_entries(current)
        except OSError as error:
            raise PhotosError(
                f"The folder {current} cannot be read: {explain_os_error(error)}.\n"
                "Change its permissions or move it away."
            ) from error
        waiting += [entry for entry in reversed(entries) if os.path.isdir(entry)]
        # A broken link is yielded too, so that it is reported; pipes and sockets would block the reader.
        yield from (entry for entry in entries if os.path.isfile(entry) or not os.path.exists(entry))


def _create_photo(root: Path, path: Path, label: str, split: str) -> Photo:
    name = path.relative_to(root).as_posix()
    shown = _shown(name)
    error = "" if shown == name else "file name is not valid UTF-8: rename it"
    # One name for a class whether its letters are stored composed (Linux, Windows) or decomposed (macOS).
    return Photo(path=shown, label=unicodedata.normalize("NFC", _shown(label)), split=split, error=error)


def _shown(name: str) -> str:
    """Return a name that can be printed and written as UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _names(names: list[str]) -> str:
    return ", ".join(_shown(name) for name in names)
