"""A tuning that is killed, as by `kill -9`, at a moment of one's choice, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
from optuna.storages.journal import JournalFileBackend

from wildtune import tuning
from wildtune.recipe import Recipe
from wildtune.train.loop import StageTrainer
from wildtune.tune.ledger import Ledger
from wildtune.tune.search import Searcher


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, due: Callable[..., bool], number: int = 1) -> Any:
    """Return a patch that kills the process before the call of that number of those that are `due`."""
    real, count = getattr(owner, name), 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += due(*arguments)
        if count == number:
            die()
        return real(*arguments, **named)

    return mock.patch.object(owner, name, call)


def after_trial(step: str, number: int) -> Any:
    real, count = Ledger.finish, 0

    def finish(ledger: Ledger, study: optuna.Study, trial: optuna.Trial, outcome: dict[str, Any]) -> None:
        nonlocal count
        real(ledger, study, trial, outcome)
        count += study.study_name == step
        if count == number:
            die()

    return mock.patch.object(Ledger, "finish", finish)


def within_a_line(number: int) -> Any:
    """Return a patch that leaves half of a line in the journal."""
    real, count = JournalFileBackend.append_logs, 0

    def append(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal count
        count += 1
        if count == number:
            with open(backend._file_path, "ab") as handle:
                handle.write(b'{"op_code": 6, "trial_id": 3, "sta')
            die()
        real(backend, logs)

    return mock.patch.object(JournalFileBackend, "append_logs", append)


# In the order in which a tuning comes by them.
MOMENTS: dict[str, Callable[[], Any]] = {
    "an outcome written, its trial not ended": lambda: before(
        optuna.Study, "tell", lambda study, *_: study.study_name == "policies", 12
    ),
    "within a line of the journal": lambda: within_a_line(30),
    "in a trial of the search": lambda: before(Searcher, "_try_together", lambda *_: True, 3),
    "while settings are suggested": lambda: before(optuna.Trial, "suggest_categorical", lambda *_: True, 9),
    "after a comparison": lambda: after_trial("compare", 2),
    "in the fine-tuning that confirms": lambda: before(
        StageTrainer, "validate", lambda trainer: trainer.stage.train == "all", 4
    ),
    "after a real training": lambda: after_trial("confirm", 1),
    "writing the recipe": lambda: before(os, "replace", lambda _, target: Path(target).suffix == ".toml"),
    "writing the page": lambda: before(os, "replace", lambda _, target: Path(target).name == "index.html"),
}


def _tune(moment: str, cache: Path, photos: Path, recipe: Recipe, out: Path, trials: int) -> None:
    os.environ |= {"WILDTUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    with MOMENTS[moment]():
        if tuning.is_begun(out):
            tuning.resume_tuning(out)
        else:
            tuning.tune(photos, recipe, out, trials=trials)


def tune_until(moment: str, *arguments: Any) -> int | None:
    """Tune, or go on with it, until the moment at which it is killed; return the exit status, negative for a signal."""
    context: Any = multiprocessing.get_context("forkserver")  # which imports all that is slow once for all
    context.set_forkserver_preload(["wildtune.tuning", "optuna.samplers._tpe.sampler", "sklearn.metrics"])
    process = context.Process(target=_tune, args=(moment, *arguments))
    process.start()
    process.join(timeout=90)
    process.kill()
    process.join()
    return int(process.exitcode)
