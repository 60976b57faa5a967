"""The same picture in two files of different bytes: the same pixels, or a JPEG that the other photo gives when saved.

Only what the files prove counts, so that one of the two can be set aside. Copies that merely look alike are near
copies (`photos.near`).
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import PIL
from PIL import Image, JpegImagePlugin

from wildtune.errors import PhotosError
from wildtune.memo import Memo
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.decode import DecodeError, PhotoFacts, decode_photo
from wildtune.photos.near import NearPair
from wildtune.photos.store import read_unchanged
from wildtune.photos.threads import map_in_threads

# Another number compares all pairs anew; raise it when the same two files would be judged differently.
_VERSION = 1
_THREADS = 2
_JPEG = b"\xff\xd8\xff"


def fingerprint_pixels(pixels: np.ndarray, facts: PhotoFacts) -> str:
    """Return a hash of decoded pixels, uint8 (H, W, 3), in 33 characters.

    Equal hashes that begin with "=" are of photos with equal pixels. Those that begin with "~" are of JPEGs that were
    decoded at a part of their size: their pixels at full size are probably equal.
    """
    scale = "=" if pixels.shape[:2] == (facts.height, facts.width) else "~"
    shape = f"{facts.width} {facts.height} {pixels.shape}".encode()
    return scale + hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]


def find_same_pictures(
    catalogue: Catalogue,
    photos: Sequence[Photo],
    facts: Sequence[PhotoFacts],
    fingerprints: Sequence[str],
    near: Sequence[NearPair],
) -> list[tuple[int, int]]:
    """Return the pairs among N photos, by their numbers, that are provably one picture.

    `fingerprints` are those of `fingerprint_pixels`. Photos with equal fingerprints are paired with the first of them;
    of the near copies those of one size are looked at, one a JPEG and the other not. Where that needs all pixels the
    files are decoded whole, once for each two photos; a file that cannot be read any more proves nothing.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for i, fingerprint in enumerate(fingerprints):
        alike[fingerprint].append(i)
    pairs = [(group[0], i) for group in alike.values() for i in group[1:]]
    proven = [pair for pair in pairs if fingerprints[pair[0]].startswith("=")]
    open_pairs = [pair for pair in pairs if fingerprints[pair[0]].startswith("~")]
    for pair in near:
        i, j = pair.first, pair.second
        one_jpeg = (facts[i].format == "JPEG") != (facts[j].format == "JPEG")
        one_size = (facts[i].width, facts[i].height) == (facts[j].width, facts[j].height)
        if one_jpeg and one_size and photos[i].box == photos[j].box:
            open_pairs.append((i, j))
    return sorted(proven + _prove(catalogue, photos, open_pairs))


def _prove(catalogue: Catalogue, photos: Sequence[Photo], pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return those of the pairs whose files prove that they are one picture; what was proven before is remembered."""
    memo = Memo(f"same-{_VERSION}")
    keys = [f"{photos[i].sha256} {photos[j].sha256} {PIL.__version__}" for i, j in pairs]
    known = memo.load(keys)
    fresh = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}

    def look(pair: tuple[int, int]) -> bool | None:
        try:
            first, second = (read_unchanged(catalogue, photos[i]) for i in pair)
            return is_same_picture(first, second)
        except (PhotosError, DecodeError, MemoryError):
            return None

    answers = dict(zip(fresh, map_in_threads(look, fresh.values(), _THREADS), strict=True))
    memo.save({key: answer for key, answer in answers.items() if answer is not None})
    return [pair for key, pair in zip(keys, pairs, strict=True) if known.get(key, answers.get(key))]


def is_same_picture(first: bytes, second: bytes) -> bool:
    """Say whether two encoded photos hold the same pixels, or one is the JPEG that the other gives when it is saved.

    For the latter the other photo is encoded with the tables and the subsampling that the JPEG has, and must then
    decode to the JPEG's own pixels, each of them. Raises DecodeError.
    """
    if first.startswith(_JPEG):
        first, second = second, first
    pixels, others = decode_photo(first), decode_photo(second)
    if np.array_equal(pixels, others):
        return True
    if pixels.shape != others.shape or first.startswith(_JPEG) or not second.startswith(_JPEG):
        return False
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(second)) as image:
            if image.mode not in ("RGB", "L"):
                return False
            saved = io.BytesIO()
            # An unknown subsampling is -1; Pillow then takes its own, and the pixels come out as others.
            subsampling = JpegImagePlugin.get_sampling(image)
            copy = Image.fromarray(pixels).convert(image.mode)
            copy.save(saved, "JPEG", qtables=image.quantization, subsampling=subsampling)
    except (OSError, ValueError):
        return False
    return np.array_equal(decode_photo(saved.getvalue()), others)
