"""The training loop: stages in their order, one loop for both kinds, exact resume from any step.

BatchNorm is never trained and never updates its statistics, in any stage (see `model.freeze`).
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildtune import runtime
from wildtune.errors import TrainingError
from wildtune.model.backbone import head_of
from wildtune.model.freeze import batchnorm_state, set_trainable
from wildtune.progress import Reporter, format_seconds
from wildtune.recipe import Stage
from wildtune.runtime import seed_from
from wildtune.train import checkpoint
from wildtune.train.average import WeightAverage
from wildtune.train.batches import Side, StageData, create_stage_data
from wildtune.train.checkpoint import Progress
from wildtune.train.history import EpochRecord, StageMove, save_history
from wildtune.train.imbalance import StageLoss, create_loss, describe_treatment
from wildtune.train.optimizer import create_optimizer
from wildtune.train.plan import Plan, PlannedStage
from wildtune.train.schedule import lr_factor

# A crash loses at most this much work.
CHECKPOINT_EVERY_S = 60.0
# Charts that are looked at while it trains need not be newer than this; a head's epochs take hundredths of a second.
PUBLISH_EVERY_S = 1.0


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
            reporter.say(_announce(planned, plan, progress))
            data = create_stage_data(model, plan, planned, sides, versions, reporter)
            loss = create_loss(planned.stage, [plan.counts["train"].get(label, 0) for label in plan.class_names])
            StageTrainer(model, planned, plan.seed, data, loss, progress, run, reporter).train()
            model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        checkpoint.load_kept(model, run, name)
    publish(progress.records, run)  # a crash may have come between the last checkpoint and this
    save_history(progress.moves, run / "stages.jsonl")
    model.eval()
    return progress.records


@dataclass
class StageTrainer:
    """One stage being trained: its plan, its photos, and the state that a checkpoint saves."""

    model: nn.Module
    planned: PlannedStage
    seed: int
    data: StageData
    loss: StageLoss
    progress: Progress
    run: Path
    reporter: Reporter

    def __post_init__(self) -> None:
        """Create the optimiser and the average, and put the checkpoint's state into them and the model."""
        self.stage = self.planned.stage
        self.optimizer = create_optimizer(self.model, self.stage)
        self.average = WeightAverage(self.model, self.stage.average)
        self.start = checkpoint.trained_weights(self.model), batchnorm_state(self.model)
        checkpoint.restore_training(self.run, self.model, self.optimizer, self.average.weights)

    def train(self) -> None:
        """Train from where `progress` stands to the stage's end, and leave a checkpoint at the border behind it."""
        progress, stage = self.progress, self.stage
        if progress.epoch == progress.step == 0:
            checkpoint.save_kept(self.model, self.run, stage.name)  # what it started from, should no epoch beat that
        published = -math.inf
        for epoch in range(progress.epoch, stage.epochs):
            if epoch > progress.epoch:
                progress.begin_epoch(progress.stage, epoch)
            self.train_epoch()
            with self.average.applied():
                record = self.validate()
            progress.records.append(record)
            if epoch + 1 < stage.epochs:
                progress.begin_epoch(progress.stage, epoch + 1)
                self.save()
            else:
                progress.moves.append(self.measure_move())
                progress.begin_epoch(progress.stage + 1, 0)
                checkpoint.save_checkpoint(self.run, progress)
            now = time.monotonic()
            if now - published > PUBLISH_EVERY_S or epoch + 1 == stage.epochs:
                publish(progress.records, self.run)
                published = now
            self.reporter.say(_describe(record, stage))

    def train_epoch(self) -> None:
        """Train from `progress.step` to the end of its epoch, saving a checkpoint every minute."""
        progress, stage, steps = self.progress, self.stage, self.planned.steps_per_epoch
        self.model.train()  # dropout and stochastic depth, where the backbone has them; BatchNorm refuses
        started = saved = time.monotonic()
        before = progress.seconds
        with (
            self.reporter.bar(f"{stage.name}: epoch {progress.epoch + 1} of {stage.epochs}", "steps") as tell,
            closing(self.data.batches(progress.epoch, progress.step)) as batches,
        ):
            for inputs, targets in batches:
                self.train_step(inputs, targets)
                tell(progress.step, steps)
                now = time.monotonic()
                progress.seconds = before + now - started
                if now - saved > CHECKPOINT_EVERY_S and progress.step < steps:
                    self.save()
                    saved = now

    def train_step(self, inputs: Tensor, targets: Tensor) -> None:
        """Take one step of the optimiser; whatever is random in it follows from the step's own seed."""
        progress, stage = self.progress, self.stage
        lr = stage.lr * self.lr_factor(progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        runtime.seed_device(inputs.device.type, seed_from(self.seed, stage.name, progress.epoch, progress.step))
        self.optimizer.zero_grad(set_to_none=True)
        value, right = 0.0, 0
        # Nothing in the network looks across photos, since BatchNorm is frozen: the parts' gradients add up to the
        # batch's, and only one part's activations are in memory at a time.
        size = self.planned.part_size
        for some_inputs, some_targets in zip(inputs.split(size), targets.split(size), strict=True):
            logits = self.data.forward(some_inputs)
            loss = self.loss(logits, some_targets) / len(targets)
            loss.backward()
            value += float(loss.detach())
            right += int((logits.detach().argmax(dim=1) == some_targets).sum())
        self.optimizer.step()
        self.average.update(progress.epoch * self.planned.steps_per_epoch + progress.step + 1)
        self.require_finite(value, "loss")
        progress.count_step(value, right, len(targets))

    def validate(self) -> EpochRecord:
        """Score the validation photos, and keep the weights where the recipe says so."""
        progress, stage = self.progress, self.stage
        started = time.monotonic()
        val_loss, val_accuracy, val_balanced_accuracy = score(self.data)
        self.require_finite(val_loss, "validation loss")
        record = EpochRecord(
            stage=stage.name,
            epoch=progress.epoch + 1,
            lr=stage.lr * self.lr_factor(0),
            loss=progress.loss_sum / progress.seen,
            accuracy=progress.right / progress.seen,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=round(progress.seconds + time.monotonic() - started, 3),
            kept=False,
            val_balanced_accuracy=val_balanced_accuracy,
        )
        # More photos right is better; among equals, the lower loss. The best so far may be an earlier stage's.
        best = next((r for r in reversed(progress.records) if r.kept), None)
        kept = best is None or stage.keep == "last" or self.worth(record) > self.worth(best)
        if kept:
            checkpoint.save_kept(self.model, self.run, stage.name)
        return replace(record, kept=kept)

    def worth(self, record: EpochRecord) -> tuple[float, float]:
        """Return what an epoch is judged by: the higher, the better."""
        return getattr(record, self.stage.judged_by), -record.val_loss

    def lr_factor(self, step: int) -> float:
        """Return the policy's factor on the learning rate at a step of the present epoch."""
        past = [record.val_loss for record in self.progress.stage_records(self.stage.name)]
        policy, epochs = self.stage.policy, self.stage.epochs
        return lr_factor(policy, self.progress.epoch, step, self.planned.steps_per_epoch, epochs, past)

    def measure_move(self) -> StageMove:
        """Return how far the stage has moved the weights it trained, and that it moved no other."""
        weights, batchnorm = self.start
        return StageMove(
            stage=self.stage.name,
            moved=relative_change(weights, checkpoint.trained_weights(self.model)),
            kept=relative_change(weights, checkpoint.read_kept(self.run, self.stage.name)),
            batchnorm_unchanged=all(
                torch.equal(batchnorm[name], tensor) for name, tensor in batchnorm_state(self.model).items()
            ),
        )

    def save(self) -> None:
        """Save a checkpoint within the stage."""
        checkpoint.save_checkpoint(self.run, self.progress, self.model, self.optimizer, self.average.weights)

    def require_finite(self, loss: float, what: str) -> None:
        """Raise TrainingError when a loss is no longer a number."""
        if not math.isfinite(loss):
            raise TrainingError(
                f"The {what} of stage '{self.stage.name}' became {loss} in epoch {self.progress.epoch + 1}.\n"
                f"Lower its learning rate (now {self.stage.lr:g}), or see whether the recipe's [input] makes pixels "
                "far outside 0-255 (input.clip=true limits them)."
            )


def score(data: StageData) -> tuple[float, float, float]:
    """Return cross-entropy (nats), accuracy and balanced accuracy (0-1) on the validation photos."""
    logits, targets = data.val_logits(), data.val_targets
    right = (logits.argmax(dim=1) == targets).double()
    counts = targets.bincount()
    recall = targets.bincount(right)[counts > 0] / counts[counts > 0]
    return float(cross_entropy(logits.double(), targets)), float(right.mean()), float(recall.mean())


def relative_change(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Return the norm of the change of all weights together, as a share of the norm of those before."""
    change = sum(float((after[name].double() - weight.double()).square().sum()) for name, weight in before.items())
    size = sum(float(weight.double().square().sum()) for weight in before.values())
    return math.sqrt(change / size) if size else math.inf


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
                ("balanced_accuracy/validation", record.val_balanced_accuracy),
                ("loss/training", record.loss),
                ("loss/validation", record.val_loss),
                ("lr", record.lr),
            ):
                writer.add_scalar(name, value, number)


def _announce(planned: PlannedStage, plan: Plan, progress: Progress) -> str:
    stage = planned.stage
    what = "the head on the frozen backbone" if stage.train == "head" else "every weight but BatchNorm's"
    subject = "views computed" if stage.train == "head" else "computed"
    precision = "" if planned.precision == "float32" else f", {subject} in {planned.precision}"
    start = f", from epoch {progress.epoch + 1}" if progress.epoch or progress.step else ""
    balance = describe_treatment(stage, plan.counts["train"])
    said = f"stage {stage.name}: {what} ({planned.trained_weights:,} weights), {stage.epochs} epochs{precision}{start}"
    return f"{said}; {balance}" if balance else said


def _describe(record: EpochRecord, stage: Stage) -> str:
    return (
        f"{record.stage} {record.epoch}/{stage.epochs}  lr {record.lr:.2g}  loss {record.loss:.4f}  "
        f"accuracy {record.accuracy:.2%}  val loss {record.val_loss:.4f}  val accuracy {record.val_accuracy:.2%}  "
        f"{format_seconds(record.seconds)}"
    )
