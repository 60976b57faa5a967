"""The embedded weights: small, labelled, and complete but for the classifier."""

from __future__ import annotations

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wildtune.demo.weights import DEMO_BACKBONE, DEMO_SIZE, demo_weights_path


def test_file_is_small_and_says_what_it_is() -> None:
    path = demo_weights_path()
    assert path.stat().st_size <= 4_000_000
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["backbone"] == DEMO_BACKBONE
    assert metadata["input_size"] == str(DEMO_SIZE)
    assert {"trained_on", "seed", "epochs", "wildtune_version"} <= set(metadata)


def test_only_the_classifier_is_missing() -> None:
    model = timm.create_model(DEMO_BACKBONE, pretrained=False, num_classes=8)
    missing, unexpected = model.load_state_dict(load_file(demo_weights_path()), strict=False)
    assert sorted(missing) == ["classifier.bias", "classifier.weight"]
    assert unexpected == []


def test_features_are_finite_and_alive() -> None:
    model = timm.create_model(DEMO_BACKBONE, pretrained=False, num_classes=0).eval()
    model.load_state_dict(load_file(demo_weights_path()))
    images = torch.rand(4, 3, DEMO_SIZE, DEMO_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model(images)
    assert features.shape == (4, 1024)
    assert torch.isfinite(features).all()
    assert features.std(0).mean() > 1e-3
