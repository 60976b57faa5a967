"""Tuning: a recipe that training accepts, test photos that nobody reads, and trials that no crash loses or repeats."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import TrialState

import wildtune as wt
from shapes import small_recipe, write_photos
from wildtune import cli, tuning
from wildtune.errors import CommandError, RecipeError
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.split import Split
from wildtune.recipe import Recipe, dump_recipe, load_recipe
from wildtune.tune.budget import Budget
from wildtune.tune.heads import Material, Training, find_rates, train_heads
from wildtune.tune.ledger import JOURNAL, Ledger
from wildtune.tune.result import Tuning
from wildtune.tune.search import Comparison
from wildtune.tune.spaces import create_augment, create_policies, create_space, start_settings

TRIALS = 4


def head_recipe() -> Recipe:
    """A recipe of a head alone, whose tuning needs no real training to confirm it."""
    recipe = small_recipe()
    return recipe.model_copy(update={"stages": recipe.stages[:1]})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned") / "tuned.toml"


@pytest.fixture(scope="module")
def done(photos: Path, out: Path) -> Tuning:
    return wt.tune(photos, head_recipe(), out, trials=TRIALS)


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(tuning.folder_of(out) / "trials.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_recipe_is_one_that_training_accepts_and_says_why(photos: Path, out: Path, done: Tuning) -> None:
    recipe = load_recipe(str(out))
    assert recipe == done.recipe
    assert recipe.split == head_recipe().split  # so that training has the same test photos
    assert done.replaced  # its rate of 0.003 is far too low for three epochs
    text = out.read_text("utf-8")
    assert "validation loss" in next(line for line in text.splitlines() if line.startswith("lr = "))
    assert text.count(" # ") >= len(done.reasons) == 7
    run = wt.train(photos, recipe, out.parent / "run")
    assert run.plan.recipe_name == "tuned"


def test_the_page_and_the_table_have_every_trial_and_its_cost(out: Path, done: Tuning) -> None:
    rows = rows_of(out)
    assert len(rows) == len(done.trials)
    assert {row["step"] for row in rows} == {"origin", "range", "policies", "sweeps", "search", "compare"}
    assert sum(row["step"] == "search" for row in rows) == TRIALS
    assert all(float(row["seconds"]) > 0 for row in rows)
    policies = {row["what"].split(", ")[1] for row in rows if row["step"] == "policies"}
    assert policies == {"constant", "exp_decay", "step", "cosine", "one_cycle", "plateau"}
    page = (tuning.folder_of(out) / "index.html").read_text("utf-8")
    assert page.count("<svg") >= 3 + 7  # range test, policies, search; each augmentation
    assert "http" not in page.replace("http://www.w3.org", "")


def test_no_test_photo_is_read_after_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "cache"))  # nothing can come from an earlier run
    source = write_photos(tmp_path / "photos", 8)
    real_split, real_read = tuning.split_photos, Catalogue.read_bytes
    forbidden: set[str] = set()
    read: set[str] = set()

    def split_and_forbid(*arguments: Any) -> Split:
        split = real_split(*arguments)
        forbidden.update(photo.path for photo in split.side("test"))
        for path in forbidden:
            (source / path).unlink()
        return split

    def watch(catalogue: Catalogue, photo: Photo) -> bytes:
        assert photo.path not in forbidden, "a test photo was read"
        read.add(photo.path) if forbidden else None
        return real_read(catalogue, photo)

    monkeypatch.setattr(tuning, "split_photos", split_and_forbid)
    monkeypatch.setattr(Catalogue, "read_bytes", watch)
    wt.tune(source, small_recipe(), tmp_path / "tuned.toml", trials=1)
    assert len(forbidden) >= 3
    assert len(read) == 24 - len(forbidden)


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a matter of POSIX systems")
def test_killed_and_resumed_loses_no_trial_and_repeats_none(
    photos: Path, tmp_path: Path, out: Path, done: Tuning
) -> None:
    start, cut = tmp_path / "start.toml", tmp_path / "tuned.toml"
    start.write_text(dump_recipe(head_recipe()))
    options = ["--recipe", str(start), "--trials", str(TRIALS), "--out", str(cut)]
    command = [sys.executable, "-m", "wildtune.cli", "tune", str(photos), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tuning.folder_of(cut) / JOURNAL
    deadline = time.monotonic() + 90
    while not (journal.exists() and journal.read_bytes().count(b'"accuracy"') >= 12):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with Ledger(tuning.folder_of(cut)) as ledger:
        before = {(t.number, t.value, t.datetime_complete) for t in ledger.finished("policies")}
    assert 10 <= len(before) < sum(row["step"] == "policies" for row in rows_of(out))
    wt.resume_tuning(cut)
    with Ledger(tuning.folder_of(cut)) as ledger:
        assert before <= {(t.number, t.value, t.datetime_complete) for t in ledger.finished("policies")}
        for step in ("range", "policies", "sweeps", "compare"):
            keys = [t.user_attrs["key"] for t in ledger.finished(step)]
            assert len(keys) == len(set(keys)), step
    found = [(row["step"], row["what"], row["loss"]) for row in rows_of(cut)]
    assert sorted(found) == sorted((row["step"], row["what"], row["loss"]) for row in rows_of(out))
    assert load_recipe(str(cut)) == done.recipe


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


def test_the_spaces_hold_the_start_and_the_strengths_are_valid() -> None:
    for name in ("default", "lab5", "quick"):
        stage = load_recipe(name).stages[0]
        start = start_settings(stage)
        space = create_space(stage, stage.lr / 2, stage.lr * 2, ["none", "start"])
        assert all(
            distribution._contains(distribution.to_internal_repr(start[key])) for key, distribution in space.items()
        )
        assert create_policies(stage)[stage.policy.name] == stage.policy
    half = create_augment({"crop_scale": 0.4, "flip": 0.5}, 0.5)
    assert (half.crop, half.crop_scale, half.flip) == ("random_resized", (0.7, 1.0), 0.25)


def test_time_spent_before_an_interruption_counts() -> None:
    budget = Budget(None, 1.0, spent_s=50)
    assert 9 < budget.left_s() <= 10
    assert budget.left_s("policies") < 0


def test_what_cannot_be_tuned_is_said(photos: Path, tmp_path: Path, out: Path, done: Tuning) -> None:
    recipe = small_recipe()
    without_head = recipe.model_copy(update={"stages": recipe.stages[1:]})
    with pytest.raises(RecipeError, match="head"):
        wt.tune(photos, without_head, tmp_path / "tuned.toml")
    with pytest.raises(CommandError, match=r"\.toml"):
        wt.tune(photos, recipe, tmp_path / "tuned")
    with pytest.raises(CommandError, match="never written"):
        wt.tune(photos, recipe, photos / "tuned.toml")
    with pytest.raises(CommandError, match="--resume"):
        wt.tune(photos, recipe, out)
    with pytest.raises(CommandError, match="--trials"):
        wt.tune(photos, recipe, tmp_path / "tuned.toml", trials=0)
    with pytest.raises(CommandError, match="no tuning"):
        wt.resume_tuning(tmp_path / "tuned.toml")


def test_the_command_says_how_to_go_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, wanted = tmp_path / "start.toml", tmp_path / "tuned.toml"
    start.write_text(dump_recipe(head_recipe()))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_tune_head", interrupt)
    monkeypatch.setattr(
        sys, "argv", ["wildtune", "tune", str(photos), "--recipe", str(start), "--trials", "1", "--out", str(wanted)]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"wildtune tune --resume --out {wanted}")
