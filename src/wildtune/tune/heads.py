"""Cross-validated heads on cached features: all folds' heads trained at once, as a training of the stage would."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildtune.errors import PhotosError, TrainingError
from wildtune.language import recorded
from wildtune.photos.folds import number_folds
from wildtune.recipe import Stage
from wildtune.runtime import computing_alone, seed_from
from wildtune.train.average import WeightAverage
from wildtune.train.imbalance import class_weights, create_loss, draw_photos, expected_draws
from wildtune.train.optimizer import create_optimizer
from wildtune.train.schedule import lr_factor
from wildtune.wording import counted

FOLDS = 5
# What a loss that is no number, or that of a training given up, counts as: worse than any, and one that JSON holds.
DIVERGED = 1e6
# A training is given up where its validation loss is so many times that of a head that knows nothing. Rates that fall
# bring a loss back from forty times that, though not to the best; from 160 times it did not come back.
_EXPLODED = 100.0

_RANGE_STEPS = 150
_LOWEST_RATE, _HIGHEST_RATE = 1e-6, 10.0
# A rate is high enough where this share of the fall that any rate brings has come about.
_FALLING = 0.1

EpochSaid = Callable[[int, float], None]


@dataclass(frozen=True)
class Material:
    """The photos that heads are tried on, none of them a test photo.

    plain        (N, D) float32 features without augmentation
    targets      (N,) int64 class indices
    groups       (N,) int64 numbers of the groups that stay together
    num_classes  C
    """

    plain: Tensor
    targets: Tensor
    groups: np.ndarray
    num_classes: int

    def folds(self, seed: int, repeat: int) -> np.ndarray:
        """Return the fold that holds each photo out, int64 (N,) from 0, groups whole; another repeat, other folds.

        Raises PhotosError where the photos cannot be divided.
        """
        folds = number_folds(self.targets.numpy(), self.groups, FOLDS, seed_from(seed, "tune folds", repeat))
        if len(np.unique(folds)) < 2:
            raise PhotosError(
                "Tuning trains heads on some photos and judges them by the others: that needs a class with at least 2 "
                "photos, in groups that can be parted.\n"
                f"Found {counted(len(folds), 'photo')} for training and validation, "
                f"{int(self.targets.bincount().max())} in the largest class, "
                f"{counted(len(np.unique(self.groups)), 'group')}.\n"
                "Add photos, or keep less together (split.group_by)."
            )
        return folds

    def weights(self, stage: Stage) -> np.ndarray:
        """Return how much each photo counts when heads of a stage are judged, (N,) float64 with a mean of 1.

        Each class counts the same where training judges the stage by its balanced accuracy, else each photo.
        """
        if stage.judged_by == "val_accuracy":
            return np.ones(len(self.targets))
        classes = self.targets.numpy()
        return class_weights(np.bincount(classes).tolist())[classes]


@dataclass(frozen=True)
class Training:
    """What heads are trained on: `views` (V, M, D) float32, view e % V in epoch e, of the photos `rows` (M,)."""

    views: Tensor
    rows: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """How each photo fares with the head that was trained without it.

    losses    (N,) float64 nats, times what the photo counts (`Material.weights`)
    right     (N,) float64, 1 where the head is right, else 0, times the same
    diverged  why the training was given up, in words; "" where it was not. All losses are then `DIVERGED`
    """

    losses: np.ndarray
    right: np.ndarray
    diverged: str = ""


@dataclass(frozen=True)
class RangeTest:
    """A learning-rate range test: the smoothed loss at each rate, and the rates between which training makes sense."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    low: float
    high: float


class _Heads(nn.Module):
    """K linear heads side by side: (K, B, D) features to (K, B, C) logits."""

    def __init__(self, count: int, width: int, num_classes: int, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, num_classes, width))
        self.bias = nn.Parameter(torch.zeros(count, num_classes))
        generator = torch.Generator().manual_seed(seed)
        for weight in self.weight.detach():  # each as `reset_head` would fill it
            nn.init.xavier_uniform_(weight, generator=generator)

    def no_weight_decay(self) -> set[str]:
        return {"bias"}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # without one timm warns of what does not matter
        return {"stem": "^bias$", "blocks": "^weight$"}

    def forward(self, features: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], features, self.weight.transpose(1, 2))


class _Trainer:
    """The heads of all folds being trained on one stage's settings."""

    def __init__(self, stage: Stage, material: Material, training: Training, folds: np.ndarray, seed: int) -> None:
        self.stage, self.material, self.training, self.folds, self.seed = stage, material, training, folds, seed
        self.count = int(folds.max(initial=0)) + 1
        self.parts = [np.flatnonzero(folds[training.rows] != fold) for fold in range(self.count)]
        # Folds are not quite of one size: the smaller ones' epochs are filled up with a few photos twice.
        self.length = max(len(part) for part in self.parts)
        self.steps = math.ceil(self.length / stage.batch_size)
        self.targets = material.targets[torch.from_numpy(training.rows)]
        self.heads = _Heads(self.count, material.plain.shape[1], material.num_classes, seed_from(seed, "head"))
        self.optimizer = create_optimizer(self.heads, stage)
        self.average = WeightAverage(self.heads, stage.average)
        self.loss = create_loss(stage, torch.bincount(self.targets, minlength=material.num_classes).tolist())

    def order(self, epoch: int) -> np.ndarray:
        """Return the photos of an epoch by fold, (K, length) rows of the views."""
        return np.stack(
            [np.resize(self._order_of(part, epoch, fold), self.length) for fold, part in enumerate(self.parts)]
        )

    def _order_of(self, part: np.ndarray, epoch: int, fold: int) -> np.ndarray:
        expected = expected_draws(self.stage, self.targets[torch.from_numpy(part)])
        if expected is not None:
            drawn = draw_photos(expected, self.targets.numpy()[part], self.seed, "tune", epoch, fold)
            return part[drawn]
        return np.random.default_rng(seed_from(self.seed, "tune", epoch, fold)).permutation(part)

    def step(self, indices: np.ndarray, epoch: int, lr: float, steps_done: int) -> float:
        """Take one step on (K, B) rows of the epoch's view; return the mean loss over the folds, nats."""
        rows = torch.from_numpy(indices)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.heads(self.training.views[epoch % len(self.training.views)][rows])
        loss = self.loss(logits.flatten(0, 1), self.targets[rows].flatten()) / rows.shape[1]
        loss.backward()  # the folds share no weight: each gets the gradient of its own mean loss
        self.optimizer.step()
        self.average.update(steps_done + 1)
        return float(loss.detach()) / self.count

    @torch.no_grad()
    def held_out(self) -> HeldOut:
        """Score each photo, without augmentation, by the head that never saw it; all count the same."""
        losses, right = np.empty(len(self.folds)), np.empty(len(self.folds))
        with self.average.applied():
            for fold in range(self.count):
                rows = np.flatnonzero(self.folds == fold)
                some = torch.from_numpy(rows)
                targets = self.material.targets[some]
                logits = self.material.plain[some] @ self.heads.weight[fold].T + self.heads.bias[fold]
                losses[rows] = cross_entropy(logits.double(), targets, reduction="none").numpy()
                right[rows] = (logits.argmax(dim=1) == targets).numpy()
        return HeldOut(np.minimum(np.nan_to_num(losses, nan=DIVERGED, posinf=DIVERGED), DIVERGED), right)

    def weigh(self, found: HeldOut) -> HeldOut:
        """Count each photo as much as the stage's heads are judged by it."""
        weights = self.material.weights(self.stage)
        return replace(found, losses=found.losses * weights, right=found.right * weights)


def train_heads(
    stage: Stage,
    material: Material,
    training: Training,
    folds: np.ndarray,
    seed: int,
    say_epoch: EpochSaid | None = None,
) -> HeldOut:
    """Train a head for each fold with a stage's settings, and score every photo by the head that never saw it.

    The optimiser, its rates, the loss and the draws by class are those of a training of this stage; what is scored
    are the weights after the last epoch, with each photo counted by `material.weights`. `say_epoch` is told (epoch
    from 1, mean validation loss) and may raise.
    A training whose loss explodes, or is no number, is given up at once (see `HeldOut.diverged`).
    It computes in one thread: two are a quarter faster on two idle cores, and some twenty times slower where another
    process wants one of them. So the result does not depend on the number of cores either.
    """
    trainer = _Trainer(stage, material, training, folds, seed)
    found = trainer.held_out()
    most = _EXPLODED * max(float(found.losses.mean()), math.log(material.num_classes))
    past: list[float] = []
    with computing_alone():
        for epoch in range(stage.epochs):
            value = _train_epoch(trainer, epoch, past)
            if math.isfinite(value):
                found = trainer.held_out()
                value = float(found.losses.mean())
            if not value <= most:
                return _given_up(len(folds), epoch + 1, stage, value)
            past.append(value)
            if say_epoch:
                say_epoch(epoch + 1, float(trainer.weigh(found).losses.mean()))
    return trainer.weigh(found)


def _train_epoch(trainer: _Trainer, epoch: int, past: list[float]) -> float:
    """Take the steps of an epoch, up to the first whose loss is no number; return the loss of the last, nats."""
    stage, order, value = trainer.stage, trainer.order(epoch), 0.0
    for step in range(trainer.steps):
        factor = lr_factor(stage.policy, epoch, step, trainer.steps, stage.epochs, past)
        indices = order[:, step * stage.batch_size : (step + 1) * stage.batch_size]
        value = trainer.step(indices, epoch, stage.lr * factor, epoch * trainer.steps + step)
        if not math.isfinite(value):
            break
    return value


def _given_up(photos: int, epoch: int, stage: Stage, loss: float) -> HeldOut:
    if math.isfinite(loss):
        said = recorded(
            "trial",
            "diverged: a validation loss of {loss} nats in epoch {epoch} of {epochs}",
            loss=f"{loss:.3g}",
            epoch=epoch,
            epochs=stage.epochs,
        )
    else:
        said = recorded(
            "trial",
            "diverged: a loss that is no number in epoch {epoch} of {epochs}",
            epoch=epoch,
            epochs=stage.epochs,
        )
    return HeldOut(np.full(photos, DIVERGED), np.zeros(photos), said)


def find_rates(stage: Stage, material: Material, training: Training, folds: np.ndarray, seed: int) -> RangeTest:
    """Raise the learning rate a little each step, and see from where on the loss falls and where it stops to.

    The range test of Smith ("Cyclical learning rates for training neural networks", WACV 2017), on a logarithmic
    scale; the losses are smoothed over about ten steps. The stage's own rate is always between the two bounds. Raises
    TrainingError where the first loss, before anything is learned, is no number.
    """
    rates = np.geomspace(_LOWEST_RATE, _HIGHEST_RATE, _RANGE_STEPS)
    with computing_alone():
        losses = np.array(_raise_rate(_Trainer(stage, material, training, folds, seed), rates))
    if not math.isfinite(losses[0]):
        raise TrainingError(
            f"The head's first loss should be a number, whatever its learning rate. It is {losses[0]:g}, so the "
            "features of the photos are too large or no numbers.\n"
            "See whether the recipe's [input] makes pixels far outside 0-255 (input.clip=true limits them), and "
            "whether the weights are those of the backbone (--weights)."
        )
    best = int(losses.argmin())
    fall = losses[0] - losses[best]
    first = int(np.argmax(losses <= losses[0] - _FALLING * fall))
    low, high = float(rates[first]), float(rates[best])
    # Less than a decade would be no search; the start's own rate must be comparable.
    low, high = (float(f"{rate:.2g}") for rate in (min(low, high / 10), high))
    tried = tuple(map(float, rates[: len(losses)]))
    return RangeTest(tried, tuple(map(float, losses)), min(low, stage.lr), max(high, stage.lr))


def _raise_rate(trainer: _Trainer, rates: np.ndarray) -> list[float]:
    """Take one step at each rate, until it diverges; return the smoothed losses."""
    stage = trainer.stage
    smoothed: list[float] = []
    mean = 0.0
    order = trainer.order(0)
    for number, rate in enumerate(rates):
        epoch, step = divmod(number, trainer.steps)
        if step == 0:
            order = trainer.order(epoch)
        indices = order[:, step * stage.batch_size : (step + 1) * stage.batch_size]
        value = trainer.step(indices, epoch, float(rate), number)
        mean = 0.9 * mean + 0.1 * value
        now = mean / (1 - 0.9 ** (number + 1))
        if smoothed and not now < 4 * min(smoothed):  # it diverges: nothing higher is of use
            break
        smoothed.append(now)
    return smoothed
