"""What the ReLU6 of `wildtune.model.activations` gains under torch.compile: training steps, in turn, and their ratio.

python benchmarks/relu6.py [BACKBONE]
"""

from __future__ import annotations

import statistics
import sys

import timm
from steps import create_step, time_in_turn
from torch import nn

from wildtune import runtime

CLASSES, STEPS = 20, 4


def main(backbone: str) -> None:
    """Time both in turn and print images a second and the ratio of the medians of each round."""
    runtime.set_threads(runtime.compute_threads())
    if not any(isinstance(m, nn.ReLU6) for m in timm.create_model(backbone).modules()):
        sys.exit(f"{backbone} has no ReLU6; try mobilenetv2_100")
    kinds = {"torch's": False, "wildtune's": True}
    rates = time_in_turn({name: create_step(backbone, CLASSES, fast=fast) for name, fast in kinds.items()}, STEPS)
    for name, found in rates.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{name:12} {middle:6.1f} images a second ({low:.1f} to {high:.1f})")
    ratios = [fast / plain for plain, fast in zip(*rates.values(), strict=True)]
    print(f"ratio        {statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mobilenetv2_100")
