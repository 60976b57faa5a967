"""Gradients that compile well: those of ReLU6 are torch's own, those of depthwise layers the same sums."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch._inductor import config as inductor_config
from torch.nn.functional import conv2d

from wildtune.model import gradients as fast_gradients
from wildtune.model.freeze import batchnorm_state, freeze_batchnorm
from wildtune.model.gradients import (
    _DepthwiseConvolution,
    _PointwiseConvolution,
    _Relu6FromOutput,
    _sigmoid,
    _Silu,
    compile_network,
    speed_up_gradients,
)
from wildtune.runtime import can_compile


def test_relu6_from_its_output_is_torchs_own_bit_by_bit() -> None:
    inputs = torch.cat([torch.randn(1000) * 5, torch.tensor([0.0, -0.0, 6.0, 6.000001, 5.999999, 1e-38])])
    ours, torchs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    gradient = torch.randn_like(inputs)
    expected, found = nn.functional.relu6(torchs), _Relu6FromOutput.apply(ours)
    expected.backward(gradient)
    found.backward(gradient)
    assert torch.equal(expected, found)
    assert torch.equal(torchs.grad, ours.grad)  # type: ignore[arg-type]


def test_the_sigmoid_of_compiled_networks_is_within_a_millionth() -> None:
    inputs = torch.linspace(-14, 14, 100_001)
    found = _sigmoid(inputs)
    assert float((found.double() - torch.sigmoid(inputs.double())).abs().max()) <= 1e-6
    assert _sigmoid(torch.zeros(1)) == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silu_of_compiled_networks_is_torchs_but_for_rounding(dtype: torch.dtype) -> None:
    inputs = torch.cat([torch.randn(10_000) * 5, torch.tensor([-1e30, -100.0, 0.0, 100.0, 1e30])]).to(dtype)
    ours, torchs = inputs.clone().requires_grad_(), inputs.clone().double().requires_grad_()
    gradient = (torch.rand(len(inputs)) * 2 - 1).to(dtype)
    expected, found = nn.functional.silu(torchs), _Silu.apply(ours)
    expected.backward(gradient.double())
    found.backward(gradient)
    rounding = torch.finfo(dtype).eps
    for exact, mine in ((expected, found), (torchs.grad, ours.grad)):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), exact, rtol=max(rounding, 1e-5), atol=max(rounding / 100, 1.5e-5))
    assert _Silu.apply(torch.tensor([float("nan")])).isnan()


@pytest.fixture(params=[False, True], ids=["wide vectors", "narrow vectors"])
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of CPU, whichever this is."""
    monkeypatch.setattr(fast_gradients, "_NARROW_VECTORS", request.param)
    return bool(request.param)


@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_alike_with_the_fast_gradients(narrow: bool) -> None:
    gradients = []
    for fast in (False, True):
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 5, 2, 2, groups=4), nn.Conv2d(4, 3, 1))
        network = nn.Sequential(*layers)
        if fast:
            speed_up_gradients(network)
            assert type(network[1]) is not nn.ReLU6
            assert type(network[2]) is not nn.Conv2d
            assert (type(network[3]) is not nn.Conv2d) == narrow
        # Whole: a layer that cannot be traced would silently run as it is.
        torch.compile(network, dynamic=False, fullgraph=True)(torch.randn(2, 3, 8, 8) * 9).sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, swapped in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, swapped)


@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler")
def test_a_compiled_silu_is_ours_and_as_near(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_it, asked = torch.compile, []

    def compile_whole(network: nn.Module, **options: Any) -> Any:
        asked.append(options)
        return compile_it(network, fullgraph=True, **options)  # else a layer that cannot be traced would run as it is

    monkeypatch.setattr(torch, "compile", compile_whole)
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True), nn.Conv2d(4, 4, 1))
        images = (torch.randn(2, 3, 8, 8) * 3).requires_grad_()
        run = compile_network(network, "cpu") if compiled else network
        assert (type(network[1]) is not nn.SiLU) == compiled
        outputs = run(images)
        outputs.sum().backward()
        found.append([outputs.detach(), images.grad, *(p.grad for p in network.parameters())])
    for plain, swapped in zip(*found, strict=True):
        torch.testing.assert_close(plain, swapped, rtol=2e-5, atol=2e-5)
    option = "enable_floating_point_contract_flag"
    known = isinstance(getattr(inductor_config.cpp, option, None), str)
    assert asked == [{"dynamic": False, "options": {f"cpp.{option}": "fast"} if known else {}}]


@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler")
def test_a_frozen_batchnorm_compiles_to_the_same_numbers_and_its_tensors_stay() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), BatchNormAct2d(4))
    for layer in (network[1], network[3]):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.1, 3)
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    freeze_batchnorm(network)
    images, before = torch.randn(2, 3, 8, 8), batchnorm_state(network)
    expected = network(images)
    expected.sum().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    speed_up_gradients(network)
    found = torch.compile(network, dynamic=False)(images)
    found.sum().backward()
    torch.testing.assert_close(found, expected)
    for plain, folded in zip(gradients, (p.grad for p in network.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(folded, plain)
    assert batchnorm_state(network).keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in batchnorm_state(network).items())


def test_a_frozen_batchnorm_follows_weights_that_are_loaded_later() -> None:
    layer = nn.BatchNorm2d(2)
    freeze_batchnorm(layer)
    speed_up_gradients(layer)
    other = nn.BatchNorm2d(2)
    other.running_var.fill_(4.0)
    layer.load_state_dict(other.state_dict())
    assert layer.factor.flatten().tolist() == pytest.approx([0.5, 0.5], rel=1e-4)
    assert layer.state_dict().keys() == other.state_dict().keys()


def test_a_batchnorm_that_is_not_frozen_is_left_alone() -> None:
    layer = nn.BatchNorm2d(2)
    speed_up_gradients(layer)
    assert type(layer) is nn.BatchNorm2d


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (5, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_depthwise_gradients_are_those_of_torch(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dtype: torch.dtype, near: float
) -> None:
    """In lower precisions those of torch in float64, but for rounding."""
    for height, width in ((9, 12), (10, 11)):  # with and without edges that a strided kernel never reaches
        gradients = []
        for ours in (False, True):
            torch.manual_seed(1)
            kind = dtype if ours else torch.float64
            inputs = torch.randn(2, 6, height, width).to(dtype).to(kind).requires_grad_()
            weight = torch.randn(6, 1, *kernel).to(dtype).to(kind).requires_grad_()
            outputs: Tensor = (
                _DepthwiseConvolution.apply(inputs, weight, stride, padding)
                if ours
                else conv2d(inputs, weight, None, stride, padding, 1, 6)
            )
            outputs.backward(torch.randn(outputs.shape).to(dtype).to(kind))
            gradients.append([tensor.double() for tensor in (outputs, inputs.grad, weight.grad)])  # type: ignore[union-attr]
        for expected, found in zip(*gradients, strict=True):
            size = 1.0 if dtype == torch.float64 else float(expected.detach().abs().max())
            torch.testing.assert_close(found, expected, rtol=near, atol=near * size)


def test_pointwise_gradients_are_those_of_torch() -> None:
    gradients = []
    for function in (conv2d, _PointwiseConvolution.apply):
        torch.manual_seed(0)
        inputs = torch.randn(2, 6, 3, 5, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(4, 6, 1, 1, dtype=torch.float64, requires_grad=True)
        outputs = function(inputs, weight)
        outputs.backward(torch.randn_like(outputs))
        gradients.append((outputs, inputs.grad, weight.grad))
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(expected, found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "backbone", ["efficientnet_lite0", "tf_mobilenetv3_small_minimal_100", "convnext_atto", "test_efficientnet"]
)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_a_whole_network_has_the_same_gradients(
    backbone: str, dtype: torch.dtype, near: float, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With paddings of torch's kind and of TensorFlow's, biases, and kernels of 7 x 7; in C++ those of float32."""
    gradients = []
    for fast in (False, True):
        torch.manual_seed(0)
        network = timm.create_model(backbone, num_classes=3).to(dtype).eval()
        for name, scale in network.named_parameters():
            if name.endswith("gamma"):  # ConvNeXt's layers begin with almost no effect, and so no gradient
                nn.init.ones_(scale)
        if fast:
            speed_up_gradients(network)
            left = [m for m in network.modules() if type(m) in (nn.Conv2d, Conv2dSame) and m.groups > 1]
            assert not left
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        network(torch.linspace(-1, 1, 2 * 3 * 64 * 64, dtype=dtype).view(2, 3, 64, 64)).sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    for name, plain in gradients[0].items():
        small = 1e-9 if dtype == torch.float64 else near * max(float(plain.abs().max()), 1e-2)
        torch.testing.assert_close(plain, gradients[1][name], rtol=near, atol=small, msg=name)


def test_other_convolutions_keep_their_own_gradients(narrow: bool) -> None:
    layers = (
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=8, dilation=2),
        nn.Conv2d(8, 8, 3, groups=8, padding_mode="reflect"),
        nn.Conv2d(8, 8, 1, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
    )
    network = nn.Sequential(*layers)
    speed_up_gradients(network)
    assert all(type(layer) is nn.Conv2d for layer in network)
