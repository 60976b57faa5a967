"""The mean of the weights over a stage and rates relative to the weights' size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from shapes import BACKBONE, small_recipe
from wildtune import job
from wildtune.evaluate.calibration import log_loss
from wildtune.model.backbone import create_classifier, head_of
from wildtune.model.freeze import set_trainable
from wildtune.predict.predicting import predict
from wildtune.predict.predictions import load_predictions
from wildtune.recipe import Stage
from wildtune.train.average import WeightAverage
from wildtune.train.optimizer import create_optimizer


def test_the_average_is_the_mean_of_the_start_and_of_every_step() -> None:
    layer = nn.Linear(3, 2)
    seen = [layer.weight.detach().clone()]
    average = WeightAverage(layer, 0.5)
    for steps in range(1, 6):
        with torch.no_grad():
            layer.weight.add_(torch.randn(2, 3))
        seen.append(layer.weight.detach().clone())
        average.update(steps)
    assert torch.allclose(average.weights["weight"], torch.stack(seen).mean(dim=0), atol=1e-6)
    with average.applied():
        assert torch.allclose(layer.weight, (seen[0] + average.weights["weight"]) / 2, atol=1e-6)
    assert torch.equal(layer.weight, seen[-1])


def test_no_average_changes_nothing() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    average = WeightAverage(layer, 0.0)
    average.update(1)
    with average.applied():
        assert torch.equal(layer.weight, before)
    assert average.weights == {}


@pytest.mark.usefixtures("blank_charts")
def test_the_bundle_and_the_history_hold_the_average(photos: Path, tmp_path: Path) -> None:
    with_average = job.train(photos, small_recipe("stages.1.average=0.5", "stages.1.keep=last"), tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    found = predict(with_average.folder, photos)
    validated = load_predictions(with_average.folder / "predictions" / "val.csv").paths
    kept = [row for row, path in enumerate(found.paths) if path in validated]
    assert log_loss(found.logits[kept], found.targets[kept]) == pytest.approx(rows[-1]["val_loss"], rel=1e-5)


def test_a_relative_rate_is_the_share_of_each_tensors_size() -> None:
    model = create_classifier(BACKBONE, 3)
    set_trainable(model, head_of(model), "all")
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    stage = Stage(name="finetune", train="all", epochs=1, lr=0.01, relative_lr=True)
    optimizer = create_optimizer(model, stage)
    for group in optimizer.param_groups:
        group["lr"] = stage.lr * group["lr_scale"]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()  # Adam's first step has the size of the rate, whatever the gradient
    for name, p in model.named_parameters():
        if name in before:
            size = max(float(before[name].square().mean().sqrt()), 1e-3)
            assert torch.allclose(before[name] - p, torch.full_like(p, 0.01 * size), rtol=1e-2), name
