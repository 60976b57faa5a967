"""Checkpoints: all that resuming needs, in one file that is replaced whole. Not for deployment: that is the bundle.

checkpoints/last.safetensors          where training is: trained weights, mean, optimiser, progress in its header
checkpoints/stages/STAGE.safetensors  the trained weights a stage keeps
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wildtune import files
from wildtune.errors import CommandError
from wildtune.train.history import EpochRecord, StageMove


@dataclass
class Progress:
    """How far training is: the next step to do, and what is known of the epochs done.

    stage, epoch, step   indices from 0 of the next step; `step` within the epoch
    loss_sum             sum over the epoch's photos so far of their training loss, nats
    right, seen          photos right and photos seen in the epoch so far
    seconds              time spent on the epoch so far
    records              one for each epoch done, of all stages
    moves                one for each stage done
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seen: int = 0
    seconds: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)
    moves: list[StageMove] = field(default_factory=list)

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Move to the first step of an epoch."""
        self.stage, self.epoch, self.step = stage, epoch, 0
        self.loss_sum, self.right, self.seen, self.seconds = 0.0, 0, 0, 0.0

    def count_step(self, loss: float, right: int, seen: int) -> None:
        """Count one step: its mean loss in nats, how many photos it got right, and how many it saw."""
        self.loss_sum += loss * seen
        self.right += right
        self.seen += seen
        self.step += 1

    def stage_records(self, name: str) -> list[EpochRecord]:
        """Return the records of one stage."""
        return [record for record in self.records if record.stage == name]


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the weights that can change, by name, on the CPU."""
    return {k: p.detach().cpu().clone().contiguous() for k, p in model.named_parameters() if p.requires_grad}


def save_kept(model: nn.Module, run: Path, stage: str) -> None:
    """Save the weights that a stage keeps for now."""
    files.write_bytes(_kept_file(run, stage), save(trained_weights(model)))


def read_kept(run: Path, stage: str) -> dict[str, Tensor]:
    """Return the weights that a stage kept, by name. Raises CommandError where they are missing or damaged."""
    path = _kept_file(run, stage)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CommandError(
            f"{path} is missing or damaged: {error}\nBring it back, or train into another folder."
        ) from error


def load_kept(model: nn.Module, run: Path, stage: str) -> None:
    """Put the weights that a stage kept into the model."""
    _copy_weights(model, read_kept(run, stage))


def save_checkpoint(
    run: Path,
    progress: Progress,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    average: dict[str, Tensor] | None = None,
) -> None:
    """Save where training is; without a model, at the border between two stages."""
    tensors: dict[str, Tensor] = {}
    if model is not None and optimizer is not None:
        tensors = {f"weights/{k}": v for k, v in trained_weights(model).items()}
        tensors |= {f"average/{k}": v.cpu().contiguous() for k, v in (average or {}).items()}
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"optimizer/{index}/{key}"] = torch.as_tensor(value).cpu().clone().contiguous()
    header = {"progress": json.dumps(asdict(progress))}
    files.write_bytes(run / "checkpoints" / "last.safetensors", save(tensors, metadata=header))


def load_progress(run: Path) -> Progress:
    """Read how far a run is; a run without a checkpoint is at its beginning."""
    path = run / "checkpoints" / "last.safetensors"
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, framework="pt") as handle:
            values = json.loads(handle.metadata()["progress"])
        records = [EpochRecord(**record) for record in values["records"]]
        moves = [StageMove(**move) for move in values.get("moves", [])]
        return Progress(**{**values, "records": records, "moves": moves})
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CommandError(
            f"{path} is damaged: {error}\nDelete it to train the run's stages anew, or train into another folder."
        ) from error


def restore_training(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> None:
    """Put the checkpoint's weights, optimiser state and average back, where it was saved within a stage."""
    path = run / "checkpoints" / "last.safetensors"
    tensors = load_file(path) if path.exists() else {}
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    if not weights:
        return
    _copy_weights(model, weights)
    state = optimizer.state_dict()
    for name, tensor in tensors.items():
        kind, _, place = name.partition("/")
        if kind == "average":
            average[place].copy_(tensor)
        if kind == "optimizer":
            index, _, key = place.partition("/")
            state["state"].setdefault(int(index), {})[key] = tensor.clone()  # not a view of the file
    optimizer.load_state_dict(state)


def _kept_file(run: Path, stage: str) -> Path:
    return run / "checkpoints" / "stages" / f"{stage}.safetensors"


def _copy_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
