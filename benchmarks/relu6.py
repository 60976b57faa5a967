"""What the ReLU6 of `wildtune.model.activations` gains under torch.compile: training steps, in turn, and their ratio.

python benchmarks/relu6.py [BACKBONE]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from wildtune import runtime
from wildtune.model.activations import speed_up_activations
from wildtune.model.backbone import head_of
from wildtune.model.freeze import set_trainable

BATCH, SIZE, CLASSES, ROUNDS, STEPS = 32, 224, 20, 5, 4


def create_step(backbone: str, fast: bool) -> Callable[[], float]:
    """Return a function that takes one compiled training step, BatchNorm frozen, and returns its seconds."""
    model = timm.create_model(backbone, num_classes=CLASSES)
    set_trainable(model, head_of(model), "all")
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fast:
        speed_up_activations(model)
    run = torch.compile(model, dynamic=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES, (BATCH,))

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        loss: torch.Tensor = cross_entropy(run(images), targets)
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def main(backbone: str) -> None:
    """Time both in turn and print images a second and the ratio of the medians of each round."""
    runtime.set_threads(runtime.compute_threads())
    if not any(isinstance(m, nn.ReLU6) for m in timm.create_model(backbone).modules()):
        sys.exit(f"{backbone} has no ReLU6; try mobilenetv2_100")
    steps = {"torch's": create_step(backbone, False), "wildtune's": create_step(backbone, True)}
    for step in steps.values():
        step()  # compiles
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            rates[name].append(BATCH / statistics.median(step() for _ in range(STEPS)))
    for name, found in rates.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{name:12} {middle:6.1f} images a second ({low:.1f} to {high:.1f})")
    ratios = [fast / plain for plain, fast in zip(*rates.values(), strict=True)]
    print(f"ratio        {statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mobilenetv2_100")
