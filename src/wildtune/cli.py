"""The command line: one thin function for each verb. Heavy imports stay inside them, so that --help is quick."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

from wildtune.errors import CommandError, PhotosError, WildtuneError

if TYPE_CHECKING:
    from wildtune.photos.sources import Detections
    from wildtune.runtime import Precision

app = typer.Typer(
    name="wildtune",
    help="Folders of wildlife photos in, an image classifier you can trust out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Photos = Annotated[
    str,
    typer.Argument(
        metavar="PHOTOS", help="Folder of class folders, CSV, TFRecord, COCO Camera Traps JSON, or Camtrap DP."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `wildtune train` made.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Built-in recipe by name, or a TOML file.")]
BackboneName = Annotated[str | None, typer.Option(help="Any timm model by name.")]
WeightsFile = Annotated[
    str | None, typer.Option(help="File of pretrained weights; auto: timm's download; none: random.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value, as stages.finetune.epochs=3.")
]

DetectionsFile = Annotated[
    Path | None, typer.Option("--detections", metavar="FILE", help="MegaDetector's results: use the animals' crops.")
]
Threshold = Annotated[
    float | None,
    typer.Option("--detection-threshold", help="Least confidence of a detected animal, 0 to 1; by default 0.2."),
]
Corrections = Annotated[
    Path | None, typer.Option(metavar="FILE", help="CSV file of photos to drop or relabel, from `check --out`.")
]


ReportLanguage = Annotated[
    str | None,
    typer.Option(
        "--language", metavar="CODE", help="Language of the report: en (by default) or ru. What is printed is English."
    ),
]


@app.command()
def train(
    photos: Annotated[str | None, typer.Argument(metavar="PHOTOS", help=Photos.__metadata__[0].help)] = None,
    recipe: RecipeName = "default",
    backbone: BackboneName = None,
    weights: WeightsFile = None,
    changes: Changes = None,
    corrections: Corrections = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the run; by default runs/DATE-TIME.")] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="K", help="Cross-validate: train K times, each photo tested once.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    detections: DetectionsFile = None,
    detection_threshold: Threshold = None,
    language: ReportLanguage = None,
) -> None:
    """Train a classifier on PHOTOS: head first, then fine-tuning, then the honest numbers and a report."""
    from wildtune.recipe import load_recipe

    # Before torch is imported, which takes seconds: a mistake is said at once.
    chosen = load_recipe(recipe, changes or (), backbone=backbone, weights=weights)
    _require_photos(photos)
    with _quick_imports():
        from wildtune import files, job
        from wildtune import folds as cross_validation

    if resume is not None:
        others = (backbone, weights, changes, corrections, out, folds)
        if any(others) or detection_threshold is not None or recipe != "default" or language:
            raise CommandError(
                "--resume goes on with the run's own recipe, threshold and language: give it no other option than "
                "PHOTOS and --detections, each only where they have moved."
            )
        go_on = cross_validation.resume_folds if files.is_folds(files.user_path(resume)) else job.resume
        with _saying_how_to_resume(resume):
            go_on(resume, photos, detections_path=detections)
        return
    if photos is None:
        raise CommandError("Say which photos: wildtune train PHOTOS, or wildtune train --resume RUN.")
    crops = _detections(detections, detection_threshold)
    folder = out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    with _saying_how_to_resume(folder):
        if folds is not None:
            cross_validation.train_folds(
                photos, chosen, folds, folder, detections=crops, corrections=corrections, language=language or "en"
            )
            return
        job.train(photos, chosen, folder, detections=crops, corrections=corrections, language=language or "en")


@app.command()
def check(
    photos: Photos,
    backbone: BackboneName = None,
    weights: WeightsFile = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Look for no label errors; needs no weights.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page check.html and findings.csv; or a .csv file for these.")
    ] = None,
    detections: DetectionsFile = None,
    detection_threshold: Threshold = None,
) -> None:
    """Look for faults in PHOTOS, before anything is trained."""
    from wildtune.recipe import load_recipe

    if no_model and (backbone or weights):
        raise CommandError("--no-model looks for no label errors, so --backbone and --weights are not needed with it.")
    recipe = None if no_model else load_recipe("default", backbone=backbone, weights=weights)
    _require_photos(photos)
    table = _file_place(out, "findings.csv") if out is not None and out.suffix.lower() == ".csv" else None
    with _quick_imports():
        from wildtune import job
        from wildtune.photos.audit import save_findings
        from wildtune.wording import plain

    chosen = _detections(detections, detection_threshold)
    findings = job.check(photos, detections=chosen, recipe=recipe, out=None if table else out)
    for finding in findings.findings:
        print(plain(f"{finding.severity}: {finding.kind}: {finding.path or 'all'}: {finding.detail}"))
    if table:
        save_findings(findings, table)


@app.command()
def tune(
    photos: Annotated[str | None, typer.Argument(metavar="PHOTOS", help=Photos.__metadata__[0].help)] = None,
    recipe: RecipeName = "default",
    backbone: BackboneName = None,
    weights: WeightsFile = None,
    changes: Changes = None,
    corrections: Corrections = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="How often to try all values together.")] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="How long the whole may take; 15 where --trials is not given.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Recipe to write; its page lies beside it.")] = Path(
        "tuned.toml"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out, or help a process that does.")] = False,
    detections: DetectionsFile = None,
    detection_threshold: Threshold = None,
    language: ReportLanguage = None,
) -> None:
    """Search for a better recipe on PHOTOS, and write it; the test photos are not looked at."""
    from wildtune.recipe import load_recipe

    start = load_recipe(recipe, changes or (), backbone=backbone, weights=weights)  # before torch, as in `train`
    _require_photos(photos)
    with _quick_imports():
        from wildtune import tuning

    command = f"wildtune tune --resume --out {out}"
    if resume:
        others = (backbone, weights, changes, corrections)
        if any(others) or detection_threshold is not None or recipe != "default" or language:
            raise CommandError(
                "--resume goes on with the recipe, corrections, threshold and language that the tuning began with: "
                "give it no other option than --out, --trials, --minutes, and PHOTOS and --detections, each only where "
                "they have moved."
            )
        with _saying_how_to_resume(out, command, tuning.is_begun):
            tuning.resume_tuning(out, photos, trials, minutes, detections_path=detections)
        return
    if photos is None:
        raise CommandError(f"Say which photos: wildtune tune PHOTOS, or {command}.")
    crops = _detections(detections, detection_threshold)
    with _saying_how_to_resume(out, command, tuning.is_begun):
        tuning.tune(
            photos, start, out, trials, minutes, detections=crops, corrections=corrections, language=language or "en"
        )


@app.command()
def evaluate(
    run: RunFolder,
    photos: Annotated[str | None, typer.Argument(metavar="PHOTOS", help="Other labelled photos.")] = None,
    detections: DetectionsFile = None,
    detection_threshold: Threshold = None,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="CODE", help="Write the run's report again, in en or ru; not with PHOTOS."),
    ] = None,
) -> None:
    """Show a run's scores, or score it on other labelled PHOTOS."""
    with _quick_imports():
        from wildtune import files, folds, job
    from wildtune.evaluate.folds import describe_folds
    from wildtune.evaluate.text import describe_evaluation
    from wildtune.evaluate.trust import describe_trust
    from wildtune.language import find_language

    crops = _detections(detections, detection_threshold)
    if language is not None and photos is not None:
        raise CommandError("--language writes the report of the run itself again: leave PHOTOS out.")
    if language is not None:
        find_language(language)
    if photos is None:
        if detections is not None:
            raise CommandError("--detections crops other photos: give them too, wildtune evaluate RUN PHOTOS.")
        if files.is_folds(files.user_path(run)):
            print(describe_folds(folds.saved_folds(run)))
        else:
            saved = job.saved_scores(run)
            print(describe_evaluation(saved.headline))
            if saved.trust is not None:
                print(f"\n{describe_trust(saved.trust)}")
        if language is not None:
            folds.report_again(run, language)
        return
    print(describe_evaluation(job.evaluate(run, photos, detections=crops)))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of finished runs.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers.")] = None,
) -> None:
    """Say whether runs differ by more than chance, on the test photos they have in common."""
    place = _file_place(out, "comparison.json")
    with _quick_imports():
        from wildtune import files
        from wildtune.evaluate.compare import compare_runs, describe_comparison

    found = compare_runs(runs)
    if place is not None:
        files.write_text(place, found.model_dump_json(indent=1) + "\n")
    print(describe_comparison(found))


@app.command()
def predict(
    run: RunFolder,
    photos: Annotated[str, typer.Argument(metavar="PHOTOS", help="Folder or file of photos, labelled or not.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default it is printed.")] = None,
    to: Annotated[str, typer.Option(help="Format: csv.")] = "csv",
    coverage: Annotated[
        float | None, typer.Option(help="How often prediction sets hold the right class: 0.9, 0.95 or 0.99.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16: sooner on some processors, a little less exact.")
    ] = "float32",
    detections: DetectionsFile = None,
    detection_threshold: Threshold = None,
) -> None:
    """Predict every photo in PHOTOS, or every animal's crop; what cannot be read gets a reason instead."""
    from wildtune.runtime import PRECISIONS

    if to != "csv":
        raise CommandError(f"--to must be csv in this version. Got {to!r}.")
    if precision not in PRECISIONS:
        raise CommandError(f"--precision must be {' or '.join(PRECISIONS)}. Got {precision!r}.")
    place = _file_place(out, "predictions.csv")
    with _quick_imports():
        from wildtune.predict.predicting import predict as predict_photos
    from wildtune.errors import PhotosError
    from wildtune.predict.predictions import predictions_csv, save_predictions
    from wildtune.wording import counted

    crops = _detections(detections, detection_threshold)
    predictions = predict_photos(
        run, photos, detections=crops, coverage=coverage, precision=cast("Precision", precision)
    )
    if place:
        save_predictions(predictions, place)
    else:
        sys.stdout.write(predictions_csv(predictions))
    unread = sum(bool(error) for error in predictions.errors)
    if unread == len(predictions):
        raise PhotosError(
            f"Not one of the {counted(unread, 'file')} in {photos} could be read as a photo; the rows say why."
        )
    what = "crop" if detections else "photo"
    print(f"{counted(len(predictions) - unread, what)} predicted, {unread} could not be read", file=sys.stderr)


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Recipe to print.")] = None) -> None:
    """List the built-in recipes, or print one; `recipes keys` explains every key."""
    from wildtune.recipe import builtin_recipes, describe_keys

    found = builtin_recipes()
    if name is None:
        for known, text in found.items():
            print(f"{known:10} {text.splitlines()[0].removeprefix('# ')}")
        print(f"{'keys':10} every key of a recipe, its default and meaning")
    elif name == "keys":
        print(describe_keys(), end="")
    elif name in found:
        print(found[name], end="")
    else:
        raise CommandError(f"There is no recipe '{name}'. Built in are {', '.join(found)}; `keys` explains them.")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="New folder for the photos and the run.")] = Path("wildtune-demo"),
    language: ReportLanguage = None,
) -> None:
    """Do the whole job on generated photos with embedded weights, in about two minutes."""
    with _quick_imports():
        from wildtune import job

    with _saying_how_to_resume(out / "run"):
        job.demo(out, language=language or "en")


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        import importlib.metadata

        print(importlib.metadata.version("wildtune"))
        raise typer.Exit


def _require_photos(photos: str | None) -> None:
    """Raise PhotosError where PHOTOS are given and missing: before torch is imported, which takes seconds."""
    if photos is not None:
        from wildtune.photos.sources import require_source

        require_source(photos)


def _file_place(out: Path | None, example: str) -> Path | None:
    """Return where --out puts a file, before the work is done whose result it is to hold.

    Raises CommandError where no file can be written; for a folder it proposes the name `example`.
    """
    from wildtune import files

    if out is None:
        return None
    path = files.user_path(out)
    if path.is_dir():
        raise CommandError(f"--out {out} is a folder. Give the name of a file, such as {out / example}.")
    files.require_place(path)
    return path


def _detections(file: Path | None, threshold: float | None) -> Detections | None:
    """Return the options about detections as the value that the rest of the program knows."""
    from wildtune.photos.sources import Detections

    if file is None and threshold is not None:
        raise CommandError(
            "--detection-threshold chooses among a detector's boxes: give its results too, --detections FILE, or "
            "leave it out."
        )
    if file is None:
        return None
    return Detections(file) if threshold is None else Detections(file, threshold)


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Import torch without looking for garbage meanwhile, nor later among what was imported: half a second each run."""
    from wildtune import runtime

    runtime.keep_compiled()  # which torch asks for while it is imported
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()


def _holds_a_plan(run: Path) -> bool:
    return any((folder / "plan.toml").exists() for folder in (run, *run.glob("fold-*")))


def _print_error(message: str, error: BaseException) -> None:
    print("\n".join([f"wildtune: {message}", *getattr(error, "__notes__", [])]), file=sys.stderr)


class _saying_how_to_resume:
    """On Ctrl-C within the block, make the last line say how to go on; and where photos or disk stop what was begun."""

    def __init__(self, run: Path, command: str = "", is_begun: Callable[[Path], bool] = _holds_a_plan) -> None:
        from wildtune import files

        self.run, self.is_begun = files.user_path(run), is_begun
        self.command = command or f"wildtune train --resume {run}"

    def __enter__(self) -> None:
        import signal

        self.was_begun = self.is_begun(self.run)
        # A batch system ends jobs with SIGTERM: treat it as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # A resumed run's photos that are gone have an answer of their own.
        stopped = isinstance(error, OSError) or (isinstance(error, PhotosError) and not self.was_begun)
        if error is not None and stopped and self.is_begun(self.run):
            error.add_note(f"What was finished is kept. Once that is mended, go on with: {self.command}")
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            if self.is_begun(self.run):
                print(f"Interrupted. Go on with: {self.command}", file=sys.stderr)
            else:
                print("Interrupted before anything was trained. Give the same command again.", file=sys.stderr)
            sys.exit(130)


def main() -> None:
    """Run the command line; exit with 0, 2 (command or recipe), 3 (photos or weights) or 130 (interrupted)."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # Libraries warn about their own inner life; a user can do nothing about it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # torch asks once, at its first tensor: large ones in huge pages make a training step a tenth faster or more.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for chatty in ("torch.utils.cpp_extension", "huggingface_hub", "timm"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        app()
    except WildtuneError as error:
        if debug:
            raise
        _print_error(str(error), error)
        sys.exit(error.exit_status)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _print_error(f"{where}{error.strerror or error}.", error)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        # torch has no type of its own for the memory of a CPU, whose allocators say one of these.
        known = any(said in str(error).lower() for said in ("out of memory", "allocate memory", "enough memory"))
        if debug or not (known or isinstance(error, MemoryError)):
            raise
        where = "the GPU is out of memory" if "CUDA" in str(error) else "out of memory"
        print(f"wildtune: {where}. A smaller batch_size, input.size or backbone needs less.", file=sys.stderr)
        sys.exit(2)
    finally:
        gc.unfreeze()  # for whoever calls this within a longer life


def run() -> NoReturn:
    """Run the command line as a process of its own, and end that at once.

    Whatever has registered to be done at the end is done; but Python would then take apart some thousand modules of
    torch one by one, for most of a second.
    """
    status: object = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # as where a daemon has closed it
                stream.flush()
        except (OSError, ValueError):  # whoever read the output has gone
            status = status or 1
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    run()
