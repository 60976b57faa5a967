"""Where the time of a compiled training step goes, and what share of the processor's matrix speed it reaches.

    python benchmarks/step_profile.py [BACKBONE] [--part 8] [--bfloat16]

The speed of matrix multiplication (2048 x 2048, float32) is the limit; a step needs three times the arithmetic of
a forward pass: forward, and backward for inputs and for weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter

import timm
import torch
from steps import BATCH, SIZE, create_step
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from wildtune import runtime

KINDS = {
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("mkldnn_convolution", "_convolution_pointwise", "aten::convolution"),
    "matrix products": ("aten::mm", "aten::addmm", "mkl_linear", "_linear_pointwise"),
    "optimiser": ("aten::_foreach", "Optimizer.step", "aten::lerp", "aten::addcdiv", "aten::addcmul", "aten::_fused"),
}


def measure_gemm() -> float:
    """Return the floating-point operations a second of a large matrix product, in units of 1e9."""
    side = 2048
    a, b = torch.randn(side, side), torch.randn(side, side)
    times = []
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(times) / 1e9


def count_forward(backbone: str) -> float:
    """Return the floating-point operations of one photo's forward pass, in units of 1e9."""
    model = timm.create_model(backbone).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, SIZE, SIZE))
    return counter.get_total_flops() / 1e9


def kind_of(name: str) -> str:
    """Return what a profiled operation is called in the table, by the first pattern in its name."""
    for kind, patterns in KINDS.items():
        if any(pattern in name for pattern in patterns):
            return kind
    if "fused" in name or name.startswith(("graph", "Compiled", "## Call")):
        return "element by element (fused kernels)"
    return "all else (copies, padding, bookkeeping)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="efficientnet_b0")
    parser.add_argument("--part", type=int, default=8)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    runtime.keep_freed_memory()
    step = create_step(arguments.backbone, 22, arguments.part, bfloat16=arguments.bfloat16)
    step()
    before = measure_gemm()
    rate = BATCH / statistics.median(step() for _ in range(8))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            step()
    peak, forward = max(before, measure_gemm()), count_forward(arguments.backbone)
    kind = "bfloat16" if arguments.bfloat16 else "float32"
    print(f"{arguments.backbone}, {kind}, parts of {arguments.part}: {rate:.1f} photos a second at {forward:.2f} GFLOP")
    print(f"{3 * forward * rate:.0f} of {peak:.0f} GFLOP/s of matrix products: {3 * forward * rate / peak:.0%}")
    shares: Counter[str] = Counter()
    for event in profiler.key_averages():
        shares[kind_of(event.key)] += event.self_cpu_time_total
    for kind, spent in shares.most_common():
        print(f"  {kind:40} {spent / shares.total():5.1%}")


if __name__ == "__main__":
    main()
