"""Augmentation and preprocessing: in the report's units, from the seed alone, and neutral where asked for nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from shapes import draw_shape
from wildtune.model.preprocess import Preprocess, create_input, create_preprocess, fit_photo, load_pixels, shrink_photo
from wildtune.recipe import Augment, Input, load_recipe
from wildtune.train.augment import create_view, rotate, sample_box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(**options: object) -> Preprocess:
    return create_preprocess(Input(**options), MEAN, STD, 48)  # type: ignore[arg-type]


def pixels_of(inputs: torch.Tensor) -> torch.Tensor:
    return (inputs * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


PHOTO = np.asarray(draw_shape("disc", 3, (90, 60)))


def test_no_augmentation_is_the_plain_input() -> None:
    pre = preprocess()
    assert torch.equal(create_view(PHOTO, pre, Augment(), 1), create_input(PHOTO, pre))


def test_one_seed_one_view() -> None:
    augment = Augment(
        crop="random_resized", flip=0.5, rotation=0.1, noise=5, brightness=0.2, contrast=0.2, saturation=0.2
    )
    pre = preprocess()
    first, again, other = (create_view(PHOTO, pre, augment, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3, 48, 48)
    assert pixels_of(first).min() >= -0.01
    assert pixels_of(first).max() <= 255.01


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (20, 300), (7, 7), (1, 500)])
def test_every_shape_fits(fit: str, shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 200, dtype=np.uint8)
    inputs = create_input(photo, preprocess(fit=fit, resize=64))
    assert inputs.shape == (3, 48, 48)
    assert torch.isfinite(inputs).all()


def test_pad_keeps_the_whole_photo_on_the_mean_colour() -> None:
    canvas = fit_photo(load_pixels(np.full((24, 48, 3), 200, dtype=np.uint8)), preprocess(fit="pad"))
    assert torch.allclose(canvas[:, 12:36], torch.full((3, 24, 48), 200.0))
    assert torch.allclose(canvas[:, 0, 0], torch.tensor(MEAN) * 255)


def test_lab5_changes_pixels_as_the_report_says() -> None:
    """Brightness +0.1 first, then contrast 2 about each channel's mean over the whole canvas, unclipped."""
    recipe = load_recipe("lab5")
    pre = create_preprocess(recipe.input, MEAN, STD, 224)
    photo = np.random.default_rng(0).integers(0, 256, (235, 235, 3), dtype=np.uint8)
    expected = photo.astype(np.float64).transpose(2, 0, 1) + 0.1
    mean = expected.mean(axis=(1, 2), keepdims=True)
    expected = (expected - mean) * 2 + mean
    canvas = fit_photo(load_pixels(photo), pre)
    np.testing.assert_allclose(canvas.numpy(), expected, atol=1e-2)
    assert canvas.min() < 0
    assert canvas.max() > 255
    inputs = pixels_of(create_input(photo, pre)).numpy()
    np.testing.assert_allclose(inputs, expected[:, 5:229, 5:229], atol=0.05)


def test_squash_without_antialiasing_is_tensorflows_half_pixel_bilinear() -> None:
    photo = np.zeros((2, 2, 3), dtype=np.uint8)
    photo[:, 1] = 100
    canvas = fit_photo(load_pixels(photo), preprocess(antialias=False, size=16))
    positions = (np.arange(16) + 0.5) * 2 / 16 - 0.5
    np.testing.assert_allclose(canvas[0, 0].numpy(), np.clip(positions, 0, 1) * 100, atol=1e-3)


def test_rotation_is_in_turns_and_mirrors_the_edges() -> None:
    image = torch.rand(3, 33, 33)
    assert torch.allclose(rotate(image, 0.0), image, atol=1e-5)
    quarter = rotate(image, 0.25)
    assert torch.allclose(quarter, torch.rot90(image, 1, (1, 2)), atol=1e-4) or torch.allclose(
        quarter, torch.rot90(image, -1, (1, 2)), atol=1e-4
    )
    assert torch.allclose(rotate(torch.full((3, 20, 30), 7.0), 0.1), torch.full((3, 20, 30), 7.0))
    wide, (cos, sin) = torch.rand(3, 20, 30), (math.cos(0.2 * math.pi), math.sin(0.2 * math.pi))
    grid = affine_grid(torch.tensor([[[cos, -sin / 1.5, 0.0], [sin * 1.5, cos, 0.0]]]), [1, 3, 20, 30], False)
    expected = grid_sample(wide[None], grid, padding_mode="reflection", align_corners=False)[0]
    assert torch.allclose(rotate(wide, 0.1), expected, atol=1e-4)


def test_noise_is_on_the_0_255_scale() -> None:
    grey = np.full((48, 48, 3), 128, dtype=np.uint8)
    changed = pixels_of(create_view(grey, preprocess(), Augment(noise=5), 0)) - 128
    assert 4.5 < float(changed.std()) < 5.5


def test_boxes_have_the_area_and_shape_asked_for() -> None:
    augment = Augment(crop="random_resized", crop_scale=(0.3, 0.6), crop_ratio=(0.8, 1.25))
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left, height, width = sample_box(100, 120, augment, rng)
        assert 0 <= top <= 100 - height
        assert 0 <= left <= 120 - width
        assert 0.27 <= height * width / 12000 <= 0.63
        assert 0.75 <= width / height <= 1.3
    assert sample_box(10, 1000, augment, rng)[2] == 10


def test_shrinking_never_enlarges() -> None:
    assert shrink_photo(PHOTO, 500) is PHOTO
    assert shrink_photo(PHOTO, 30).shape == (30, 45, 3)


def test_the_same_preprocessing_at_another_size_shows_the_same_part_of_the_photo() -> None:
    pre = preprocess(size=32, resize=48)
    smaller = pre.at_size(16)
    assert (smaller.size, smaller.resize, smaller.mean) == (16, 24, pre.mean)
