"""Heat maps: exact where the network allows it, about the classes' own places, and gone with the head's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wildtune.evaluate.explain import explain_logits, explains_fast
from wildtune.model.backbone import create_classifier, head_of, reset_head


def some_image(size: int = 64) -> torch.Tensor:
    return torch.randn(3, size, size, generator=torch.Generator().manual_seed(3))


def some_model(name: str, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return create_classifier(name, 4)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_map_and_bias_are_the_logit_where_a_linear_head_follows_the_mean(name: str) -> None:
    model, image = some_model(name), some_image()
    nn.init.normal_(head_of(model).bias)
    maps = explain_logits(model, image, [2, 0])
    with torch.no_grad():
        logits, bias = model(image[None])[0], head_of(model).bias
    expected = (logits - bias).detach()[[2, 0]].numpy()
    assert maps.dtype == np.float32
    assert maps.ndim == 3
    assert maps.sum(axis=(1, 2)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit"])
def test_another_head_gives_another_map(name: str) -> None:
    model = some_model(name)
    image = some_image(model.pretrained_cfg["input_size"][-1])
    first = explain_logits(model, image, [1])
    assert np.array_equal(first, explain_logits(model, image, [1]))
    reset_head(model, seed=11)
    second = explain_logits(model, image, [1])
    assert np.abs(first - second).max() > 0.5 * np.abs(first).max()
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.95


def test_occlusion_finds_the_only_square_that_matters() -> None:
    class Corner(nn.Module):
        """Sees nothing but the lower left corner, and gives tokens as a transformer does."""

        num_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, -6:, :6].mean(dim=(2, 3))[:, None]

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.forward_features(images)[:, 0])

    model, image = Corner(), some_image(70)
    assert not explains_fast(model, 70)
    found = explain_logits(model, image, [0, 1])
    assert found.shape == (2, 7, 7)
    with torch.no_grad():
        expected = (model(image[None])[0] - model.head.bias).numpy()
    # The corner lies within one square, so that covering it takes all that is not the bias.
    assert found[:, 6, 0] == pytest.approx(expected, abs=1e-5)
    found[:, 6, 0] = 0
    assert np.abs(found).max() < 1e-6


def test_maps_of_features_need_one_pass_and_tokens_many() -> None:
    assert explains_fast(some_model("test_efficientnet"), 64)
    assert not explains_fast(create_classifier("test_vit", 2, 64), 64)
