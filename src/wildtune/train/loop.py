"""The training loop: stages in their order, one loop for both kinds, exact resume from any step.

BatchNorm is never trained and never updates its statistics, in any stage (see `model.freeze`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm.optim
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildtune.errors import TrainingError
from wildtune.model.backbone import head_of
from wildtune.model.freeze import set_trainable
from wildtune.progress import Reporter, format_seconds
from wildtune.recipe import Stage
from wildtune.runtime import seed_from
from wildtune.train import checkpoint
from wildtune.train.batches import Side, StageData, create_stage_data
from wildtune.train.checkpoint import Progress
from wildtune.train.history import EpochRecord, save_history
from wildtune.train.plan import Plan, PlannedStage
from wildtune.train.schedule import lr_factor

# A crash loses at most this much work.
CHECKPOINT_EVERY_S = 60.0


def train_stages(
    model: nn.Module, plan: Plan, sides: dict[str, Side], run: Path, versions: dict[str, str], reporter: Reporter
) -> list[EpochRecord]:
    """Train all stages of a plan, from the run's checkpoint if there is one; return a record for each epoch.

    `model` comes with its pretrained weights and a fresh head, and ends with the weights the last stage kept.
    """
    progress = checkpoint.load_progress(run)
    for number, planned in enumerate(plan.stages):
        name = planned.stage.name
        set_trainable(model, head_of(model), planned.stage.train)
        if number >= progress.stage:
            if number > progress.stage:
                progress.begin_epoch(number, 0)
            reporter.say(_announce(planned, progress))
            data = create_stage_data(model, plan, planned, sides, versions, reporter)
            train_stage(model, planned, plan.seed, data, progress, run, reporter)
            model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        checkpoint.load_kept(model, run, name)
    publish(progress.records, run)  # a crash may have come between the last checkpoint and this
    model.eval()
    return progress.records


def train_stage(
    model: nn.Module,
    planned: PlannedStage,
    seed: int,
    data: StageData,
    progress: Progress,
    run: Path,
    reporter: Reporter,
) -> None:
    """Train one stage to its end, from where `progress` stands, and leave a checkpoint at the border behind it."""
    stage = planned.stage
    optimizer, average = create_optimizer(model, stage), WeightAverage(model, stage.average)
    checkpoint.restore_training(run, model, optimizer, average.weights)
    for epoch in range(progress.epoch, stage.epochs):
        if epoch > progress.epoch:
            progress.begin_epoch(progress.stage, epoch)
        train_epoch(model, optimizer, average, planned, seed, data, progress, run, reporter)
        started = time.monotonic()
        with average.applied():
            val_loss, val_accuracy = score(data)
            _require_finite(val_loss, "validation loss", stage, progress)
            progress.seconds += time.monotonic() - started
            record = _record_epoch(stage, planned, progress, val_loss, val_accuracy)
            progress.records.append(record)
            if record.kept:
                checkpoint.save_kept(model, run, stage.name)
        last = epoch + 1 == stage.epochs
        number = progress.stage
        progress.begin_epoch(number + 1 if last else number, 0 if last else epoch + 1)
        checkpoint.save_checkpoint(run, progress, *(() if last else (model, optimizer, average.weights)))
        publish(progress.records, run)
        reporter.say(_describe(record, stage))


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    planned: PlannedStage,
    seed: int,
    data: StageData,
    progress: Progress,
    run: Path,
    reporter: Reporter,
) -> None:
    """Train from `progress.step` to the end of its epoch, saving a checkpoint every minute."""
    stage, steps = planned.stage, planned.steps_per_epoch
    model.train()  # dropout and stochastic depth, where the backbone has them; BatchNorm refuses
    started = saved = time.monotonic()
    before = progress.seconds
    with reporter.bar(f"{stage.name}: epoch {progress.epoch + 1} of {stage.epochs}", "steps") as tell:
        for inputs, targets in data.batches(progress.epoch, progress.step):
            _set_lr(optimizer, stage, planned, progress)
            torch.manual_seed(seed_from(seed, stage.name, progress.epoch, progress.step))
            logits = data.forward(inputs)
            loss = cross_entropy(logits, targets, label_smoothing=stage.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update(progress.epoch * steps + progress.step)
            _count_step(progress, logits, targets, float(loss.detach()), stage)
            tell(progress.step, steps)
            now = time.monotonic()
            progress.seconds = before + now - started
            if now - saved > CHECKPOINT_EVERY_S and progress.step < steps:
                checkpoint.save_checkpoint(run, progress, model, optimizer, average.weights)
                saved = now


class WeightAverage:
    """A running average of the weights that can change (Polyak and Juditsky 1992), which evens out late steps.

    weights   the averaged weights by name, empty where the decay is 0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's weights as they are."""
        self._trained = {k: p for k, p in model.named_parameters() if p.requires_grad} if decay else {}
        self._decay = decay
        self.weights = {k: p.detach().clone() for k, p in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after step `step` (from 0); early steps count more."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            weight.lerp_(self._trained[name], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; afterwards its own again, bit by bit."""
        own = {k: p.detach().clone() for k, p in self._trained.items()}
        self._copy(self.weights)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, weights: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            self._trained[name].copy_(weight)


def create_optimizer(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Create the stage's optimiser over the weights that can change; biases and scales get no weight decay.

    With `layer_decay` below 1 each block's rate is that factor of the next one's, counted from the head
    (Howard and Ruder 2018; the blocks are timm's). Each group keeps its share of the rate as `lr_scale`.
    """
    undecayed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    groups = timm.optim.param_groups_layer_decay(
        model,
        weight_decay=stage.weight_decay,
        no_weight_decay_list=tuple(undecayed),
        layer_decay=stage.layer_decay if stage.train == "all" else 1.0,
    )
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=0.9)
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=stage.lr, eps=stage.epsilon)


def score(data: StageData) -> tuple[float, float]:
    """Return cross-entropy (nats) and accuracy (0-1) on the validation photos."""
    logits, targets = data.val_logits(), data.val_targets
    accuracy = (logits.argmax(dim=1) == targets).double().mean()
    return float(cross_entropy(logits.double(), targets)), float(accuracy)


def publish(records: list[EpochRecord], run: Path) -> None:
    """Write the history to `metrics.jsonl` and, anew, to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    save_history(records, run / "metrics.jsonl")
    folder = run / "tensorboard"
    for old in folder.glob("events.*"):
        old.unlink()
    # One event file holds the whole history, so that a resumed run shows no epoch twice.
    with SummaryWriter(str(folder)) as writer:
        for number, record in enumerate(records, start=1):
            for name, value in (
                ("accuracy/training", record.accuracy),
                ("accuracy/validation", record.val_accuracy),
                ("loss/training", record.loss),
                ("loss/validation", record.val_loss),
                ("lr", record.lr),
            ):
                writer.add_scalar(name, value, number)


def _set_lr(optimizer: torch.optim.Optimizer, stage: Stage, planned: PlannedStage, progress: Progress) -> None:
    lr = stage.lr * _factor(stage, planned, progress, progress.step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def _factor(stage: Stage, planned: PlannedStage, progress: Progress, step: int) -> float:
    past = [record.val_loss for record in progress.stage_records(stage.name)]
    return lr_factor(stage.policy, progress.epoch, step, planned.steps_per_epoch, stage.epochs, past)


def _count_step(progress: Progress, logits: Tensor, targets: Tensor, loss: float, stage: Stage) -> None:
    _require_finite(loss, "loss", stage, progress)
    progress.loss_sum += loss * len(targets)
    progress.right += int((logits.detach().argmax(dim=1) == targets).sum())
    progress.seen += len(targets)
    progress.step += 1


def _require_finite(loss: float, what: str, stage: Stage, progress: Progress) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The {what} of stage '{stage.name}' became {loss} at step {progress.step + 1} of epoch "
            f"{progress.epoch + 1}.\nLower its learning rate (now {stage.lr:g}), or see whether the recipe's [input] "
            "makes pixels far outside 0-255 (input.clip=true limits them)."
        )


def _record_epoch(
    stage: Stage, planned: PlannedStage, progress: Progress, val_loss: float, val_accuracy: float
) -> EpochRecord:
    earlier = progress.stage_records(stage.name)
    # More photos right is better; among equals, the lower loss.
    better = all((val_accuracy, -val_loss) > (r.val_accuracy, -r.val_loss) for r in earlier)
    return EpochRecord(
        stage=stage.name,
        epoch=progress.epoch + 1,
        lr=stage.lr * _factor(stage, planned, progress, 0),
        loss=progress.loss_sum / progress.seen,
        accuracy=progress.right / progress.seen,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        seconds=round(progress.seconds, 3),
        kept=better or stage.keep == "last",
    )


def _announce(planned: PlannedStage, progress: Progress) -> str:
    stage = planned.stage
    what = "the head on the frozen backbone" if stage.train == "head" else "every weight but BatchNorm's"
    start = f", from epoch {progress.epoch + 1}" if progress.epoch or progress.step else ""
    return f"stage {stage.name}: {what} ({planned.trained_weights:,} weights), {stage.epochs} epochs{start}"


def _describe(record: EpochRecord, stage: Stage) -> str:
    return (
        f"{record.stage} {record.epoch}/{stage.epochs}  lr {record.lr:.2g}  loss {record.loss:.4f}  "
        f"accuracy {record.accuracy:.2%}  val loss {record.val_loss:.4f}  val accuracy {record.val_accuracy:.2%}  "
        f"{format_seconds(record.seconds)}"
    )
