"""What will be done: the recipe on these photos and this machine, with nothing left to decide."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomlkit

from wildtune import files
from wildtune.frozen import Frozen
from wildtune.model.preprocess import Preprocess
from wildtune.model.weights import WeightsFacts
from wildtune.recipe import Stage
from wildtune.runtime import Precision


class PlannedStage(Frozen, extra="forbid"):
    """One stage with its numbers worked out.

    trained_weights    number of single weights that can change
    frozen_weights     number that cannot (BatchNorm's, and the backbone's in a head stage)
    steps_per_epoch    optimiser steps in each epoch, the last partial batch included
    size               side in pixels of the square input it trains on
    part_size          photos whose gradients are computed at once; a batch's are the sum of its parts'
    views              distinct augmented views made of each training photo
    compile            whether torch.compile is worth its start-up for this stage
    precision          "float32", or "bfloat16" for the network's arithmetic while it learns: of all of it where every
                       weight is trained, of the frozen backbone on augmented views where the head is. Weights, loss,
                       a head on its features and validation are float32 in both
    """

    stage: Stage
    trained_weights: int
    frozen_weights: int
    steps_per_epoch: int
    size: int
    part_size: int
    views: int
    compile: bool
    precision: Precision


class Effect(Frozen, extra="forbid"):
    """What one setting does to photos, measured on the preflight's sample; see `train.effects`.

    setting         "input.contrast", or "augment.noise" in stages
    value           its value in the recipe, as text
    stages          the stages that have it with this value; none where it is the input's, which all photos go through
    chance          share of views it happens to; the figures are of those
    pixel_change    mean absolute change of a pixel's value, on the 0-255 scale
    changed_share   share of the values that change by more than half a grey level, 0-1
    feature_change  mean of 1 - cosine between a photo's features with and without it; None where not measured
    same_class      the same between two photos of one class, without the setting; None where no class has two
    other_class     the same between photos of different classes
    feature_growth  size of the features with it as a multiple of that without it
    """

    setting: str
    value: str
    stages: tuple[str, ...] = ()
    chance: float = 1.0
    pixel_change: float
    changed_share: float
    feature_change: float | None = None
    same_class: float | None = None
    other_class: float | None = None
    feature_growth: float | None = None


class Reach(Frozen, extra="forbid"):
    """How far a stage's learning rate can move its weights, as a share of their size; see `train.reach`.

    stage         name of the stage
    steps         steps of the optimiser in all
    lr_sum        the learning rates of all steps added up
    weights_rms   root mean square of the weights it trains
    reach         root mean square of the furthest that each weight can go, as a share of `weights_rms`
    largest_step  the same for a single step at the highest rate
    stuck_share   share of the weights in tensors that can go less than a thousandth of their own size, 0-1
    gradient_rms  root mean square of the first batch's gradient, where the optimiser's steps depend on it
    """

    stage: str
    steps: int
    lr_sum: float
    weights_rms: float
    reach: float
    largest_step: float
    stuck_share: float
    gradient_rms: float | None = None


class Caution(Frozen, extra="forbid"):
    """A setting that cannot matter or must harm: a stable `kind`, the settings meant, and what to know in words."""

    kind: str
    settings: tuple[str, ...]
    text: str


class Preflight(Frozen, extra="forbid"):
    """What was measured before training; see `train.preflight`.

    photos              training photos in the sample
    outside_share       share of the pixels of photos as they are classified that lie outside 0-255
    effects, reaches    by setting and by stage
    batchnorm_layers    BatchNorm layers, none of which ever changes
    feature_seconds     expected time for the features of photos without augmentation that are not known yet
    stage_seconds       expected time of each stage by name
    warnings            settings that cannot matter or must harm
    """

    photos: int
    outside_share: float
    batchnorm_layers: int
    feature_seconds: float
    stage_seconds: dict[str, float]
    effects: tuple[Effect, ...] = ()
    reaches: tuple[Reach, ...] = ()
    warnings: tuple[Caution, ...] = ()


class Plan(Frozen, extra="forbid"):
    """The frozen plan of a run.

    counts      photos on each side, by class: {"train": {"bear": 70, ...}, "val": ..., "test": ...}
    data_key    SHA-256 over every photo's content, label and side: what resuming must find unchanged
    device      "cpu" or "cuda"; `threads` CPU threads
    engine      what runs the frozen backbone and predictions: "openvino" or "torch"
    corrections  SHA-256 of the run's corrections.csv, "" where there were none
    preflight   what was measured before training; None before it is
    """

    recipe_name: str
    photos: str
    data_key: str
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    backbone: str
    weights: WeightsFacts
    preprocess: Preprocess
    seed: int
    device: str
    threads: int
    engine: str
    stages: tuple[PlannedStage, ...]
    notices: tuple[str, ...] = ()
    corrections: str = ""
    preflight: Preflight | None = None

    def side_size(self, side: str) -> int:
        """Return the number of photos on "train", "val" or "test"."""
        return sum(self.counts[side].values())


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan as TOML."""
    files.write_text(path, tomlkit.dumps(plan.model_dump(mode="json", exclude_none=True)))


def load_plan(path: Path) -> Plan:
    """Read what `save_plan` wrote. Raises CommandError where that is missing or damaged."""
    with files.reading(path):
        return Plan.model_validate(tomllib.loads(path.read_text("utf-8")))
