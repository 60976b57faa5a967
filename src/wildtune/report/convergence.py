"""When a stage had learned what it was going to learn, by a definition that is written into the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wildtune.language import message
from wildtune.train.history import EpochRecord

RELATIVE_TOLERANCE = 0.01
ABSOLUTE_TOLERANCE = 0.005
CONFIRMING_EPOCHS = 3

DEFINITION = message(
    "A stage is said to have converged at the first epoch whose validation loss is never afterwards "
    "beaten by more than 1 % (or 0.005, if that is more), provided that at least 3 later epochs bear this out."
)


@dataclass(frozen=True)
class Convergence:
    """Whether and when a stage converged.

    state    "converged"; "improving": the loss still fell at the end; "short": too few epochs to tell;
             "unknown": no validation loss was a number
    epoch    where it converged, 0 in every other state
    lowest   epoch of the lowest validation loss
    rise     validation loss at the end less the lowest one, nats; 0 where it ended within the tolerance of it
    """

    state: str
    epoch: int
    lowest: int
    rise: float


def find_convergence(records: Sequence[EpochRecord]) -> Convergence:
    """Apply the definition to the epochs of one stage, in their order."""
    losses = [record.val_loss if math.isfinite(record.val_loss) else math.inf for record in records]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    if not math.isfinite(losses[lowest]):
        return Convergence("unknown", 0, records[lowest].epoch, 0.0)
    rise = losses[-1] - losses[lowest]
    rise = rise if rise > _tolerance(losses[lowest]) else 0.0
    place = next(i for i, loss in enumerate(losses) if min(losses[i:]) >= loss - _tolerance(loss))
    if len(losses) <= CONFIRMING_EPOCHS:
        return Convergence("short", 0, records[lowest].epoch, rise)
    if len(losses) - 1 - place < CONFIRMING_EPOCHS:
        return Convergence("improving", 0, records[lowest].epoch, rise)
    return Convergence("converged", records[place].epoch, records[lowest].epoch, rise)


def _tolerance(loss: float) -> float:
    # An infinite loss (none was measured) may be beaten by anything finite.
    return max(RELATIVE_TOLERANCE * loss, ABSOLUTE_TOLERANCE) if math.isfinite(loss) else 0.0
