"""What will be done: the recipe on these photos and this machine, with nothing left to decide."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import pydantic
import tomlkit

from wildtune import files
from wildtune.model.preprocess import Preprocess
from wildtune.model.weights import WeightsFacts
from wildtune.recipe import Stage


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class PlannedStage(_Frozen):
    """One stage with its numbers worked out.

    trained_weights    number of single weights that can change
    frozen_weights     number that cannot (BatchNorm's, and the backbone's in a head stage)
    steps_per_epoch    optimiser steps in each epoch, the last partial batch included
    size               side in pixels of the square input it trains on
    part_size          photos whose gradients are computed at once; a batch's are the sum of its parts'
    views              distinct augmented views made of each training photo
    compile            whether torch.compile is worth its start-up for this stage
    precision          "float32", or "bfloat16" for the network's arithmetic; weights and loss are float32 in both
    """

    stage: Stage
    trained_weights: int
    frozen_weights: int
    steps_per_epoch: int
    size: int
    part_size: int
    views: int
    compile: bool
    precision: Literal["float32", "bfloat16"]


class Plan(_Frozen):
    """The frozen plan of a run.

    counts      photos on each side, by class: {"train": {"bear": 70, ...}, "val": ..., "test": ...}
    data_key    SHA-256 over every photo's content, label and side: what resuming must find unchanged
    device      "cpu" or "cuda"; `threads` CPU threads
    engine      what runs the frozen backbone and predictions: "openvino" or "torch"
    corrections  SHA-256 of the run's corrections.csv, "" where there were none
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

    def side_size(self, side: str) -> int:
        """Return the number of photos on "train", "val" or "test"."""
        return sum(self.counts[side].values())


def save_plan(plan: Plan, path: Path) -> None:
    """Write the plan as TOML."""
    files.write_text(path, tomlkit.dumps(plan.model_dump(mode="json")))


def load_plan(path: Path) -> Plan:
    """Read what `save_plan` wrote."""
    return Plan.model_validate(tomllib.loads(path.read_text("utf-8")))
