"""Photos decoded once and kept at a useful size, so that no epoch pays for JPEG again."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.decode import Box, DecodeError, quiet_warnings
from wildtune.photos.sources.reading import explain_os_error
from wildtune.photos.threads import map_in_threads
from wildtune.progress import ProgressCallback

# Another number makes every store anew; raise it when the same photo would give other pixels.
_VERSION = 1
_PIXELS = "pixels.bin"
_INDEX = "index.npy"
_THREADS = 2
_ABANDONED_AFTER_S = 3600.0
_LET_GO_AFTER = 1 << 26  # bytes

# Turns a photo's encoded bytes, and the box of a crop, into the uint8 (H, W, 3) pixels to keep.
Prepare = Callable[[bytes, Box | None], np.ndarray]


class PhotoStore:
    """Decoded photos in one memory-mapped file; `store[i]` is uint8 (H, W, 3), RGB, read-only, not a copy.

    It can be pickled: a worker process maps the same file again. After `close` it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        """Open a finished store folder; raises OSError or ValueError when it is not whole."""
        self.folder = folder
        self._index = np.load(folder / _INDEX, allow_pickle=False)  # offset, height, width: int64 (N, 3)
        size = int((self._index[:, 1] * self._index[:, 2]).sum()) * 3
        if (folder / _PIXELS).stat().st_size != size:
            raise ValueError(f"{folder / _PIXELS} does not have the {size} bytes that its index says")
        self._map: mmap.mmap | bytes | None = b""
        if size:
            with open(folder / _PIXELS, "rb") as handle:
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        self._seen = 0

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._index)

    def __getitem__(self, i: int) -> np.ndarray:
        """Return photo `i` as a read-only view, uint8 (H, W, 3); raises IndexError beyond the last."""
        if self._map is None:
            raise ValueError("the photo store is closed")
        offset, height, width = (int(value) for value in self._index[i])
        size = height * width * 3
        self._seen += size
        if self._seen > _LET_GO_AFTER and isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            # What was looked at counts as this process's memory until it is let go; it stays in the system's cache,
            # and views handed out stay valid.
            self._map.madvise(mmap.MADV_DONTNEED)
            self._seen = size
        return np.frombuffer(self._map, np.uint8, size, offset).reshape(height, width, 3)

    def __reduce__(self) -> tuple[type[PhotoStore], tuple[Path]]:
        """Pickle the place of the store rather than its pixels."""
        return PhotoStore, (self.folder,)

    def close(self) -> None:
        """Let go of the file; views already handed out stay valid."""
        self._map = None


def load_store(
    catalogue: Catalogue,
    photos: Sequence[Photo],
    prepare: Prepare,
    key: str,
    progress: ProgressCallback | None = None,
) -> PhotoStore:
    """Open the cached store of these photos in this order, or make it first.

    `prepare` turns a photo's encoded bytes and its box (None for all of it) into the uint8 (H, W, 3) pixels to
    keep and may raise DecodeError; `key` names what it does, so that the photos' content and the key alone
    decide the bytes.
    `progress(done, total)` is called while the store is made.
    Raises PhotosError when a photo cannot be read or decoded any more, or has changed, or the disk is full.
    """
    _check_hashed(photos)
    place = files.cache_folder("store")
    folder = place / _key(photos, key)
    _remove_leftovers(place)
    try:
        return PhotoStore(folder)
    except (OSError, ValueError, EOFError):
        shutil.rmtree(folder, ignore_errors=True)  # missing, or damaged from outside
    try:
        _create_store(folder, catalogue, photos, prepare, progress)
    except OSError as error:
        hint = "Free some space" if error.errno == errno.ENOSPC else "Check that folder"
        raise PhotosError(
            f"The decoded photos cannot be written to {place}: {explain_os_error(error)}.\n"
            f"{hint}, or set WILDTUNE_CACHE to a folder elsewhere."
        ) from error
    return PhotoStore(folder)


def _check_hashed(photos: Sequence[Photo]) -> None:
    unhashed = next((photo for photo in photos if not photo.sha256), None)
    if unhashed is not None:
        raise PhotosError(
            f"The content of {unhashed.path} is not known ({unhashed.error or 'it was not read'}).\n"
            "Load the photos with their bytes (load_photos with read=True) and leave out the unreadable ones."
        )


def _key(photos: Sequence[Photo], key: str) -> str:
    digest = hashlib.sha256(f"{_VERSION} {key}\n".encode())
    for photo in photos:
        digest.update(f"{photo.sha256}\n".encode())
    return digest.hexdigest()


def _create_store(
    folder: Path,
    catalogue: Catalogue,
    photos: Sequence[Photo],
    prepare: Prepare,
    progress: ProgressCallback | None,
) -> None:
    """Write the store to a temporary folder beside `folder` and rename it when it is whole."""
    # The name says who writes, so that what a killed process leaves can be told from work in progress.
    prefix = f"{folder.name[:16]}.{_host()}.{os.getpid()}."
    with files.creating_folder(folder, prefix) as temporary:
        index = np.zeros((len(photos), 3), dtype=np.int64)
        offset = 0
        with open(temporary / _PIXELS, "wb") as handle, quiet_warnings():
            kept = map_in_threads(lambda photo: prepared_pixels(catalogue, photo, prepare), photos, _THREADS)
            for i, pixels in enumerate(kept):
                handle.write(pixels.tobytes())
                index[i] = offset, pixels.shape[0], pixels.shape[1]
                offset += pixels.size
                if progress is not None:
                    progress(i + 1, len(photos))
            handle.flush()
            os.fsync(handle.fileno())
        with open(temporary / _INDEX, "wb") as handle:
            np.save(handle, index)
            handle.flush()
            os.fsync(handle.fileno())


def read_unchanged(catalogue: Catalogue, photo: Photo) -> bytes:
    """Return a photo's encoded bytes; raises PhotosError unless they are still those that were hashed."""
    try:
        data = catalogue.read_bytes(photo)
    except OSError as error:
        raise PhotosError(
            f"{photo.path} cannot be read any more: {explain_os_error(error)}.\nLoad the photos again."
        ) from error
    if photo_sha256(data, photo.box) != photo.sha256:
        raise PhotosError(f"{photo.path} has changed since the photos were loaded.\nLoad the photos again.")
    return data


def prepared_pixels(catalogue: Catalogue, photo: Photo, prepare: Prepare) -> np.ndarray:
    """Return what `prepare` makes of one photo. Raises PhotosError where it is no longer as it was."""
    data = read_unchanged(catalogue, photo)
    try:
        return prepare(data, photo.box)
    except DecodeError as error:
        raise PhotosError(
            f"{photo.path} cannot be decoded: {error}.\nLeave it out: `wildtune check` lists such photos."
        ) from error


def _host() -> str:
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname())


def _remove_leftovers(place: Path) -> None:
    """Delete half-made stores whose process is gone, or that nobody has written to for an hour."""
    for leftover in place.glob("*.part"):
        try:
            host, process = leftover.name.split(".")[1:3]
            gone = host == _host() and not _is_running(int(process))
            pixels = leftover / _PIXELS
            written = (pixels if pixels.exists() else leftover).stat().st_mtime
        except (OSError, ValueError):
            continue
        if gone or time.time() - written > _ABANDONED_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Say whether a process of this machine is alive; where that cannot be asked safely, that it is."""
    if os.name != "posix":  # on Windows signal 0 would interrupt it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
