"""What a stage learns from: batches of cached features for a head stage, of augmented photos for a full one.

Both give the training loop the same three things: the batches of an epoch, a forward pass, and the validation
logits. Which photos make up a batch and how they are augmented follows from (seed, stage, epoch) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from wildtune import runtime
from wildtune.model.backbone import head_of
from wildtune.model.engine import TrainingEngine
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.model.gradients import compile_network
from wildtune.model.preprocess import Preprocess, create_input, decode_stored
from wildtune.photos.catalogue import SPLITS, Catalogue, Photo
from wildtune.photos.split import Split
from wildtune.photos.store import PhotoStore, load_store
from wildtune.photos.threads import map_in_threads
from wildtune.progress import Reporter
from wildtune.recipe import Stage
from wildtune.runtime import seed_from
from wildtune.train.augment import create_view
from wildtune.train.imbalance import draw_photos, expected_draws, number_repeats
from wildtune.train.plan import Plan, PlannedStage

Batch = tuple[Tensor, Tensor]

# How many photos more torch runs in the time that OpenVINO needs to take a network over, and each epoch to take new
# weights over (docs/performance.md).
_TAKE_OVER_PHOTOS = 300
_NEW_WEIGHTS_PHOTOS = 80

# A head's step with fewer multiplications than this gains nothing from a second thread, and stands still where that
# one waits for a processor that another program has.
_ALONE_BELOW = 10_000_000


class Side:
    """The photos of one side of the split: records, decoded pixels and (N,) int64 targets."""

    def __init__(self, photos: tuple[Photo, ...], store: PhotoStore, rows: Sequence[int], targets: Tensor) -> None:
        """Keep the records and targets of the same photos, and the row of each in the store of all photos."""
        self.photos, self.targets = photos, targets
        self._store, self._rows = store, rows

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def plain_input(self, index: int, preprocess: Preprocess) -> Tensor:
        """Return the (3, size, size) input of a photo without augmentation."""
        return create_input(self._store[self._rows[index]], preprocess)

    def augmented_input(
        self, index: int, preprocess: Preprocess, stage: Stage, seed: int, view: int, repeat: int = 0
    ) -> Tensor:
        """Return the (3, size, size) input of one augmented view, random by seed, stage, view and content.

        `repeat` tells the second and later times of a photo in one epoch apart.
        """
        seed = seed_from(seed, stage.name, view, self.photos[index].sha256, *([repeat] if repeat else []))
        return create_view(self._store[self._rows[index]], preprocess, stage.augment, seed)


def load_sides(split: Split, catalogue: Catalogue, plan: Plan, reporter: Reporter) -> dict[str, Side]:
    """Open the decoded photos of all sides, decoding them first where they are not cached.

    They are in one store, in the catalogue's order, so that another split of the same photos finds them again.
    """
    pre = plan.preprocess
    with reporter.bar("decoding the photos") as tell:
        store = load_store(
            catalogue, split.photos, lambda data, box: decode_stored(data, pre, box), pre.stored_key, tell
        )
    rows: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row, side in enumerate(split.sides):
        rows[side].append(row)
    return {
        name: Side(split.side(name), store, rows[name], torch.from_numpy(split.targets(name)))
        for name in SPLITS
        if rows[name]
    }


class StageData(Protocol):
    """What the training loop needs of a stage's photos.

    val_targets   (N,) int64 targets of the validation photos
    """

    val_targets: Tensor

    def batches(self, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """Yield (inputs, (B,) int64 targets) of each step of an epoch from `first_step` on; close it unless used up."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, C) logits of a training batch, with gradients."""

    def val_logits(self) -> Tensor:
        """Return (N, C) logits of the validation photos with the weights as they are, without augmentation."""


def batch_order(seed: int, stage: str, epoch: int, count: int, batch_size: int) -> list[np.ndarray]:
    """Return the photo indices of each batch of an epoch: a shuffle cut into pieces, the last one shorter."""
    order = np.random.default_rng(seed_from(seed, stage, epoch, "order")).permutation(count)
    return _cut(order, batch_size)


def stage_order(seed: int, stage: Stage, epoch: int, side: Side) -> list[np.ndarray]:
    """Return the photo indices of each batch of an epoch of a stage, some of them repeated where it draws by class."""
    expected = expected_draws(stage, side.targets)
    if expected is None:
        return batch_order(seed, stage.name, epoch, len(side), stage.batch_size)
    drawn = draw_photos(expected, side.targets.numpy(), seed, stage.name, epoch, "order")
    return _cut(drawn, stage.batch_size)


def _cut(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def view_key(stage: Stage, seed: int, number: int) -> dict[str, object]:
    """Return what the cache of features knows a head stage's view of its training photos by."""
    if stage.augment.neutral:
        return PLAIN_VIEW
    augment = stage.augment.model_dump(mode="json")
    return {"augment": augment, "seed": seed, "stage": stage.name, "number": number}


class FeatureData:
    """A head stage: batches of cached feature views."""

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        planned: PlannedStage,
        sides: dict[str, Side],
        cache: FeatureCache,
        reporter: Reporter,
    ) -> None:
        """Extract or find the validation features; training views follow as the epochs ask for them."""
        self._plan, self._planned, self._stage = plan, planned, planned.stage
        self._train, self._cache, self._reporter = sides["train"], cache, reporter
        self._head = head_of(model)
        model.to(plan.device)
        self._device = torch.device(plan.device)
        val = sides["val"]
        self.val_targets = val.targets
        with reporter.bar("features of the validation photos") as tell:
            self._val = cache.load(val.photos, lambda i: val.plain_input(i, plan.preprocess), PLAIN_VIEW, tell).to(
                self._device
            )
        self._view_number = -1
        self._features = torch.empty(0)

    def batches(self, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """Yield ((B, D) features, (B,) targets); until it is closed the caller's small steps use one thread."""
        self._load_view(epoch % self._planned.views)
        small = self._planned.trained_weights * self._stage.batch_size < _ALONE_BELOW
        with runtime.computing_alone() if small else nullcontext():
            for indices in stage_order(self._plan.seed, self._stage, epoch, self._train)[first_step:]:
                rows = torch.from_numpy(indices)
                yield self._features[rows].to(self._device), self._train.targets[rows].to(self._device)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the head's logits."""
        return self._head(inputs)

    def val_logits(self) -> Tensor:
        """Return the head's logits of the validation features."""
        with torch.no_grad():
            return self._head(self._val).cpu()

    def _load_view(self, number: int) -> None:
        if number == self._view_number:
            return
        name, seed = self._stage.name, self._plan.seed
        key = view_key(self._stage, seed, number)

        def view(i: int) -> Tensor:
            if key == PLAIN_VIEW:
                return self._train.plain_input(i, self._plan.preprocess)
            return self._train.augmented_input(i, self._plan.preprocess, self._stage, seed, number)

        with self._reporter.bar(f"{name}: features of view {number + 1} of {self._planned.views}") as tell:
            self._features = self._cache.load(self._train.photos, view, key, tell, self._planned.precision)
        self._view_number = number


class PhotoData:
    """A stage that trains every weight: batches of freshly augmented photos."""

    def __init__(
        self, model: nn.Module, plan: Plan, planned: PlannedStage, sides: dict[str, Side], reporter: Reporter
    ) -> None:
        """Prepare the forward pass; with `planned.compile` the first step ever takes a minute or two."""
        self._model, self._plan, self._planned, self._stage = model, plan, planned, planned.stage
        self._preprocess = plan.preprocess.at_size(planned.size)
        self._train, self._val, self._reporter = sides["train"], sides["val"], reporter
        self.val_targets = self._val.targets
        # Before the layers are put into forms for training, where no stage before has.
        self._val_engine = TrainingEngine(
            model, plan.preprocess.size, validation_engine(plan, planned, len(self._val)), plan.threads, plan.device
        )
        self._device = torch.device(plan.device)
        model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if plan.device == "cpu":
            runtime.keep_freed_memory()
        # One compiled function for the one size of a batch's parts; another would recompile with dynamic shapes.
        self._compiled: Callable[[Tensor], Tensor] | None = None
        if planned.compile:
            reporter.say(
                "compiling the network for this processor: the first step takes a minute or two, less where it was "
                "compiled before"
            )
            self._compiled = compile_network(model, plan.device)
        self._compiling = planned.compile

    def batches(self, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """Yield ((B, 3, size, size) inputs, (B,) targets) of freshly augmented photos.

        A GPU is kept busy: views are made ahead. A CPU's threads make a batch's views and then train on it, all of
        them at one or the other, because a step waits for its slowest thread: one that also makes views slows both.
        """
        stage, seed, preprocess = self._stage, self._plan.seed, self._preprocess
        order = stage_order(seed, stage, epoch, self._train)
        numbered = list(zip(order, number_repeats(order), strict=True))[first_step:]

        def make(batch: tuple[np.ndarray, np.ndarray]) -> Batch:
            views = map_in_threads(
                lambda pair: self._train.augmented_input(int(pair[0]), preprocess, stage, seed, epoch, int(pair[1])),
                zip(*batch, strict=True),
                self._plan.threads,
                runtime.compute_alone,
            )
            return torch.stack(list(views)), self._train.targets[torch.from_numpy(batch[0])]

        ahead = self._device.type == "cuda"
        for images, targets in map_in_threads(make, numbered, 1) if ahead else map(make, numbered):
            yield images.to(self._device, memory_format=torch.channels_last), targets.to(self._device)
            if self._compiling:  # which leaves much behind, in pieces that no step can use
                runtime.give_back_freed_memory()
                self._compiling = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's logits in float32, computed in the planned precision."""
        count = len(inputs)
        if self._compiled is not None and count < self._planned.part_size:
            # Filled up with zeros, whose logits are thrown away: nothing in the network looks across photos.
            inputs = torch.cat([inputs, inputs.new_zeros(self._planned.part_size - count, *inputs.shape[1:])])
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._planned.precision == "bfloat16"):
            logits = self._model(inputs) if self._compiled is None else self._compiled(inputs)
        return logits[:count].float()

    def val_logits(self) -> Tensor:
        """Return the logits of the validation photos, by the plan's engine where they repay its start."""
        pre = self._plan.preprocess
        return self._val_engine.now().run_all(len(self._val), lambda i: self._val.plain_input(i, pre))


def validation_engine(plan: Plan, planned: PlannedStage, val_photos: int) -> str:
    """Return what runs the validation photos of a full stage: the plan's engine where it repays its start."""
    gained = planned.stage.epochs * (val_photos - _NEW_WEIGHTS_PHOTOS)
    return plan.engine if gained >= _TAKE_OVER_PHOTOS else "torch"


def create_cache(model: nn.Module, plan: Plan, versions: dict[str, str]) -> FeatureCache:
    """Return the cache of the features that a model's backbone gives as it is now."""
    return FeatureCache(model, plan.backbone, plan.preprocess, plan.engine, plan.threads, plan.device, versions)


def create_stage_data(
    model: nn.Module,
    plan: Plan,
    planned: PlannedStage,
    sides: dict[str, Side],
    versions: dict[str, str],
    reporter: Reporter,
) -> StageData:
    """Return what a stage learns from, by what it trains."""
    stage: Stage = planned.stage
    if stage.train == "head":
        return FeatureData(model, plan, planned, sides, create_cache(model, plan, versions), reporter)
    return PhotoData(model, plan, planned, sides, reporter)
