"""What training a batch in parts gains: compiled steps of 32 photos in parts of several sizes, in turn.

python benchmarks/parts.py BACKBONE PART [PART ...]

Give one size alone to see its peak memory: the peak is that of the whole process.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import timm
import torch
from torch.nn.functional import cross_entropy

from wildtune import runtime
from wildtune.model.activations import speed_up_activations
from wildtune.model.backbone import head_of
from wildtune.model.freeze import set_trainable

BATCH, SIZE, CLASSES, ROUNDS, STEPS = 32, 224, 22, 5, 2


def create_step(backbone: str, part: int) -> Callable[[], float]:
    """Return a function that takes one compiled training step, BatchNorm frozen, and returns its seconds."""
    model = timm.create_model(backbone, num_classes=CLASSES)
    set_trainable(model, head_of(model), "all")
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    speed_up_activations(model)
    run = torch.compile(model, dynamic=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES, (BATCH,))

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        for some_images, some_targets in zip(images.split(part), targets.split(part), strict=True):
            (cross_entropy(run(some_images), some_targets, reduction="sum") / BATCH).backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def main() -> None:
    runtime.set_threads(runtime.compute_threads())
    backbone, parts = sys.argv[1], [int(part) for part in sys.argv[2:]]
    steps = {part: create_step(backbone, part) for part in parts}
    for step in steps.values():
        step()  # compiles
    rates: dict[int, list[float]] = {part: [] for part in parts}
    for _ in range(ROUNDS):
        for part, step in steps.items():
            rates[part].append(BATCH / statistics.median(step() for _ in range(STEPS)))
    for part, found in rates.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{backbone}, parts of {part}: {statistics.median(found):.1f} photos a second ({spread})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
