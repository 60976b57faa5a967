"""What a camera makes of a scene: weather, light, lens, sensor, and the infra-red of the night."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from wildtune.demo.noise import Floats, layered_noise


def _vignette(height: int, width: int, centre: tuple[float, float], strength: float) -> Floats:
    """Brightness falling off from a centre given in [0, 1], `(H, W, 1)`."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :] - np.float32(centre[1])
    return (1 - np.float32(strength) * np.minimum(1, (y * y + x * x) * np.float32(2)))[..., None]


def _night(rgb: Floats, eyes: list[tuple[int, int]], rng: np.random.Generator) -> Floats:
    """An infra-red flash: grey, bright in the middle, black far away, eyes shining."""
    grey = rgb @ np.array([0.45, 0.40, 0.15], np.float32)
    height, width = grey.shape
    flash = _vignette(height, width, (0.6, float(rng.uniform(0.3, 0.7))), float(rng.uniform(0.7, 1.0)))
    grey = (grey * np.float32(rng.uniform(0.75, 1.05)))[..., None] * flash
    for row, column in eyes:
        reach = max(1.0, height / 130)
        y, x = np.ogrid[:height, :width]
        shine = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * reach**2)).astype(np.float32)
        grey = grey + shine[..., None]
    return np.repeat(grey, 3, axis=2)


def _dapple(rgb: Floats, rng: np.random.Generator) -> Floats:
    """Patches of shade, as under leaves."""
    height, width = rgb.shape[:2]
    shade = np.clip(layered_noise(rng, height, width, rng.uniform(7, 14), 2) * 2.0 + 0.5, 0, 1)
    # The sky lies in no shade.
    lower = np.clip(np.linspace(-1.2, 2.0, height, dtype=np.float32)[:, None], 0, 1)
    return rgb * (1 - np.float32(rng.uniform(0.2, 0.5)) * shade * lower)[..., None]


def take_photo(rgb: Floats, eyes: list[tuple[int, int]], rng: np.random.Generator) -> Image.Image:
    """Photograph a scene `(H, W, 3)` in [0, 1] as an RGB image; `eyes` are `(row, column)` in pixels."""
    height, width = rgb.shape[:2]
    weather = rng.random()
    noise = float(rng.choice([0.010, 0.026, 0.055], p=[0.62, 0.28, 0.10]))
    if weather < 0.16:
        rgb = _night(rgb, eyes, rng)
        noise = max(noise, 0.035)
    else:
        if weather < 0.36:
            rgb = _dapple(rgb, rng)
        elif weather < 0.48:
            haze = np.float32(rng.uniform(0.15, 0.5))
            rgb = rgb * (1 - haze) + haze * np.array([0.80, 0.82, 0.84], np.float32)
        cast = 1 + rng.normal(0, 0.035, 3)
        rgb = rgb * (cast * rng.uniform(0.72, 1.28)).astype(np.float32)
        rgb = rgb * _vignette(height, width, (0.5, 0.5), float(rng.uniform(0, 0.35)))
    contrast, middle = np.float32(rng.uniform(0.8, 1.15)), np.float32(rgb.mean())
    rgb = (rgb - middle) * contrast + middle
    grain = rng.standard_normal((height, width, 1), dtype=np.float32)
    rgb = rgb + grain * np.float32(noise)
    image = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.35:
        # Out of focus, or the animal moved.
        image = image.filter(ImageFilter.BoxBlur((rng.uniform(0, 2.2), rng.uniform(0, 1.0))))
    return image
