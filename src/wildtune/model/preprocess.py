"""From a decoded photo to the model's input: one definition for training, validation, prediction and export."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wildtune.frozen import Frozen
from wildtune.model.backbone import BackboneFacts, larger_size
from wildtune.photos.decode import Box, decode_photo
from wildtune.recipe import Input


class Preprocess(Frozen, extra="forbid"):
    """Every number needed to turn a photo into the model's input; travels inside the bundle.

    size          side of the square input, pixels
    fit, resize, antialias, contrast, brightness, clip   as in the recipe's `[input]`, "auto" resolved
    mean, std     per channel RGB on the 0-1 scale, subtracted and divided last
    interpolation "bilinear" or "bicubic"
    """

    size: int
    fit: Literal["squash", "crop", "pad"]
    resize: int
    antialias: bool
    contrast: float
    brightness: float
    clip: bool
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def at_size(self, size: int) -> Preprocess:
        """Return the same preprocessing for inputs of another side in pixels; `resize` stays in proportion."""
        return self.model_copy(update={"size": size, "resize": round(self.resize * size / self.size)})

    @property
    def stored_side(self) -> int:
        """Shorter side in pixels at which a decoded photo is detailed enough for every view of it."""
        return round(self.resize * 1.25)

    @property
    def stored_key(self) -> str:
        """What decides the pixels of `decode_stored`, for the key of a cache of decoded photos."""
        if self.antialias:
            return f"shorter side {self.stored_side}"
        return f"{self.fit} {self.resize} {self.interpolation} without antialiasing"


def create_preprocess(options: Input, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> Preprocess:
    """Resolve the recipe's `[input]` for a backbone of the given mean and std (0-1 scale).

    `size` is the side in pixels that the words for `size` ("auto", "larger") stand for.
    """
    side = given_size(options) or size
    return Preprocess(
        size=side,
        fit=options.fit,
        resize=side if options.resize == "auto" else max(options.resize, side),
        antialias=options.antialias,
        contrast=options.contrast,
        brightness=options.brightness,
        clip=options.clip,
        interpolation="bilinear",
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def given_size(options: Input) -> int | None:
    """Return the side in pixels that the recipe's `[input]` gives, None where it gives a word."""
    return options.size if isinstance(options.size, int) else None


def resolve_preprocess(options: Input, model: nn.Module, facts: BackboneFacts) -> Preprocess:
    """Resolve the recipe's `[input]` for a model and timm's facts of it."""
    size = larger_size(model, facts.size) if options.size == "larger" else facts.size
    return create_preprocess(options, facts.mean, facts.std, size)


def decode_stored(data: bytes, pre: Preprocess, box: Box | None = None) -> np.ndarray:
    """Decode an encoded photo, or a box in it, to the (H, W, 3) uint8 pixels, 0-255, that every view is made from.

    The shorter side is at most `stored_side`; large JPEGs are decoded at reduced scale. Without antialiasing the
    photo is decoded whole and resized at once to the canvas, because shrinking in two steps would smooth it.
    Raises DecodeError.
    """
    if pre.antialias:
        return shrink_photo(decode_photo(data, pre.stored_side, box), pre.stored_side)
    pixels = load_pixels(decode_photo(data, box=box))
    if pre.fit == "crop":
        pixels = _limit_shape(pixels)
    canvas = resize_pixels(pixels, *_fitted_shape(pixels, pre), pre)
    return canvas.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def shrink_photo(photo: np.ndarray, side: int) -> np.ndarray:
    """Shrink a decoded (H, W, 3) uint8 photo so that its shorter side is at most `side` pixels; never enlarge."""
    height, width = photo.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return photo
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def load_pixels(photo: np.ndarray) -> Tensor:
    """Return a decoded photo, (H, W, 3) uint8, as a (3, H, W) uint8 tensor of the same 0-255 values."""
    # A memory-mapped photo is read-only, and torch wants memory it may write to: copy. The pixels stay in the order
    # of the file, a pixel's three colours together, in which torch resizes them in half the time.
    return torch.from_numpy(photo.copy()).permute(2, 0, 1)


def fit_photo(pixels: Tensor, pre: Preprocess) -> Tensor:
    """Resize a (3, H, W) uint8 photo to the canvas the input is cut from, float32 on the 0-255 scale.

    squash: (3, resize, resize); crop: shorter side `resize`; pad: (3, resize, resize) with the photo in the
    middle on the mean colour. Contrast, brightness and clipping of the recipe's `[input]` are applied here.
    """
    if pre.fit == "crop":
        pixels = _limit_shape(pixels)
    new_height, new_width = _fitted_shape(pixels, pre)
    canvas = resize_pixels(pixels, new_height, new_width, pre)
    if pre.fit == "pad":
        top, left = (pre.resize - new_height) // 2, (pre.resize - new_width) // 2
        framed = mean_colour(pre).expand(3, pre.resize, pre.resize).clone()
        framed[:, top : top + new_height, left : left + new_width] = canvas
        canvas = framed
    return adjust_pixels(canvas, pre)


def _limit_shape(pixels: Tensor, ratio: int = 8) -> Tensor:
    """Cut the ends off a photo more than `ratio` times as long as wide, which a crop would never show."""
    longest = ratio * min(pixels.shape[-2:])
    height, width = (min(side, longest) for side in pixels.shape[-2:])
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def _fitted_shape(pixels: Tensor, pre: Preprocess) -> tuple[int, int]:
    """Return the height and width that a (3, H, W) photo is resized to."""
    if pre.fit == "squash":
        return pre.resize, pre.resize
    height, width = pixels.shape[-2:]
    scale = pre.resize / (min(height, width) if pre.fit == "crop" else max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_pixels(pixels: Tensor, height: int, width: int, pre: Preprocess) -> Tensor:
    """Resize (3, H, W) pixels on the 0-255 scale to (3, height, width) float32."""
    if not pre.antialias:
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    if pixels.shape[-2:] != (height, width):
        # As a batch of one whose strides say plainly that a pixel's colours lie together: else torch rearranges them.
        batch = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        # Eight-bit resizing is several times faster and its rounding is below anything a photo's codec does.
        pixels = interpolate(
            batch, (height, width), mode=pre.interpolation, align_corners=False, antialias=pre.antialias
        )[0]
    if pre.antialias:
        return pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.clamp_(0, 255)


def adjust_pixels(pixels: Tensor, pre: Preprocess) -> Tensor:
    """Apply the recipe's constant contrast and brightness to (3, H, W) float32 pixels on the 0-255 scale.

    Contrast is taken about each channel's own mean, as TensorFlow's `adjust_contrast` does; brightness is
    added first, as the lab report's input pipeline does. Neither changes anything at 1 and 0.
    """
    if not pre.brightness and pre.contrast == 1:
        return pixels  # resized photos are within 0-255 already
    if pre.brightness:
        pixels = pixels + pre.brightness
    if pre.contrast != 1:
        mean = pixels.mean(dim=(-2, -1), keepdim=True)
        pixels = (pixels - mean) * pre.contrast + mean
    return pixels.clamp(0, 255) if pre.clip else pixels


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """Cut the (3, size, size) centre out of (3, H, W) pixels whose sides are at least `size`."""
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[:, top : top + size, left : left + size]


def mean_colour(pre: Preprocess) -> Tensor:
    """Return the model's mean as a (3, 1, 1) float32 colour on the 0-255 scale."""
    return torch.tensor(pre.mean).view(3, 1, 1) * 255


def normalise(pixels: Tensor, pre: Preprocess) -> Tensor:
    """Return (..., 3, H, W) float32 pixels on the 0-255 scale as the model's input, about zero mean and unit std."""
    std = torch.tensor(pre.std).view(3, 1, 1) * 255
    return (pixels - mean_colour(pre)).div_(std)


def create_input(photo: np.ndarray, pre: Preprocess) -> Tensor:
    """Return the (3, size, size) float32 model input of a decoded (H, W, 3) uint8 photo, without augmentation."""
    canvas = fit_photo(load_pixels(photo), pre)
    return normalise(centre_crop(canvas, pre.size), pre)
