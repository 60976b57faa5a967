"""The gradient of depthwise convolutions for their weights, in C++ that is compiled for the processor at hand.

oneDNN has no fast code for kernels of 5 x 5 and more, and sums that torch.compile writes take six times as long as
these, because they ask at every place whether it is padding (docs/performance.md has the figures).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wildtune import files, runtime

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("depthwise.cpp")
_COMPILER = "g++"
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
_LIBRARY = "depthwise.so"
_WIDTHS = (3, 5, 7)


class _Shape(ctypes.Structure):
    """The struct of the same name in depthwise.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("photos", "channels", "height", "width", "out_height", "out_width"),
            *("kernel_height", "kernel_width", "stride_down", "stride_across", "padding_down", "padding_across"),
        )
    )


# Its schema is written out, because torch 2.4 cannot read it off annotations that are strings.
@torch.library.custom_op(
    "wildtune::depthwise_weight_gradient",
    mutates_args=(),
    schema="(Tensor gradient, Tensor inputs, int[] kernel, int[] stride, int[] padding) -> Tensor",
)
def weight_gradient(
    gradient: Tensor, inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Return the (C, 1, k, l) float32 gradient for the weights of a depthwise convolution on a CPU.

    `gradient` is that of the (B, C, Y, X) outputs, `inputs` are (B, C, H, W), both float32 or both bfloat16; kernel,
    stride and padding are (down, across), in pixels. It is summed in float32. Where the C++ cannot be compiled, or has
    no such width of kernel, it is torch's own.
    """
    library = _load_library() if kernel[1] in _WIDTHS else None
    if library is None:
        weight = inputs.new_empty(inputs.shape[1], 1, *kernel)
        wanted = (False, True, False)
        found: Tensor = torch.ops.aten.convolution_backward(
            gradient, inputs, weight, None, stride, padding, (1, 1), False, (0, 0), inputs.shape[1], wanted
        )[1]
        return found.float()
    gradient, inputs = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (gradient, inputs))
    shape = _Shape(*inputs.shape, *gradient.shape[2:], *kernel, *stride, *padding)
    found = torch.empty(inputs.shape[1], 1, *kernel)
    places = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (inputs, gradient, found))
    library.weight_gradient(ctypes.byref(shape), int(inputs.dtype == torch.bfloat16), *places)
    return found


@weight_gradient.register_fake
def _(gradient: Tensor, inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    return torch.empty(inputs.shape[1], 1, *kernel, device=inputs.device)


@functools.cache
def _load_library() -> ctypes.CDLL | None:
    """Return the library, compiled first where this processor and compiler have not yet; None where it cannot be."""
    try:
        compiler = subprocess.run([_COMPILER, "--version"], check=True, capture_output=True).stdout
        key = [_SOURCE.read_bytes(), compiler, runtime.environment()["processor"].encode(), " ".join(_FLAGS).encode()]
        folder = files.cache_folder("kernels") / hashlib.sha256(b"\0".join(key)).hexdigest()
        if not (folder / _LIBRARY).exists():
            with files.creating_folder(folder) as temporary:
                command = [_COMPILER, *_FLAGS, str(_SOURCE), "-o", str(temporary / _LIBRARY)]
                subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(folder / _LIBRARY))
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning(
            "Gradients of depthwise layers cannot be compiled (%s): torch's own are used, which are slower.", error
        )
        return None
