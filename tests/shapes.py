"""Small generated photos of three coloured shapes, a recipe that trains on them in seconds, and a stage as planned."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from wildtune.recipe import Recipe, Stage, load_recipe
from wildtune.train.plan import PlannedStage

BACKBONE = "test_efficientnet"


def draw_shape(kind: str, seed: int, size: tuple[int, int] = (72, 60)) -> Image.Image:
    """Draw a disc, a square or stripes on a noisy ground."""
    rng = random.Random(f"{kind} {seed}")
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    x, y, r = rng.randint(18, size[0] - 20), rng.randint(18, size[1] - 20), rng.randint(10, 16)
    colour = {"disc": (230, 60, 40), "square": (60, 210, 70), "stripes": (70, 90, 240)}[kind]
    if kind == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    else:
        for k in range(-r, r, 6):
            draw.rectangle((x - r, y + k, x + r, y + k + 2), fill=colour)
    return image


def write_photos(folder: Path, per_class: int) -> Path:
    """Write class folders of PNG files."""
    for kind in ("disc", "square", "stripes"):
        (folder / kind).mkdir(parents=True)
        for number in range(per_class):
            draw_shape(kind, number).save(folder / kind / f"{number:02}.png")
    return folder


def small_recipe(*changes: str, name: str = "default") -> Recipe:
    """Return a recipe that trains timm's smallest network on 48 px inputs for a few epochs."""
    return load_recipe(
        name,
        (
            "input.size=48",
            "stages.0.epochs=3",
            "stages.0.batch_size=8",
            "stages.0.views=2",
            "stages.0.augment.crop=random_resized",
            "stages.0.augment.flip=0.5",
            "stages.1.epochs=2",
            "stages.1.batch_size=8",
            *changes,
        ),
        backbone=BACKBONE,
        weights="none",
    )


def planned_stage(stage: Stage, **values: Any) -> PlannedStage:
    """Return a stage as planned for a CPU that does not compile it: six steps an epoch, its batches in one part."""
    numbers = {"trained_weights": 1, "frozen_weights": 0, "steps_per_epoch": 6, "size": 48, "part_size": 8, "views": 1}
    return PlannedStage(**{"stage": stage, "compile": False, "precision": "float32", **numbers, **values})
