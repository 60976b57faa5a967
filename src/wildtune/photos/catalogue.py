"""The first door: which photos there are, what they are called and what they are said to show."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wildtune import files

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo as its source describes it.

    path       name shown to people and written to files; relative to the catalogue's root, with `/`
    label      class name, "" where unknown
    sha256     SHA-256 of the encoded image bytes (its identity); "" where the bytes could not be read
    group      photos of one group never land on two sides of a split; "" for none
    split      the side the user put it on: "train", "val", "test", or "" for ours to choose
    container  file that holds the bytes when that is not `path` itself (a TFRecord shard), else ""
    offset     first byte of the image within the container
    length     number of bytes of the image; -1 for the whole file
    error      why the bytes could not be read; "" where they could
    """

    path: str
    label: str = ""
    sha256: str = ""
    group: str = ""
    split: str = ""
    container: str = ""
    offset: int = 0
    length: int = -1
    error: str = ""


@dataclass(frozen=True)
class Catalogue:
    """All photos of one source, in an order that depends on their content alone.

    Photos are sorted by (sha256, label, path), so the same photos give the same catalogue from class folders,
    a CSV file or TFRecord shards. `class_names` is sorted; a class's index in it is its target.
    `notices` are sentences for the user about what the source was found to be (files passed over, ...).
    """

    root: Path
    photos: tuple[Photo, ...]
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = field(default=())

    def read_bytes(self, photo: Photo) -> bytes:
        """Return the encoded bytes of one photo; raises OSError when its file cannot be read."""
        with open(self.root / (photo.container or photo.path), "rb") as handle:
            handle.seek(photo.offset)
            return handle.read(photo.length)


def create_catalogue(root: Path, photos: Iterable[Photo], notices: Iterable[str] = ()) -> Catalogue:
    """Sort the photos by content, name their classes and return the frozen catalogue."""
    ordered = tuple(sorted(photos, key=lambda p: (p.sha256, p.label, p.path)))
    names = {p.label for p in ordered if p.label}
    # Classes that are all numbers (TFRecord labels without names) keep their numeric order.
    numeric = all(name.isdecimal() for name in names)
    class_names = tuple(sorted(names, key=(lambda n: (int(n), n)) if numeric else None))
    return Catalogue(root=root, photos=ordered, class_names=class_names, notices=tuple(notices))


def save_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write every photo as a CSV row, with the columns of `Photo` in their order."""
    columns = [f.name for f in fields(Photo)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(photo, column) for column in columns] for photo in catalogue.photos)
    files.write_text(path, text.getvalue())


def load_catalogue(path: Path, root: Path) -> Catalogue:
    """Read a catalogue written by `save_catalogue`; `root` is the folder its paths are relative to."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    numbers: list[dict[str, Any]] = [
        {**row, "offset": int(row["offset"]), "length": int(row["length"])} for row in rows
    ]
    return create_catalogue(root, (Photo(**row) for row in numbers))
