"""Whether real trainings of the whole recipe bear out what the heads said, over several seeds and folds."""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wildtune import runtime
from wildtune.errors import TrainingError
from wildtune.language import recorded, recorded_counted
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.split import Split
from wildtune.progress import Reporter
from wildtune.recipe import Recipe
from wildtune.runtime import seed_from
from wildtune.train.batches import load_sides
from wildtune.train.loop import train_stages
from wildtune.train.planning import create_plan, load_model
from wildtune.tune.budget import Budget
from wildtune.tune.heads import DIVERGED, Material
from wildtune.tune.ledger import Ledger, Outcome
from wildtune.tune.spaces import key_of
from wildtune.wording import duration, points

LEAST_SEEDS, MOST_SEEDS = 2, 3
# A photo trained on takes about as long as this many that only pass through: forward, backward and the slower engine.
_TRAINED_PER_SEEN = 4.0
# More of the whole time than this is not set aside for confirming.
_MOST_SHARE = 0.4


@dataclass(frozen=True)
class Confirmation:
    """Score of the tuned recipe less the start's after real training, mean over `seeds` with its standard error."""

    seeds: int
    difference: float
    error: float

    @property
    def worse(self) -> bool:
        """Whether the tuned recipe is worse by more than the standard error."""
        return self.difference < -self.error and self.difference < 0


def fine_tunes(recipe: Recipe) -> bool:
    """Say whether a recipe trains more than heads, so that heads alone do not tell all."""
    return any(stage.train == "all" for stage in recipe.stages)


def estimate_s(recipe: Recipe, photos: int, rate: float) -> float:
    """Return about how many seconds one real training takes; `rate` is augmented views a second."""
    epochs = sum(stage.epochs for stage in recipe.stages if stage.train == "all")
    return epochs * photos * _TRAINED_PER_SEEN / rate


def reserve_s(recipe: Recipe, photos: int, rate: float, budget: Budget) -> float:
    """Return the seconds to be kept for the fewest real trainings that tell anything; 0 where they are too many."""
    needed = 2 * LEAST_SEEDS * estimate_s(recipe, photos, rate) if fine_tunes(recipe) else 0.0
    return needed if needed <= _MOST_SHARE * budget.total_s < float("inf") else 0.0


class Confirmer:
    """Real trainings on folds of the photos that a tuning may look at."""

    def __init__(
        self, split: Split, catalogue: Catalogue, material: Material, folder: Path, ledger: Ledger, reporter: Reporter
    ) -> None:
        """Keep the photos, whose order is that of `material`; trainings are kept in `folder` while they last."""
        self._split, self._catalogue, self._material = split, catalogue, material
        self._folder, self._ledger, self._reporter = folder, ledger, reporter

    def confirm(self, start: Recipe, tuned: Recipe, budget: Budget, guess_s: float) -> tuple[Confirmation | None, str]:
        """Train both recipes over as many seeds as the time allows; return what came out, or None, in words too.

        Both are judged by the score that the start's last stage is judged by. A training is not begun where it and
        those that must follow would not fit; `guess_s` is about what one takes, until the first has been measured.
        """
        judged_by = start.stages[-1].judged_by
        costs: list[float] = []
        differences: list[float] = []
        for seed in range(1, MOST_SEEDS + 1):
            scores: list[float] = []
            for name, recipe in (("start", start), ("tuned", tuned)):
                missing = max(2 * LEAST_SEEDS - len(costs), 2 - len(scores))
                cost = max(costs, default=guess_s)
                key = key_of(name, seed, recipe.model_dump(mode="json"))
                known = any(trial.user_attrs["key"] == key for trial in self._ledger.finished("confirm"))
                if not known and budget.left_s() < missing * cost:
                    return self._conclude(differences, judged_by, missing * cost, budget)
                train = functools.partial(self._train, name, recipe, seed, judged_by)
                done = self._ledger.do_points("confirm", [key], train, lambda: True)[key]
                shutil.rmtree(self._run(name, seed, key), ignore_errors=True)  # only now that its outcome is kept
                costs.append(done["seconds"])
                scores.append(done["accuracy"])
            differences.append(scores[1] - scores[0])
        return self._conclude(differences, judged_by, 0.0, budget)

    def _conclude(
        self, differences: list[float], judged_by: str, needed_s: float, budget: Budget
    ) -> tuple[Confirmation | None, str]:
        if len(differences) < LEAST_SEEDS:
            return None, recorded(
                "tuning",
                "Not confirmed by real fine-tuning: that takes about {time} more than there was. Give more --minutes "
                "with --resume to have it done.",
                time=duration(needed_s - max(0.0, budget.left_s())),
            )
        found = Confirmation(
            len(differences), float(np.mean(differences)), float(np.std(differences, ddof=1) / len(differences) ** 0.5)
        )
        values = {"score": _name_of(judged_by), "points": points(found.difference), "error": points(found.error)}
        if found.difference >= 0:
            return found, recorded_counted(
                "tuning",
                "Real training over {n} seed, each with other folds: {score} higher by {points} than the start's, "
                "standard error {error}.",
                "Real training over {n} seeds, each with other folds: {score} higher by {points} than the start's, "
                "standard error {error}.",
                found.seeds,
                **values,
            )
        return found, recorded_counted(
            "tuning",
            "Real training over {n} seed, each with other folds: {score} lower by {points} than the start's, "
            "standard error {error}.",
            "Real training over {n} seeds, each with other folds: {score} lower by {points} than the start's, "
            "standard error {error}.",
            found.seeds,
            **values,
        )

    def _run(self, name: str, seed: int, key: str) -> Path:
        return self._folder / "confirm" / f"{name}-{seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def _train(self, name: str, recipe: Recipe, seed: int, judged_by: str, key: str) -> Outcome:
        started = time.perf_counter()
        folds = self._material.folds(recipe.seed, 100 + seed)
        sides = tuple("val" if fold == 0 else "train" for fold in folds)
        split = replace(self._split, sides=sides)
        recipe = recipe.model_copy(update={"seed": seed_from(recipe.seed, "confirm", seed) % 2**31})
        model, facts = load_model(recipe, len(split.class_names))
        plan = create_plan(recipe, split, model, facts, str(self._catalogue.root))
        self._reporter.say(f"real training: {name}, seed {seed} of up to {MOST_SEEDS}")
        run = self._run(name, seed, key)
        photos = load_sides(split, self._catalogue, plan, self._reporter)
        about: Outcome = {"what": _what(name, seed), "error": None}
        try:
            records = train_stages(model, plan, photos, run, runtime.environment()["packages"], self._reporter)
            kept = next(record for record in reversed(records) if record.kept)
            about |= {"loss": kept.val_loss, "accuracy": getattr(kept, judged_by)}
        except TrainingError as error:  # it diverged: as bad as can be, and no reason to end the tuning
            about |= {
                "loss": DIVERGED,
                "accuracy": 0.0,
                "failed": recorded("trial", "diverged: {why}", why=str(error).splitlines()[0]),
            }
        return {**about, "seconds": time.perf_counter() - started}


def _name_of(judged_by: str) -> str:
    if judged_by == "val_accuracy":
        return recorded("part", "validation accuracy")
    return recorded("part", "balanced validation accuracy")


def _what(name: str, seed: int) -> str:
    if name == "start":
        return recorded("trial", "start, seed {seed}: the whole recipe", seed=seed)
    return recorded("trial", "tuned, seed {seed}: the whole recipe", seed=seed)
