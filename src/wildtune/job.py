"""The whole street in its order: photos, catalogue, findings, split, plan, bundle, predictions, evaluation, report."""

from __future__ import annotations

import csv
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wildtune import files, runtime
from wildtune.check.balance import describe_imbalance
from wildtune.check.page import CheckContent, write_check
from wildtune.check.random_split import RandomSplit, describe_random_split
from wildtune.check.steps import add_suspects, audit_photos, audit_set, try_to_judge
from wildtune.errors import CommandError, PhotosError
from wildtune.evaluate.calibration import fit_calibration
from wildtune.evaluate.evaluation import Evaluation, RunEvaluation, evaluate_run, load_evaluation, save_evaluation
from wildtune.evaluate.evaluation import evaluate as score_predictions
from wildtune.evaluate.learning_curve import load_learning_curve
from wildtune.language import Language, find_language, recorded_language
from wildtune.model.backbone import check_backbone
from wildtune.model.bundle import Bundle, load_bundle, plain_state, save_bundle
from wildtune.model.calibration import Calibration
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.model.weights import require_file
from wildtune.photos.audit import Finding, Findings, load_findings, save_findings
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.corrections import apply_corrections, load_corrections
from wildtune.photos.decode import create_thumbnail
from wildtune.photos.sources import Detections, load_photos
from wildtune.photos.split import Split, load_split, save_split, split_photos
from wildtune.predict.predicting import say_notices, say_what_it_knows
from wildtune.predict.predictions import Predictions, load_predictions, save_predictions
from wildtune.predict.predictor import Predictor, create_predictor
from wildtune.progress import ProgressCallback, Reporter
from wildtune.recipe import Recipe, dump_recipe, load_recipe
from wildtune.report.content import RunContent
from wildtune.report.heat_maps import create_heat_maps
from wildtune.report.page import write_report
from wildtune.train import checkpoint
from wildtune.train.batches import Side, create_cache, load_sides
from wildtune.train.doubts import doubt_labels, doubt_test_labels
from wildtune.train.history import load_history, load_moves
from wildtune.train.loop import train_stages
from wildtune.train.plan import Plan, load_plan, save_plan
from wildtune.train.planning import create_plan, data_key, describe_plan, load_model
from wildtune.train.preflight import add_preflight
from wildtune.wording import counted

# What a run folder holds until its plan is written; with no more than that in it, it can be begun anew.
_BEFORE_THE_PLAN = {"train.log", "recipe.toml", "environment.json", "corrections.csv", "findings.csv", "split.csv"}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, plan, bundle and scores."""

    folder: Path
    plan: Plan
    bundle: Bundle
    evaluation: RunEvaluation


def train(
    photos: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    reporter: Reporter | None = None,
    detections: Detections | None = None,
    corrections: str | Path | None = None,
    language: str = "en",
) -> Run:
    """Train a classifier on photos, or on the crops of `detections`, and leave every promised file in `out`, new.

    `corrections` is a CSV file of decisions on single photos (see `photos.corrections`), `language` that of the
    report ("en" or "ru"). Raises CommandError when `out` already holds something, lies among the photos or cannot be
    written, or there is no such language; PhotosError, WeightsError or RecipeError for what cannot be used. The photos
    are only read.
    """
    out, reporter, spoken = files.user_path(out), reporter or Reporter(), find_language(language)
    if out.exists() and (not out.is_dir() or files.names_in(out) - _BEFORE_THE_PLAN):
        hint = f", or go on with it: wildtune train --resume {out}" if (out / "plan.toml").exists() else "."
        raise CommandError(f"{out} exists already. Choose another --out{hint}")
    require_out_folder(out, photos)
    check_backbone(recipe.backbone)
    recipe = with_absolute_paths(recipe)
    catalogue = load_corrected(photos, reporter, detections, corrections)
    findings = audit_set(catalogue, recipe.seed, reporter)
    for finding in findings.findings:
        if finding.kind == "confound":
            reporter.say(f"note: {finding.detail}")
    split = split_photos(findings, recipe.split)
    split = dataclasses.replace(split, notices=(*split.notices, *_whole_set_notices(catalogue, findings)))
    reporter.say("loading the backbone")
    model, facts = load_model(recipe, len(split.class_names))
    corrected = files.sha256_file(files.user_path(corrections)) if corrections else ""
    plan = create_plan(recipe, split, model, facts, str(catalogue.root), corrected)
    reporter.log_to(out / "train.log")
    copy_corrections(corrections, out)
    files.write_text(out / "recipe.toml", dump_recipe(recipe))
    about: dict[str, Any] = {
        **places_record(photos, detections),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **runtime.environment(),
        **spoken.record(),
    }
    _save_environment(out, about)
    save_findings(findings, out / "findings.csv")
    save_split(split, out / "split.csv")
    runtime.set_threads(plan.threads)
    cache = create_cache(model, plan, runtime.environment()["packages"])
    plan = add_preflight(plan, split, catalogue, model, cache, reporter)
    save_plan(plan, out / "plan.toml")
    return _carry_out(plan, findings, split, model, cache, out, reporter, detections, spoken)


def resume(
    run: str | Path,
    photos: str | Path | None = None,
    *,
    detections_path: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Go on with a run from its last checkpoint; the result is that of an uninterrupted run.

    `photos` says where the photos are now, `detections_path` where the detector's results are, if they have moved.
    Raises CommandError when the folder is no run or the photos are no longer those it was planned for.
    """
    folder, reporter = files.user_path(run), reporter or Reporter()
    missing = [n for n in ("recipe.toml", "environment.json", "plan.toml", "split.csv") if not (folder / n).exists()]
    if missing:
        raise CommandError(
            f"{folder} holds no run to go on with: {', '.join(missing)} is not there.\n"
            "Start one: wildtune train PHOTOS --out DIR"
        )
    recipe, plan = load_recipe(str(folder / "recipe.toml")), load_plan(folder / "plan.toml")
    about = files.read_json(folder / "environment.json", "packages", "photos")
    spoken = recorded_language(about)
    now = runtime.environment()["packages"]
    changed = [f"{name} {old} -> {now.get(name)}" for name, old in about["packages"].items() if now.get(name) != old]
    if changed:
        reporter.say(f"note: versions have changed since the run began: {', '.join(changed)}")
    if plan.device not in ("cpu", runtime.detect_device()):
        raise CommandError(f"The run was planned for a machine with {plan.device}, and this one has none. Go on there.")
    planned = {stage.precision for stage in plan.stages}
    if "bfloat16" in planned and not runtime.has_fast_bfloat16(plan.device):
        reporter.say(
            "note: the run was planned for a machine that multiplies bfloat16, and torch finds no products of it here: "
            "what is left goes on more slowly, and its numbers round differently"
        )
    detections = moved_detections(folder, about.get("detections"), detections_path)
    catalogue = load_catalogue(photos or about["photos"], reporter, detections)
    catalogue = correct_again(catalogue, plan.corrections, folder)
    findings = audit_set(catalogue, recipe.seed, reporter)
    split = _load_planned(findings, plan, folder)
    if split is None:
        cause = f"\nIts crops depend on the detections too: {detections.path}" if detections else ""
        raise CommandError(
            "The photos or their labels have changed since the run was planned, so it cannot go on as the same run.\n"
            f"Bring them back as they were, or train anew into another folder. Photos: {catalogue.root}"
            f"{cause}"
        )
    reporter.say("loading the backbone")
    model, facts = load_model(recipe, len(split.class_names))
    if plan.weights.sha256 != facts.sha256:
        raise CommandError(f"The weights {facts.name} are not those the run was planned with. Bring them back.")
    reporter.log_to(folder / "train.log")
    runtime.set_threads(plan.threads)
    cache = create_cache(model, plan, now)
    record_places(folder, photos, detections)
    return _carry_out(plan, findings, split, model, cache, folder, reporter, detections, spoken)


def evaluate(
    run: str | Path, photos: str | Path, *, reporter: Reporter | None = None, detections: Detections | None = None
) -> Evaluation:
    """Score a run's classifier on labelled photos it has not been trained on, or on the crops of `detections`.

    Photos whose label the classifier does not know are left out, and said so; those that cannot be read are counted in
    `without_prediction`. Raises PhotosError when none is left that can be used, CommandError when there is no
    classifier.
    """
    reporter = reporter or Reporter()
    bundle = load_bundle(run)
    say_what_it_knows(bundle, detections, reporter)
    findings = audit_photos(load_catalogue(photos, reporter, detections), reporter)
    if not findings.usable:
        raise PhotosError(
            f"None of the {counted(len(findings.catalogue.photos), 'photo')} in {photos} can be used.\n"
            "`wildtune check` shows which were set aside and why."
        )
    labels = {photo.label for photo in findings.usable}
    if not labels & set(bundle.class_names):
        raise PhotosError(
            f"No photo in {photos} has a label that the classifier knows.\n"
            f"It knows {', '.join(bundle.class_names)}; found {', '.join(sorted(labels))}."
        )
    # Those that cannot be read are asked about too: they get the reason, and are counted.
    unreadable = {finding.path for finding in findings.findings if finding.kind == "unreadable"}
    asked = [*findings.usable, *(photo for photo in findings.catalogue.photos if photo.path in unreadable)]
    known = tuple(photo for photo in asked if photo.label in bundle.class_names)
    if len(known) < len(asked):
        reporter.say(f"note: {counted(len(asked) - len(known), 'photo')} of classes it does not know left out")
    with reporter.bar("predicting") as tell:
        predictions = create_predictor(bundle).predict(findings.catalogue, known, tell)
    return score_predictions(predictions, "given")


def saved_scores(run: str | Path) -> RunEvaluation:
    """Return all scores of a finished run. Raises CommandError when it has none yet, or there is no run."""
    folder = files.user_path(run)
    files.require_single_run(folder)
    if (folder / "evaluation.json").exists():
        return load_evaluation(folder / "evaluation.json")
    if (folder / "plan.toml").exists():
        raise CommandError(
            f"{run} has no evaluation.json: its training has not ended.\nGo on: wildtune train --resume {run}"
        )
    what = "a bundle, which has no scores" if (folder / "bundle.json").exists() else "no run folder"
    raise CommandError(f"{run} is {what}. Give the folder that `wildtune train` has written, or PHOTOS to score it on.")


def check(
    photos: str | Path,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    *,
    reporter: Reporter | None = None,
    detections: Detections | None = None,
) -> Findings:
    """Look for faults in photos, or in the crops of `detections`; with a recipe for probable label errors too.

    The recipe's backbone, weights and input give the features for these. With `out` the page `check.html`,
    `findings.csv` and `label_ranking.csv` are written to that folder. Raises CommandError when that lies among the
    photos or cannot be written, and WeightsError for weights named in the recipe that cannot be used; those that cannot
    be downloaded are only said to be missing.
    """
    reporter = reporter or Reporter()
    if out is not None:
        out = files.user_path(out)
        require_out_folder(out, photos)
    if recipe is not None and recipe.weights not in ("auto", "none"):
        require_file(recipe.weights)
    catalogue = load_catalogue(photos, reporter, detections)
    findings = audit_set(catalogue, recipe.seed if recipe else 0, reporter)
    imbalance = describe_imbalance(findings.usable)
    if imbalance:
        reporter.say(f"note: {imbalance}")
    judged = try_to_judge(findings, recipe, reporter)
    reporter.say(judged.said)
    if judged.ranking is not None:
        findings = add_suspects(findings, judged.ranking)
    random_split = describe_random_split(judged.random_split) if judged.random_split else ""
    if random_split:
        reporter.say(f"note: {random_split}")
    if out is not None:
        said = (*catalogue.notices, imbalance, judged.said[:1].upper() + judged.said[1:] + ".", random_split)
        content = CheckContent(findings, judged.ranking, [notice for notice in said if notice])
        reporter.say(f"page: {write_check(content, out)}")
    return findings


def demo(out: str | Path, *, reporter: Reporter | None = None, language: str = "en") -> Run:
    """Generate photos in `out`/photos and do the whole job on them, with the embedded weights, in `out`/run.

    `language` is that of the report, as in `train`.
    """
    from wildtune.demo.animals import SPECIES, write_demo_photos
    from wildtune.demo.weights import DEMO_BACKBONE, demo_weights_path

    out = files.user_path(out)
    find_language(language)
    if (out / "run" / "plan.toml").exists():
        raise CommandError(
            f"{out} holds a demo already. Choose another --out, or go on with it: wildtune train --resume {out / 'run'}"
        )
    known = {*SPECIES, "Thumbs.db", "desktop.ini"}
    found = files.names_in(out / "photos") if (out / "photos").is_dir() else set()
    others = {name for name in found - known if not name.startswith(".")}  # but for what the system puts in a folder
    if others:
        raise CommandError(
            f"{out / 'photos'} holds other things than the demo's photos, such as {min(others)}. Choose another --out."
        )
    reporter = reporter or Reporter()
    reporter.say(
        f"This demo draws its own photos of {len(SPECIES)} invented species, with a few faults planted in them, and "
        f"starts from\n{DEMO_BACKBONE} weights that wildtune's authors trained on other drawings. It shows how a job "
        "goes; its accuracy\nsays nothing about real animals."
    )
    write_demo_photos(out / "photos", per_species=60)
    recipe = load_recipe("demo", backbone=DEMO_BACKBONE, weights=str(demo_weights_path()))
    return train(out / "photos", recipe, out / "run", reporter=reporter, language=language)


def _load_planned(findings: Findings, plan: Plan, folder: Path) -> Split | None:
    """Return the run's own split of its photos, None where these are no longer those it was planned for."""
    try:
        split = load_split(findings, folder / "split.csv")
    except PhotosError:
        return None
    return split if data_key(split) == plan.data_key else None


def _carry_out(
    plan: Plan,
    findings: Findings,
    split: Split,
    model: nn.Module,
    cache: FeatureCache,
    folder: Path,
    reporter: Reporter,
    detections: Detections | None,
    language: Language,
) -> Run:
    """Do all that is left to do of a planned run: from its decoded photos to its report."""
    reporter.say(describe_plan(plan))
    catalogue = findings.catalogue
    sides = load_sides(split, catalogue, plan, reporter)
    initial = plain_state(model)
    doubts = doubt_labels(plan, findings, split, cache, sides, folder, reporter)
    findings, ranking = doubts.findings, doubts.ranking
    cache.let_go()
    model.to("cpu")
    train_stages(model, plan, sides, folder, runtime.environment()["packages"], reporter)
    provenance = _provenance(plan, detections)
    bundle = Bundle(plan.backbone, plan.class_names, plan.preprocess, provenance, model=model)
    evaluation, shown = _evaluate(bundle, initial, plan, sides, catalogue, folder, reporter, doubts.random_split)
    bundle = dataclasses.replace(bundle, calibration=shown.calibration)
    save_bundle(bundle, folder / "bundle")
    if shown.paths and evaluation.headline.side == "test":
        findings = doubt_test_labels(findings, ranking, shown, folder)
    reporter.say("writing the report")
    photos = {photo.path: photo for photo in findings.usable}
    content = gather_content(folder, plan, findings.findings, evaluation, shown, language)
    write_report(add_pictures(content, catalogue, photos, bundle, reporter), folder / "report")
    reporter.say(_headline(evaluation, folder))
    return Run(folder, plan, bundle, evaluation)


def _evaluate(
    bundle: Bundle,
    initial: dict[str, Tensor],
    plan: Plan,
    sides: dict[str, Side],
    catalogue: Catalogue,
    folder: Path,
    reporter: Reporter,
    random_split: RandomSplit | None,
) -> tuple[RunEvaluation, Predictions]:
    """Predict validation and test photos with the weights of each stage in turn, and score them.

    This is the only place where the test photos are looked at. `initial` is the state before the first stage;
    each stage's kept weights are put on top of it, in order, so that the last stage's are the bundle's.
    `random_split` is kept beside the scores.
    Returns the scores and the predictions behind the headline, which carry the calibration: that of the last stage's
    weights, fitted on its validation photos before the test photos are predicted.
    """
    scored: dict[str, Side] = {name: sides[name] for name in ("val", "test") if name in sides}
    stages = [planned.stage.name for planned in plan.stages]
    predictions: dict[tuple[str, str], Predictions] = {}
    calibration: Calibration | None = None
    bundle.model.load_state_dict(initial)
    cache: FeatureCache | None = create_cache(bundle.model, plan, runtime.environment()["packages"])
    for planned in plan.stages:
        stage = planned.stage.name
        checkpoint.load_kept(bundle.model, folder, stage)
        if planned.stage.train != "head":
            cache = None  # the backbone is no longer the one whose features were cached
        predictor = create_predictor(bundle, plan.engine, plan.threads, plan.device, keep=stage == stages[-1])
        for side, photos in scored.items():
            with reporter.bar(f"predicting the {side} photos after stage {stage}") as tell:
                found = _predict_side(predictor, cache, catalogue, photos, tell)
            if stage == stages[-1]:
                calibration = fit_calibration(found) if side == "val" else calibration
                found = dataclasses.replace(found, calibration=calibration)
            predictions[stage, side] = found
            name = f"{side}.csv" if stage == stages[-1] else f"{stage}/{side}.csv"
            save_predictions(found, folder / "predictions" / name)
    final = {side: predictions.pop((stages[-1], side)) for side in scored}
    evaluation = dataclasses.replace(evaluate_run(final, predictions, stages[-1]), random_split=random_split)
    save_evaluation(evaluation, folder / "evaluation.json")
    return evaluation, final[evaluation.headline.side]


def _predict_side(
    predictor: Predictor,
    cache: FeatureCache | None,
    catalogue: Catalogue,
    side: Side,
    tell: ProgressCallback,
) -> Predictions:
    """Predict the photos of one side, from their cached features where the backbone is still the frozen one."""
    if cache is None:
        return predictor.predict(catalogue, side.photos, tell)
    view = functools.partial(side.plain_input, preprocess=predictor.facts.preprocess)
    return predictor.predict_features(side.photos, cache.load(side.photos, view, PLAIN_VIEW, tell))


def correct_again(catalogue: Catalogue, sha256: str, folder: Path) -> Catalogue:
    """Apply the corrections that the work in `folder` began with, from its own copy of them; none where it had none."""
    if not sha256:
        return catalogue
    path = folder / "corrections.csv"
    if not path.exists() or files.sha256_file(path) != sha256:
        raise CommandError(f"{path} is not the file of corrections that {folder} began with. Bring it back.")
    return apply_corrections(catalogue, load_corrections(path), path)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return a recipe that can be resumed from another folder; raises WeightsError for missing weights at once."""
    if recipe.weights not in ("auto", "none"):
        recipe = recipe.model_copy(update={"weights": str(require_file(recipe.weights).resolve())})
    if recipe.split.keep:
        kept = recipe.split.model_copy(update={"keep": str(files.user_path(recipe.split.keep).resolve())})
        recipe = recipe.model_copy(update={"split": kept})
    return recipe


def require_out_folder(out: Path, photos: str | Path) -> None:
    """Raise CommandError when a folder to write to lies among the photos, or cannot be made or written to."""
    require_outside(out, photos)
    if out.exists() and not out.is_dir():
        raise CommandError(f"--out {out} must be a folder, and is a file. Choose another.")
    files.require_place(out)


def require_outside(out: Path, photos: str | Path) -> None:
    """Raise CommandError when what is to be written lies among the photos."""
    where = files.user_path(photos)
    if where.is_dir() and out.resolve().is_relative_to(where.resolve()):
        raise CommandError(f"--out {out} lies inside the photos' folder, which is never written to. Choose another.")


def _whole_set_notices(catalogue: Catalogue, findings: Findings) -> list[str]:
    """Return what the plan says of the set: its imbalance, and which corrections were applied."""
    said = [describe_imbalance(findings.usable), *(n for n in catalogue.notices if n.startswith("Corrections from"))]
    return [notice for notice in said if notice]


def moved_detections(
    folder: Path, saved: dict[str, Any] | None, moved: str | Path | None, command: str = ""
) -> Detections | None:
    """Return the detections that a run was trained with, at the path where they are now; `command` goes on with it."""
    command = command or f"wildtune train --resume {folder}"
    if saved is None:
        if moved is not None:
            raise CommandError(f"{folder} was trained on whole photos, not on crops: leave --detections out.")
        return None
    path = files.user_path(moved or saved["path"])
    if moved is None and not path.exists():
        raise CommandError(
            f"The detections that the run was trained with are no longer at {path}.\n"
            f"Bring them back, or say where they are: {command} --detections FILE"
        )
    return Detections(**{**saved, "path": str(path.resolve())})


def _provenance(plan: Plan, detections: Detections | None) -> dict[str, Any]:
    crops = {"threshold": detections.threshold, "margin": detections.margin} if detections else None
    return {
        "recipe": plan.recipe_name,
        "weights": dataclasses.asdict(plan.weights),
        "data_key": plan.data_key,
        "counts": plan.counts,
        "detections": crops,
        "seed": plan.seed,
        "versions": runtime.environment()["packages"],
        **({"corrections": plan.corrections} if plan.corrections else {}),
    }


def gather_content(
    folder: Path,
    plan: Plan,
    findings: Sequence[Finding],
    evaluation: RunEvaluation,
    shown: Predictions,
    language: Language,
) -> RunContent:
    """Return what a run's report says, without its pictures."""
    on = language.say_counted(
        "{backbone} on {n} classes", "{backbone} on {n} classes", len(plan.class_names), backbone=plan.backbone
    )
    curve = folder / "learning_curve.json"  # there is none where the weights were random, nor of older runs
    return RunContent(
        title=on,
        plan=plan,
        history=load_history(folder / "metrics.jsonl"),
        evaluation=evaluation,
        findings=findings,
        environment=files.read_json(folder / "environment.json"),
        predictions=shown,
        moves=load_moves(folder / "stages.jsonl"),
        learning_curve=load_learning_curve(curve) if curve.exists() else None,
        language=language,
    )


def add_pictures(
    content: RunContent, catalogue: Catalogue, photos: Mapping[str, Photo], bundle: Bundle, reporter: Reporter
) -> RunContent:
    """Return what a report says with the photos' small pictures and heat maps; `photos` by path."""

    def thumbnail(path: str) -> bytes | None:
        photo = photos.get(path)
        return create_thumbnail(catalogue.read_bytes(photo), box=photo.box) if photo else None

    assert content.predictions is not None
    with reporter.bar("drawing heat maps") as tell:
        heat_maps = create_heat_maps(bundle, catalogue, photos, content.predictions, tell)
    return dataclasses.replace(content, load_thumbnail=thumbnail, heat_maps=heat_maps)


def report_again(run: str | Path, language: str, *, reporter: Reporter | None = None) -> Path:
    """Write the report of a finished run anew in a language ("en" or "ru"), from what the run has saved.

    Nothing is scored again. Pictures need the photos: those that are unchanged where the run had them are shown.
    Returns the path of the page. Raises CommandError when the run has not ended, the photos' folder is gone, or there
    is no such language; the report then stays as it was.
    """
    folder, reporter, spoken = files.user_path(run), reporter or Reporter(), find_language(language)
    evaluation = saved_scores(folder)
    plan, bundle = load_plan(folder / "plan.toml"), load_bundle(folder)
    shown = load_predictions(folder / "predictions" / f"{evaluation.headline.side}.csv")
    content = gather_content(folder, plan, load_findings(folder / "findings.csv"), evaluation, shown, spoken)
    about = files.read_json(folder / "environment.json", "photos")
    try:
        crops = Detections(**about["detections"]) if about.get("detections") else None
        catalogue = load_photos(about["photos"], read=False, detections=crops)
    except PhotosError as error:
        raise CommandError(
            f"The report's pictures need the photos where the run had them: {error}\n"
            f"Bring them back there. The report is left as it was: {folder / 'report' / 'index.html'}"
        ) from error
    photos = _unchanged(catalogue, shown, folder)
    if len(photos) < len(shown.paths):
        reporter.say(
            f"note: {counted(len(shown.paths) - len(photos), 'photo')} of {len(shown.paths)} cannot be shown: gone or "
            "changed since the run"
        )
    page = write_report(add_pictures(content, catalogue, photos, bundle, reporter), folder / "report")
    record_language(folder, spoken)
    reporter.say(f"report: {page}")
    return page


def record_language(folder: Path, language: Language) -> None:
    """Keep the language of a run's or a cross-validation's reports, for when it is gone on with."""
    about = files.read_json(folder / "environment.json")
    _save_environment(folder, {key: value for key, value in about.items() if key != "language"} | language.record())


def record_places(folder: Path, source: str | Path | None, detections: Detections | None) -> None:
    """Keep where a run's photos, where `source` says so, and its detections are now, for whoever needs them later."""
    about = files.read_json(folder / "environment.json")
    now = about | places_record(source, detections)
    if now != about:
        _save_environment(folder, now)


def places_record(source: str | Path | None, detections: Detections | None) -> dict[str, Any]:
    """Return what is recorded of where the photos, where `source` says so, and the detections are."""
    where = {"photos": str(files.user_path(source).resolve())} if source is not None else {}
    return where | detections_record(detections)


def copy_corrections(corrections: str | Path | None, folder: Path) -> None:
    """Keep the corrections that the work in `folder` begins with there; those of an earlier beginning are not its."""
    if corrections:
        files.write_bytes(folder / "corrections.csv", files.user_path(corrections).read_bytes())
    else:
        (folder / "corrections.csv").unlink(missing_ok=True)


def _save_environment(folder: Path, about: dict[str, Any]) -> None:
    files.write_json(folder / "environment.json", about)


def _unchanged(catalogue: Catalogue, shown: Predictions, folder: Path) -> dict[str, Photo]:
    """Return by path those of the predicted photos whose bytes are still the run's."""
    with open(folder / "split.csv", encoding="utf-8", newline="") as handle:
        digests = {row["path"]: row["sha256"] for row in csv.DictReader(handle)}
    wanted = set(shown.paths)
    found: dict[str, Photo] = {}
    for photo in catalogue.photos:
        if photo.path in wanted and not photo.error:
            try:
                data = catalogue.read_bytes(photo)
            except OSError:
                continue
            if photo_sha256(data, photo.box) == digests.get(photo.path):
                found[photo.path] = photo
    return found


def _headline(evaluation: RunEvaluation, folder: Path) -> str:
    best = evaluation.headline
    (low, high), balanced, f1 = best.interval, best.balanced_accuracy_interval, best.macro_f1_interval
    return (
        f"{best.side} accuracy {best.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, {best.photos} photos)\n"
        f"balanced accuracy {best.balanced_accuracy:.1%} ({balanced[0]:.1%} to {balanced[1]:.1%}), "
        f"macro F1 {best.macro_f1:.3f} ({f1[0]:.3f} to {f1[1]:.3f})\n"
        f"report: {folder / 'report' / 'index.html'}"
    )


def load_catalogue(source: str | Path, reporter: Reporter, detections: Detections | None) -> Catalogue:
    """Read a source and say its notices."""
    reporter.say(f"reading {source}")
    catalogue = load_photos(source, detections=detections)
    say_notices(catalogue, reporter)
    return catalogue


def load_corrected(
    source: str | Path, reporter: Reporter, detections: Detections | None, corrections: str | Path | None
) -> Catalogue:
    """Read a source and apply the user's corrections, which are read first: a mistake in them is said at once."""
    if not corrections:
        return load_catalogue(source, reporter, detections)
    path = files.user_path(corrections)
    decisions = load_corrections(path)
    catalogue = apply_corrections(load_catalogue(source, reporter, detections), decisions, path)
    reporter.say(f"note: {catalogue.notices[-1]}")
    return catalogue


def detections_record(detections: Detections | None) -> dict[str, Any]:
    """Return what a folder records of its detections, as `moved_detections` reads it; nothing where it has none."""
    if detections is None:
        return {}
    return {"detections": {**dataclasses.asdict(detections), "path": str(files.user_path(detections.path).resolve())}}
