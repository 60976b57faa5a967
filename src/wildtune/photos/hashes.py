"""Perceptual hashes of photos and of windows cut out of them, from thumbnails of 32 x 32 grey pixels.

A hash holds the signs of the 64 lowest cosine coefficients but the mean (Zauner 2010, "Implementation and
benchmarking of perceptual image hash functions", describes the idea): brightness and contrast, which shift and
stretch all grey values alike, leave every sign as it is. Mirroring a photo turns the sign of each coefficient
that is odd in x, so the hash of the mirrored photo is known without looking at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 32
BITS = 64
# The bits that still hold where a window is a few hundredths off; only they serve as keys of the search.
KEY_BITS = 40
# Edges of the windows within [0, 1]: what is cut off on either side of one axis, in steps of 0.08.
_STEP = 0.08
_MOST_CUT = 0.25
_LEAST_AREA = 0.72
_FREQUENCIES = 10
_WEAK_BITS = 10
_BATCH = 2048


@dataclass(frozen=True)
class Hashes:
    """The hashes of N photos.

    full     uint64 (N,), of the whole photo
    weak     uint64 (N,), the bits of `full` that a small change would turn first
    windows  uint64 (N, W), of the windows in `windows()`; the first is the whole photo
    """

    full: np.ndarray
    weak: np.ndarray
    windows: np.ndarray


@cache
def windows() -> np.ndarray:
    """Return the windows that stand for crops: left, top, width, height in shares of the photo, float32 (W, 4).

    The first is the whole photo. Crops that keep three quarters of the area differ from one of them by at most
    half a step at each edge.
    """
    spans = _spans()
    found = []
    for i, (left, width) in enumerate(spans):
        for j, (top, height) in enumerate(spans):
            if width * height >= _LEAST_AREA:
                found.append((i + j, left, top, width, height))
    found.sort(key=lambda row: row[0])
    return np.array([row[1:] for row in found], dtype=np.float32)


def _spans() -> list[tuple[float, float]]:
    """Return start and length of the intervals of one axis that cut off at most _MOST_CUT, the whole one first."""
    cuts = np.arange(0, _MOST_CUT + 1e-9, _STEP)
    found = [(float(a), float(1 - a - b)) for a in cuts for b in cuts if a + b <= _MOST_CUT + 1e-9]
    return sorted(found, key=lambda span: -span[1])


def create_thumbnail_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return the grey thumbnail of a photo, uint8 (32, 32), each pixel the mean of its share of the photo.

    `pixels` is uint8 (H, W, 3), RGB; the shape is squashed to a square.
    """
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BOX).convert("L"))


def create_hashes(thumbnails: np.ndarray) -> Hashes:
    """Return the hashes of thumbnails, uint8 (N, 32, 32)."""
    count = len(thumbnails)
    full, weak = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    window_hashes = np.zeros((count, len(windows())), np.uint64)
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        coefficients = window_coefficients(thumbnails[start:stop])
        window_hashes[start:stop] = _pack(coefficients > 0)
        full[start:stop] = window_hashes[start:stop, 0]
        size = np.abs(coefficients[:, 0, :KEY_BITS])
        bits = np.zeros((stop - start, BITS), bool)
        weakest = np.argpartition(size, _WEAK_BITS, axis=1)[:, :_WEAK_BITS]
        np.put_along_axis(bits, weakest, True, axis=1)
        weak[start:stop] = _pack(bits)
    return Hashes(full, weak, window_hashes)


def mirror_mask() -> np.uint64:
    """Return the bits that turn when a photo is mirrored left to right."""
    return np.uint64(_pack(_orders()[:, 0] % 2 == 1))


def mirror_signs() -> np.ndarray:
    """Return the factor of each coefficient when a photo is mirrored left to right, float32 (64,)."""
    signs: np.ndarray = 1 - 2 * (_orders()[:, 0] % 2).astype(np.float32)
    return signs


def window_coefficients(thumbnails: np.ndarray) -> np.ndarray:
    """Return the cosine coefficients of each window of thumbnails (N, 32, 32), float32 (N, W, 64)."""
    basis, columns = _basis()
    grey = thumbnails.astype(np.float32)
    across = grey @ basis  # (N, 32, spans * frequencies)
    both = basis.T @ across
    return np.ascontiguousarray(both.reshape(len(grey), both.shape[1] * both.shape[2])[:, columns])


def _pack(bits: np.ndarray) -> np.ndarray:
    """Pack booleans (..., 64) into uint64 (...); bit j is the jth."""
    packed: np.ndarray = np.packbits(bits, axis=-1, bitorder="little").view("<u8")[..., 0]
    return packed


@cache
def _orders() -> np.ndarray:
    """Return the orders in x and y of the 64 coefficients, the lowest first, int64 (64, 2)."""
    orders = [(u, v) for u in range(_FREQUENCIES) for v in range(_FREQUENCIES) if u or v]
    orders.sort(key=lambda order: (order[0] ** 2 + order[1] ** 2, order))
    return np.array(orders[:BITS])


@cache
def _basis() -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines over each span, float32 (32, spans * frequencies), and where each coefficient lies."""
    spans = _spans()
    edges = np.arange(THUMBNAIL_SIDE + 1) / THUMBNAIL_SIDE
    basis = np.zeros((THUMBNAIL_SIDE, len(spans), _FREQUENCIES))
    for i, (start, length) in enumerate(spans):
        inside = np.clip((edges - start) / length, 0, 1)
        basis[:, i, 0] = np.diff(inside)
        for k in range(1, _FREQUENCIES):  # the integral of the cosine over each pixel's share of the span
            basis[:, i, k] = np.diff(np.sin(np.pi * k * inside) / (np.pi * k)) * np.sqrt(2)
    index = {(round(a, 4), round(b, 4)): i for i, (a, b) in enumerate(spans)}
    width = len(spans) * _FREQUENCIES
    columns = np.array(
        [
            [
                (index[round(float(t), 4), round(float(h), 4)] * _FREQUENCIES + v) * width
                + index[round(float(x), 4), round(float(w), 4)] * _FREQUENCIES
                + u
                for u, v in _orders()
            ]
            for x, t, w, h in windows()
        ]
    )
    return basis.reshape(THUMBNAIL_SIDE, -1).astype(np.float32), columns
