"""What has been tried, in one file that outlives a killed process and that several processes may share.

Optuna's journal holds every trial. Who is at work on one holds a lock that the operating system takes away with the
process, so that a trial of a dead process is known at once and done again; one that was finished never is.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from wildtune.language import recorded
from wildtune.tune.heads import DIVERGED

optuna.logging.set_verbosity(optuna.logging.WARNING)

JOURNAL = "trials.journal"
_WAIT_S = 0.1

# What a trial came to: plain values that JSON holds, "loss" among them.
Outcome = dict[str, Any]


# The attribute of a trial that holds its outcome whole: each attribute is a line of the journal, forced to the disk.
_OUTCOME = "outcome"
# The attribute of a trial all of whose settings have been suggested.
_SUGGESTED = "suggested"


def outcome_of(trial: FrozenTrial) -> Outcome:
    """Return what a trial came to, empty where it has not ended; "elapsed" is when it did, in seconds of the whole."""
    return trial.user_attrs.get(_OUTCOME, {})


class _JournalLock(JournalFileOpenLock):
    """Optuna's lock on its journal, as one that a killed process cannot leave behind."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class Ledger:
    """The trials of a tuning, by step. Use it as a context: within it this process counts as at work."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the journal in `folder`; `elapsed_s` is to say the seconds spent on the tuning so far."""
        workers = folder / "workers"
        workers.mkdir(parents=True, exist_ok=True)
        self._workers, self.worker = workers, uuid.uuid4().hex[:12]
        self.elapsed_s: Callable[[], float] = lambda: 0.0
        self._alive = filelock.FileLock(workers / f"{self.worker}.lock")
        self.lock = filelock.FileLock(workers / "claims.lock")
        path = folder / JOURNAL
        journal_lock = _JournalLock(workers / "journal.lock")
        _drop_half_line(path, journal_lock)
        self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=journal_lock))

    def __enter__(self) -> Ledger:
        """Say that this process is at work."""
        self._alive.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Say that it no longer is; a trial it leaves open is free to be done again."""
        self._alive.release()
        (self._workers / f"{self.worker}.lock").unlink(missing_ok=True)

    def study(self, step: str, pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
        """Return the study of a step; the lower the value of its trials, the better."""
        return optuna.create_study(
            storage=self._storage, study_name=step, load_if_exists=True, direction="minimize", pruner=pruner
        )

    def steps(self) -> list[str]:
        """Return the names of the steps that have begun, in their order."""
        return [study.study_name for study in self._storage.get_all_studies()]

    def finished(self, step: str) -> list[FrozenTrial]:
        """Return the trials of a step that were finished or pruned, in their order."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [t for t in self.study(step).get_trials(deepcopy=False) if t.state in ended]

    def spent(self) -> float:
        """Return the seconds that the tuning had taken when its latest trial ended."""
        trials = (trial for step in self.steps() for trial in self.finished(step))
        return max((outcome_of(trial).get("elapsed", 0.0) for trial in trials), default=0.0)

    def decide(self, name: str, decision: Callable[[], Any]) -> Any:
        """Return what was decided under a name, once for all processes and for good: a plain value."""
        with self.lock:
            study = self.study("decisions")
            if name not in study.user_attrs:
                study.set_user_attr(name, decision())
            return study.user_attrs[name]

    def do_points(
        self, step: str, keys: Sequence[str], evaluate: Callable[[str], Outcome], in_time: Callable[[], bool]
    ) -> dict[str, Outcome]:
        """Return the outcome of each point of a step, done here, before or by another process.

        Once it is no longer `in_time`, no other point is begun and those that are missing are left out.
        """
        study = self.study(step)
        while True:
            with self.lock:
                trials = self._living(study)
                done = {t.user_attrs["key"]: outcome_of(t) for t in trials if t.state == TrialState.COMPLETE}
                claimed = {t.user_attrs.get("key") for t in trials if t.state == TrialState.RUNNING}
                left = [key for key in keys if key not in done and key not in claimed] if in_time() else []
                if left:
                    trial = study.ask()
                    trial.set_user_attr("worker", self.worker)
                    trial.set_user_attr("key", left[0])
            if left:
                self.finish(study, trial, evaluate(left[0]))
            elif claimed & set(keys) and in_time():
                time.sleep(_WAIT_S)
            else:
                return {key: dict(done[key]) for key in keys if key in done}

    def do_trials(
        self,
        study: optuna.Study,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        suggest: Callable[[optuna.Trial], tuple[dict[str, Any], str]],
        evaluate: Callable[[optuna.Trial, dict[str, Any]], Outcome],
        enough: Callable[[int], bool],
    ) -> None:
        """Try what a sampler suggests until `enough` says so of the number of trials begun.

        `sampler` makes a new one for each trial, of the number of trials begun, so that what is tried next follows
        from what has been tried and not from how often it was interrupted. `suggest` returns settings, also in words;
        `evaluate` may raise optuna.TrialPruned.
        """
        while True:
            with self.lock:
                trials = self._living(study)
                begun = [t for t in trials if t.state != TrialState.FAIL and "copied" not in t.user_attrs]
                waiting = any(t.state == TrialState.WAITING for t in begun)
                running = any(t.state == TrialState.RUNNING for t in begun)
                more = not enough(0) and (waiting or not enough(len(begun)))
                if more:
                    study.sampler = sampler(len(begun))
                    trial = study.ask()
                    trial.set_user_attr("worker", self.worker)
                    settings, what = suggest(trial)
                    trial.set_user_attr(_SUGGESTED, True)
            if more:
                started = time.perf_counter()
                try:
                    self.finish(study, trial, evaluate(trial, settings))
                except optuna.TrialPruned:
                    said = {"what": what, "seconds": time.perf_counter() - started, "elapsed": self.elapsed_s()}
                    trial.set_user_attr(_OUTCOME, said)
                    study.tell(trial, state=TrialState.PRUNED)
            elif running and not enough(0):  # another's, which may yet die and be left to us
                time.sleep(_WAIT_S)
            else:
                return

    def finish(self, study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> None:
        """Write down what a trial came to. Until its last line is written it counts as not done.

        A loss that is no number counts as that of a training that diverged: Optuna would have the trial fail, and so
        be done again without end.
        """
        if not math.isfinite(outcome["loss"]):
            said = recorded("trial", "diverged: a loss that is no number")
            outcome = {**outcome, "loss": DIVERGED, "error": 0.0, "accuracy": 0.0, "failed": said}
        trial.set_user_attr(_OUTCOME, {**outcome, "elapsed": self.elapsed_s()})
        study.tell(trial, outcome["loss"])

    def _living(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return a study's trials after those of dead processes were given up, to be done again."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial.user_attrs.get("worker", "")):
                study.tell(trial.number, state=TrialState.FAIL)
                if _SUGGESTED in trial.user_attrs:  # else its settings are found again by what was tried before
                    study.enqueue_trial(trial.params)
        return study.get_trials(deepcopy=False)

    def _is_dead(self, worker: str) -> bool:
        if worker == self.worker:
            return False
        path = self._workers / f"{worker}.lock"
        if not worker or not path.exists():
            return True
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        lock.release()
        return True


def _drop_half_line(path: Path, lock: _JournalLock) -> None:
    """Cut off what a power cut left of a line: nothing that was finished."""
    lock.acquire()
    try:
        if path.exists():
            content = path.read_bytes()
            if content and not content.endswith(b"\n"):
                with open(path, "r+b") as handle:
                    handle.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
