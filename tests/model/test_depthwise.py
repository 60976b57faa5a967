"""The gradient of depthwise layers for their weights, in C++: torch's sums, in an order that nothing else decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from wildtune.model import depthwise
from wildtune.model.depthwise import torch_weight_gradient, weight_gradient
from wildtune.runtime import can_compile

Pair = tuple[int, int]

needs_compiler = pytest.mark.skipif(not can_compile(), reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    """Load the library anew before and after each test."""
    depthwise._load_library.cache_clear()
    yield
    depthwise._load_library.cache_clear()


def random_layer(channels: int, dtype: torch.dtype, kernel: Pair = (5, 5)) -> tuple[Tensor, Tensor]:
    """Return the outputs' gradient and inputs of a layer of stride 1 without padding."""
    torch.manual_seed(0)
    inputs = torch.randn(3, channels, 11, 12).to(dtype)
    return torch.randn(3, channels, 12 - kernel[0], 13 - kernel[1]).to(dtype), inputs


def expected(gradient: Tensor, inputs: Tensor, kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Return what torch sums in float64."""
    return torch_weight_gradient(gradient.double(), inputs.double(), kernel, stride, padding)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 8, 16, 17, 47])
def test_any_number_of_channels_gives_torchs_sums(channels: int, dtype: torch.dtype) -> None:
    """Whole vectors of them and not."""
    gradient, inputs = random_layer(channels, dtype)
    assert depthwise._load_library() is not None
    found = weight_gradient(gradient, inputs, (5, 5), (1, 1), (0, 0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected(gradient, inputs, (5, 5)), rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (5, 3), (1, 9), (11, 11)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 4)])
@pytest.mark.parametrize("padding", [(0, 0), (3, 1)])
def test_any_kernel_stride_and_padding_gives_torchs_sums(
    kernel: Pair, stride: Pair, padding: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert depthwise._load_library() is not None
    monkeypatch.setattr(depthwise, "torch_weight_gradient", None)  # not by torch
    torch.manual_seed(0)
    for height, width in ((13, 14), (12, 11)):  # with and without edges that a strided kernel never reaches
        inputs = torch.randn(2, 40, height, width)
        outputs = conv2d(inputs, torch.zeros(40, 1, *kernel), None, stride, padding, 1, 40)
        gradient = torch.randn(outputs.shape)
        found = weight_gradient(gradient, inputs, kernel, stride, padding)
        exact = expected(gradient, inputs, kernel, stride, padding)
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


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
def test_the_library_is_compiled_once_and_again_where_it_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, commands = depthwise._run_compiler, []

    def note(*arguments: str) -> bytes:
        commands.append("-o" in arguments)
        return run(*arguments)

    monkeypatch.setattr(depthwise, "_run_compiler", note)
    for name in ("first", "first", "second"):
        monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / name))
        if name == "second":
            (library,) = (tmp_path / "first" / "kernels").iterdir()
            (tmp_path / "second" / "kernels").mkdir(parents=True)
            (tmp_path / "second" / "kernels" / library.name).touch()
        depthwise._load_library.cache_clear()
        assert depthwise._load_library() is not None
    assert commands == [False, True, False, False, True]  # each time what the compiler knows, and twice the library


@pytest.mark.parametrize(
    "flaw",
    [
        "no compiler",
        pytest.param("no such option", marks=needs_compiler),
        "no cache",
        pytest.param("kernel", marks=needs_compiler),
    ],
)
def test_what_cannot_be_compiled_is_torchs_own(
    flaw: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if flaw == "no compiler":
        monkeypatch.setattr(depthwise.runtime, "COMPILER", "no-such-compiler")
    elif flaw == "no such option":
        monkeypatch.setattr(depthwise, "_FLAGS", ("--no-such-option",))
    elif flaw == "no cache":
        (tmp_path / "file").touch()
        monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "file"))
    kernel = (5, 6) if flaw == "kernel" else (5, 5)
    for dtype in (torch.float32, torch.bfloat16):
        gradient, inputs = random_layer(6, dtype, kernel)
        found = weight_gradient(gradient, inputs, kernel, (1, 1), (0, 0))
        assert found.dtype == torch.float32
        rough, exact = 1e-5 if dtype == torch.float32 else 2e-2, expected(gradient, inputs, kernel)
        torch.testing.assert_close(found.double(), exact, rtol=rough, atol=rough * float(exact.abs().max()))
    assert ("cannot be compiled" in caplog.text) == (flaw != "kernel")
    assert ("no-such-option" in caplog.text) == (flaw == "no such option")  # what the compiler said
    assert len(caplog.records) <= 1  # said once


def test_tensors_of_two_kinds_are_refused() -> None:
    gradient, inputs = random_layer(6, torch.float32)
    for other in (inputs.bfloat16(), inputs.double()):
        with pytest.raises(ValueError, match="expected two tensors of float32 or of bfloat16"):
            weight_gradient(gradient, other, (5, 5), (1, 1), (0, 0))
