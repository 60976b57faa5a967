"""What may change in training, and what must not: BatchNorm never does."""

from __future__ import annotations

import torch
from torch import nn


class _AlwaysInference:
    """Mixed into a BatchNorm layer's class: it stays in inference mode whatever `.train()` calls come."""

    def train(self, mode: bool = True) -> nn.Module:
        """Put the layer in inference mode, also when asked for training mode."""
        return super().train(False)  # type: ignore[misc]


def _frozen_class(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Frozen{kind.__name__}", (_AlwaysInference, kind), {})


def batchnorm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every BatchNorm layer (also timm's with a fused activation) by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def is_frozen(layer: nn.Module) -> bool:
    """Say whether `freeze_batchnorm` has frozen a BatchNorm layer."""
    return isinstance(layer, _AlwaysInference)


def freeze_batchnorm(model: nn.Module) -> None:
    """Freeze all four tensors of each BatchNorm layer: weight, bias, running mean and running variance.

    The layer's class is replaced by one that cannot be put in training mode, because a `.train()` call on the
    model is the usual way in which statistics of a "frozen" BatchNorm start to move.
    """
    for layer in batchnorm_layers(model).values():
        if not is_frozen(layer):
            layer.__class__ = _frozen_class(type(layer))
        layer.train(False)
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)


def set_trainable(model: nn.Module, head: nn.Module, what: str) -> None:
    """Make the head's weights ("head") or every weight ("all") trainable; BatchNorm stays frozen in both."""
    for parameter in model.parameters():
        parameter.requires_grad_(what == "all")
    for parameter in head.parameters():
        parameter.requires_grad_(True)
    freeze_batchnorm(model)


def batchnorm_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of every tensor that BatchNorm layers hold, by its name in the state dict."""
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, layer in batchnorm_layers(model).items()
        for key, tensor in layer.state_dict().items()
    }
