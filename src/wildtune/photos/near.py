"""Near copies: the same picture rescaled, encoded again, cropped, mirrored, or made lighter or darker.

Candidates come from perceptual hashes and, where they are given, from a backbone's feature vectors. The pixels
decide: two photos are near copies where one thumbnail, laid over the other, shows the same detail.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from wildtune import files
from wildtune.language import recorded
from wildtune.memo import remember
from wildtune.photos.banding import Search, find_close
from wildtune.photos.hashes import create_hashes, mirror_mask
from wildtune.photos.register import Registration, register

# Measured on web photos (docs/explanation/splits.md): 99 of 100 copies made on purpose agree by 0.97, in detail by
# 0.92, in the worse blocks by 0.87; the most alike of different photos by 0.94, 0.64 and 0.55.
LEAST = (0.95, 0.70, 0.60)
# Where light was clipped the grey values agree less, and the detail that is left still does.
LEAST_CLIPPED = (0.85, 0.85, 0.75)
LEAST_BLOCKS = 5
_CROPPED_BELOW = 0.965  # share of the area
_OTHER_GAIN = 0.06
_OTHER_SHIFT = 3.0  # of 255
_LEAST_COSINE = 0.75
_FEATURE_BITS = 64
_FEATURE_WEAK_BITS = 16
_FEATURE_SEARCH = Search(tables=8, key_bits=64, max_distance=15, most_in_drawer=64, most_each=12)
_ROWS = 8192
# Another number makes every answer anew; raise it when the same photos would give other pairs.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two photos, by their numbers, that are near copies.

    relation  what was done to the one to get the other, in words, such as "mirrored and cropped"
    detail    how well the detail agrees, up to 1
    """

    first: int
    second: int
    relation: str
    detail: float


def find_near_pairs(
    thumbnails: np.ndarray, aspects: np.ndarray, features: np.ndarray | None = None
) -> tuple[NearPair, ...]:
    """Return the pairs of near copies among N photos, each pair once, lower number first, in order.

    thumbnails  uint8 (N, 32, 32), grey, as `hashes.create_thumbnail_pixels` makes them
    aspects     float32 (N,), width over height of each photo
    features    float32 (N, D), one vector a photo from the same backbone, or None

    With features, photos are also compared that no hash brings together, such as heavier crops. A feature vector
    is filed under the signs of random projections (Charikar 2002), about their mean. What was found among the same
    photos before is remembered. Raises ValueError where the shapes do not fit.
    """
    count = len(thumbnails)
    if thumbnails.shape[1:] != (32, 32) or aspects.shape != (count,):
        raise ValueError(f"expected (N, 32, 32) and (N,). Got {thumbnails.shape} and {aspects.shape}")
    if features is not None and (features.ndim != 2 or len(features) != count):
        raise ValueError(f"features must be ({count}, D). Got {features.shape}")
    digests = [files.sha256_array(array) for array in (thumbnails, aspects, features) if array is not None]
    question = [_VERSION, LEAST, LEAST_CLIPPED, LEAST_BLOCKS, np.__version__, *digests]
    known = remember(
        "near", question, lambda: [astuple(pair) for pair in _find_near_pairs(thumbnails, aspects, features)]
    )
    return tuple(NearPair(*pair) for pair in known)


def _find_near_pairs(thumbnails: np.ndarray, aspects: np.ndarray, features: np.ndarray | None) -> list[NearPair]:
    pairs = find_hash_candidates(thumbnails)
    if features is not None:
        pairs = np.unique(np.concatenate([pairs, find_feature_candidates(features)]), axis=0)
    found: list[NearPair] = []
    for start in range(0, len(pairs), _ROWS):
        part = pairs[start : start + _ROWS]
        lies = register(thumbnails, aspects, part)
        same = _is_alike(lies, *LEAST) | _is_alike(lies, *LEAST_CLIPPED)
        # One shape on even ground, such as a bird in the sky, can be laid over another's: only where it stands.
        moved = lies.mirrored | (lies.window[:, 2] * lies.window[:, 3] < _CROPPED_BELOW)
        same &= ~moved | (lies.blocks >= LEAST_BLOCKS)
        for i in np.flatnonzero(same):
            first, second = (int(photo) for photo in part[i])
            found.append(NearPair(first, second, _describe(lies, int(i)), float(lies.detail[i])))
    return found


def _is_alike(lies: Registration, agreement: float, detail: float, local: float) -> np.ndarray:
    """Say of each pair whether it reaches the three correlations, bool (P,)."""
    found: np.ndarray = (lies.agreement >= agreement) & (lies.detail >= detail) & (lies.local >= local)
    return found


def find_hash_candidates(thumbnails: np.ndarray) -> np.ndarray:
    """Return the pairs that the perceptual hashes bring together, int64 (P, 2); thumbnails uint8 (N, 32, 32)."""
    hashes = create_hashes(thumbnails)
    return find_close(hashes.full, hashes.weak, hashes.windows, (0, int(mirror_mask())), Search())


def find_feature_candidates(features: np.ndarray) -> np.ndarray:
    """Return the pairs with a cosine of at least 0.75 about the mean, int64 (P, 2), the nearest 12 of each photo.

    features  float32 (N, D); read in blocks, never copied whole

    Pairs are found with a chance that grows with their cosine: nearly all at 0.95.
    """
    count, width = features.shape
    if count < 2:
        return np.zeros((0, 2), np.int64)
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    planes = np.random.default_rng(0).standard_normal((width, _FEATURE_BITS), dtype=np.float32)
    bits, weak = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    for start in range(0, count, _ROWS):
        sides = (features[start : start + _ROWS] - mean) @ planes
        least = np.zeros(sides.shape, bool)
        nearest = np.argpartition(np.abs(sides), _FEATURE_WEAK_BITS, axis=1)[:, :_FEATURE_WEAK_BITS]
        np.put_along_axis(least, nearest, True, axis=1)
        bits[start : start + _ROWS] = np.packbits(sides > 0, axis=1, bitorder="little").view("<u8")[:, 0]
        weak[start : start + _ROWS] = np.packbits(least, axis=1, bitorder="little").view("<u8")[:, 0]
    pairs = find_close(bits, weak, bits[:, None], (0,), _FEATURE_SEARCH)
    cosines = np.concatenate(
        [_cosines(features, mean, pairs[i : i + _ROWS]) for i in range(0, len(pairs), _ROWS)] or [np.zeros(0)]
    )
    return pairs[cosines >= _LEAST_COSINE]


def _cosines(features: np.ndarray, mean: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair's vectors about the mean, float32 (P,)."""
    a, b = (features[pairs[:, side]] - mean for side in (0, 1))
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: np.ndarray = np.einsum("pd,pd->p", a, b) / np.maximum(size, 1e-12)
    return found


def _describe(lies: Registration, i: int) -> str:
    """Return in words what makes one photo of a pair from the other."""
    words = []
    if lies.mirrored[i]:
        words.append(recorded("part", "mirrored"))
    if lies.window[i, 2] * lies.window[i, 3] < _CROPPED_BELOW:
        words.append(recorded("part", "cropped"))
    if abs(np.log(lies.gain[i])) > _OTHER_GAIN or abs(lies.shift[i]) > _OTHER_SHIFT:
        words.append(recorded("part", "brightness or contrast changed"))
    if not words:
        return recorded("part", "rescaled or re-encoded")
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
