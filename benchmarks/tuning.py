"""What `wildtune tune` finds in a given time, beside recipes `default` and `lab5` and beside full trainings by Optuna.

Each part is done once and kept in --out; an interrupted benchmark goes on where it stopped.

python benchmarks/tuning.py PHOTOS --backbone NAME --weights FILE --minutes 15 --out DIR
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import rich.console
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import wildtune as wt
from wildtune import files, tuning
from wildtune.errors import TrainingError
from wildtune.evaluate.compare import describe_comparison
from wildtune.photos.split import Split
from wildtune.progress import Reporter
from wildtune.recipe import Recipe
from wildtune.train.history import load_history

POLICIES = ("constant", "exp_decay", "step", "cosine", "one_cycle", "plateau")
STARTUP_TRIALS = 4


class UnreadPhotos:
    """Sees to it that files are not opened by this process: a hook that Python calls before each opening."""

    def __init__(self) -> None:
        self.forbidden: frozenset[str] = frozenset()
        self.opened: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.forbidden and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path in self.forbidden:
                self.opened.append(path)

    @contextmanager
    def from_the_split_on(self) -> Iterator[None]:
        """Within the block, forbid the test photos from the moment that a tuning has divided them off."""
        divide = tuning.split_photos

        def split_and_forbid(*arguments: Any) -> Split:
            split = divide(*arguments)
            self.forbidden = frozenset(os.path.realpath(split.root / photo.path) for photo in split.side("test"))
            return split

        with mock.patch.object(tuning, "split_photos", split_and_forbid):
            try:
                yield
            finally:
                forbidden, self.forbidden = self.forbidden, frozenset()
        assert forbidden, "the split has no test photos"
        assert not self.opened, f"test photos were read: {self.opened[:3]}"


def tune(asked: argparse.Namespace) -> Recipe:
    """Tune, or go on with it, from a cache of its own that is empty at first; leave what it cost in tune.json."""
    os.environ["WILDTUNE_CACHE"] = str(asked.out / "cache-tune")
    out = asked.out / "tuned.toml"
    if not (asked.out / "tune.json").exists():
        with UnreadPhotos().from_the_split_on():
            if tuning.is_begun(out):
                found = wt.resume_tuning(out, asked.photos)
            else:
                found = wt.tune(asked.photos, create_recipe(asked), out, minutes=asked.minutes)
        steps: dict[str, list[float]] = {}
        for trial in found.trials:
            steps.setdefault(trial.step, []).append(trial.seconds)
        with tuning.Ledger(tuning.folder_of(out)) as ledger:
            spent_s = ledger.spent()
        about = {"replaced": found.replaced, "said": found.said, "steps": steps, "spent_s": spent_s}
        files.write_json(asked.out / "tune.json", about)
    return wt.load_recipe(str(out))


def create_recipe(asked: argparse.Namespace, name: str = "default", *changes: str) -> Recipe:
    """Return a built-in recipe for the backbone asked for."""
    return wt.load_recipe(name, changes, backbone=asked.backbone, weights=asked.weights)


def train(asked: argparse.Namespace, name: str, recipe: Recipe) -> Path:
    """Train a recipe on PHOTOS, or go on with it, in the folder of that name; return the folder."""
    os.environ["WILDTUNE_CACHE"] = str(asked.out / "cache-train")
    run: Path = asked.out / f"run-{name}"
    if (run / "report" / "index.html").exists():  # the last that a run writes
        return run
    print(f"== training {name}", file=sys.stderr)
    started = time.monotonic()
    wt.resume(run, asked.photos) if (run / "plan.toml").exists() else wt.train(asked.photos, recipe, run)
    files.write_text(run / "benchmark-seconds.txt", f"{time.monotonic() - started:.1f}\n")
    return run


class TimeUp(Exception):
    """The minutes of the search by full trainings are over."""


class Watcher(Reporter):
    """Hears what a training says, tells Optuna the validation accuracy after each epoch of fine-tuning, and the time.

    Step 0 is the accuracy after the head's stage, step k that after epoch k of fine-tuning.
    """

    def __init__(self, trial: optuna.Trial, run: Path, heads_epochs: int, deadline: float) -> None:
        super().__init__(rich.console.Console(file=io.StringIO()))
        self._trial, self._history, self._heads, self._deadline = trial, run / "metrics.jsonl", heads_epochs, deadline
        self._told = 0

    def say(self, text: str) -> None:
        """See how far the training is."""
        super().say(text)
        if time.monotonic() > self._deadline:
            raise TimeUp
        records = load_history(self._history) if self._history.exists() else []
        for number, record in enumerate(records[self._told :], start=self._told + 1):
            self._told = number
            if number >= self._heads:
                self._trial.report(record.val_accuracy, number - self._heads)
                if self._trial.should_prune():
                    raise optuna.TrialPruned


def suggest(trial: optuna.Trial) -> list[str]:
    """Return the changes to recipe `default` that a trial tries."""
    epochs = trial.suggest_categorical("head epochs", [20, 40])
    crop = trial.suggest_categorical("crop_scale", [0.8, 0.55, 0.35])
    return [
        f"stages.0.lr={trial.suggest_float('head lr', 3e-4, 3e-2, log=True)}",
        f"stages.0.policy.name={trial.suggest_categorical('policy', POLICIES)}",
        f"stages.0.epochs={epochs}",
        f"stages.0.policy.rate={4.6 / epochs}",
        f"stages.0.policy.every={epochs // 3}",
        f"stages.1.lr={trial.suggest_float('finetune lr', 1e-4, 1e-2, log=True)}",
        f"stages.1.epochs={trial.suggest_categorical('finetune epochs', [2, 4, 8])}",
        f"stages.1.augment.crop_scale=[{crop}, 1.0]",
        f"stages.1.augment.flip={trial.suggest_categorical('flip', [0.0, 0.5])}",
        f"stages.1.augment.rotation={trial.suggest_categorical('rotation', [0.0, 0.05])}",
        f"stages.1.augment.brightness={trial.suggest_categorical('brightness', [0.0, 0.2])}",
    ]


# Recipe `default` itself, which the search by full trainings tries first, as `tune` does.
DEFAULT = {
    "head epochs": 40,
    "crop_scale": 0.35,
    "head lr": 3e-3,
    "policy": "cosine",
    "finetune lr": 1e-3,
    "finetune epochs": 4,
    "flip": 0.5,
    "rotation": 0.0,
    "brightness": 0.0,
}


def write_list(asked: argparse.Namespace) -> Path:
    """Write the training and validation photos as a CSV list, with their sides and groups; no test photo is in it."""
    split = wt.split_photos(wt.audit(wt.load_photos(asked.photos)), create_recipe(asked).split)
    groups = split.groups or ("",) * len(split.photos)
    rows = [
        (os.path.abspath(split.root / photo.path), photo.label, side, group)
        for photo, side, group in zip(split.photos, split.sides, groups, strict=True)
        if side != "test"
    ]
    path: Path = asked.out / "without-test.csv"
    files.write_text(path, files.csv_text(("path", "label", "split", "group"), rows))
    return path


def search_by_training(asked: argparse.Namespace) -> tuple[Recipe | None, optuna.Study]:
    """Spend the minutes on full trainings that Optuna chooses and prunes, judged by validation accuracy.

    What a session that was cut had not ended is tried again and not counted. Returns the best recipe, None where the
    minutes were too few for a single training.
    """
    os.environ["WILDTUNE_CACHE"] = str(asked.out / "cache-optuna")
    folder: Path = asked.out / "optuna"
    folder.mkdir(exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "trials.journal"))),
        study_name="full trainings",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
    )
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=STARTUP_TRIALS)
    if not study.trials:
        study.enqueue_trial(DEFAULT)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    source = write_list(asked)
    while (left_s := asked.minutes * 60 - spent(study)) > 1:
        _try(asked, study, source, folder, time.monotonic() + left_s)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    if not done:
        return None, study
    best = max(done, key=lambda trial: (trial.value, -trial.number))
    return create_recipe(asked, "default", *suggest(optuna.trial.FixedTrial(best.params))), study  # type: ignore[arg-type]


def _try(asked: argparse.Namespace, study: optuna.Study, source: Path, folder: Path, deadline: float) -> None:
    started = time.monotonic()
    trial = study.ask()
    recipe = create_recipe(asked, "default", *suggest(trial))
    run = folder / f"trial-{trial.number}"
    shutil.rmtree(run, ignore_errors=True)
    print(f"== full training {trial.number}: {trial.params}", file=sys.stderr)
    state, value = TrialState.COMPLETE, None
    try:
        value = wt.train(
            source, recipe, run, reporter=Watcher(trial, run, recipe.stages[0].epochs, deadline)
        ).evaluation
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except (TimeUp, TrainingError) as error:
        state = TrialState.FAIL
        trial.set_user_attr("failed", "the time was up" if isinstance(error, TimeUp) else str(error))
    trial.set_user_attr("seconds", time.monotonic() - started)
    study.tell(trial, value.headline.accuracy if value else None, state=state)
    shutil.rmtree(run, ignore_errors=True)


def spent(study: optuna.Study) -> float:
    """Return the seconds that the trials that ended have taken."""
    return float(sum(trial.user_attrs.get("seconds", 0.0) for trial in study.trials))


def describe_tune(about: dict[str, Any]) -> str:
    """Say what a tuning tried and what it cost."""
    every = [seconds for some in about["steps"].values() for seconds in some]
    steps = ", ".join(
        f"{name} {len(some)} (median {statistics.median(some):.2f} s)" for name, some in about["steps"].items()
    )
    return (
        f"tune: {len(every)} trials, median {statistics.median(every):.2f} s each, {about['spent_s']:.0f} s in all; "
        f"{steps}\n" + "\n".join(f"  {line}" for line in about["said"])
    )


def describe_study(study: optuna.Study) -> str:
    """Say what the full trainings tried and what they cost."""
    ended = [trial for trial in study.trials if "seconds" in trial.user_attrs]
    count = {state: sum(trial.state == state for trial in ended) for state in TrialState}
    return (
        f"Optuna on full trainings: {len(ended)} trials, {count[TrialState.COMPLETE]} in full, "
        f"{count[TrialState.PRUNED]} pruned, {count[TrialState.FAIL]} failed or cut by the time; median "
        f"{statistics.median(trial.user_attrs['seconds'] for trial in ended):.0f} s each, {spent(study):.0f} s in all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="class folders")
    parser.add_argument("--backbone", default="tf_efficientnet_b0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--minutes", type=float, default=15.0, help="for the tuning, and again for the full trainings")
    parser.add_argument("--lab5-epochs", type=int, default=1, help="of lab5's 20 fine-tuning epochs; 0: no lab5 at all")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-tuning"))
    asked = parser.parse_args()
    asked.photos, asked.out = asked.photos.resolve(), asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    recipes: dict[str, Callable[[], Recipe | None]] = {
        "tuned": lambda: tune(asked),
        "default": lambda: create_recipe(asked),
        "optuna": lambda: search_by_training(asked)[0],
    }
    if asked.lab5_epochs:
        epochs = f"stages.1.epochs={asked.lab5_epochs}"
        recipes["lab5"] = lambda: create_recipe(asked, "lab5", epochs)
        recipes["lab5-clipped"] = lambda: create_recipe(asked, "lab5", epochs, "input.clip=true")
    found = {name: create() for name, create in recipes.items()}
    runs = {name: train(asked, name, recipe) for name, recipe in found.items() if recipe is not None}
    tests = [
        {photo for photo, side in ((row["sha256"], row["split"]) for row in _rows(run)) if side == "test"}
        for run in runs.values()
    ]
    assert all(test == tests[0] for test in tests), "the runs have different test photos"
    print(describe_tune(json.loads((asked.out / "tune.json").read_text("utf-8"))))
    print(describe_study(search_by_training(asked)[1]))
    print(
        f"tune opened none of the {len(tests[0])} test photos once it had divided them off; the list that the full "
        "trainings had does not name them"
    )
    for name, run in runs.items():
        scores = json.loads((run / "evaluation.json").read_text("utf-8"))
        print(f"{name}: {scores_of(scores)}; trained in {(run / 'benchmark-seconds.txt').read_text().strip()} s")
    if asked.lab5_epochs:
        print(f"lab5: {asked.lab5_epochs} of its 20 epochs at 2e-8, which cannot move the weights")
    print(describe_comparison(wt.compare_runs(list(runs.values()))))


def _rows(run: Path) -> list[dict[str, str]]:
    return files.read_csv(run / "split.csv", ("path", "label", "split", "group", "sha256"))


def scores_of(scores: dict[str, Any]) -> str:
    """Say the accuracy on both sides."""
    return ", ".join(
        f"{name} accuracy {side['accuracy']:.1%} ({side['interval'][0]:.1%} to {side['interval'][1]:.1%}, "
        f"{side['photos']} photos)"
        for name, side in scores["sides"].items()
    )


if __name__ == "__main__":
    main()
