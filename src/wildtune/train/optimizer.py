"""What moves the weights: the optimiser, with a rate for each block."""

from __future__ import annotations

import timm.optim
import torch
from torch import nn

from wildtune.recipe import Stage


def create_optimizer(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Create the stage's optimiser over the weights that can change; biases and scales get no weight decay.

    With `layer_decay` below 1 each block's rate is that factor of the next one's, counted from the head
    (Howard and Ruder 2018; the blocks are timm's). Each group keeps its share of the rate as `lr_scale`.
    """
    undecayed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    groups = timm.optim.param_groups_layer_decay(
        model,
        weight_decay=stage.weight_decay,
        no_weight_decay_list=tuple(undecayed),
        layer_decay=stage.layer_decay if stage.train == "all" else 1.0,
    )
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=0.9)
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=stage.lr, eps=stage.epsilon)
