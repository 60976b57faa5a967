"""Activations whose gradient a compiler can compute fast; the numbers are torch's own, bit by bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Relu6FromOutput(torch.autograd.Function):
    """ReLU6 that remembers its output, which the next layer keeps anyway, for its gradient.

    torch's own remembers its input's mask: compiled for a CPU, packing and unpacking those truth values costs
    more than the convolutions of a MobileNetV2 (`benchmarks/relu6.py` measures it).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        outputs = functional.relu6(inputs)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        return torch.where((outputs <= 0) | (outputs >= 6), 0.0, gradient)


class _FastRelu6(nn.ReLU6):
    """The same layer; while torch.compile traces it, with the other gradient."""

    def forward(self, input: Tensor) -> Tensor:
        return _Relu6FromOutput.apply(input) if torch.compiler.is_compiling() else super().forward(input)


def speed_up_activations(model: nn.Module) -> None:
    """Give a model's ReLU6 layers the gradient that compiles well; what they compute stays the same."""
    for layer in model.modules():
        if type(layer) is nn.ReLU6:
            layer.__class__ = _FastRelu6
