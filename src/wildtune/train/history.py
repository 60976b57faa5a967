"""What happened in training: one row an epoch in `metrics.jsonl` and TensorBoard, one a stage in `stages.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from wildtune import files


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of one stage.

    stage          name of the stage
    epoch          number within the stage, from 1
    lr             learning rate of the head at the epoch's first step (policy and warm-up applied)
    loss           mean training loss of the epoch's batches as they were trained on, nats
    accuracy       share of them right at that moment, 0-1
    val_loss       cross-entropy on the validation photos after the epoch, nats
    val_accuracy   share of the validation photos right after the epoch, 0-1
    seconds        time the epoch took, validation included
    kept           whether these weights became the best so far (always the last epoch where the recipe says so)
    val_balanced_accuracy  mean over the classes of the share of their validation photos right, 0-1
    """

    stage: str
    epoch: int
    lr: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    kept: bool
    val_balanced_accuracy: float = math.nan  # as where an older run's history is read


@dataclass(frozen=True, slots=True)
class StageMove:
    """How far one stage moved its weights: the norm of their change as a share of their norm at its start.

    stage                name of the stage
    moved                after its last step
    kept                 of the weights that it handed on
    batchnorm_unchanged  whether every tensor of every BatchNorm layer is the same, bit by bit
    """

    stage: str
    moved: float
    kept: float
    batchnorm_unchanged: bool


Record = TypeVar("Record", EpochRecord, StageMove)


def save_history(records: Iterable[EpochRecord | StageMove], path: Path) -> None:
    """Write one JSON object a line."""
    files.write_text(path, "".join(json.dumps(asdict(record)) + "\n" for record in records))


def load_history(path: Path) -> tuple[EpochRecord, ...]:
    """Read what `save_history` wrote; no file is no history. Raises CommandError where it is damaged."""
    return _load(EpochRecord, path)


def load_moves(path: Path) -> tuple[StageMove, ...]:
    """Read how far each stage moved its weights; no file, as in runs of the time before there was one, is nothing.

    Raises CommandError where it is damaged.
    """
    return _load(StageMove, path)


def _load(kind: type[Record], path: Path) -> tuple[Record, ...]:
    if not path.exists():
        return ()
    with files.reading(path):
        return tuple(kind(**json.loads(line)) for line in path.read_text("utf-8").splitlines())
