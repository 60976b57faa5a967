"""The search: from a recipe and cached features to better values of its head's stage, step by step.

range      a learning-rate range test, which bounds the rate
policies   every learning-rate policy, each at its own best rate
sweeps     each augmentation alone, by strength
search     all values together: tree-structured Parzen estimators (Bergstra et al. 2011, by Optuna), the poor half of
           what is under way stopped early
compare    the best few against the start, on other folds, paired by photo

Nothing replaces the start's values unless it is better by more than its standard error.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from torch import Tensor

from wildtune.intervals import clustered_error
from wildtune.language import recorded, recorded_counted
from wildtune.photos.folds import number_folds
from wildtune.progress import Reporter
from wildtune.recipe import Augment, Stage
from wildtune.runtime import seed_from
from wildtune.tune.budget import Budget
from wildtune.tune.heads import HeldOut, Material, RangeTest, Training, find_rates, train_heads
from wildtune.tune.ledger import Ledger, Outcome, outcome_of
from wildtune.tune.result import Sweep
from wildtune.tune.spaces import (
    ALONE,
    HALF,
    NONE,
    START,
    STRENGTHS,
    TOGETHER,
    TUNED,
    Settings,
    create_augment,
    create_policies,
    create_space,
    create_stage,
    key_of,
    rates_between,
    round_settings,
    start_settings,
    sweep_points,
)
from wildtune.tune.views import Views
from wildtune.wording import counted

REPEATS = 3
FINALISTS = 3
_LEAST_PHOTOS, _MANY_PHOTOS = 150, 400
# Trainings of heads that comparing takes, about; and the largest share of the whole time that is kept for it.
_COMPARED, _MOST_COMPARING = 40, 0.25
_REPORTS = 10
_STARTUP_TRIALS = 10
# Without a limit of time.
_USUAL_RATES, _USUAL_PHOTOS, _USUAL_VIEWS, _MOST_VIEWS = 7, 600, 2, 4


@dataclass(frozen=True)
class Comparison:
    """Settings against others on the same folds: losses in nats, accuracies 0-1, differences first less second."""

    settings: Settings
    loss: float
    accuracy: float
    difference: float
    error: float
    accuracy_difference: float

    @property
    def better(self) -> bool:
        """Whether the first is better by more than its standard error, and gets no fewer photos right."""
        return self.difference < -self.error and self.accuracy_difference >= 0


@dataclass
class Searcher:
    """One process at work on a tuning; `origin` says in words whose the values are that it begins from."""

    stage: Stage
    material: Material
    views: Views
    ledger: Ledger
    budget: Budget
    reporter: Reporter
    seed: int
    origin: str = "the start's"
    reserve_s: float = 0.0
    augments: dict[str, Augment] = field(default_factory=dict)
    _loaded: dict[str, Tensor] = field(default_factory=dict)
    _known: dict[str, HeldOut] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with the augmentation of the start alone."""
        self.start = start_settings(self.stage)
        self.rows = np.arange(len(self.material.targets))
        self.folds = self.material.folds(self.seed, 0)
        self.augments = {NONE: Augment()}
        if self.start["augment"] == START:
            self.augments[START] = self.stage.augment
        views: int = self.ledger.decide("views", lambda: _USUAL_VIEWS)
        self.view_count = views

    # Steps

    def find_range(self) -> RangeTest:
        """Bound the learning rate by a range test."""

        def evaluate(_: str) -> Outcome:
            started = time.perf_counter()
            found = find_rates(self.stage, self.material, self.training(self.start["augment"]), self.folds, self.seed)
            return {
                "what": recorded(
                    "trial", "range test: {low} to {high}", low=f"{found.low:.2g}", high=f"{found.high:.2g}"
                ),
                "loss": min(found.losses),
                "rates": found.rates,
                "losses": found.losses,
                "bounds": [found.low, found.high],
                "seconds": time.perf_counter() - started,
            }

        done = self.ledger.do_points("range", ["range"], evaluate, lambda: True)["range"]
        low, high = done["bounds"]
        self.reporter.say(f"range test: learning rates from {low:.2g} to {high:.2g}")
        return RangeTest(tuple(done["rates"]), tuple(done["losses"]), low, high)

    def compare_policies(self, found: RangeTest) -> dict[str, Outcome]:
        """Try every policy at several rates; return the outcomes by the key of their settings, the start's first."""
        first = key_of(self.start)
        begun = self.ledger.do_points("policies", [first], self.evaluate_key, lambda: True)
        cost = max(begun[first]["seconds"], 1e-3)
        self.reserve_s += min(_COMPARED * cost, _MOST_COMPARING * self.budget.total_s)
        policies = create_policies(self.stage)

        def count() -> int:
            fit = self.budget.left_s("policies") / (cost * len(policies))
            return int(min(max(fit, 3), _USUAL_RATES))

        rates = rates_between(found.low, found.high, self.stage.lr, self.ledger.decide("rates", count))
        # The rates nearest the start's come first, so that short of time every policy has had its most likely ones.
        rates.sort(key=lambda rate: abs(np.log(rate / self.stage.lr)))
        keys = [key_of({**self.start, "policy": name, "lr": rate}) for rate in rates for name in policies]
        keys = list(dict.fromkeys([first, *keys]))
        with self.reporter.bar("learning-rate policies", "trials"):
            return self.ledger.do_points(
                "policies", keys, self.evaluate_key, lambda: self.budget.left_s("policies") > 0
            )

    def sweep(self) -> list[Sweep]:
        """Try each augmentation alone, by strength, on as many photos as the time allows."""
        rate: float = self.ledger.decide("views a second", self.views.rate)
        design: dict[str, int] = self.ledger.decide("sweeps", lambda: self._design_sweeps(rate))
        if not design["points"]:
            self.reporter.say("augmentations: no time to try them")
            return []
        part = number_folds(
            self.material.targets.numpy(), self.material.groups, design["parts"], seed_from(self.seed, "tune sweeps")
        )
        rows = np.flatnonzero(part == 0)
        self.reporter.say(
            f"augmentations: {counted(design['points'], 'strength')} on {counted(len(rows), 'photo')}, "
            f"{design['views']} views each"
        )
        plain = Training(self.material.plain[rows][None], rows)
        base: list[HeldOut] = []

        def evaluate(key: str) -> Outcome:
            name, strength = _from_key(key)
            started = time.perf_counter()
            base.extend([] if base else [self.held_out(self.stage, plain)])
            augment = create_augment({name: strength})
            views = self.views.augmented(augment, design["views"], rows, f"{name} {strength:g}")
            found = self.held_out(self.stage, Training(views, rows))
            difference, error, _ = clustered_error(found.losses - base[0].losses, self.material.groups)
            more = {"difference": difference, "difference_error": error}
            said = recorded("trial", "{name} {strength} alone", name=name, strength=f"{strength:g}")
            return {**self.outcome(found, said, started), **more}

        points = sweep_points(list(STRENGTHS), design["points"])
        keys = [key_of(*point) for point in points]
        done = self.ledger.do_points("sweeps", keys, evaluate, lambda: self.budget.left_s("sweeps") > 0)
        return _gather_sweeps(points, [done.get(key) for key in keys])

    def choose_augments(self, sweeps: list[Sweep]) -> None:
        """Decide which augmentations take part in the search, and compute their views of all photos."""
        cost = len(self.rows) * self.view_count / self.ledger.decide("views a second", self.views.rate)

        def choose() -> dict[str, dict[str, float]]:
            fits = int(min(max(self.budget.left_s("augments") / cost, 0), 3))
            return dict(list(_helpful_augments(sweeps).items())[:fits])

        chosen: dict[str, dict[str, float]] = self.ledger.decide("augments", choose)
        for name, strengths in chosen.items():
            self.augments[name] = create_augment(strengths, 0.5 if name == HALF else 1.0)
        if chosen:
            helped = {**chosen.get(ALONE, {}), **chosen.get(TOGETHER, {})}
            said = ", ".join(f"{name} {strength:g}" for name, strength in helped.items())
            self.reporter.say(f"augmentations that helped by more than their standard error: {said}")
        elif sweeps:
            self.reporter.say("augmentations: none helped the head by more than its standard error")

    def search(self, found: RangeTest, policies: dict[str, Outcome]) -> None:
        """Try all values together until the budget of trials or time is used up."""
        space = create_space(self.stage, found.low, found.high, list(self.augments))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_REPORTS // 3)
        study = self.ledger.study("search", pruner)

        def begin() -> int:
            there = [trial.params for trial in study.get_trials(deepcopy=False)]
            for known, outcome in policies.items():  # what is known already, the start first
                (params,) = _from_key(known)
                if params in there:  # from a process that died while it did this
                    continue
                study.add_trial(
                    optuna.trial.create_trial(
                        params=params, distributions=space, value=outcome["loss"], user_attrs={"copied": True}
                    )
                )
            return len(policies)

        self.ledger.decide("known before the search", begin)

        def suggest(trial: optuna.Trial) -> tuple[Settings, str]:
            settings = round_settings({name: _suggest(trial, name, values) for name, values in space.items()})
            return settings, describe(settings)

        def enough(begun: int) -> bool:
            limit = self.budget.trials
            out_of_time = self.budget.left_s(reserve_s=self.reserve_s) <= 0
            return out_of_time or (limit is not None and begun >= limit)

        with self.reporter.bar("search", "trials"):
            self.ledger.do_trials(study, self._create_sampler, suggest, self._try_together, enough)

    def finalists(self) -> list[Settings]:
        """Return the best few settings that were tried in full, the start's left out."""
        found: dict[str, Settings] = {}
        done = [trial for trial in self.tried() if trial.state == optuna.trial.TrialState.COMPLETE]
        for trial in sorted(done, key=lambda trial: outcome_of(trial)["loss"]):
            known = trial.user_attrs.get("key")
            settings = _from_key(known)[0] if known else round_settings(trial.params)
            if settings != self.start:
                found.setdefault(key_of(settings), settings)
        return list(found.values())[:FINALISTS]

    def tried(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials among which the best are looked for, each once: those of the policies and of the search."""
        searched = [trial for trial in self.ledger.finished("search") if "copied" not in trial.user_attrs]
        return [*self.ledger.finished("policies"), *searched]

    def compare(self, settings: Settings, against: Settings) -> Comparison | None:
        """Compare two settings on folds that the search has not seen, paired by photo; None where time has run out."""
        key = key_of(settings, against)

        def evaluate(_: str) -> Outcome:
            started = time.perf_counter()
            ours = [self._on_other_folds(settings, repeat) for repeat in range(1, REPEATS + 1)]
            theirs = [self._on_other_folds(against, repeat) for repeat in range(1, REPEATS + 1)]
            losses, right = (np.mean([getattr(h, name) for h in ours], axis=0) for name in ("losses", "right"))
            other_losses, other_right = (
                np.mean([getattr(h, name) for h in theirs], axis=0) for name in ("losses", "right")
            )
            difference, error, _groups = clustered_error(losses - other_losses, self.material.groups)
            given_up = next((found.diverged for found in ours if found.diverged), "")
            said = recorded("trial", "{ours}; against {theirs}", ours=describe(settings), theirs=describe(against))
            found = self.outcome(HeldOut(losses, right, given_up), said, started)
            gained = float(right.mean() - other_right.mean())
            return {**found, "difference": difference, "difference_error": error, "accuracy_difference": gained}

        done = self.ledger.do_points("compare", [key], evaluate, lambda: self.budget.left_s() > 0)
        if key not in done:
            return None
        found = done[key]
        return Comparison(
            settings,
            found["loss"],
            found["accuracy"],
            found["difference"],
            found["difference_error"],
            found["accuracy_difference"],
        )

    # What steps share

    def evaluate_key(self, key: str) -> Outcome:
        """Try settings, by their key, on the folds of the search."""
        (settings,) = _from_key(key)
        started = time.perf_counter()
        found = self.held_out(self.stage_of(settings), self.training(settings["augment"]))
        return self.outcome(found, describe(settings), started)

    def stage_of(self, settings: Settings) -> Stage:
        """Return the head's stage with the settings' values."""
        return create_stage(self.stage, settings, self.augments, self.view_count)

    def training(self, augment: str) -> Training:
        """Return what heads are trained on with one of the augmentations."""
        if augment not in self._loaded:
            if augment == NONE:
                self._loaded[augment] = self.material.plain[None]
            else:
                views = self.views.augmented(self.augments[augment], self.view_count, self.rows, f"augment '{augment}'")
                self._loaded[augment] = views
        return Training(self._loaded[augment], self.rows)

    def held_out(self, stage: Stage, training: Training) -> HeldOut:
        """Score the photos by heads on the folds of the search."""
        return train_heads(stage, self.material, training, self.folds, self.seed)

    def outcome(self, found: HeldOut, what: str, started: float) -> Outcome:
        """Return a trial's numbers as the ledger keeps them."""
        loss, error, _ = clustered_error(found.losses, self.material.groups)
        return {
            "what": what,
            "loss": loss,
            "error": error,
            "accuracy": float(found.right.mean()),
            "seconds": time.perf_counter() - started,
            **({"failed": found.diverged} if found.diverged else {}),
        }

    def _try_together(self, trial: optuna.Trial, settings: Settings) -> Outcome:
        started, epochs = time.perf_counter(), settings["epochs"]

        def say_epoch(epoch: int, loss: float) -> None:
            tenth, before = epoch * _REPORTS // epochs, (epoch - 1) * _REPORTS // epochs
            if before < tenth < _REPORTS:
                trial.report(loss, tenth)
                if trial.should_prune():
                    raise optuna.TrialPruned

        stage, training = self.stage_of(settings), self.training(settings["augment"])
        found = train_heads(stage, self.material, training, self.folds, self.seed, say_epoch)
        return self.outcome(found, describe(settings), started)

    def _on_other_folds(self, settings: Settings, repeat: int) -> HeldOut:
        key = key_of(settings, repeat)
        if key not in self._known:
            folds = self.material.folds(self.seed, repeat)
            stage, training = self.stage_of(settings), self.training(settings["augment"])
            seed = seed_from(self.seed, "tune repeat", repeat)
            self._known[key] = train_heads(stage, self.material, training, folds, seed)
        return self._known[key]

    def _create_sampler(self, trials: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both options are called experimental
            return optuna.samplers.TPESampler(
                seed=seed_from(self.seed, "tune search", trials) % 2**32,
                n_startup_trials=_STARTUP_TRIALS,
                multivariate=True,
                constant_liar=True,
            )

    def _design_sweeps(self, rate: float) -> dict[str, int]:
        """Return how many strengths are swept, on which part (1 of `parts`) of the photos, with how many views."""
        photos, every = len(self.rows), len(sweep_points(list(STRENGTHS), 10**6))
        time_s = self.budget.left_s("sweeps")
        if time_s == float("inf"):
            return {"points": every, "parts": max(1, round(photos / _USUAL_PHOTOS)), "views": self.view_count}
        made = max(0.0, time_s) * rate / self.view_count
        for points, least in ((every, min(_MANY_PHOTOS, photos)), (len(STRENGTHS), min(_LEAST_PHOTOS, photos))):
            if made / points >= least:
                views = int(min(max(self.view_count, made * self.view_count / points / photos), _MOST_VIEWS))
                parts = max(1, round(photos / min(photos, made / points)))
                return {"points": points, "parts": parts, "views": views}
        few = min(_LEAST_PHOTOS, photos)
        return {"points": int(made / few), "parts": max(1, round(photos / few)), "views": self.view_count}


def describe(settings: Settings) -> str:
    """Say settings in words."""
    said = recorded_counted(
        "trial",
        "lr {lr}, {name}, {n:,} epoch, batch {batch}, weight decay {decay}, smoothing {smoothing}",
        "lr {lr}, {name}, {n:,} epochs, batch {batch}, weight decay {decay}, smoothing {smoothing}",
        settings["epochs"],
        lr=f"{settings['lr']:.2g}",
        name=settings["policy"],
        batch=settings["batch_size"],
        decay=f"{settings['weight_decay']:g}",
        smoothing=f"{settings['label_smoothing']:g}",
    )
    if settings["augment"] == NONE:
        return said
    return recorded("trial", "{settings}, augment {name}", settings=said, name=settings["augment"])


def simplify(searcher: Searcher, winner: Comparison) -> tuple[Comparison, dict[str, Comparison | None]]:
    """Put back each of the start's values that does as well, within the standard error.

    Returns the winner that is left, against the start, and for each value that stays changed the comparison of that
    winner without the change; None where that is the start itself, or time has run out.
    """
    start = searcher.start
    for name in TUNED:
        without = {**winner.settings, name: start[name]}
        if without in (winner.settings, start):
            continue
        put_back = searcher.compare(without, winner.settings)
        against_start = searcher.compare(without, start)
        if put_back is None or against_start is None:
            continue
        if put_back.difference <= put_back.error and against_start.better:
            winner = against_start
    changed = [name for name in TUNED if winner.settings[name] != start[name]]
    left_out = {name: {**winner.settings, name: start[name]} for name in changed}
    return winner, {
        name: None if without == start else searcher.compare(without, winner.settings)
        for name, without in left_out.items()
    }


def _suggest(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def _from_key(key: str) -> list[Any]:
    return list(json.loads(key))


def _gather_sweeps(points: list[tuple[str, float]], done: list[Outcome | None]) -> list[Sweep]:
    sweeps = []
    for name in dict.fromkeys(name for name, _ in points):
        rows = [(s, o) for (n, s), o in zip(points, done, strict=True) if n == name and o is not None]
        if rows:
            differences = tuple(float(outcome["difference"]) for _, outcome in rows)
            errors = tuple(float(outcome["difference_error"]) for _, outcome in rows)
            sweeps.append(Sweep(name, tuple(strength for strength, _ in rows), differences, errors))
    return sweeps


def _helpful_augments(sweeps: list[Sweep]) -> dict[str, dict[str, float]]:
    """Return the augmentations to search among: the most helpful alone, all that helped together, and half of that."""
    best: list[tuple[float, str, float]] = []
    for sweep in sweeps:
        difference, error, strength = min(zip(sweep.differences, sweep.errors, sweep.strengths, strict=True))
        if difference < -error:
            best.append((difference, sweep.name, strength))
    if not best:
        return {}
    best.sort()
    alone = {best[0][1]: best[0][2]}
    every = {name: strength for _, name, strength in best}
    return {ALONE: alone, **({TOGETHER: every} if len(every) > 1 else {}), HALF: every}
