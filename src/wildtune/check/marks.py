"""What a photo's file says about itself beside its pixels: format, size, camera, time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from wildtune.photos.catalogue import Photo
from wildtune.photos.decode import PhotoFacts
from wildtune.photos.times import read_time


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


def create_marks(photo: Photo, facts: PhotoFacts) -> PhotoMarks:
    """Return the marks of a photo by what its source and its own bytes say."""
    taken = read_time(photo.taken) or read_time(facts.taken) or read_time(facts.changed)
    local = taken.replace(tzinfo=None) if taken else None
    return PhotoMarks(facts.format, facts.width, facts.height, facts.size, photo.camera or facts.body, local)
