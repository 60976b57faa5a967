"""What is tried: learning-rate policies, strengths of each augmentation, and the space of all values together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import optuna

from wildtune.recipe import Augment, Policy, Stage

# A setting of the head's stage by plain values: what a trial is known by.
Settings = dict[str, Any]

# The values that are tuned, those that a stage can do without first: in this order they are put back where they help
# by less than their standard error.
TUNED = ("augment", "label_smoothing", "weight_decay", "policy", "batch_size", "epochs", "lr")

# What `augment` of the settings can stand for.
START, NONE, ALONE, TOGETHER, HALF = "start", "none", "alone", "together", "half"

_WEIGHT_DECAYS = (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
_BATCH_SIZES = (32, 64, 128)
_SMOOTHINGS = (0.0, 0.05, 0.1)

# Strengths of each augmentation, the weakest first; the middle one is tried where there is no time for all.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "crop_scale": (0.8, 0.55, 0.35),
    "flip": (0.25, 0.5),
    "rotation": (0.02, 0.05, 0.1),
    "brightness": (0.1, 0.2, 0.4),
    "contrast": (0.1, 0.2, 0.4),
    "saturation": (0.1, 0.3, 0.6),
    "noise": (5.0, 15.0, 30.0),
}


def create_policies(stage: Stage) -> dict[str, Policy]:
    """Return every policy by name, each with numbers that suit the stage's length; the stage's own as it is.

    exp_decay ends at a hundredth of the rate, step drops twice, the others have the recipe's defaults.
    """
    epochs = stage.epochs
    numbers: dict[str, dict[str, Any]] = {
        "exp_decay": {"rate": round(4.6 / epochs, 4)},
        "step": {"every": max(1, -(-epochs // 3))},
        "plateau": {"patience": max(1, epochs // 10)},
    }
    names = get_args(Policy.model_fields["name"].annotation)
    made = {name: Policy(name=name, **numbers.get(name, {})) for name in names}
    return {**made, stage.policy.name: stage.policy}


def start_settings(stage: Stage) -> Settings:
    """Return the settings that stand for the stage as it is."""
    values = {name: getattr(stage, name) for name in TUNED if name not in ("augment", "policy")}
    return {**values, "policy": stage.policy.name, "augment": NONE if stage.augment == Augment() else START}


def create_stage(
    stage: Stage, settings: Mapping[str, Any], augments: Mapping[str, Augment], views: int | str | None = None
) -> Stage:
    """Return the stage with the settings' values; `views` replaces the number of views of augmented photos.

    A policy other than the stage's own gets the numbers that suit the settings' number of epochs.
    """
    longer = stage.model_copy(update={"epochs": settings["epochs"]})
    augment = augments[settings["augment"]]
    values = {name: settings[name] for name in TUNED if name not in ("augment", "policy")}
    values |= {"policy": create_policies(longer)[settings["policy"]], "augment": augment}
    if settings["augment"] not in (NONE, START):
        values["views"] = views or stage.views
    return Stage.model_validate({**stage.model_dump(), **{k: _plain(v) for k, v in values.items()}})


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Policy | Augment) else value


def create_augment(strengths: Mapping[str, float], share: float = 1.0) -> Augment:
    """Return the augmentation of these strengths by name, each taken by a `share` (0-1) of its way from nothing."""
    values: dict[str, Any] = {}
    for name, strength in strengths.items():
        if name == "crop_scale":
            values |= {"crop": "random_resized", "crop_scale": (round(1 - share * (1 - strength), 4), 1.0)}
        else:
            values[name] = round(strength * share, 4)
    return Augment(**values)


def sweep_points(names: Sequence[str], most: int) -> list[tuple[str, float]]:
    """Return (augmentation, strength) to be swept, at most `most` of them: all strengths, the middle ones, or fewer."""
    every = [(name, strength) for name in names for strength in STRENGTHS[name]]
    if len(every) <= most:
        return every
    middle = [(name, STRENGTHS[name][len(STRENGTHS[name]) // 2]) for name in names]
    return middle[: max(0, most)]


def rates_between(low: float, high: float, own: float, count: int) -> list[float]:
    """Return about `count` learning rates from low to high on a logarithmic scale, and `own`.

    Those between the ends have two digits; none lies beyond them.
    """
    rates = {min(max(float(f"{rate:.2g}"), low), high) for rate in np.geomspace(low, high, count)}
    return sorted(rates | {own})


def create_space(
    stage: Stage, low: float, high: float, augments: Sequence[str]
) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return what each tuned value can be; the stage's own values are always among them."""
    distributions = optuna.distributions
    return {
        "lr": distributions.FloatDistribution(low, high, log=True),
        "policy": distributions.CategoricalDistribution(tuple(create_policies(stage))),
        "weight_decay": distributions.CategoricalDistribution(_with(_WEIGHT_DECAYS, stage.weight_decay)),
        "label_smoothing": distributions.CategoricalDistribution(_with(_SMOOTHINGS, stage.label_smoothing)),
        "batch_size": distributions.CategoricalDistribution(_with(_BATCH_SIZES, stage.batch_size)),
        "epochs": distributions.CategoricalDistribution(
            _with([max(1, stage.epochs // 2), stage.epochs * 2], stage.epochs)
        ),
        "augment": distributions.CategoricalDistribution(tuple(augments)),
    }


def round_settings(settings: Mapping[str, Any]) -> Settings:
    """Return suggested settings with the digits that a person would write."""
    return {**settings, "lr": float(f"{settings['lr']:.2g}")}


def key_of(*values: Any) -> str:
    """Return what a point is known by in the ledger."""
    return json.dumps(values, sort_keys=True)


def _with(values: Sequence[float], own: float) -> tuple[Any, ...]:
    return tuple(sorted({*values, own}))
