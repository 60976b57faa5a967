"""Where a search begins: at the recipe it was given, or at recipe `default` where that one's head does clearly better.

A search of the head's values does not get away from an input that spoils the features, nor far from a rate that is
off by orders of magnitude.
"""

from __future__ import annotations

import time

import numpy as np

from wildtune.intervals import clustered_error
from wildtune.language import recorded
from wildtune.recipe import Augment, Recipe, Stage, load_recipe
from wildtune.runtime import seed_from
from wildtune.tune.heads import HeldOut, Material, Training, train_heads
from wildtune.tune.ledger import Outcome

REFERENCE = "default"
_REPEATS = 2
# The heads are compared without augmentation, so what looks better must be so by this many standard errors.
_CLEARLY = 2.0


def head_number(recipe: Recipe) -> int | None:
    """Return the number of the first stage that trains a head; None where there is none."""
    return next((number for number, stage in enumerate(recipe.stages) if stage.train == "head"), None)


def create_reference(recipe: Recipe) -> Recipe | None:
    """Return recipe `default` with the backbone, weights, seed, split and input size of another.

    The size stays, because it decides what each prediction costs, and so does what its stages do about classes of
    unequal size; stages that train every weight are left out where the other has none. None where nothing is left that
    differs in input or head.
    """
    number = head_number(recipe)
    found = load_recipe(REFERENCE)
    own = {stage.train: stage for stage in reversed(recipe.stages)}  # the first of each kind
    stages = tuple(_treat_as(stage, own[stage.train]) for stage in found.stages if stage.train in own)
    kept = {name: getattr(recipe, name) for name in ("backbone", "weights", "seed", "split")}
    size = found.input.model_copy(update={"size": recipe.input.size})
    reference = found.model_copy(update={**kept, "input": size, "stages": stages})
    if number is None:
        return None
    same_head = _without_name(recipe.stages[number]) == _without_name(reference.stages[0])
    return None if same_head and recipe.input == reference.input else reference


def compare_heads(ours: tuple[Stage, Material], theirs: tuple[Stage, Material], seed: int) -> Outcome:
    """Compare the heads of two stages, each on its own features of the same photos, without augmentation.

    Both are cross-validated on the same folds, and compared photo by photo. Returns the outcome of the second, with
    "difference" (its loss less the first's, nats), "difference_error", "first" (the first's loss and accuracy) and
    "better": whether the second is clearly so.
    """
    started = time.perf_counter()
    found = [_cross_validate(stage, material, seed) for stage, material in (ours, theirs)]
    (first, first_right, _), (second, second_right, diverged) = found
    groups = ours[1].groups
    difference, error, _ = clustered_error(second - first, groups)
    gained = float(second_right.mean() - first_right.mean())
    return {
        "what": recorded("trial", "recipe {name}'s input and head, against the start's", name=REFERENCE),
        "loss": float(second.mean()),
        "error": clustered_error(second, groups)[1],
        "accuracy": float(second_right.mean()),
        "difference": difference,
        "difference_error": error,
        "first": [float(first.mean()), float(first_right.mean())],
        "better": bool(difference < -_CLEARLY * error and gained >= 0),
        "seconds": time.perf_counter() - started,
        **({"failed": diverged} if diverged else {}),
    }


def _cross_validate(stage: Stage, material: Material, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return each photo's mean loss, how often it is right, and why a training was given up, if one was."""
    plain = stage.model_copy(update={"augment": Augment()})
    training = Training(material.plain[None], np.arange(len(material.targets)))
    found: list[HeldOut] = [
        train_heads(plain, material, training, material.folds(seed, repeat), seed_from(seed, "tune origin", repeat))
        for repeat in range(1, _REPEATS + 1)
    ]
    losses, right = (np.mean([getattr(h, name) for h in found], axis=0) for name in ("losses", "right"))
    return losses, right, next((h.diverged for h in found if h.diverged), "")


def _treat_as(stage: Stage, other: Stage) -> Stage:
    """Return a stage that does about classes of unequal size what another does."""
    return stage.model_copy(update={name: getattr(other, name) for name in ("imbalance", "imbalance_strength")})


def _without_name(stage: Stage) -> Stage:
    return stage.model_copy(update={"name": ""})
