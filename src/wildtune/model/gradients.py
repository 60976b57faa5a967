"""Layers in forms that a compiler makes fast on a CPU; but for rounding they compute the same, gradients too.

Sums have another order, and the sigmoid in SiLU is within a millionth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn import functional

from wildtune.model.depthwise import torch_weight_gradient, weight_gradient
from wildtune.model.freeze import batchnorm_layers, is_frozen

Pair = tuple[int, int]

# From this kernel side on oneDNN has no fast code for the weights' gradient.
_SLOW_FROM = 5

# Whether the CPU's vectors are shorter than 512 bits. Asked here, because the compiler cannot trace the question.
_NARROW_VECTORS = "512" not in torch.backends.cpu.get_cpu_capability()


class _Relu6FromOutput(torch.autograd.Function):
    """ReLU6 that remembers its output, which the next layer keeps anyway, for its gradient; the same bit by bit.

    torch's own remembers its input's mask: compiled for a CPU, packing and unpacking those truth values costs
    more than the convolutions of a MobileNetV2 (`benchmarks/gradients.py` measures it).
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


# From this far from 0 on the sigmoid is 0 or 1 within 1e-6.
_SATURATED = 14.0
# The polynomials in y^2, lowest power first, of the quotient y * P(y^2) / Q(y^2) that differs least from sigmoid - 1/2
# up to there; scaled to be 1/2 at its end.
_NUMERATOR = (0.249999113, 0.00768886864, 3.55779411e-05, 1.53515751e-08)
_DENOMINATOR = (1.0, 0.114085073, 0.00131701056, 2.22422765e-06)


def _sigmoid(inputs: Tensor) -> Tensor:
    """Return the sigmoid of numbers up to `_SATURATED` within 1e-6, by a quotient of polynomials.

    A compiled network calls a function of the library Sleef for each exponential, which costs more than all else
    that is done to a layer's outputs (docs/performance.md).
    """
    square = inputs * inputs
    above, below = (a + square * (b + square * (c + square * d)) for a, b, c, d in (_NUMERATOR, _DENOMINATOR))
    return 0.5 + inputs * above / below


class _Silu(torch.autograd.Function):
    """SiLU and its gradient by that sigmoid, computed in float32."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        within = inputs.float().clamp_min(-_SATURATED)
        return (within * _sigmoid(within.clamp_max(_SATURATED))).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        within = inputs.float().clamp(-_SATURATED, _SATURATED)
        share = _sigmoid(within)
        return (gradient * share * (1 + within * (1 - share))).to(inputs.dtype)


class _DepthwiseConvolution(torch.autograd.Function):
    """A convolution of each channel by itself, with gradients that are sums in another order than oneDNN's.

    Its own are slow: for the weights of 5 x 5 kernels, for the inputs of strided ones, and for both many times more
    so in bfloat16 (`benchmarks/gradients.py` measures it). The gradient for the inputs is a convolution with the
    turned kernel, after spreading the outputs' gradient out where there is a stride; that for the weights of large
    kernels is `model.depthwise`'s.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(inputs, weight, None, stride, padding, 1, inputs.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for_inputs = _input_gradient(gradient, inputs, weight, ctx.stride, ctx.padding)
        return for_inputs, _weight_gradient(gradient, inputs, weight, ctx.stride, ctx.padding), None, None


def _input_gradient(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Return the (B, C, H, W) gradient for the inputs of a depthwise convolution."""
    kernel = weight.shape[2:]
    if stride != (1, 1):
        spans = [(n - 1) * step + 1 for n, step in zip(gradient.shape[2:], stride, strict=True)]
        # Rows and columns at the far edge that the strided kernel never reached.
        rest = [
            (side + 2 * pad - k) % step
            for side, pad, k, step in zip(inputs.shape[2:], padding, kernel, stride, strict=True)
        ]
        spread = gradient.new_zeros(*gradient.shape[:2], spans[0] + rest[0], spans[1] + rest[1])
        spread = spread.contiguous(memory_format=torch.channels_last)
        spread[:, :, : spans[0] : stride[0], : spans[1] : stride[1]] = gradient
        gradient = spread
    around = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
    return functional.conv2d(gradient, weight.flip(2, 3), None, 1, around, 1, inputs.shape[1])


def _weight_gradient(gradient: Tensor, inputs: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Return the (C, 1, k, k) gradient for the weights of a depthwise convolution, summed in float32 at least."""
    kernel = weight.shape[2:]
    if max(kernel) >= _SLOW_FROM and gradient.dtype in (torch.float32, torch.bfloat16):
        summed: Tensor = weight_gradient(gradient, inputs, kernel, stride, padding)
        return summed.to(weight.dtype)
    return torch_weight_gradient(gradient, inputs, kernel, stride, padding)


class _PointwiseConvolution(torch.autograd.Function):
    """A 1 x 1 convolution whose gradients are matrix products, the same sums in another order than oneDNN's.

    On CPUs with narrow vectors the products are a sixth faster (`benchmarks/gradients.py` measures a whole step).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return functional.conv2d(inputs, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        outputs_by_pixel, inputs_by_pixel = (
            each.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(0, 2)
            for each in (gradient, inputs)
        )
        batch, channels, height, width = inputs.shape
        for_inputs = (outputs_by_pixel @ weight.flatten(1)).view(batch, height, width, channels).permute(0, 3, 1, 2)
        return for_inputs, (outputs_by_pixel.t() @ inputs_by_pixel).view(weight.shape)


def _convolve_depthwise(layer: nn.Conv2d, inputs: Tensor, padding: Pair) -> Tensor:
    weight, (down, across) = layer.weight, layer.stride
    if torch.is_autocast_enabled(inputs.device.type):  # which a function of our own does not do by itself
        dtype = torch.get_autocast_dtype(inputs.device.type)
        inputs, weight = inputs.to(dtype), weight.to(dtype)
    outputs: Tensor = _DepthwiseConvolution.apply(inputs, weight, (down, across), padding)
    return outputs if layer.bias is None else outputs + layer.bias.to(outputs.dtype)[:, None, None]


class _FastRelu6(nn.ReLU6):
    """The same layer; while torch.compile traces it, with the other gradient."""

    def forward(self, input: Tensor) -> Tensor:
        return _Relu6FromOutput.apply(input) if torch.compiler.is_compiling() else super().forward(input)


class _FastSilu(nn.SiLU):
    """The same layer; while torch.compile traces it, and not in float64, by the other sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() or input.dtype == torch.float64:
            return super().forward(input)
        return cast(Tensor, _Silu.apply(input))


class _FastDepthwise(nn.Conv2d):
    """The same layer; while torch.compile traces it, with the other gradients."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(input)
        return _convolve_depthwise(self, input, cast(Pair, self.padding))  # never a word, see `_is_depthwise`


class _FastDepthwiseSame(Conv2dSame):
    """The same for the layer that pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        padded = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return _convolve_depthwise(self, padded, (0, 0))


class _FastPointwise(nn.Conv2d):
    """The same layer; while torch.compile traces it in float32, with the other gradients."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        outputs: Tensor = _PointwiseConvolution.apply(input, self.weight)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]


class _AffineNorm:
    """Mixed into a frozen BatchNorm's class: while torch.compile traces it, one multiplication and one addition.

    Else the compiler writes the square root and the division of every channel's variance into the innermost loop
    over the pixels, of each layer before and after it and of both their gradients, and none of it ever changes.
    """

    def fold(self: Any) -> None:
        """Compute the (C, 1, 1) float32 factor and term from the layer's four tensors as they are now."""
        weight, bias, mean, variance = (
            tensor.detach().double() for tensor in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        factor = weight / torch.sqrt(variance + self.eps)
        for name, value in (("factor", factor), ("term", bias - mean * factor)):
            self.register_buffer(name, value.float()[:, None, None], persistent=False)

    def _load_from_state_dict(self: Any, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)  # type: ignore[misc]
        self.fold()

    def forward(self: Any, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return cast(Tensor, super().forward(x))  # type: ignore[misc]
        x = (x * self.factor + self.term).to(x.dtype)
        act: Any = getattr(self, "act", None)  # timm's layer does its activation, too
        return x if act is None else cast(Tensor, act(self.drop(x)))


def _fold_norms(model: nn.Module) -> None:
    for layer in batchnorm_layers(model).values():
        known = type(layer).forward in (nn.BatchNorm2d.forward, BatchNormAct2d.forward)
        if known and is_frozen(layer) and not isinstance(layer, _AffineNorm) and layer.weight is not None:
            layer.__class__ = type(f"Affine{type(layer).__name__}", (_AffineNorm, type(layer)), {})
            cast(_AffineNorm, layer).fold()


def compile_network(model: nn.Module, device: str) -> Callable[[Tensor], Tensor]:
    """Return a network compiled for training on batches of one size; on a CPU its layers get other forms first."""
    if device != "cpu":
        return torch.compile(model, dynamic=False)
    speed_up_gradients(model)
    from torch._inductor import config

    # A product and the sum that follows it as one instruction with one rounding. Older releases have no such option, or
    # one of another type.
    option = "enable_floating_point_contract_flag"
    known = isinstance(getattr(config.cpp, option, None), str)
    return torch.compile(model, dynamic=False, options={f"cpp.{option}": "fast"} if known else {})


def speed_up_gradients(model: nn.Module) -> None:
    """Give a model's frozen BatchNorm, ReLU6, SiLU, depthwise and 1 x 1 layers forms that compile well for this CPU."""
    _fold_norms(model)
    for layer in model.modules():
        kind = type(layer)
        if kind is nn.ReLU6:
            layer.__class__ = _FastRelu6
        elif kind is nn.SiLU:
            layer.__class__ = _FastSilu
        elif kind in (nn.Conv2d, Conv2dSame) and _is_depthwise(layer):
            layer.__class__ = _FastDepthwise if kind is nn.Conv2d else _FastDepthwiseSame
        elif kind is nn.Conv2d and _NARROW_VECTORS and _is_pointwise(layer):
            layer.__class__ = _FastPointwise


def _is_pointwise(layer: nn.Module) -> bool:
    """Say whether a convolution is a linear map of each pixel's channels and nothing more."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding in ((0, 0), "valid", "same")
    )


def _is_depthwise(layer: nn.Module) -> bool:
    """Say whether a convolution takes each channel by itself, in the plain way that has a fast gradient here."""
    return (
        isinstance(layer, nn.Conv2d)
        and 1 < layer.groups == layer.in_channels == layer.out_channels
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and isinstance(layer.padding, tuple)
        and all(pad < side for pad, side in zip(layer.padding, layer.kernel_size, strict=True))
    )
