"""Synthetic runs: every number is made here, so that each sentence of the report can be provoked."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shapes import planned_stage
from wildtune.evaluate.evaluation import RunEvaluation, evaluate_run
from wildtune.evaluate.learning_curve import ClassCurve, Forecast, LearningCurve, Measured, Needed
from wildtune.model.preprocess import Preprocess
from wildtune.model.weights import WeightsFacts
from wildtune.photos.audit import Finding
from wildtune.predict.predictions import Predictions
from wildtune.recipe import Augment, Stage
from wildtune.report import RunContent
from wildtune.train.cautions import find_cautions
from wildtune.train.history import EpochRecord, StageMove
from wildtune.train.plan import Effect, Plan, Preflight, Reach

ANIMALS = [
    "ape",
    "bear",
    "bison",
    "cat",
    "chicken",
    "cow",
    "deer",
    "dog",
    "dolphin",
    "duck",
    "eagle",
    "fish",
    "horse",
    "lion",
    "lobster",
    "pig",
    "rabbit",
    "shark",
    "snake",
    "spider",
    "turkey",
    "wolf",
]
NASTY = ("<b>&", "🦊 fox", "рысь", "$x_1$", "a" * 120, "quo\"te's", "line\x0bfeed", "*star* [x](y)")
PREPROCESS = Preprocess(
    size=224,
    fit="squash",
    resize=235,
    antialias=True,
    contrast=1.0,
    brightness=0.0,
    clip=True,
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def make_predictions(
    side: str, names: tuple[str, ...], per_class: int, wrong: set[int], slips: dict[int, int] | None = None
) -> Predictions:
    """`per_class` photos of each class; the rows in `wrong` get the next class (or `slips[row]`) instead."""
    total = len(names) * per_class
    targets = np.arange(total) % len(names)
    answers = targets.copy()
    for row in wrong:
        answers[row] = (slips or {}).get(row, (targets[row] + 1) % len(names))
    # Confidence between 0.45 and 0.98 by row, the same on every machine.
    confidence = 0.45 + 0.53 * ((np.arange(total) * 37) % 101) / 100
    logits = np.zeros((total, len(names)), dtype=np.float32)
    if len(names) > 1:
        odds = np.log(confidence * (len(names) - 1) / (1 - confidence))
        logits[np.arange(total), answers] = odds
    return Predictions(
        paths=tuple(f"{names[t]}/{side}_{row:04d}.jpg" for row, t in enumerate(targets)),
        labels=tuple(names[t] for t in targets),
        errors=("",) * total,
        logits=logits,
        class_names=names,
    )


def make_records(stage: str, losses: list[float], keep_best: bool = True, lr: float = 0.01) -> list[EpochRecord]:
    """One record for each validation loss; accuracy follows the loss."""
    records: list[EpochRecord] = []
    best = -1.0
    for number, loss in enumerate(losses, start=1):
        accuracy = math.exp(-0.6 * loss)
        kept = accuracy > best or not keep_best
        best = max(best, accuracy)
        records.append(
            EpochRecord(
                stage=stage,
                epoch=number,
                lr=lr * math.exp(-0.3 * (number - 1)),
                loss=loss * 1.15,
                accuracy=accuracy - 0.02,
                val_loss=loss,
                val_accuracy=accuracy,
                seconds=4.2,
                kept=kept,
            )
        )
    return records


def make_plan(names: tuple[str, ...], stages: list[Stage], test: int = 12) -> Plan:
    counts = {"train": {n: 60 + 3 * (i % 5) for i, n in enumerate(names)}, "val": dict.fromkeys(names, 9)}
    if test:
        counts["test"] = dict.fromkeys(names, test)
    planned = tuple(
        planned_stage(
            stage,
            trained_weights=28182 if stage.train == "head" else 3993710,
            frozen_weights=4049564 if stage.train == "head" else 42016,
            steps_per_epoch=46,
            size=224,
            part_size=16,
        )
        for stage in stages
    )
    return Plan(
        recipe_name="default",
        photos="/photos/animals",
        data_key="5f" * 32,
        class_names=names,
        counts=counts,
        backbone="tf_efficientnet_b0",
        weights=WeightsFacts(source="file", name="b0.safetensors", sha256="ab" * 32, notes=("head dropped",)),
        preprocess=PREPROCESS,
        seed=0,
        device="cpu",
        threads=2,
        engine="openvino",
        stages=planned,
        notices=("brightness 0.1 on a scale of 255 does nothing.",),
    )


def make_preflight(reach: float = 1e-4) -> Preflight:
    """Noise that does nothing, and a second stage whose rate goes as far as `reach`."""
    reaches = [
        Reach(stage="transfer", steps=9, lr_sum=0.9, weights_rms=0.04, reach=22, largest_step=0.2, stuck_share=0),
        Reach(
            stage="finetune",
            steps=9,
            lr_sum=9e-6,
            weights_rms=0.09,
            reach=reach,
            largest_step=1e-5,
            stuck_share=reach < 1e-3,
        ),
    ]
    noise = Effect(
        setting="augment.noise",
        value="0.05",
        stages=("finetune",),
        pixel_change=0.04,
        changed_share=0.0,
        feature_change=1.1e-6,
        same_class=0.35,
        other_class=0.42,
    )
    return Preflight(
        photos=24,
        outside_share=0.0,
        batchnorm_layers=49,
        feature_seconds=11.0,
        stage_seconds={"transfer": 0.4, "finetune": 260.0},
        effects=(noise,),
        reaches=tuple(reaches),
    )


def with_preflight(content: RunContent, moved: float = 1.1e-6, reach: float = 1e-4) -> RunContent:
    """The same run with a preflight of which two warnings came, or one where the rate reaches far enough."""
    plan = content.plan.model_copy(update={"preflight": make_preflight(reach)})
    found = plan.preflight.model_copy(update={"warnings": find_cautions(plan)})  # type: ignore[union-attr]
    moves = (StageMove("transfer", 0.94, 0.94, True), StageMove("finetune", moved, moved, True))
    return replace(content, plan=plan.model_copy(update={"preflight": found}), moves=moves)


def thumbnail(path: str) -> bytes | None:
    """A small JPEG of a colour that follows from the path; none for every fifth photo."""
    seed = sum(path.encode("utf-8", "replace"))
    if seed % 5 == 0:
        return None
    picture = Image.new("RGB", (160, 120), (seed % 200, seed * 7 % 200, 120))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=60)
    return written.getvalue()


TRANSFER = Stage(name="transfer", train="head", epochs=12, lr=0.01, keep="best")
FINETUNE = Stage(name="finetune", train="all", epochs=8, lr=5e-4, keep="best", augment=Augment(flip=0.5))
FALLING = [1.1, 0.7, 0.52, 0.44, 0.40, 0.385, 0.378, 0.376, 0.375, 0.375, 0.376, 0.375]
FINE = [0.36, 0.33, 0.31, 0.30, 0.299, 0.30, 0.31, 0.33]


def make_content(
    names: tuple[str, ...] = tuple(ANIMALS[:6]),
    before_wrong: int = 14,
    after_wrong: int = 9,
    first_wrong: int = 0,
    test: int = 12,
    val: int = 9,
    **changes: object,
) -> RunContent:
    """Two stages; on the headline side the model before gets rows 0..before_wrong wrong, the final one
    `after_wrong` rows from `first_wrong` on.
    """
    sides = {"val": val, "test": test} if test else {"val": val}
    final, before = {}, {}
    for side, per_class in sides.items():
        final[side] = make_predictions(side, names, per_class, set(range(first_wrong, first_wrong + after_wrong)))
        before[("transfer", side)] = make_predictions(side, names, per_class, set(range(before_wrong)))
    values: dict[str, object] = {
        "title": "Six animals",
        "plan": make_plan(names, [TRANSFER, FINETUNE], test),
        "history": (*make_records("transfer", FALLING), *make_records("finetune", FINE, lr=5e-4)),
        "evaluation": evaluate_run(final, before, "finetune"),
        "findings": (
            Finding("bear/a.jpg", "unreadable", "error", "the file ends after 512 bytes"),
            Finding("bear/b.jpg", "exact_duplicate", "warning", "same bytes", "bear/c.jpg"),
            Finding("wolf/<i>.jpg", "label_conflict", "error", "also labelled dog", "dog/x.jpg"),
        ),
        "environment": {
            "python": "3.11.2",
            "packages": {"torch": "2.13.0", "timm": "1.0.20"},
            "cpu": "two cores",
        },
        "load_thumbnail": thumbnail,
        "predictions": final["test" if test else "val"],
    }
    return RunContent(**{**values, **changes})  # type: ignore[arg-type]


def make_one_epoch() -> RunContent:
    """One stage of one epoch, no test side, no findings, no predictions."""
    names = ("bear", "deer")
    stage = Stage(name="transfer", train="head", epochs=1, lr=0.01)
    final = make_predictions("val", names, 9, {0, 3})
    return RunContent(
        title="Quick look",
        plan=make_plan(names, [stage], test=0),
        history=tuple(make_records("transfer", [0.2])),
        evaluation=RunEvaluation(sides=evaluate_run({"val": final}, {}, "transfer").sides, before={}, comparisons={}),
    )


def make_forecasts(now: float, twice: float, four_times: float) -> tuple[Forecast, ...]:
    values = {1.0: now, 2.0: twice, 4.0: four_times}
    return tuple(Forecast(factor=f, value=v, interval=(v - 0.03, v + 0.02)) for f, v in values.items())


def make_learning_curve(names: Sequence[str] = ("bear", "cat", "deer"), left_out: Sequence[str] = ()) -> LearningCurve:
    """Of the classes the first gains most, the last nothing."""
    needed = (Needed(factor=3.1, low=1.6, high=None), Needed(factor=None, low=5.0, high=None))
    classes = [
        ClassCurve(
            name=name,
            photos=80,
            forecasts=make_forecasts(0.8 + 0.05 * i, 0.9, 0.93) if i < 2 else make_forecasts(0.97, 0.97, 0.97),
            needed=needed[i] if i < 2 else Needed(factor=0.4, low=0.1, high=0.9),
        )
        for i, name in enumerate(names)
    ]
    return LearningCurve(
        photos=240,
        measured=tuple(
            Measured(share=s, photos=192 * s, accuracy=a, interval=(a - 0.05, a + 0.04), recalls=(a,) * len(names))
            for s, a in ((0.125, 0.6), (0.25, 0.7), (0.5, 0.78), (0.75, 0.82), (1.0, 0.85))
        ),
        forecasts=make_forecasts(0.85, 0.89, 0.92),
        band=(*make_forecasts(0.85, 0.89, 0.92),),
        classes=tuple(classes),
        left_out=tuple(left_out),
    )


@pytest.fixture(scope="session")
def build() -> Callable[..., RunContent]:
    return make_content


@pytest.fixture(scope="session")
def foreseen() -> Callable[..., RunContent]:
    return with_preflight


@pytest.fixture(scope="session")
def one_epoch() -> RunContent:
    return make_one_epoch()


@pytest.fixture(scope="session")
def make_curve() -> Callable[..., LearningCurve]:
    return make_learning_curve
