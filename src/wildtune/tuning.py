"""Tuning from end to end: photos and a recipe in, a better recipe out, with the page that says why.

FILE                   the recipe, each tuned value with its reason
FILE's stem + "-tune"  index.html and its charts, trials.csv, start.toml, corrections.csv, tune.json, tune.log,
                       trials.journal

The test photos are divided off first; nothing behind that has their records.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wildtune import files, job, runtime
from wildtune.check.groups import number_groups
from wildtune.check.steps import audit_photos
from wildtune.errors import CommandError, RecipeError
from wildtune.language import find_language, recorded, recorded_counted, recorded_language
from wildtune.model.backbone import check_backbone
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.sources import Detections
from wildtune.photos.split import Split, split_photos
from wildtune.progress import Reporter
from wildtune.recipe import Recipe, Stage, dump_recipe, load_recipe
from wildtune.report.tuning import write_tuning
from wildtune.train.batches import create_cache, load_sides
from wildtune.train.planning import create_plan, data_key, load_model, view_precision
from wildtune.tune.budget import Budget
from wildtune.tune.conclude import Choice, best_policies, choose, explain, gather_trials, with_stage
from wildtune.tune.confirm import Confirmer, estimate_s, fine_tunes, reserve_s
from wildtune.tune.heads import DIVERGED, Material
from wildtune.tune.ledger import Ledger
from wildtune.tune.origin import REFERENCE, compare_heads, create_reference, head_number
from wildtune.tune.result import Tuning, tuned_recipe_text
from wildtune.tune.search import Searcher
from wildtune.tune.views import Views
from wildtune.wording import counted, duration, nats, percent

USUAL_MINUTES = 15.0
_ABOUT = "tune.json"
# What a tuning's folder holds until `tune.json` is written; with no more than that in it, it can be begun anew.
_BEFORE_THE_TRIALS = {"corrections.csv", "start.toml"}
# More of the time that is left than this is not spent on the features of another recipe's input.
_MOST_FOR_ORIGIN = 0.15


def tune(
    photos: str | Path,
    recipe: Recipe,
    out: str | Path,
    trials: int | None = None,
    minutes: float | None = None,
    *,
    reporter: Reporter | None = None,
    detections: Detections | None = None,
    corrections: str | Path | None = None,
    language: str = "en",
) -> Tuning:
    """Search for better values of a recipe on the training and validation photos, and write the recipe to `out`.

    `trials` limits how often all values are tried together, `minutes` the time of the whole; without either it takes
    15 minutes. `detections` and `corrections` are as in `job.train`, and so is `language`, which is that of the page;
    the recipe's remarks are English. Charts and the table of trials go to the folder beside `out`. Raises CommandError
    when `out` or that folder exists, RecipeError for a recipe without a head's stage, and what `job.train` raises for
    photos and weights.
    """
    began, out, reporter = time.monotonic(), files.user_path(out), reporter or Reporter()
    folder, spoken = folder_of(out), find_language(language)
    _check_out(out, folder)
    _check_budget(trials, minutes)
    job.require_outside(out, photos)
    files.require_place(out)
    check_backbone(recipe.backbone)
    _head_stage(recipe)
    recipe = job.with_absolute_paths(recipe)
    if trials is None and minutes is None:
        minutes = USUAL_MINUTES
    catalogue = job.load_corrected(photos, reporter, detections, corrections)
    split = split_photos(audit_photos(catalogue, reporter), recipe.split)
    about = {"trials": trials, "minutes": minutes, "data_key": data_key(split)}
    about |= {**job.places_record(photos, detections), **spoken.record()}
    job.copy_corrections(corrections, folder)
    if corrections:
        about["corrections"] = files.sha256_file(folder / "corrections.csv")
    files.write_text(folder / "start.toml", dump_recipe(recipe))
    _save_about(folder, {**about, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **runtime.environment()})
    return _search(split.without("test"), catalogue, recipe, out, about, reporter, began)


def resume_tuning(
    out: str | Path,
    photos: str | Path | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    *,
    detections_path: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Tuning:
    """Go on with a tuning, or help another process that is at work on it; no finished trial is done again.

    `trials` is another number of trials in all, `minutes` so many more; without them what was asked for at first is
    brought to its end. `photos` and `detections_path` say where the photos and the detector's results are now, if
    they have moved. Raises CommandError when there is nothing to go on with, or the photos have changed.
    """
    began, out, reporter = time.monotonic(), files.user_path(out), reporter or Reporter()
    folder = folder_of(out)
    if not (folder / _ABOUT).exists():
        raise CommandError(f"{folder} holds no tuning to go on with. Start one: wildtune tune PHOTOS --out {out}")
    _check_budget(trials, minutes)
    about = files.read_json(folder / _ABOUT, "photos", "data_key")
    recorded_language(about)  # one that is not known is better said now than after the search
    recipe = load_recipe(str(folder / "start.toml"))
    command = f"wildtune tune --resume --out {out}"
    detections = job.moved_detections(folder, about.get("detections"), detections_path, command)
    catalogue = job.load_catalogue(photos or about["photos"], reporter, detections)
    catalogue = job.correct_again(catalogue, about.get("corrections", ""), folder)
    split = split_photos(audit_photos(catalogue, reporter), recipe.split)
    if about["data_key"] != data_key(split):
        raise CommandError(
            "The photos or their labels have changed since the tuning began, so its trials no longer tell of them.\n"
            f"Bring them back as they were, or tune anew with another --out. Photos: {catalogue.root}"
        )
    more: dict[str, Any] = {}
    if trials is not None:
        more["trials"] = trials
    if minutes is not None:
        with Ledger(folder) as ledger:
            more["minutes"] = ledger.spent() / 60 + minutes
    about |= more | job.places_record(photos, detections)
    _save_about(folder, about)
    return _search(split.without("test"), catalogue, recipe, out, about, reporter, began)


def folder_of(out: Path) -> Path:
    """Return the folder beside a tuned recipe that holds its trials and its page.

    Raises CommandError when `out` cannot be the name of a recipe.
    """
    if out.suffix.lower() != ".toml":
        raise CommandError(f"--out must be a file that ends in .toml, the recipe to write. Got {out}.")
    return out.with_name(f"{out.stem}-tune")


def is_begun(out: Path) -> bool:
    """Say whether there is a tuning to go on with."""
    return (folder_of(out) / _ABOUT).exists()


@dataclass(frozen=True)
class _Bench:
    """What heads are tried with: a recipe, the number of its head's stage, and its features of the photos."""

    recipe: Recipe
    number: int
    views: Views
    material: Material

    @property
    def stage(self) -> Stage:
        return self.recipe.stages[self.number]


def _search(
    split: Split,
    catalogue: Catalogue,
    recipe: Recipe,
    out: Path,
    about: dict[str, Any],
    reporter: Reporter,
    began: float,
) -> Tuning:
    """Do all that is left of a tuning on a split that has no test side, and write what it found."""
    assert "test" not in split.sides, "a tuning never gets the test photos"
    folder = folder_of(out)
    reporter.log_to(folder / "tune.log")
    with Ledger(folder) as ledger:
        budget = Budget(about["trials"], about["minutes"], ledger.spent() + time.monotonic() - began)
        ledger.elapsed_s = budget.elapsed_s
        bench = _set_up(recipe, split, catalogue, ledger, reporter)
        bench, switched = _choose_origin(bench, split, catalogue, ledger, budget, reporter)
        searcher = Searcher(
            bench.stage, bench.material, bench.views, ledger, budget, reporter, recipe.seed, origin=_name_of(switched)
        )
        confirmer = Confirmer(split, catalogue, bench.material, folder, ledger, reporter)
        tuning = _tune_head(searcher, recipe, bench, confirmer, switched)
    files.write_text(out, tuned_recipe_text(tuning))
    page = write_tuning(tuning, folder, recorded_language(about))
    reporter.say(f"{describe_cost(tuning)}\nrecipe: {out}\npage: {page}")
    return tuning


def _set_up(recipe: Recipe, split: Split, catalogue: Catalogue, ledger: Ledger, reporter: Reporter) -> _Bench:
    """Compute or find the features that a recipe's heads are tried on."""
    number = _head_stage(recipe)
    reporter.say("loading the backbone")
    model, facts = load_model(recipe, len(split.class_names))
    plan = create_plan(recipe, split, model, facts, str(catalogue.root))
    runtime.set_threads(plan.threads)
    every = replace(split, sides=("train",) * len(split.sides))
    side = load_sides(every, catalogue, plan, reporter)["train"]
    cache = create_cache(model, plan, runtime.environment()["packages"])
    # One for all who help, on whatever machine, so that their trials can be compared.
    precision = ledger.decide("view precision", lambda: view_precision(plan.engine, plan.device))
    views = Views(side, cache, plan.preprocess, recipe.stages[number], recipe.seed, reporter, precision)
    names = split.groups or tuple(photo.group for photo in split.photos)
    groups = number_groups([name or photo.path for name, photo in zip(names, split.photos, strict=True)])
    return _Bench(recipe, number, views, Material(views.plain(), side.targets, groups, len(split.class_names)))


def _choose_origin(
    start: _Bench, split: Split, catalogue: Catalogue, ledger: Ledger, budget: Budget, reporter: Reporter
) -> tuple[_Bench, str]:
    """Return what the search begins from, and why in words where that is not the start."""
    reference = create_reference(start.recipe)
    if reference is None:
        return start, ""
    if reference.input == start.recipe.input:
        other = _Bench(reference, 0, start.views.of_stage(reference.stages[0]), start.material)
    else:
        cost_s = len(split.photos) / ledger.decide("views a second", start.views.rate)
        fits: bool = ledger.decide("reference", lambda: cost_s <= _MOST_FOR_ORIGIN * budget.left_s())
        if not fits:
            return start, ""
        other = _set_up(reference, split, catalogue, ledger, reporter)
    found = ledger.do_points(
        "origin",
        ["origin"],
        lambda _: compare_heads((start.stage, start.material), (other.stage, other.material), reference.seed),
        lambda: True,
    )["origin"]
    if not found["better"]:
        return start, ""
    loss, accuracy = found["first"]
    values = {"name": REFERENCE, "loss": nats(found["loss"]), "accuracy": percent(found["accuracy"])}
    if loss >= DIVERGED:
        said = recorded(
            "tuning",
            "Recipe {name}'s input and head did better than the start's: validation loss {loss}, accuracy {accuracy}, "
            "where the start's diverged. So its values were the search's beginning.",
            **values,
        )
    else:
        said = recorded(
            "tuning",
            "Recipe {name}'s input and head did better than the start's: validation loss {loss}, accuracy {accuracy}, "
            "where the start's had {own_loss} and {own_accuracy}. So its values were the search's beginning.",
            own_loss=nats(loss),
            own_accuracy=percent(accuracy),
            **values,
        )
    reporter.say(said)
    return other, said


def _name_of(switched: str) -> str:
    """Return whose values the search began from, in words."""
    return recorded("part", "recipe {name}'s", name=REFERENCE) if switched else recorded("part", "the start's")


def _tune_head(searcher: Searcher, start: Recipe, bench: _Bench, confirmer: Confirmer, switched: str) -> Tuning:
    """Search from a bench; `switched` is why that is not of the recipe `start`, "" where it is."""
    ledger, budget, reporter = searcher.ledger, searcher.budget, searcher.reporter
    recipe, number, photos = bench.recipe, bench.number, len(searcher.rows)
    speed: float = ledger.decide("views a second", searcher.views.rate)
    searcher.reserve_s = max(reserve_s(tried, photos, speed, budget) for tried in (start, recipe))
    found = searcher.find_range()
    policies = searcher.compare_policies(found)
    sweeps = searcher.sweep()
    searcher.choose_augments(sweeps)
    searcher.search(found, policies)
    choice = choose(searcher)
    winner = choice.winner
    tuned = with_stage(recipe, number, searcher.stage_of(winner.settings) if winner else recipe.stages[number])
    said = [*([switched] if switched else []), *_balance(searcher.stage), _verdict(choice, searcher)]
    reasons = explain(searcher, found, policies, choice)
    replaced = bool(winner or switched)
    if replaced and any(fine_tunes(tried) for tried in (start, tuned)):
        guess_s = max(estimate_s(tried, photos, speed) for tried in (start, tuned))
        confirmed, sentence = confirmer.confirm(start, tuned, budget, guess_s)
        said.append(sentence)
        if confirmed and confirmed.worse:
            said.append(recorded("tuning", "So the start's values are handed back."))
            number = _head_stage(start)
            tuned, replaced = with_stage(start, number, start.stages[number]), False
            why = recorded("tuning", "the start's: real training was better with it")
            reasons = dict.fromkeys(reasons, why)
    for sentence in said[1 if switched else 0 :]:
        reporter.say(sentence)
    return Tuning(
        recipe=tuned,
        start=start,
        replaced=replaced,
        reasons=reasons,
        stage=number,
        range_test={"rates": found.rates, "losses": found.losses, "low": found.low, "high": found.high},
        policies=tuple(best_policies(policies)),
        sweeps=tuple(sweeps),
        trials=gather_trials(ledger),
        said=tuple(said),
    )


def _balance(stage: Stage) -> list[str]:
    """Say that each class counts the same, where it does."""
    if stage.judged_by == "val_accuracy":
        return []
    return [
        recorded(
            "tuning",
            "Each class counts the same in the heads' losses and accuracies, whatever its number of photos, because "
            "the stage has imbalance = '{name}'.",
            name=stage.imbalance,
        )
    ]


def _verdict(choice: Choice, searcher: Searcher) -> str:
    photos, winner = len(searcher.rows), choice.winner
    if not choice.compared:
        return recorded(
            "tuning",
            "Time ran out before anything could be compared with {origin} head: its values are kept. Go on with "
            "--resume --minutes M.",
            origin=searcher.origin,
        )
    if winner is None:
        return recorded_counted(
            "tuning",
            "Nothing beat {origin} head by more than its standard error in cross-validation on {n:,} photo, none of "
            "them a test photo: its values are kept.",
            "Nothing beat {origin} head by more than its standard error in cross-validation on {n:,} photos, none of "
            "them a test photo: its values are kept.",
            photos,
            origin=searcher.origin,
        )
    values = {"loss": nats(winner.loss), "accuracy": percent(winner.accuracy)}
    if winner.loss - winner.difference >= DIVERGED:
        return recorded_counted(
            "tuning",
            "Where {origin} head diverged, this one has a validation loss of {loss} and an accuracy of {accuracy}, "
            "cross-validated on {n:,} photo, none of them a test photo.",
            "Where {origin} head diverged, this one has a validation loss of {loss} and an accuracy of {accuracy}, "
            "cross-validated on {n:,} photos, none of them a test photo.",
            photos,
            origin=searcher.origin,
            **values,
        )
    return recorded_counted(
        "tuning",
        "The head's validation loss fell from {before} to {loss} (by {fall}, standard error {error}), its accuracy "
        "went from {accuracy_before} to {accuracy}, cross-validated on {n:,} photo, none of them a test photo.",
        "The head's validation loss fell from {before} to {loss} (by {fall}, standard error {error}), its accuracy "
        "went from {accuracy_before} to {accuracy}, cross-validated on {n:,} photos, none of them a test photo.",
        photos,
        before=nats(winner.loss - winner.difference),
        fall=nats(-winner.difference),
        error=nats(winner.error),
        accuracy_before=percent(winner.accuracy - winner.accuracy_difference),
        **values,
    )


def describe_cost(tuning: Tuning) -> str:
    """Say how many trials there were, of which kind, and what they cost."""
    steps: dict[str, list[float]] = {}
    for trial in tuning.trials:
        steps.setdefault(trial.step, []).append(trial.seconds)
    parts = [f"{step} {len(costs)} ({duration(sum(costs) / len(costs))} each)" for step, costs in steps.items()]
    return f"{counted(len(tuning.trials), 'trial')} in {duration(tuning.seconds)}: {', '.join(parts)}"


def _head_stage(recipe: Recipe) -> int:
    """Return the number of the first stage that trains a head; raises RecipeError where there is none."""
    number = head_number(recipe)
    if number is None:
        raise RecipeError(
            f"Tuning needs a stage that trains the head (train = 'head'). Recipe '{recipe.name}' has none.\n"
            "Give it one before the others, as recipe 'default' has: wildtune recipes default"
        )
    return number


def _check_out(out: Path, folder: Path) -> None:
    if (folder / _ABOUT).exists():
        raise CommandError(
            f"{folder} holds a tuning already. Choose another --out, or go on with it:\n"
            f"wildtune tune --resume --out {out}"
        )
    is_taken = folder.exists() and (not folder.is_dir() or files.names_in(folder) - _BEFORE_THE_TRIALS)
    if out.exists() or is_taken:
        raise CommandError(f"{out if out.exists() else folder} exists already. Choose another --out.")


def _check_budget(trials: int | None, minutes: float | None) -> None:
    if trials is not None and trials < 1:
        raise CommandError(f"--trials must be at least 1. Got {trials}.")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise CommandError(f"--minutes must be above 0. Got {minutes:g}.")


def _save_about(folder: Path, about: dict[str, Any]) -> None:
    files.write_json(folder / _ABOUT, about)
