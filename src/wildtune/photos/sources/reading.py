"""Read every photo once to learn the SHA-256 that identifies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wildtune.language import recorded
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.threads import map_in_threads

_THREADS = 4


def hash_photos(root: Path, photos: Sequence[Photo]) -> list[Photo]:
    """Return the photos with `sha256` filled, or `error` where the bytes cannot be read; order is kept."""
    reader = Catalogue(root=root, photos=(), class_names=())
    return list(map_in_threads(lambda photo: _hash_photo(reader, photo), photos, _THREADS))


def explain_os_error(error: OSError) -> str:
    """Return why a file could not be read as a few plain words."""
    if isinstance(error, FileNotFoundError):
        return recorded("part", "no such file")
    if isinstance(error, PermissionError):
        return recorded("part", "permission denied")
    if isinstance(error, IsADirectoryError):
        return recorded("part", "is a folder, not a file")
    return (error.strerror or str(error)).lower()


def _hash_photo(reader: Catalogue, photo: Photo) -> Photo:
    if photo.error:
        return photo
    try:
        return replace(photo, sha256=photo_sha256(reader.read_bytes(photo), photo.box))
    except OSError as error:
        return replace(photo, error=explain_os_error(error))
    except ValueError:  # a null character in a CSV's path
        return replace(photo, error="not a possible file name")
