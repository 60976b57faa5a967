"""What moves the weights: the optimiser with its rate for each block, and the running average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import timm.optim
import torch
from torch import Tensor, nn

from wildtune.recipe import Stage


class WeightAverage:
    """A running average of the weights that can change (Polyak and Juditsky 1992), which evens out late steps.

    weights   the averaged weights by name, empty where the decay is 0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's weights as they are."""
        self._trained = {k: p for k, p in model.named_parameters() if p.requires_grad} if decay else {}
        self._decay = decay
        self.weights = {k: p.detach().clone() for k, p in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after step `step` (from 0); early steps count more."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            weight.lerp_(self._trained[name], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; afterwards its own again, bit by bit."""
        own = {k: p.detach().clone() for k, p in self._trained.items()}
        self._copy(self.weights)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, weights: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            self._trained[name].copy_(weight)


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
