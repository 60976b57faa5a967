"""Tuning: a recipe that training accepts, test photos that nobody reads, and trials that no crash loses or repeats."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from trap_files import detection, megadetector

import wildtune as wt
from dying import MOMENTS, tune_until
from shapes import small_recipe, write_photos
from wildtune import cli, tuning
from wildtune.errors import CommandError, PhotosError, RecipeError, TrainingError
from wildtune.files import read_csv
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.corrections import Correction, save_corrections
from wildtune.photos.split import Split
from wildtune.progress import Reporter
from wildtune.recipe import Recipe, dump_recipe, load_recipe
from wildtune.tune import confirm
from wildtune.tune.budget import Budget
from wildtune.tune.conclude import STEPS, best_policies, choose, explain, gather_trials
from wildtune.tune.confirm import Confirmer
from wildtune.tune.heads import DIVERGED, Material, RangeTest, Training, find_rates, train_heads
from wildtune.tune.ledger import JOURNAL, Ledger
from wildtune.tune.origin import compare_heads, create_reference
from wildtune.tune.result import Tuning
from wildtune.tune.search import Comparison
from wildtune.tune.spaces import create_augment, create_policies, create_space, key_of, rates_between, start_settings

TRIALS = 4


@dataclass(frozen=True)
class Tuned:
    """A tuning with a cache of its own: its photos, the paths of those for the test, and of those that were read."""

    photos: Path
    cache: Path
    out: Path
    tuning: Tuning
    test: frozenset[str]
    read: frozenset[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Tune on photos of which those for the test are not there any more once they are divided off."""
    place = tmp_path_factory.mktemp("tuned")
    source, away = write_photos(place / "photos", 8), place / "away"
    divide, read_bytes = tuning.split_photos, Catalogue.read_bytes
    test: set[str] = set()
    read: set[str] = set()

    def split_and_hide(*arguments: Any) -> Split:
        split = divide(*arguments)
        for photo in split.side("test"):
            test.add(photo.path)
            (away / photo.path).parent.mkdir(parents=True, exist_ok=True)
            (source / photo.path).rename(away / photo.path)
        return split

    def watch(catalogue: Catalogue, photo: Photo) -> bytes:
        if test:
            read.add(photo.path)
        return read_bytes(catalogue, photo)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WILDTUNE_CACHE", str(place / "cache"))  # nothing can come from an earlier run
        patch.setattr(tuning, "split_photos", split_and_hide)
        patch.setattr(Catalogue, "read_bytes", watch)
        found = wt.tune(source, small_recipe(), place / "tuned.toml", trials=TRIALS)
    for path in test:
        (away / path).rename(source / path)
    return Tuned(source, place / "cache", place / "tuned.toml", found, frozenset(test), frozenset(read))


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(tuning.folder_of(out) / "trials.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def finished_in(out: Path) -> set[tuple[str, int, float | None, object]]:
    """Return every trial that was finished, with its outcome and when it ended."""
    with Ledger(tuning.folder_of(out)) as ledger:
        return {
            (step, t.number, t.value, t.datetime_complete) for step in ledger.steps() for t in ledger.finished(step)
        }


@pytest.mark.usefixtures("blank_charts")
def test_the_recipe_is_one_that_training_accepts_and_says_why(done: Tuned) -> None:
    recipe, found = load_recipe(str(done.out)), done.tuning
    assert recipe == found.recipe
    assert recipe.split == small_recipe().split  # so that training has the same test photos
    assert found.replaced  # its rate of 0.003 is far too low for three epochs
    text = done.out.read_text("utf-8")
    assert text.count("validation loss") >= 2
    assert text.count(" # ") >= len(found.reasons) == 7
    run = wt.train(done.photos, recipe, done.out.parent / "run")
    assert run.plan.recipe_name == "tuned"
    assert {row["path"] for row in read_split(run.folder) if row["split"] == "test"} == done.test


def read_split(run: Path) -> list[dict[str, str]]:
    return read_csv(run / "split.csv", ("path", "label", "split", "group", "sha256"))


def test_the_page_and_the_table_have_every_trial_and_its_cost(done: Tuned) -> None:
    rows = rows_of(done.out)
    assert len(rows) == len(done.tuning.trials)
    assert list(dict.fromkeys(row["step"] for row in rows)) == list(STEPS)
    assert sum(row["step"] == "search" for row in rows) == TRIALS
    assert all(float(row["seconds"]) > 0 for row in rows)
    policies = {row["what"].split(", ")[1] for row in rows if row["step"] == "policies"}
    assert policies == {"constant", "exp_decay", "step", "cosine", "one_cycle", "plateau"}
    page = (tuning.folder_of(done.out) / "index.html").read_text("utf-8")
    assert page.count("<svg") >= 3 + 7  # range test, policies, search; each augmentation
    assert "http" not in page.replace("http://www.w3.org", "")


def test_no_test_photo_is_read_after_the_split(done: Tuned) -> None:
    assert len(done.test) >= 3
    assert len(done.read) == 24 - len(done.test)
    assert not done.read & done.test


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a matter of POSIX systems")
def test_killed_at_any_moment_and_resumed_loses_no_trial_and_repeats_none(done: Tuned, tmp_path: Path) -> None:
    cut, kept = tmp_path / "tuned.toml", set()
    for moment in MOMENTS:
        assert tune_until(moment, done.cache, done.photos, small_recipe(), cut, TRIALS) == -signal.SIGKILL, moment
        now = finished_in(cut)
        assert kept <= now, moment
        kept = now
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WILDTUNE_CACHE", str(done.cache))
        wt.resume_tuning(cut)
    assert finished_in(cut) == kept  # all was done before the last kills, which were in writing what was found
    with Ledger(tuning.folder_of(cut)) as ledger:
        for step in STEPS:
            keys = [t.user_attrs["key"] for t in ledger.finished(step) if "key" in t.user_attrs]
            assert len(keys) == len(set(keys)), step
    found = [(row["step"], row["what"], row["loss"]) for row in rows_of(cut)]
    assert sorted(found) == sorted((row["step"], row["what"], row["loss"]) for row in rows_of(done.out))
    assert load_recipe(str(cut)) == done.tuning.recipe


def test_two_workers_share_the_points_and_a_dead_ones_are_done_again(tmp_path: Path) -> None:
    study_folder, keys = tmp_path / "study", [f"point {number}" for number in range(12)]
    with Ledger(study_folder) as first:
        gone = first.study("points").ask()
        gone.set_user_attr("worker", "gone")
        gone.set_user_attr("key", keys[0])
    done: list[str] = []

    def evaluate(key: str) -> dict[str, Any]:
        time.sleep(0.01)
        done.append(key)
        return {"loss": float(len(key))}

    answers: list[dict[str, Any]] = []

    def work() -> None:
        with Ledger(study_folder) as ledger:
            answers.append(ledger.do_points("points", keys, evaluate, lambda: True))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert sorted(done) == sorted(keys)
    assert [sorted(answer) for answer in answers] == [sorted(keys)] * 2


def test_half_a_line_at_the_end_of_the_journal_does_no_harm(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.do_points("points", ["a"], lambda _: {"loss": 1.0}, lambda: True)
    with open(tmp_path / JOURNAL, "ab") as handle:
        handle.write(b'{"op_code":4,"work')
    with Ledger(tmp_path) as ledger:
        ledger.do_points("points", ["a", "b"], lambda _: {"loss": 2.0}, lambda: True)
        assert [t.value for t in ledger.study("points").trials if t.state == TrialState.COMPLETE] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("difference", "error", "accuracy", "better"),
    [(-0.03, 0.01, 0.02, True), (-0.03, 0.01, 0.0, True), (-0.03, 0.01, -0.01, False), (-0.01, 0.02, 0.02, False)],
)
def test_only_what_exceeds_its_standard_error_and_costs_no_accuracy_replaces_the_start(
    difference: float, error: float, accuracy: float, better: bool
) -> None:
    assert Comparison({}, 0.5, 0.9, difference, error, accuracy).better is better


def material(count: int, width: int, informative: bool) -> Material:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % 2
    plain = torch.randn(count, width, generator=generator)
    if informative:
        plain += 2 * targets[:, None] - 1
    return Material(plain, targets, np.arange(count), 2)


def test_small_classes_are_tuned_on_fewer_folds_and_single_photos_refused() -> None:
    plain = torch.zeros(9, 4)
    folds = Material(plain, torch.arange(9) % 3, np.arange(9), 3).folds(0, 0)
    assert sorted(np.unique(folds)) == [0, 1, 2]
    for targets, groups in ((torch.arange(9), np.arange(9)), (torch.arange(9) % 3, np.zeros(9, dtype=np.int64))):
        with pytest.raises(PhotosError, match=r"(?s)at least 2 photos.*Found 9 photos.*Add photos"):
            Material(plain, targets, groups, 9).folds(0, 0)


@pytest.mark.parametrize(("informative", "low", "high"), [(True, 0.9, 1.0), (False, 0.3, 0.7)])
def test_each_photo_is_scored_by_a_head_that_never_saw_it(informative: bool, low: float, high: float) -> None:
    photos = material(90, 200, informative)  # more values than photos: any labels can be learned by heart
    stage = small_recipe("stages.0.epochs=12", "stages.0.lr=0.05").stages[0]
    found = train_heads(stage, photos, Training(photos.plain[None], np.arange(90)), photos.folds(0, 0), 0)
    assert low <= found.right.mean() <= high
    assert found.losses.shape == (90,)


def test_the_range_test_brackets_the_rates_at_which_the_loss_falls() -> None:
    photos = material(90, 20, True)
    stage = small_recipe().stages[0]
    found = find_rates(stage, photos, Training(photos.plain[None], np.arange(90)), photos.folds(0, 0), 0)
    assert found.low <= stage.lr <= found.high
    assert found.high >= 10 * found.low
    losses = dict(zip(found.rates, found.losses, strict=True))
    assert min(losses.values()) < 0.5 * found.losses[0]


def test_features_that_are_no_numbers_are_said_to_be() -> None:
    photos = Material(torch.full((90, 4), torch.nan), torch.arange(90) % 2, np.arange(90), 2)
    with pytest.raises(TrainingError, match=r"(?s)first loss.*It is nan.*\[input\]"):
        find_rates(small_recipe().stages[0], photos, Training(photos.plain[None], np.arange(90)), photos.folds(0, 0), 0)


def test_a_loss_that_is_no_number_ends_its_trial(tmp_path: Path) -> None:
    tried: list[str] = []

    def evaluate(key: str) -> dict[str, Any]:
        assert not tried, "done again"
        tried.append(key)
        return {"loss": float("nan"), "error": float("nan"), "accuracy": 0.3, "seconds": 1.0}

    with Ledger(tmp_path) as ledger:
        assert ledger.do_points("policies", ["a"], evaluate, lambda: True)["a"]["loss"] == DIVERGED
        assert [(t.state, t.loss) for t in gather_trials(ledger)] == [("failed", None)]


def test_the_spaces_hold_the_start_and_the_strengths_are_valid() -> None:
    for name in ("default", "lab5", "quick"):
        stage = load_recipe(name).stages[0]
        start = start_settings(stage)
        space = create_space(stage, stage.lr / 2, stage.lr * 2, ["none", "start"])
        assert all(
            distribution._contains(distribution.to_internal_repr(start[key])) for key, distribution in space.items()
        )
        assert create_policies(stage)[stage.policy.name] == stage.policy
    rates = rates_between(0.00123, 0.0567, 0.00123, 5)
    assert (rates[0], rates[-1]) == (0.00123, 0.0567)
    half = create_augment({"crop_scale": 0.4, "flip": 0.5}, 0.5)
    assert (half.crop, half.crop_scale, half.flip) == ("random_resized", (0.7, 1.0), 0.25)


class FewSettings:
    """A search that tried so many settings, whose head has a loss by how many values differ from the start's."""

    origin = "the start's"

    def __init__(self, tried: int, best: list[dict[str, Any]], losses: dict[frozenset[str], float]) -> None:
        self.start = start_settings(small_recipe().stages[0])
        self._tried, self._losses = tried, losses
        self._best = [{**self.start, **changes} for changes in best]

    def tried(self) -> range:
        return range(self._tried)

    def finalists(self) -> list[dict[str, Any]]:
        return self._best

    def compare(self, settings: dict[str, Any], against: dict[str, Any]) -> Comparison | None:
        ours, theirs = (
            self._losses.get(frozenset(name for name in self.start if some[name] != self.start[name]))
            for some in (settings, against)
        )
        return None if ours is None or theirs is None else Comparison(settings, ours, 0.9, ours - theirs, 0.01, 0.0)


def reasons_of(searcher: Any) -> dict[str, str]:
    return explain(searcher, RangeTest((), (), 1e-4, 1.0), {}, choose(searcher))


def test_values_that_are_kept_say_what_they_were_compared_with() -> None:
    changes = [{"epochs": 9}, {"epochs": 10}]
    none_better = FewSettings(52, changes, {frozenset(): 0.5, frozenset(["epochs"]): 0.5})
    assert reasons_of(none_better)["epochs"] == (
        "the start's: none of the best 2 of 52 trials of policies and search beat it by more than its standard error"
    )
    one = FewSettings(52, changes[:1], {frozenset(): 0.5, frozenset(["epochs"]): 0.5})
    assert "the best of 52 trials of policies and search did not beat it" in reasons_of(one)["epochs"]
    too_late = FewSettings(1, changes, {})
    assert reasons_of(too_late)["epochs"] == "the start's: time ran out before anything could be compared with it"


def test_values_of_a_winner_say_why_and_against_what_is_handed_back() -> None:
    every = {"weight_decay": 0.1, "epochs": 9, "lr": 0.02}
    losses = {
        frozenset(): 0.9,
        frozenset(every): 0.3,
        frozenset(["weight_decay", "epochs"]): 0.8,
        frozenset(["weight_decay", "lr"]): 0.305,
        frozenset(["weight_decay"]): 0.7,
        frozenset(["epochs", "lr"]): 0.6,
        frozenset(["lr"]): 0.4,
    }
    reasons = reasons_of(FewSettings(52, [every], losses))
    assert reasons["epochs"] == "the start's: put back, because the change gained no more than its standard error"
    assert reasons["batch_size"] == "the start's: the settings that did best have it too"
    assert "validation loss 0.305" in reasons["weight_decay"]
    assert "against 0.400" in reasons["weight_decay"]  # without it, and with the epochs put back
    assert "against 0.700" in reasons["lr"]


@pytest.mark.usefixtures("blank_charts")
def test_a_tuning_whose_time_ran_out_says_so(done: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILDTUNE_CACHE", str(done.cache))
    found = wt.tune(done.photos, small_recipe("stages.0.lr=0.02"), tmp_path / "tuned.toml", minutes=1e-4)
    assert not found.replaced
    assert "Time ran out before anything could be compared" in found.said[-1]
    assert "--resume --minutes" in found.said[-1]
    text = (tmp_path / "tuned.toml").read_text("utf-8")
    assert "its values are kept" in text
    assert "beat" not in text


def test_time_spent_before_an_interruption_counts() -> None:
    budget = Budget(None, 1.0, spent_s=50)
    assert 9 < budget.left_s() <= 10
    assert budget.left_s("policies") < 0


def test_what_cannot_be_tuned_is_said(photos: Path, tmp_path: Path, done: Tuned) -> None:
    recipe = small_recipe()
    without_head = recipe.model_copy(update={"stages": recipe.stages[1:]})
    with pytest.raises(RecipeError, match="head"):
        wt.tune(photos, without_head, tmp_path / "tuned.toml")
    with pytest.raises(CommandError, match=r"\.toml"):
        wt.tune(photos, recipe, tmp_path / "tuned")
    with pytest.raises(CommandError, match="never written"):
        wt.tune(photos, recipe, photos / "tuned.toml")
    with pytest.raises(CommandError, match="--resume"):
        wt.tune(photos, recipe, done.out)
    with pytest.raises(CommandError, match="--trials"):
        wt.tune(photos, recipe, tmp_path / "tuned.toml", trials=0)
    with pytest.raises(CommandError, match="no tuning"):
        wt.resume_tuning(tmp_path / "tuned.toml")


def stop_before_the_search(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have a tuning end where it would begin to search; return where what it would search on is put."""
    seen: list[Any] = []

    def interrupt(_searcher: Any, _start: Recipe, bench: Any, confirmer: Any, _switched: str) -> None:
        seen.append((bench, confirmer._split))
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_tune_head", interrupt)
    return seen


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["wildtune", "tune", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_the_command_takes_what_train_takes_and_goes_on_with_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, wanted = tmp_path / "start.toml", tmp_path / "tuned.toml"
    start.write_text(dump_recipe(small_recipe()))
    corrections, boxes = tmp_path / "corrections.csv", tmp_path / "md.json"
    save_corrections(
        [Correction("disc/00.png#1", "drop"), Correction("disc/01.png#1", "relabel", "square")], corrections
    )
    paths = [f"{photo.parent.name}/{photo.name}" for photo in sorted(photos.glob("*/*.png"))]
    seen_at = [{"file": path, "detections": [detection([0.1, 0.1, 0.7, 0.7])]} for path in paths]
    boxes.write_text(json.dumps(megadetector(seen_at)))
    seen = stop_before_the_search(monkeypatch)
    options = ["--recipe", start, "--set", "stages.0.lr=0.02", "--trials", "1", "--out", wanted]
    assert run_command(monkeypatch, photos, *options, "--corrections", corrections, "--detections", boxes) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"wildtune tune --resume --out {wanted}")
    corrections.unlink()
    moved = boxes.rename(tmp_path / "moved.json")
    assert run_command(monkeypatch, "--resume", "--out", wanted) == 2  # the detections are gone
    assert f"wildtune tune --resume --out {wanted} --detections FILE" in capsys.readouterr().err
    assert run_command(monkeypatch, "--resume", "--out", wanted, "--detections", moved) == 130
    assert run_command(monkeypatch, "--resume", "--out", wanted, "--set", "seed=1") == 2
    assert len(seen) == 2
    for bench, split in seen:
        labels = {photo.path: photo.label for photo in split.photos}
        assert bench.recipe.stages[bench.number].lr in (0.02, load_recipe("default").stages[0].lr)
        assert all(photo.box for photo in split.photos)
        assert not any("disc/00" in path for path in labels)
        assert all(label == "square" for path, label in labels.items() if "disc/01" in path)
    assert np.array_equal(seen[0][0].material.plain, seen[1][0].material.plain)


@pytest.mark.parametrize("clearly", [True, False])
def test_the_search_begins_at_the_default_where_that_is_clearly_better(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clearly: bool
) -> None:
    compared: list[tuple[Any, Any]] = []

    def compare(ours: Any, theirs: Any, _: int) -> dict[str, Any]:
        compared.append((ours[1].plain, theirs[1].plain))
        return {"loss": 0.5, "accuracy": 0.9, "first": [1.0, 0.4], "better": clearly, "seconds": 1.0}

    monkeypatch.setattr(tuning, "compare_heads", compare)
    seen = stop_before_the_search(monkeypatch)
    start, default = small_recipe("input.contrast=0.01", "split.seed=3"), load_recipe("default")
    with pytest.raises(KeyboardInterrupt):
        wt.tune(photos, start, tmp_path / "tuned.toml", trials=1)
    ((ours, theirs),), ((bench, _),) = compared, seen
    assert not np.allclose(ours, theirs)
    assert bench.material.plain is (theirs if clearly else ours)
    origin = bench.recipe
    assert origin.input.contrast == (1.0 if clearly else 0.01)
    assert origin.stages == (default.stages if clearly else start.stages)
    assert (origin.input.size, origin.split, origin.backbone) == (48, start.split, start.backbone)


@pytest.mark.parametrize("name", ["quick", "lab5", "default"])
def test_the_reference_keeps_what_is_the_users_own(name: str) -> None:
    start = load_recipe(name, ("seed=4", "split.test=0.3"), backbone="mobilenetv2_100", weights="none")
    reference = create_reference(start)
    if name == "default":
        assert reference is None
        return
    assert reference is not None
    for key in ("backbone", "weights", "seed", "split"):
        assert getattr(reference, key) == getattr(start, key)
    assert reference.input.size == start.input.size
    assert len(reference.stages) == len(start.stages)


def test_the_reference_treats_unequal_classes_as_the_start_does() -> None:
    start = load_recipe("lab5", ("stages.0.imbalance=class_weights", "stages.0.imbalance_strength=0.5"))
    changed = load_recipe("lab5", ("stages.0.imbalance=class_weights", "stages.1.imbalance=logit_adjustment"))
    head, full = create_reference(start).stages  # type: ignore[union-attr]
    assert (head.imbalance, head.imbalance_strength, full.imbalance) == ("class_weights", 0.5, "none")
    head, full = create_reference(changed).stages  # type: ignore[union-attr]
    assert (head.imbalance, full.imbalance) == ("class_weights", "logit_adjustment")
    assert create_reference(load_recipe("default", ("stages.0.imbalance=sampling",))) is None


@pytest.mark.parametrize(("imbalance", "accuracy"), [("none", 0.9), ("class_weights", 0.5)])
def test_classes_count_the_same_where_the_stage_is_judged_so(imbalance: str, accuracy: float) -> None:
    targets = (torch.arange(90) % 10 == 0).long()
    photos = Material(
        torch.zeros(90, 4), targets, np.arange(90), 2
    )  # nothing to tell: all are taken for the common one
    changes = (f"stages.0.imbalance={imbalance}", "stages.0.imbalance_strength=0.01", "stages.0.epochs=40")
    stage = small_recipe("stages.0.lr=0.1", *changes).stages[0]
    training = Training(photos.plain[None], np.arange(90))
    said: list[float] = []
    found = train_heads(stage, photos, training, photos.folds(0, 0), 0, lambda _, loss: said.append(loss))
    assert found.right.mean() == pytest.approx(accuracy)
    assert found.losses.mean() == pytest.approx(said[-1])
    assert compare_heads((stage, photos), (stage, photos), 0)["accuracy"] == pytest.approx(accuracy)


def test_heads_are_compared_each_on_its_own_features() -> None:
    stage = small_recipe("stages.0.epochs=12", "stages.0.lr=0.05").stages[0]
    good, bad = (stage, material(90, 200, True)), (stage, material(90, 200, False))
    assert compare_heads(bad, good, 0)["better"]
    assert not compare_heads(good, bad, 0)["better"]
    assert not compare_heads(good, good, 0)["better"]


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_head_that_diverges_is_given_up_and_its_reason_kept(rate: float) -> None:
    photos = material(90, 20, True)
    stage = small_recipe("stages.0.epochs=400").stages[0].model_copy(update={"lr": rate})
    epochs: list[int] = []
    found = train_heads(
        stage, photos, Training(photos.plain[None], np.arange(90)), photos.folds(0, 0), 0, lambda e, _: epochs.append(e)
    )
    assert "diverged" in found.diverged
    assert len(epochs) < 3
    assert (found.losses == DIVERGED).all()
    assert not found.right.any()


def test_a_failed_trial_is_in_the_table_and_never_chosen(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        failed = {"loss": DIVERGED, "error": 0.0, "accuracy": 0.0, "seconds": 1.0, "failed": "diverged: in epoch 1"}
        keys = [key_of({"policy": name, "lr": 0.1}) for name in ("cosine", "step")]
        good = {"loss": 0.5, "error": 0.1, "accuracy": 0.8, "seconds": 1.0}
        found = ledger.do_points(
            "policies", keys, lambda key: {"what": key, **(failed if "step" in key else good)}, lambda: True
        )
        assert [name for name, *_ in best_policies(found)] == ["cosine"]
        trials = gather_trials(ledger)
    assert [(t.state, t.loss, t.reason) for t in trials] == [
        ("done", 0.5, ""),
        ("failed", None, "diverged: in epoch 1"),
    ]


def create_confirmer(source: Path, folder: Path, ledger: Ledger) -> Confirmer:
    split = wt.split_photos(wt.audit(wt.load_photos(source)), small_recipe().split).without("test")
    photos = Material(
        torch.zeros(len(split.photos), 1),
        torch.zeros(len(split.photos), dtype=torch.int64),
        np.arange(len(split.photos)),
        3,
    )
    return Confirmer(split, wt.load_photos(source), photos, folder, ledger, Reporter())


def test_a_real_training_that_diverges_does_not_end_the_tuning(
    done: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any) -> None:
        raise TrainingError("The loss of stage 'finetune' became nan in epoch 1.\nLower its learning rate.")

    monkeypatch.setattr(confirm, "train_stages", diverge)
    with Ledger(tmp_path) as ledger:
        confirmer = create_confirmer(done.photos, tmp_path, ledger)
        confirmer.confirm(small_recipe(), small_recipe("stages.0.lr=0.1"), Budget(None, None), 1.0)
        trials = gather_trials(ledger)
    assert {(t.state, t.reason) for t in trials} == {
        ("failed", "diverged: The loss of stage 'finetune' became nan in epoch 1.")
    }


@pytest.mark.parametrize(
    ("imbalance", "said"),
    [("none", ": validation accuracy lower by"), ("sampling", "balanced validation accuracy higher")],
)
def test_real_trainings_are_judged_by_the_score_that_training_judges_by(
    done: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imbalance: str, said: str
) -> None:
    def train(_: Any, plan: Any, *__: Any) -> list[Any]:
        shift = 0.1 if plan.recipe_name == "tuned" else 0.0
        scores = {"val_loss": 0.5, "val_accuracy": 0.8 - shift, "val_balanced_accuracy": 0.6 + shift}
        return [SimpleNamespace(kept=True, **scores)]

    monkeypatch.setattr(confirm, "train_stages", train)
    start = small_recipe(f"stages.1.imbalance={imbalance}")
    tuned = start.model_copy(update={"name": "tuned"})
    with Ledger(tmp_path) as ledger:
        confirmer = create_confirmer(done.photos, tmp_path, ledger)
        assert said in confirmer.confirm(start, tuned, Budget(None, None), 1.0)[1]
