"""The mean of the weights over a stage's steps, which forgets less of what the network knew and is steadier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of a stage's weights over its steps, and between that and the weights it started from.

    The mean of all steps is Polyak and Juditsky's (1992); that the way back towards the weights before makes a
    fine-tuned network better on photos it has not seen is Wortsman et al.'s (2022).

    weights   the mean so far by name, on the model's device; empty where the stage takes none
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        """Start from the model's weights as they are; `share` (0-1) is the mean's, 0 for no averaging."""
        self._trained = {k: p for k, p in model.named_parameters() if p.requires_grad} if share else {}
        self._share = share
        self._start = {k: p.detach().clone() for k, p in self._trained.items()}
        self.weights = {k: p.clone() for k, p in self._start.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Count the weights after `steps` steps of the stage in; the start counts as one more."""
        if self.weights:
            torch._foreach_lerp_(list(self.weights.values()), list(self._trained.values()), 1 / (steps + 1))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has weights between start and mean; afterwards its own again, bit by bit."""
        own = {k: p.detach().clone() for k, p in self._trained.items()}
        self._copy({k: start.lerp(self.weights[k], self._share) for k, start in self._start.items()})
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, weights: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            self._trained[name].copy_(weight)
