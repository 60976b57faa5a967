"""The gradient of depthwise convolutions for their weights, in C++ that is compiled for the processor at hand.

oneDNN has no fast code for kernels of 5 x 5 and more, and sums that torch.compile writes take four times as long as
these, because they ask at every place whether it is padding (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from wildtune import files, runtime

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("depthwise.cpp")
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fopenmp", "-shared", "-fPIC")


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
    device_types="cpu",
    schema="(Tensor gradient, Tensor inputs, int[] kernel, int[] stride, int[] padding) -> Tensor",
)
def weight_gradient(
    gradient: Tensor, inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Return the (C, 1, k, l) float32 gradient for the weights of a depthwise convolution on a CPU.

    `gradient` is that of the (B, C, Y, X) outputs, `inputs` are (B, C, H, W), both float32 or both bfloat16 (else
    ValueError); kernel, stride and padding are (down, across), in pixels. It is summed in float32. Where the C++ cannot
    be compiled, or knows no such width of kernel, it is torch's own.
    """
    if gradient.dtype != inputs.dtype or inputs.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"expected two tensors of float32 or of bfloat16. Got {gradient.dtype} and {inputs.dtype}")
    library = _load_library()
    found = torch.empty(inputs.shape[1], 1, *kernel)
    if library is not None:
        dense = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (inputs, gradient)]
        shape = _Shape(*inputs.shape, *gradient.shape[2:], *kernel, *stride, *padding)
        places = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (*dense, found))
        if library.weight_gradient(ctypes.byref(shape), int(inputs.dtype == torch.bfloat16), *places) == 0:
            return found
    return torch_weight_gradient(gradient, inputs, kernel, stride, padding).float()


@weight_gradient.register_fake
def _(gradient: Tensor, inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    return torch.empty(inputs.shape[1], 1, *kernel, device=inputs.device)


def torch_weight_gradient(
    gradient: Tensor, inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Return the same by torch, in the tensors' own dtype, whatever that is."""
    weight, wanted = inputs.new_empty(inputs.shape[1], 1, *kernel), (False, True, False)
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, inputs, weight, None, stride, padding, (1, 1), False, (0, 0), inputs.shape[1], wanted
    )[1]
    return found


@functools.cache
def _load_library() -> ctypes.CDLL | None:
    """Return the library, compiled first where it is not kept or cannot be loaded; None where that cannot be."""
    try:
        # What the compiler knows: its version and all that "native" stands for here, which a name does not tell.
        macros = _run_compiler("-E", "-dM", "-x", "c++", os.devnull)
        digest = hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), " ".join(_FLAGS).encode(), macros])).hexdigest()
        path = files.cache_folder("kernels") / f"{digest}.so"
        with suppress(OSError):
            return ctypes.CDLL(str(path))
        with files.replacing(path) as temporary:
            _run_compiler(str(_SOURCE), "-o", str(temporary))
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip()
        log.warning(
            "Gradients of depthwise layers cannot be compiled (%s): torch's are used, more slowly. They need %s 9 or "
            "later, and a cache folder (WILDTUNE_CACHE) that libraries can be loaded from.",
            said.splitlines()[-1] if said else type(error).__name__,
            runtime.COMPILER,
        )
        return None


def _run_compiler(*arguments: str) -> bytes:
    command = (runtime.COMPILER, *_FLAGS, *arguments)
    return subprocess.run(command, check=True, capture_output=True).stdout
