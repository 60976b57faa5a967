"""From what the user asks for to what will be done, on these photos and this machine."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

from torch import nn

from wildtune import runtime
from wildtune.errors import RecipeError
from wildtune.model.backbone import head_of, read_facts, reset_head, takes_size
from wildtune.model.engine import choose_engine
from wildtune.model.freeze import set_trainable
from wildtune.model.preprocess import given_size, resolve_preprocess
from wildtune.model.weights import WeightsFacts, create_pretrained
from wildtune.photos.split import Split
from wildtune.recipe import Recipe, Stage
from wildtune.runtime import Precision
from wildtune.train.cautions import describe_preflight
from wildtune.train.plan import Plan, PlannedStage
from wildtune.wording import counted

# torch.compile takes one to three minutes before the first step and saves nearly half of every later one, in bfloat16
# two thirds; it pays back from some millions of weights and so many views on, by the precision it computes in. Measured
# on two cores with EfficientNet-B0 (docs/performance.md).
COMPILE_FROM_VIEWS: dict[Precision, int] = {"float32": 5000, "bfloat16": 4000}
COMPILE_FROM_WEIGHTS = 1_000_000

# Photos whose activations a processor holds at once while it trains every weight. Small parts stay near its caches
# and need less memory; `benchmarks/parts.py` measures them. In bfloat16 twice as many take the same room.
CPU_PART = 8


def load_model(recipe: Recipe, num_classes: int) -> tuple[nn.Module, WeightsFacts]:
    """Create the classifier on its pretrained weights with a fresh head, the same each time for one recipe."""
    model, facts = create_pretrained(
        recipe.backbone, recipe.weights, num_classes, given_size(recipe.input), recipe.seed
    )
    reset_head(model, runtime.seed_from(recipe.seed, "head"))
    return model, facts


def create_plan(
    recipe: Recipe, split: Split, model: nn.Module, weights: WeightsFacts, source: str, corrections: str = ""
) -> Plan:
    """Resolve every "auto" of a recipe and count what each stage will do.

    `model` is the classifier on its pretrained weights, `corrections` the SHA-256 of the user's corrections, if any.
    Nothing after the plan decides a default.
    """
    facts = read_facts(model, recipe.backbone)
    preprocess = resolve_preprocess(recipe.input, model, facts)
    device = runtime.detect_device()
    engine = choose_engine(model, device)
    sides = {side: split.side(side) for side in ("train", "val", "test")}
    counts = {side: dict(sorted(Counter(photo.label for photo in photos).items())) for side, photos in sides.items()}
    return Plan(
        recipe_name=recipe.name,
        photos=source,
        data_key=data_key(split),
        class_names=split.class_names,
        counts=counts,
        backbone=recipe.backbone,
        weights=weights,
        preprocess=preprocess,
        seed=recipe.seed,
        device=device,
        threads=runtime.compute_threads(),
        engine=engine,
        stages=tuple(
            _plan_stage(
                stage,
                model,
                len(sides["train"]),
                {"input": preprocess.size, "own": min(facts.size, preprocess.size)},
                device,
                engine,
            )
            for stage in recipe.stages
        ),
        notices=tuple(split.notices),
        corrections=corrections,
    )


def data_key(split: Split) -> str:
    """Return a SHA-256 over each photo's content, label and side, whatever the photos' names."""
    digest = hashlib.sha256()
    for photo, side in zip(split.photos, split.sides, strict=True):
        digest.update(f"{photo.sha256} {photo.label} {side}\n".encode())
    return digest.hexdigest()


def describe_plan(plan: Plan) -> str:
    """Say in a few lines what will be done."""
    sizes = ", ".join(f"{plan.side_size(side)} {side}" for side in plan.counts)
    weights = f"{plan.weights.source} {plan.weights.name}" if plan.weights.source != "none" else "random weights"
    lines = [
        f"photos: {sizes}; {len(plan.class_names)} classes",
        f"model: {plan.backbone} on {weights}, input {plan.preprocess.size} px, {plan.device}, {plan.threads} threads",
    ]
    lines += [f"  note: {note}" for note in (*plan.weights.notes, *plan.notices)]
    if plan.preflight is not None:
        lines.append(f"preflight, on {counted(plan.preflight.photos, 'training photo')}:")
        lines += [f"  {line}" for line in describe_preflight(plan.preflight)]
        lines += [f"warning ({caution.kind}): {caution.text}" for caution in plan.preflight.warnings]
    return "\n".join(lines)


def _stage_size(stage: Stage, model: nn.Module, sizes: dict[str, int]) -> int:
    """Return the side in pixels of a stage's inputs; `sizes` are those that the words stand for."""
    size = sizes[stage.size] if isinstance(stage.size, str) else stage.size
    if size > sizes["input"]:
        raise RecipeError(
            f"size of stage '{stage.name}' must be at most the input's {sizes['input']} pixels (input.size). "
            f"Got {size}."
        )
    if size == sizes["input"] or takes_size(model, size):
        return size
    if stage.size == "own":  # a network that was built for the input's size takes no other
        return sizes["input"]
    raise RecipeError(
        f"size of stage '{stage.name}' is {size}, which this network does not take when it is built for inputs of "
        f"{sizes['input']} pixels. Leave it at 'input'."
    )


def view_precision(engine: str, device: str) -> Precision:
    """Return what a frozen backbone computes augmented views in: their own randomness is far more than rounding's.

    Photos as they are stay float32, so that a score in training is that of prediction.
    """
    return "bfloat16" if engine == "openvino" and runtime.has_fast_bfloat16(device) else "float32"


def _plan_stage(
    stage: Stage, model: nn.Module, photos: int, sizes: dict[str, int], device: str, engine: str
) -> PlannedStage:
    set_trainable(model, head_of(model), stage.train)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = stage.train == "head"
    views = stage.epochs if stage.views == "every_epoch" or not head else min(stage.views, stage.epochs)
    size = _stage_size(stage, model, sizes)
    fast_bfloat16 = runtime.has_fast_bfloat16(device)
    enough_views = COMPILE_FROM_VIEWS["bfloat16" if fast_bfloat16 and device == "cpu" else "float32"]
    pays = photos * stage.epochs >= enough_views and trained >= COMPILE_FROM_WEIGHTS
    compiled = not head and pays and runtime.can_compile()
    # On a CPU only what is compiled: torch's own gradients of depthwise layers are very slow in bfloat16.
    bfloat16 = not head and (compiled or device == "cuda") and fast_bfloat16
    cpu_part = 2 * CPU_PART if bfloat16 else CPU_PART
    precision: Precision = "bfloat16" if bfloat16 else "float32"
    if head and not stage.augment.neutral:
        precision = view_precision(engine, device)
    return PlannedStage(
        stage=stage,
        trained_weights=trained,
        frozen_weights=total - trained,
        steps_per_epoch=math.ceil(photos / stage.batch_size),
        size=size,
        part_size=stage.batch_size if head or device == "cuda" else min(stage.batch_size, cpu_part),
        views=views,
        compile=compiled,
        precision=precision,
    )
