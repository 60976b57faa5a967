"""Training views: one photo, one seed, one augmented input. Nothing here remembers anything between calls."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from wildtune.model.preprocess import (
    Preprocess,
    adjust_pixels,
    centre_crop,
    fit_photo,
    load_pixels,
    normalise,
    resize_pixels,
)
from wildtune.recipe import Augment
from wildtune.runtime import seed_from


def create_view(photo: np.ndarray, pre: Preprocess, augment: Augment, seed: int) -> Tensor:
    """Return one augmented (3, size, size) float32 model input of a decoded (H, W, 3) uint8 photo.

    All randomness comes from `seed`. In this order: crop and resize, the recipe's constant contrast and
    brightness, noise, rotation, flip, colour. The lab report's model adds noise before it crops; each pixel's being
    its own, that comes to the same. Pixels are on the 0-255 scale until they are normalised at the end.
    """
    rng = np.random.default_rng(seed)
    pixels = load_pixels(photo)
    if augment.crop == "random_resized":
        top, left, height, width = sample_box(pixels.shape[-2], pixels.shape[-1], augment, rng)
        box = pixels[:, top : top + height, left : left + width]
        pixels = adjust_pixels(resize_pixels(box, pre.size, pre.size, pre), pre)
    else:
        pixels = fit_photo(pixels, pre)
        pixels = _random_crop(pixels, pre.size, rng) if augment.crop == "random" else centre_crop(pixels, pre.size)
    pixels = _add_noise(pixels, augment.noise, seed)
    if augment.rotation:
        pixels = rotate(pixels, rng.uniform(-augment.rotation, augment.rotation))
    if rng.random() < augment.flip:
        pixels = pixels.flip(-1)
    pixels = _change_colour(pixels, augment, rng)
    if pre.clip:
        pixels = pixels.clamp(0, 255)
    return normalise(pixels, pre)


def sample_box(height: int, width: int, augment: Augment, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a random box (top, left, height, width) in pixels of the area and shape that `augment` allows.

    After ten boxes that do not fit, the largest centred box of an allowed shape is taken (the Inception crop of
    Szegedy et al. 2015 in its usual form).
    """
    low, high = augment.crop_ratio
    for _ in range(10):
        area = rng.uniform(*augment.crop_scale) * height * width
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(0, height - box_height + 1))
            left = int(rng.integers(0, width - box_width + 1))
            return top, left, box_height, box_width
    box_width, box_height = width, height
    if width / height < low:
        box_height = round(width / low)
    elif width / height > high:
        box_width = round(height * high)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def rotate(pixels: Tensor, turn: float) -> Tensor:
    """Rotate (3, H, W) float32 pixels by a fraction of a full turn, bilinear, edges mirrored outwards."""
    angle = 2 * math.pi * turn
    height, width = pixels.shape[-2:]
    cos, sin = math.cos(angle), math.sin(angle)
    # The sampling grid is in units of half the width and height: a rotation in pixels must account for both. Written
    # out, because torch's `affine_grid` takes several times as long as the sampling.
    down = torch.arange(1 - height, height, 2)[:, None] / height
    across = torch.arange(1 - width, width, 2) / width
    grid = torch.empty(1, height, width, 2)
    torch.add(cos * across, (-sin * height / width) * down, out=grid[0, ..., 0])
    torch.add((sin * width / height) * across, cos * down, out=grid[0, ..., 1])
    turned = torch.nn.functional.grid_sample(
        pixels[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return turned[0]


def _random_crop(pixels: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    top = int(rng.integers(0, pixels.shape[-2] - size + 1))
    left = int(rng.integers(0, pixels.shape[-1] - size + 1))
    return pixels[:, top : top + size, left : left + size]


def _add_noise(pixels: Tensor, std: float, seed: int) -> Tensor:
    if not std:
        return pixels
    # torch draws normal numbers four times as fast as NumPy does.
    generator = torch.Generator().manual_seed(seed_from(seed, "noise"))
    return torch.empty(pixels.shape).normal_(0, std, generator=generator).add_(pixels)


def _change_colour(pixels: Tensor, augment: Augment, rng: np.random.Generator) -> Tensor:
    """Scale brightness, contrast about the mean grey, and saturation about each pixel's grey.

    torchvision's own functions take floats to be on the 0-1 scale and clip them there, which would break
    recipes that leave pixels unclipped.
    """
    if augment.brightness:
        pixels = pixels * rng.uniform(1 - augment.brightness, 1 + augment.brightness)
    if augment.contrast:
        mean = _grey(pixels).mean()
        pixels = mean + (pixels - mean) * rng.uniform(1 - augment.contrast, 1 + augment.contrast)
    if augment.saturation:
        grey = _grey(pixels)
        pixels = grey + (pixels - grey) * rng.uniform(1 - augment.saturation, 1 + augment.saturation)
    return pixels


def _grey(pixels: Tensor) -> Tensor:
    """Return the (1, H, W) luma of RGB pixels (ITU-R BT.601)."""
    weights = pixels.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (pixels * weights).sum(dim=0, keepdim=True)
