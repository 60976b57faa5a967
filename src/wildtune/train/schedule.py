"""Learning-rate policies as pure functions of where training is, so that a resumed run needs no state of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wildtune.recipe import Policy


def lr_factor(
    policy: Policy, epoch: int, step: int, steps_per_epoch: int, epochs: int, val_losses: Sequence[float] = ()
) -> float:
    """Return what the stage's learning rate is multiplied by at one step, 0-1.

    `epoch` and `step` count from 0, the step within its epoch; `val_losses` are those of the epochs before.
    During the warm-up the factor rises linearly and the policy's own clock stands still. exp_decay, step and
    plateau change between epochs; cosine and one_cycle at every step.
    """
    done = epoch * steps_per_epoch + step
    warmup = round(policy.warmup * steps_per_epoch)
    if done < warmup:
        return (done + 1) / (warmup + 1)
    progress = (done - warmup) / max(1, epochs * steps_per_epoch - warmup - 1)
    # Whole epochs since the warm-up ended.
    age = (done - warmup) // steps_per_epoch
    if policy.name == "exp_decay":
        return math.exp(-policy.rate * age)
    if policy.name == "step":
        return policy.factor ** (age // policy.every)
    if policy.name == "cosine":
        return _cosine(1.0, policy.floor, progress)
    if policy.name == "one_cycle":
        return _one_cycle(policy, progress)
    if policy.name == "plateau":
        return policy.factor ** _plateau_drops(policy.patience, val_losses)
    return 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    """Go from `start` to `end` along half a cosine (Loshchilov and Hutter 2017)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def _one_cycle(policy: Policy, progress: float) -> float:
    """Rise from a 25th of the rate to its peak, then fall to the floor (Smith and Topin 2018)."""
    if progress < policy.peak:
        return _cosine(0.04, 1.0, progress / policy.peak)
    return _cosine(1.0, policy.floor, (progress - policy.peak) / (1 - policy.peak))


def _plateau_drops(patience: int, val_losses: Sequence[float]) -> int:
    """Count how often the loss failed to fall for `patience` epochs; the count of epochs restarts at a drop."""
    best, waited, drops = math.inf, 0, 0
    for loss in val_losses:
        if loss < best:
            best, waited = loss, 0
        else:
            waited += 1
        if waited >= patience:
            drops, waited = drops + 1, 0
    return drops
