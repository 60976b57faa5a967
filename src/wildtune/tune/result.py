"""What a tuning found: every trial, why each value was chosen, and the recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tomlkit

from wildtune.recipe import Recipe, dump_recipe


@dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    step      "range", "policies", "sweeps", "search", "compare" or "confirm"
    number    from 0 within the step, in the order of their beginning
    what      its settings in words
    loss      mean validation loss over the photos, nats; None where it was stopped early or failed
    error     the loss's standard error, nats
    accuracy  share of the photos right, 0-1
    seconds   what it cost
    state     "done", "stopped early" or "failed"
    reason    why it failed, in words
    """

    step: str
    number: int
    what: str
    loss: float | None
    error: float | None
    accuracy: float | None
    seconds: float
    state: str = "done"
    reason: str = ""


@dataclass(frozen=True)
class Sweep:
    """One augmentation alone, by strength: loss less that without it, nats, with its standard error."""

    name: str
    strengths: tuple[float, ...]
    differences: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Tuning:
    """A tuning's outcome.

    recipe       the recipe it hands back
    start        the recipe it began from
    replaced     whether `recipe` differs from `start` in any value
    reasons      why each tuned value of the head's stage is what it is, by key, in words
    stage        the number of that stage in the recipe
    range_test   rates, smoothed losses, low and high of the learning-rate range test
    policies     (name, rate, loss, error, accuracy) of each policy at its best rate, best first
    sweeps       each augmentation alone
    trials       everything that was tried
    said         sentences about what was found and what was not done
    """

    recipe: Recipe
    start: Recipe
    replaced: bool
    reasons: dict[str, str]
    stage: int
    range_test: dict[str, Any]
    policies: tuple[tuple[str, float, float, float, float], ...]
    sweeps: tuple[Sweep, ...]
    trials: tuple[Trial, ...]
    said: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """What all trials cost together."""
        return sum(trial.seconds for trial in self.trials)


def tuned_recipe_text(tuning: Tuning) -> str:
    """Return the recipe as TOML, each tuned value with a remark that says where it comes from."""
    document = tomlkit.parse(dump_recipe(tuning.recipe))
    table: Any = document["stages"][tuning.stage]  # type: ignore[index]
    for key, reason in tuning.reasons.items():
        place, _, last = key.rpartition(".")
        item = table[place][last] if place else table[last]
        item.comment(reason)
    lines = [
        f"Found by `wildtune tune`, starting from recipe '{tuning.start.name}'. Values without a remark are its own.",
        *tuning.said,
    ]
    head = "".join(f"# {line}\n" for text in lines for line in text.splitlines())
    return f"{head}\n{tomlkit.dumps(document)}"
