"""What moves the weights: the optimiser, with a rate for each block."""

from __future__ import annotations

import timm.optim
import torch
from torch import Tensor, nn

from wildtune.recipe import Stage

MOMENTUM = 0.9  # of sgd


def create_optimizer(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Create the stage's optimiser over the weights that can change; biases and scales get no weight decay.

    With `relative_lr` a tensor's rate is `lr` times the root mean square of its weights as they are now, so that one
    number suits networks whose weights are of any size (Shazeer and Stern 2018; the floor for tensors near zero is
    theirs). With `layer_decay` below 1 each block's rate is that factor of the next one's, counted from the head
    (Howard and Ruder 2018; the blocks are timm's). Each group keeps its share of the rate as `lr_scale`.
    """
    undecayed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    groups = timm.optim.param_groups_layer_decay(
        model,
        weight_decay=stage.weight_decay,
        no_weight_decay_list=tuple(undecayed),
        layer_decay=stage.layer_decay if stage.train == "all" else 1.0,
    )
    if stage.relative_lr:
        groups = [
            {**group, "params": [weight], "lr_scale": group.get("lr_scale", 1.0) * size_of(weight)}
            for group in groups
            for weight in group["params"]
        ]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=MOMENTUM)
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=stage.lr, eps=stage.epsilon)


def size_of(weight: Tensor) -> float:
    """Return the root mean square of a tensor, at least a thousandth."""
    return max(float(weight.detach().double().square().mean().sqrt()), 1e-3)
