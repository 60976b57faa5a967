"""Smooth noise: the cloudiness of coats, skies and ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells_y: float, cells_x: float) -> Floats:
    """Return `(height, width)` float32 noise in about [-1, 1], with the given number of cells each way."""
    rows, columns = max(2, round(cells_y) + 1), max(2, round(cells_x) + 1)
    grid = (rng.random((rows, columns), dtype=np.float32) - np.float32(0.5)) * np.float32(2)
    resized = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.float32)


def layered_noise(rng: np.random.Generator, height: int, width: int, cells: float, layers: int = 3) -> Floats:
    """Return `(height, width)` float32 noise in about [-1, 1], each layer twice as fine, half as strong."""
    total = np.zeros((height, width), np.float32)
    for layer in range(layers):
        columns = cells * 2**layer
        total += smooth_noise(rng, height, width, columns * height / width, columns) / np.float32(2**layer)
    return total / np.float32(2 - 0.5 ** (layers - 1)) * np.float32(1.3)
