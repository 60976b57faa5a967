"""Compiled training steps as those of `wildtune train`, and how to time several kinds of them in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import timm
import torch
from torch.nn.functional import cross_entropy

from wildtune.model.backbone import head_of
from wildtune.model.freeze import set_trainable
from wildtune.model.gradients import compile_network

BATCH, SIZE, ROUNDS = 32, 224, 5

Step = Callable[[], float]


def create_step(backbone: str, classes: int, part: int = BATCH, fast: bool = True, bfloat16: bool = False) -> Step:
    """Return a function that takes one compiled training step, BatchNorm frozen, and returns its seconds.

    A step is of `BATCH` photos, `part` of them at once, with wildtune's gradients if `fast`, computed in float32 or
    bfloat16.
    """
    model = timm.create_model(backbone, num_classes=classes)
    set_trainable(model, head_of(model), "all")
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = compile_network(model, "cpu") if fast else torch.compile(model, dynamic=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, classes, (BATCH,))

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        for some_images, some_targets in zip(images.split(part), targets.split(part), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = run(some_images)
            (cross_entropy(logits.float(), some_targets, reduction="sum") / BATCH).backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def time_in_turn(steps: Mapping[str, Step], count: int) -> dict[str, list[float]]:
    """Return photos a second for each kind of step in each of `ROUNDS` rounds, by the median of `count` steps."""
    for step in steps.values():
        step()  # compiles
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            rates[name].append(BATCH / statistics.median(step() for _ in range(count)))
    return rates
