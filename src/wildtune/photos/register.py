"""Lay one small grey thumbnail over another: which part of it, mirrored or not, and how well they then agree."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from wildtune.photos.hashes import THUMBNAIL_SIDE, mirror_signs, window_coefficients, windows

_COARSE = 40  # coefficients compared while the window is looked for
_LEAST_COARSE = 0.75
_MOST_PENALTY = 0.1
_LEAST_SIDE = 0.6
_STEPS = 10
_BATCH = 1024
_BLOCKS = 4  # along each side
_LEAST_DEVIATION = 1.0  # of a block's detail, 0-255, in both photos: below that it is even, or clipped
_SIDE = THUMBNAIL_SIDE


@dataclass(frozen=True)
class Registration:
    """How P pairs of thumbnails lie on one another; all arrays have P rows.

    swapped    bool: the second photo lies within the first; else the first within the second
    mirrored   bool
    window     float32 (P, 4): left, top, width, height of the inner photo within the outer one, in shares
    agreement  float32: correlation of the grey values over the window, -1 to 1
    detail     float32: the same of what is left without the coarse light and shade
    local      float32: the same of the detail in the worst quarter of the 16 blocks of the window that have some
    blocks     int64: how many of the 16 blocks have detail in both photos
    gain       float32: contrast of the inner photo's coarse light and shade over that of the outer
    shift      float32: mean grey of the inner photo less that of the outer, 0-255
    """

    swapped: np.ndarray
    mirrored: np.ndarray
    window: np.ndarray
    agreement: np.ndarray
    detail: np.ndarray
    local: np.ndarray
    blocks: np.ndarray
    gain: np.ndarray
    shift: np.ndarray


_NAMES = tuple(field.name for field in fields(Registration))


def register(thumbnails: np.ndarray, aspects: np.ndarray, pairs: np.ndarray) -> Registration:
    """Lay the thumbnails, uint8 (N, 32, 32), of each pair, int64 (P, 2), over one another.

    `aspects`, float32 (N,), are the photos' widths over their heights: they make unlikely windows less so. The
    windows of the perceptual hashes are tried mirrored and not, the first photo within the second and the other
    way round; the best of each way is refined by least squares on the pixels (the method of Lucas and Kanade
    1981, with a gain and an offset for the light), and the better of the two is returned. A pair whose best
    window is hopeless keeps it, with an agreement of 0.
    """
    parts = [
        _better(*(_lay_over(thumbnails, pairs[i : i + _BATCH], start) for start in starts))
        for i in range(0, max(len(pairs), 1), _BATCH)
        for starts in [_best_windows(thumbnails, aspects, pairs[i : i + _BATCH])]
    ]
    return Registration(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES})


@dataclass(frozen=True)
class _Start:
    """Where to begin, for each pair: as in Registration, with the correlation of the coarse coefficients."""

    swapped: bool
    mirrored: np.ndarray
    window: np.ndarray
    coarse: np.ndarray


def _lay_over(thumbnails: np.ndarray, pairs: np.ndarray, start: _Start) -> Registration:
    """Refine each pair from its start."""
    outer, inner = (thumbnails[pairs[:, side]].astype(np.float32) for side in ((0, 1) if start.swapped else (1, 0)))
    inner = np.where(start.mirrored[:, None, None], inner[:, :, ::-1], inner)
    count = len(pairs)
    agreement, detail, local, gain, shift = (np.zeros(count, np.float32) for _ in range(5))
    blocks = np.zeros(count, np.int64)
    window = start.window.copy()
    hopeful = np.flatnonzero(start.coarse >= _LEAST_COARSE)
    if len(hopeful):
        a, b = _blur(inner[hopeful]), _blur(outer[hopeful])
        window[hopeful] = _refine(a, b, window[hopeful])
        seen, _, _ = _sample(b, window[hopeful])
        agreement[hopeful] = _correlation(a, seen)
        soft, soft_seen = (_blur(_blur(_blur(pixels))) for pixels in (a, seen))
        detail[hopeful] = _correlation(a - soft, seen - soft_seen)
        local[hopeful], blocks[hopeful] = _local_correlation(a - soft, seen - soft_seen)
        gain[hopeful] = soft.std(axis=(1, 2)) / np.maximum(soft_seen.std(axis=(1, 2)), 1e-3)
        shift[hopeful] = a.mean(axis=(1, 2)) - seen.mean(axis=(1, 2))
    return Registration(
        np.full(count, start.swapped), start.mirrored, window, agreement, detail, local, blocks, gain, shift
    )


def _better(first: Registration, second: Registration) -> Registration:
    """Return of two registrations of the same pairs the one that agrees better, pair by pair."""
    take = second.agreement > first.agreement + 1e-3
    values = {}
    for name in _NAMES:
        a, b = getattr(first, name), getattr(second, name)
        values[name] = np.where(take.reshape(-1, *[1] * (a.ndim - 1)), b, a)
    return Registration(**values)


def _best_windows(thumbnails: np.ndarray, aspects: np.ndarray, pairs: np.ndarray) -> tuple[_Start, _Start]:
    """Return the best of the coarse windows for each pair, with the first photo as the inner one and the outer."""
    photos, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    parts = window_coefficients(thumbnails[photos])[:, :, :_COARSE]
    parts /= np.maximum(np.linalg.norm(parts, axis=2, keepdims=True), 1e-6)
    signs, shapes = mirror_signs()[:_COARSE], windows()
    rows, found = np.arange(len(pairs)), []
    for inner, outer in ((0, 1), (1, 0)):
        whole = parts[places[:, inner], 0]
        scores = np.stack([np.einsum("pwf,pf->pw", parts[places[:, outer]], whole * s) for s in (1, signs)], axis=1)
        expected = (aspects[pairs[:, outer]] / aspects[pairs[:, inner]])[:, None] * shapes[:, 2] / shapes[:, 3]
        unlikely = np.minimum(np.abs(np.log(expected)), _MOST_PENALTY)
        unlikely[:, 0] = 0  # a whole photo may have been squashed
        turn, window = np.divmod(
            (scores - unlikely[:, None]).reshape(len(pairs), 2 * len(shapes)).argmax(axis=1), len(shapes)
        )
        found.append(_Start(inner == 1, turn == 1, shapes[window], scores[rows, turn, window]))
    return found[0], found[1]


def _refine(inner: np.ndarray, outer: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Move the edges of each window, float32 (P, 4), until the outer photo's part fits the inner photo best."""
    grid = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE
    best, best_score = window.copy(), np.full(len(window), -2, np.float32)
    for _ in range(_STEPS):
        seen, along_x, along_y = _sample(outer, window)
        score = _correlation(inner, seen)
        better = score > best_score
        best[better], best_score[better] = window[better], score[better]
        flat = (len(window), _SIDE * _SIDE)
        columns = np.stack(
            [
                along_x.reshape(flat),
                along_y.reshape(flat),
                (along_x * grid).reshape(flat),
                (along_y * grid[:, None]).reshape(flat),
                seen.reshape(flat),
                np.ones(flat, np.float32),
            ],
            axis=2,
        )
        normal = np.einsum("pif,pig->pfg", columns, columns, optimize=True)
        right = np.einsum("pif,pi->pf", columns, inner.reshape(flat), optimize=True)
        diagonal = np.einsum("pff->pf", normal)
        diagonal += diagonal * 1e-4 + 1e-3
        solved = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        light = np.where(np.abs(solved[:, 4:5]) < 0.2, 0.2, solved[:, 4:5])
        move = np.clip(solved[:, :4] / light, -0.05, 0.05)
        window = _within(window + move)
    return best


def _within(window: np.ndarray) -> np.ndarray:
    """Keep windows inside the photo, no smaller than _LEAST_SIDE along either."""
    size = np.clip(window[:, 2:], _LEAST_SIDE, 1.0)
    start = np.clip(window[:, :2], 0.0, 1.0 - size)
    return np.concatenate([start, size], axis=1).astype(np.float32)


def _sample(outer: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the window of each thumbnail on a grid of 32 x 32, and its slope for moves along x and y."""
    grid = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE
    rows = np.arange(len(outer))[:, None, None]

    def place(start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = np.clip((start[:, None] + grid * size[:, None]) * _SIDE - 0.5, 0, _SIDE - 1.001)
        low = at.astype(np.int64)
        return low, (at - low).astype(np.float32)

    x, fx = place(window[:, 0], window[:, 2])
    y, fy = place(window[:, 1], window[:, 3])
    x, fx, y, fy = x[:, None, :], fx[:, None, :], y[:, :, None], fy[:, :, None]
    p00, p01 = outer[rows, y, x], outer[rows, y, x + 1]
    p10, p11 = outer[rows, y + 1, x], outer[rows, y + 1, x + 1]
    top, bottom = p00 + fx * (p01 - p00), p10 + fx * (p11 - p10)
    along_x = ((1 - fy) * (p01 - p00) + fy * (p11 - p10)) * _SIDE
    return top + fy * (bottom - top), along_x, (bottom - top) * _SIDE


def _blur(pixels: np.ndarray) -> np.ndarray:
    """Smooth (P, H, W) by 1 2 1 along both axes, edges repeated."""
    for axis in (1, 2):
        padded = np.pad(pixels, [(1, 1) if axis == i else (0, 0) for i in range(3)], mode="edge")
        low, middle, high = (np.take(padded, range(k, k + pixels.shape[axis]), axis=axis) for k in range(3))
        pixels = (low + 2 * middle + high) / 4
    return pixels


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation over the last two axes, float32 (P,); 0 where one has no variance."""
    a = a - a.mean(axis=(1, 2), keepdims=True)
    b = b - b.mean(axis=(1, 2), keepdims=True)
    size = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    found: np.ndarray = np.where(size > 1e-3, (a * b).sum(axis=(1, 2)) / np.maximum(size, 1e-3), 0)
    return found.astype(np.float32)


def _local_correlation(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower quartile of the correlations in the blocks of detail (P, 32, 32), and how many blocks have any.

    The former is float32 (P,), 1 where there is no detail, the latter int64 (P,).
    """
    size = _SIDE // _BLOCKS
    blocks = []
    for pixels in (a, b):
        cut = pixels.reshape(-1, _BLOCKS, size, _BLOCKS, size).transpose(0, 1, 3, 2, 4)
        cut = cut.reshape(len(pixels), _BLOCKS * _BLOCKS, size * size)
        blocks.append(cut - cut.mean(axis=2, keepdims=True))
    deviations = [np.sqrt((block * block).mean(axis=2)) for block in blocks]
    together = (blocks[0] * blocks[1]).mean(axis=2) / np.maximum(deviations[0] * deviations[1], 1e-3)
    told = np.minimum(*deviations) >= _LEAST_DEVIATION
    ordered = np.sort(np.where(told, together, np.inf), axis=1)
    counts = told.sum(axis=1)
    place = counts // 4
    found = np.take_along_axis(ordered, np.minimum(place, ordered.shape[1] - 1)[:, None], axis=1)[:, 0]
    result: np.ndarray = np.where(np.isfinite(found), found, 1).astype(np.float32)
    return result, counts
