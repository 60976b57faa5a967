"""What decoding JPEGs at reduced scale, and keeping what was decoded, gain: milliseconds a photo on one core, in turn.

    python benchmarks/decoding.py PHOTOS [--photos 100] [--side 256] [--megapixels 8] [--rounds 5]

Photos are made JPEGs of so many megapixels first, as cameras write them; without `--megapixels` they stay as they are.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from wildtune.model.preprocess import load_pixels, shrink_photo
from wildtune.photos.decode import decode_photo
from wildtune.photos.sources import list_photos


def enlarge(data: bytes, megapixels: float) -> bytes:
    """Return a photo as a JPEG of so many megapixels."""
    photo = Image.fromarray(decode_photo(data))
    scale = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    encoded = io.BytesIO()
    photo.resize((round(photo.width * scale), round(photo.height * scale))).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def keep(photo: np.ndarray, path: Path) -> np.ndarray:
    """Return a decoded photo as a file that is mapped into memory, as a training's store has it."""
    np.save(path, photo)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def spend(work: Callable[[], object], count: int) -> float:
    """Return the milliseconds a photo that some work takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / count * 1e3


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean difference of two photos' pixels, 0-255, where rounding may have made one wider by a pixel."""
    height, width = np.minimum(one.shape[:2], other.shape[:2])
    return float(np.abs(one[:height, :width].astype(int) - other[:height, :width]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=100, dest="count")
    parser.add_argument("--side", type=int, default=256, help="pixels of the shorter side to shrink to")
    parser.add_argument("--megapixels", type=float)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    catalogue = list_photos(asked.photos)
    chosen = catalogue.photos[:: max(1, len(catalogue.photos) // asked.count)][: asked.count]
    encoded = [catalogue.read_bytes(photo) for photo in chosen]
    if asked.megapixels:
        encoded = [enlarge(data, asked.megapixels) for data in encoded]

    def whole(data: bytes) -> np.ndarray:
        return shrink_photo(decode_photo(data), asked.side)

    def reduced(data: bytes) -> np.ndarray:
        return shrink_photo(decode_photo(data, asked.side), asked.side)

    folder = tempfile.TemporaryDirectory()
    kept = [keep(reduced(data), Path(folder.name) / f"{number}.npy") for number, data in enumerate(encoded)]
    kinds = {
        "decoded whole": lambda: [load_pixels(whole(data)) for data in encoded],
        "at reduced scale": lambda: [load_pixels(reduced(data)) for data in encoded],
        "decoded before": lambda: [load_pixels(photo) for photo in kept],
    }
    rounds = [{name: spend(work, len(encoded)) for name, work in kinds.items()} for _ in range(asked.rounds)]
    for name in kinds:
        values = [times[name] for times in rounds]
        print(f"{name}: {statistics.median(values):.2f} ms ({min(values):.2f} to {max(values):.2f})")
    apart = [difference(whole(data), photo) for data, photo in zip(encoded, kept, strict=True)]
    print(f"reduced and whole differ by {np.mean(apart):.2f} of 255 on average (at most {max(apart):.2f} in a photo)")


if __name__ == "__main__":
    main()
