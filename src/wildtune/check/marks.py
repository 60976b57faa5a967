"""What a photo's file says about itself beside its pixels: format, size, camera, time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import Image

from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.decode import quiet_warnings
from wildtune.photos.threads import map_in_threads
from wildtune.progress import ProgressCallback

# JPEG and PNG say all of this in their first bytes; the other formats are read whole.
_HEAD_BYTES = 1 << 18
_STARTS = (b"\xff\xd8\xff", b"\x89PNG")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_THREADS = 2
_MAKE, _MODEL, _CHANGED, _ORIENTATION = 0x010F, 0x0110, 0x0132, 0x0112
_EXIF, _TAKEN, _SERIAL = 0x8769, 0x9003, 0xA431


@dataclass(frozen=True, slots=True)
class PhotoMarks:
    """What one photo's file says about itself.

    format         "JPEG", "PNG", ..., by content
    width, height  pixels of the photo held upright, of a crop its own
    size           of the encoded photo, bytes; of a crop its share of them by area
    camera         camera site as the source names it, else maker, model and serial number; "" where none is named
    taken          local time of the photo by the source, else by the file; None where neither says
    """

    format: str
    width: int
    height: int
    size: int
    camera: str = ""
    taken: datetime | None = None


def read_marks(
    catalogue: Catalogue, photos: Sequence[Photo], progress: ProgressCallback | None = None
) -> list[PhotoMarks | None]:
    """Read the marks of each photo, None where its file gives none; no photo is decoded, no fault raises."""
    found: list[PhotoMarks | None] = []
    with quiet_warnings():
        for marks in map_in_threads(lambda photo: _read_one(catalogue, photo), photos, _THREADS):
            found.append(marks)
            if progress is not None:
                progress(len(found), len(photos))
    return found


def _read_one(catalogue: Catalogue, photo: Photo) -> PhotoMarks | None:
    try:
        data, size = _read_head(catalogue, photo)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            exif = _exif(image)
            details = exif.get_ifd(_EXIF)
            width, height = image.size
            if exif.get(_ORIENTATION) in (5, 6, 7, 8):
                width, height = height, width
            if photo.box is not None:
                share_across, share_down = photo.box[2:]
                width, height = max(1, round(width * share_across)), max(1, round(height * share_down))
                size = max(1, round(size * share_across * share_down))
            camera = photo.camera or _camera(exif.get(_MAKE), exif.get(_MODEL), details.get(_SERIAL))
            taken = _source_time(photo.taken) or _time(details.get(_TAKEN) or exif.get(_CHANGED))
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            return PhotoMarks(kind, width, height, size, camera, taken)
    except Exception:  # Pillow lets through whatever its parsers stumble over; such a photo only tells nothing
        return None


def _read_head(catalogue: Catalogue, photo: Photo) -> tuple[bytes, int]:
    """Return as many of the photo's encoded bytes as its marks need, and how many there are in all."""
    path = catalogue.root / (photo.container or photo.path)
    with open(path, "rb") as handle:
        size = photo.length if photo.length >= 0 else path.stat().st_size - photo.offset
        handle.seek(photo.offset)
        data = handle.read(min(size, _HEAD_BYTES))
        return (data if data.startswith(_STARTS) else data + handle.read(size - len(data))), size


def _exif(image: Image.Image) -> Image.Exif:
    """Return the EXIF data; Pillow would decode a whole PNG to look for them behind its pixels."""
    if image.format != "PNG":
        return image.getexif()
    exif = Image.Exif()
    if image.info.get("exif"):
        exif.load(image.info["exif"])
    return exif


def _camera(*parts: Any) -> str:
    """Return the parts that name a camera as one line, the maker not twice."""
    words = [" ".join(str(part).replace("\0", " ").split()) for part in parts if part]
    if len(words) > 1 and words[1].lower().startswith(words[0].lower()):
        words = words[1:]
    return " ".join(words)


def _source_time(text: str) -> datetime | None:
    """Return the local time of an ISO 8601 text, None where there is none."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def _time(text: Any) -> datetime | None:
    try:
        return datetime.strptime(str(text).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
