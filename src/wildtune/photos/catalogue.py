"""The first door: which photos there are, what they are called and what they are said to show."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wildtune import files
from wildtune.photos.decode import Box

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo, or one crop of a photo, as its source describes it.

    path       name shown to people and written to files; relative to the catalogue's root, with `/`; that of
               a crop is the photo's with `#` and a number after it, so that every path is there once
    label      class name, "" where unknown
    sha256     its identity, as `photo_sha256` gives it: SHA-256 of the encoded image bytes, and of a crop that
               of these and the box; "" where the bytes could not be read
    group      photos of one group never land on two sides of a split; "" for none
    split      the side the user put it on: "train", "val", "test", or "" for ours to choose
    container  file that holds the bytes when that is not `path` itself (a TFRecord shard, or the photo that
               a crop is cut from), else ""
    offset     first byte of the image within the container
    length     number of bytes of the image; -1 for the whole file
    error      why the bytes could not be read; "" where they could
    camera     camera site, as the source names it; "" where unknown
    taken      when it was taken: ISO 8601 local time, with its UTC offset where the source has one; "" unknown
    box        the part of the upright photo that a crop shows: left edge, top edge, width and height as shares
               0-1 of the photo's width and height; None for the whole photo
    sequence   burst or event it belongs to, as the source names it; "" where unknown
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
    camera: str = ""
    taken: str = ""
    box: Box | None = None
    sequence: str = ""

    @property
    def file_name(self) -> str:
        """The path of the photo itself, without the number of a crop."""
        return self.path.rpartition("#")[0] if self.box else self.path


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
        """Return the encoded bytes of one photo, of a crop those of its photo; raises OSError when they cannot be."""
        with open(self.root / (photo.container or photo.path), "rb") as handle:
            handle.seek(photo.offset)
            return handle.read(photo.length)


def photo_sha256(data: bytes, box: Box | None = None) -> str:
    """Return the identity of a photo of these encoded bytes, or of the crop that `box` cuts out of it."""
    return crop_sha256(hashlib.sha256(data).hexdigest(), box)


def crop_sha256(sha256: str, box: Box | None) -> str:
    """Return the identity of a crop of the photo with this SHA-256; without a box that is the photo's own.

    It is the SHA-256 of the photo's, in hexadecimal, and the four shares of the box with six decimals, all
    separated by spaces. Two crops of one photo differ from each other and from the photo.
    """
    if box is None:
        return sha256
    return hashlib.sha256(" ".join([sha256, *(f"{share:.6f}" for share in box)]).encode()).hexdigest()


def create_catalogue(root: Path, photos: Iterable[Photo], notices: Iterable[str] = ()) -> Catalogue:
    """Sort the photos by content, name their classes and return the frozen catalogue."""
    ordered = tuple(sorted(photos, key=lambda p: (p.sha256, p.label, p.path)))
    names = {p.label for p in ordered if p.label}
    # Classes that are all numbers (TFRecord labels without names) keep their numeric order.
    numeric = all(name.isdecimal() for name in names)
    class_names = tuple(sorted(names, key=(lambda n: (int(n), n)) if numeric else None))
    return Catalogue(root=root, photos=ordered, class_names=class_names, notices=tuple(notices))


def save_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write every photo as a CSV row, with the columns of `Photo` in their order; a box is four numbers."""
    columns = [f.name for f in fields(Photo)]
    rows = (_row_of_photo(photo, columns).values() for photo in catalogue.photos)
    files.write_text(path, files.csv_text(columns, rows))


def load_catalogue(path: Path, root: Path) -> Catalogue:
    """Read a catalogue written by `save_catalogue`; `root` is the folder its paths are relative to."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return create_catalogue(root, map(_photo_of_row, rows))


def _row_of_photo(photo: Photo, columns: Iterable[str]) -> dict[str, Any]:
    return {**{column: getattr(photo, column) for column in columns}, "box": " ".join(map(repr, photo.box or ()))}


def _photo_of_row(row: dict[str, Any]) -> Photo:
    shares = tuple(float(share) for share in row.get("box", "").split())
    numbers = {"offset": int(row["offset"]), "length": int(row["length"]), "box": shares or None}
    return Photo(**{**row, **numbers})
