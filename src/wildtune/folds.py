"""Cross-validation: the whole street once for each fold, then all folds together.

OUT/fold-1 ...               a run for each fold, like any other, with the fold's photos as its test side
OUT/predictions/folds.csv    what each photo was named by the model that never saw it
OUT/folds.json, folds.html   the scores; folds.json says how many folds there are from the beginning on
OUT/recipe.toml, environment.json, corrections.csv   what is needed to go on
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildtune import files, job, runtime
from wildtune.errors import CommandError, PhotosError
from wildtune.evaluate.folds import FoldsEvaluation, describe_folds, evaluate_folds
from wildtune.language import Language, find_language, recorded_language
from wildtune.photos.corrections import load_corrections
from wildtune.photos.sources import Detections
from wildtune.predict.predictions import load_predictions
from wildtune.progress import Reporter
from wildtune.recipe import Recipe, create_recipe, dump_recipe, load_recipe
from wildtune.report.folds import render_folds
from wildtune.train.plan import Plan, load_plan


@dataclass(frozen=True)
class Folds:
    """A finished cross-validation: its folder, the folders of its runs, and its scores."""

    folder: Path
    runs: tuple[Path, ...]
    evaluation: FoldsEvaluation


def train_folds(
    photos: str | Path,
    recipe: Recipe,
    folds: int,
    out: str | Path,
    *,
    reporter: Reporter | None = None,
    detections: Detections | None = None,
    corrections: str | Path | None = None,
    language: str = "en",
) -> Folds:
    """Train a classifier for each of `folds` folds of the photos in the new folder `out`, and score them together.

    The folds keep the groups of `recipe.split.group_by` whole and the classes as even as that allows; they follow from
    the photos and `recipe.split.seed`. Fold k alone is `job.train` with `split.folds` and `split.fold=k`.
    `language` is that of the reports, as in `job.train`. Raises what `job.train` raises, and CommandError for fewer
    than two folds.
    """
    out, spoken = files.user_path(out), find_language(language)
    if folds < 2:
        raise CommandError(f"Cross-validation needs at least 2 folds. Got {folds}.")
    if _is_taken(out):
        hint = f", or go on with it: wildtune train --resume {out}" if files.is_folds(out) else "."
        raise CommandError(f"{out} exists already. Choose another --out{hint}")
    job.require_out_folder(out, photos)
    if corrections:
        load_corrections(files.user_path(corrections))  # a mistake in them is said before anything is written
    recipe = job.with_absolute_paths(_of_fold(recipe, folds, 1))
    job.copy_corrections(corrections, out)
    files.write_text(out / "recipe.toml", dump_recipe(recipe))
    about: dict[str, Any] = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **runtime.environment()}
    about |= {**job.places_record(photos, detections), **spoken.record()}
    files.write_json(out / "environment.json", about)
    files.write_text(out / files.FOLDS_INDEX, json.dumps({"count": folds}) + "\n")
    return _go_on(out, recipe, photos, detections, None, reporter or Reporter(), spoken)


def resume_folds(
    folder: str | Path,
    photos: str | Path | None = None,
    *,
    detections_path: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Folds:
    """Go on with an interrupted cross-validation; the result is that of an uninterrupted one.

    `photos` and `detections_path` say where the photos and the detections are now, if they have moved. Raises
    CommandError when the folder holds none.
    """
    folder = files.user_path(folder)
    missing = [name for name in (files.FOLDS_INDEX, "recipe.toml", "environment.json") if not (folder / name).exists()]
    if missing:
        raise CommandError(f"{folder} holds no cross-validation to go on with: {', '.join(missing)} is not there.")
    recipe = load_recipe(str(folder / "recipe.toml"))
    about = files.read_json(folder / "environment.json", "photos")
    detections = job.moved_detections(folder, about.get("detections"), detections_path)
    spoken = recorded_language(about)
    return _go_on(folder, recipe, photos or about["photos"], detections, photos, reporter or Reporter(), spoken)


def _is_taken(out: Path) -> bool:
    """Say whether a folder holds more than a cross-validation that was given up before its first run had a plan."""
    if not out.exists():
        return False
    begun = {files.FOLDS_INDEX, "recipe.toml", "environment.json", "corrections.csv", "fold-1"}
    names = files.names_in(out) if out.is_dir() else {""}
    return bool(names - begun) or (out / "fold-1" / "plan.toml").exists()


def saved_folds(folder: str | Path) -> FoldsEvaluation:
    """Return the scores of a finished cross-validation. Raises CommandError when it has not ended."""
    path = files.user_path(folder) / files.FOLDS_INDEX
    saved = files.read_json(path)
    if "pooled" not in saved:
        raise CommandError(f"The folds in {folder} have not all been trained.\nGo on: wildtune train --resume {folder}")
    with files.reading(path):
        return FoldsEvaluation.model_validate({key: value for key, value in saved.items() if key != "count"})


def _of_fold(recipe: Recipe, folds: int, fold: int) -> Recipe:
    """Return a recipe whose test photos are one fold; raises RecipeError where its other values do not go with that."""
    table = recipe.model_dump(mode="json")
    table["split"] |= {"folds": folds, "fold": fold}
    return create_recipe(table, "the recipe with --folds")


def _go_on(
    out: Path,
    recipe: Recipe,
    source: str | Path,
    detections: Detections | None,
    moved: str | Path | None,
    reporter: Reporter,
    language: Language,
) -> Folds:
    """Do all folds that are left to do, then score all together."""
    count = recipe.split.folds
    corrections = out / "corrections.csv" if (out / "corrections.csv").exists() else None
    runs = tuple(out / f"fold-{fold}" for fold in range(1, count + 1))
    for fold, run in enumerate(runs, start=1):
        if (run / "report" / "index.html").exists():  # the last that a run writes
            reporter.say(f"fold {fold} of {count} is finished")
        elif (run / "plan.toml").exists():
            reporter.say(f"fold {fold} of {count}: going on")
            job.resume(run, moved, detections_path=detections.path if detections else None, reporter=reporter)
        else:
            reporter.say(f"fold {fold} of {count}")
            job.train(
                source,
                _of_fold(recipe, count, fold),
                run,
                reporter=reporter,
                detections=detections,
                corrections=corrections,
                language=language.code,
            )
    _require_same_photos(runs)
    for run in (out, *runs):
        job.record_places(run, moved, detections)
    found = [load_predictions(run / "predictions" / "test.csv") for run in runs]
    plans = [load_plan(run / "plan.toml") for run in runs]
    evaluation = evaluate_folds(found, [plan.side_size("train") for plan in plans])
    _save_predictions(runs, out / "predictions" / "folds.csv")
    _write_page(out, plans[0], evaluation, language)
    saved = {"count": count, **evaluation.model_dump(mode="json")}
    files.write_json(out / files.FOLDS_INDEX, saved)
    reporter.say(f"{describe_folds(evaluation)}\npage: {out / 'folds.html'}")
    return Folds(out, runs, evaluation)


def _write_page(out: Path, plan: Plan, evaluation: FoldsEvaluation, language: Language) -> None:
    title = language.say_counted(
        "{backbone} on {n} classes", "{backbone} on {n} classes", len(plan.class_names), backbone=plan.backbone
    )
    files.write_text(out / "folds.html", render_folds(evaluation, title, language))


def report_again(run: str | Path, language: str, *, reporter: Reporter | None = None) -> Path:
    """Write the report of a finished run anew in a language ("en" or "ru"), or a cross-validation's page and reports.

    Nothing is scored again. Pictures need the photos: those that are unchanged where the run had them are shown.
    Returns the path of the run's report, or of the cross-validation's page. Raises CommandError as `job.report_again`
    does.
    """
    folder, spoken, reporter = files.user_path(run), find_language(language), reporter or Reporter()
    if not files.is_folds(folder):
        return job.report_again(folder, language, reporter=reporter)
    evaluation = saved_folds(folder)
    runs = [folder / f"fold-{fold.fold}" for fold in evaluation.folds]
    for fold in runs:
        job.report_again(fold, language, reporter=reporter)
    _write_page(folder, load_plan(runs[0] / "plan.toml"), evaluation, spoken)
    job.record_language(folder, spoken)
    reporter.say(f"page: {folder / 'folds.html'}")
    return folder / "folds.html"


def _require_same_photos(runs: Sequence[Path]) -> None:
    """Raise PhotosError unless every fold had the same photos, each of which is tested in one of them."""
    tested: list[tuple[str, str]] = []
    contents = set()
    for run in runs:
        with open(run / "split.csv", encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        contents.add(tuple(sorted((row["sha256"], row["label"]) for row in rows)))
        tested += [(row["sha256"], row["label"]) for row in rows if row["split"] == "test"]
    if len(contents) > 1 or tuple(sorted(tested)) not in contents:
        raise PhotosError(
            "The photos or their labels have changed between the folds, so they cannot be scored together.\n"
            f"Cross-validate anew into another folder, or delete the folds that differ: {runs[0].parent}"
        )


def _save_predictions(runs: Sequence[Path], path: Path) -> None:
    """Write every fold's test predictions as one table, by path, with the fold behind the error."""
    rows: list[dict[str, str]] = []
    for fold, run in enumerate(runs, start=1):
        with open(run / "predictions" / "test.csv", encoding="utf-8", newline="") as handle:
            rows += [{**row, "fold": str(fold)} for row in csv.DictReader(handle)]
    first = ["path", "label", "prediction", "confidence", "error", "fold"]
    columns = [*first, *(name for name in rows[0] if name not in first)]
    rows.sort(key=lambda row: row["path"])
    files.write_text(path, files.csv_text(columns, ([row[name] for name in columns] for row in rows)))
