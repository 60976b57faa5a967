"""The gradient of depthwise layers for their weights, in C++: torch's sums, in an order that nothing else decides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from wildtune.model import depthwise
from wildtune.model.depthwise import weight_gradient
from wildtune.runtime import can_compile

needs_compiler = pytest.mark.skipif(not can_compile(), reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    """Load the library anew before and after each test."""
    depthwise._load_library.cache_clear()
    yield
    depthwise._load_library.cache_clear()


def random_layer(channels: int, dtype: torch.dtype, kernel: tuple[int, int] = (5, 5)) -> tuple[Tensor, Tensor]:
    """Return the outputs' gradient and inputs of a layer of stride 1 without padding."""
    torch.manual_seed(0)
    inputs = torch.randn(3, channels, 11, 10).to(dtype)
    return torch.randn(3, channels, 12 - kernel[0], 11 - kernel[1]).to(dtype), inputs


def expected(gradient: Tensor, inputs: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Return what torch sums in float64."""
    channels, wanted = inputs.shape[1], (False, True, False)
    weight = inputs.new_empty(channels, 1, *kernel).double()
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient.double(), inputs.double(), weight, None, stride, (0, 0), (1, 1), False, (0, 0), channels, wanted
    )[1]
    return found


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 8, 16, 17, 47])
def test_any_number_of_channels_gives_torchs_sums(channels: int, dtype: torch.dtype) -> None:
    """Whole vectors of them and not."""
    gradient, inputs = random_layer(channels, dtype)
    assert depthwise._load_library() is not None
    found = weight_gradient(gradient, inputs, (5, 5), (1, 1), (0, 0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected(gradient, inputs, (5, 5), (1, 1)), rtol=1e-5, atol=1e-5)


@needs_compiler
def test_the_sums_do_not_depend_on_threads_nor_on_the_tensors_order_in_memory() -> None:
    gradient, inputs = random_layer(40, torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(weight_gradient(gradient, inputs, (5, 5), (1, 1), (0, 0)))
    finally:
        torch.set_num_threads(threads)
    last = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (gradient, inputs))
    found.append(weight_gradient(*last, (5, 5), (1, 1), (0, 0)))
    assert all(torch.equal(found[0], other) for other in found[1:])


@needs_compiler
def test_the_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert depthwise._load_library() is not None
    depthwise._load_library.cache_clear()
    run, commands = depthwise.subprocess.run, []
    monkeypatch.setattr(
        depthwise.subprocess, "run", lambda command, **more: commands.append(command) or run(command, **more)
    )
    assert depthwise._load_library() is not None
    assert commands == [["g++", "--version"]]


@pytest.mark.parametrize("flaw", ["no compiler", "no such option", "kernel"])
def test_what_cannot_be_compiled_is_torchs_own(
    flaw: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if flaw == "no compiler":
        monkeypatch.setattr(depthwise, "_COMPILER", "no-such-compiler")
    elif flaw == "no such option":
        monkeypatch.setattr(depthwise, "_FLAGS", ("--no-such-option",))
    kernel = (5, 9) if flaw == "kernel" else (5, 5)
    for dtype in (torch.float32, torch.bfloat16):
        gradient, inputs = random_layer(6, dtype, kernel)
        found = weight_gradient(gradient, inputs, kernel, (1, 1), (0, 0))
        assert found.dtype == torch.float32
        rough = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(found.double(), expected(gradient, inputs, kernel, (1, 1)), rtol=rough, atol=rough)
    assert ("cannot be compiled" in caplog.text) == (flaw != "kernel")
    assert len(caplog.records) <= 1  # said once
