"""What the two stages promise: BatchNorm untouched, one seed one result, and a resumed run equal to an unbroken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shapes import BACKBONE, draw_shape, small_recipe
from wildtune import job
from wildtune.evaluate.calibration import log_loss
from wildtune.model.backbone import create_classifier, head_of
from wildtune.model.freeze import batchnorm_layers, batchnorm_state, set_trainable
from wildtune.model.weights import create_pretrained
from wildtune.photos.audit import audit
from wildtune.photos.sources import load_photos
from wildtune.photos.split import split_photos
from wildtune.predict.predicting import predict
from wildtune.predict.predictions import load_predictions
from wildtune.recipe import Recipe
from wildtune.train import batches, checkpoint, loop

CONVERGE = ("stages.1.lr=0.01", "stages.0.lr=0.05")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> job.Run:
    return job.train(photos, small_recipe(), tmp_path_factory.mktemp("runs") / "whole")


def weights_of(run: Path) -> bytes:
    return (run / "bundle" / "model.safetensors").read_bytes()


def test_the_run_folder_holds_what_is_promised(run: job.Run) -> None:
    names = (
        "recipe.toml plan.toml environment.json findings.csv split.csv metrics.jsonl tensorboard checkpoints "
        "bundle predictions/val.csv predictions/test.csv evaluation.json report/index.html report/accuracy.svg"
    )
    for name in names.split():
        assert (run.folder / name).exists(), name
    assert (run.folder / "split.csv").read_text().splitlines()[0] == "path,label,split,group,sha256"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        *(("transfer", e) for e in (1, 2, 3)),
        *(("finetune", e) for e in (1, 2)),
    ]
    for key in ["stage", "epoch", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]:
        assert key in rows[0]
    assert list((run.folder / "tensorboard").glob("events.*"))


def test_the_evaluation_has_the_numbers_of_the_kept_epoch(run: job.Run) -> None:
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["stage"] == "finetune" and row["kept"]][-1]
    val = run.folder / "predictions" / "val.csv"
    assert run.evaluation.sides["val"].accuracy == kept["val_accuracy"]
    found = predict(run.folder, run.plan.photos)
    rows = [row for row, path in enumerate(found.paths) if path in set(load_predictions(val).paths)]
    logits, targets = found.logits[rows], found.targets[rows]
    assert log_loss(logits, targets) == pytest.approx(kept["val_loss"], rel=1e-5)
    assert run.evaluation.sides["val"].log_loss == pytest.approx(log_loss(logits, targets, found.temperature), rel=1e-5)


def test_batchnorm_is_bit_identical_through_both_stages_and_the_rest_moves(run: job.Run) -> None:
    trained = load_file(run.folder / "bundle" / "model.safetensors")
    torch.manual_seed(0)
    model = create_classifier(BACKBONE, 3)
    names = set(batchnorm_state(model))
    assert len(names) > 20
    # A random start is drawn anew in each process, so compare with what the run began from.
    start = {k: v for k, v in trained.items() if k in names}
    fresh = model.state_dict()
    for name in names:
        assert torch.equal(start[name], fresh[name]), name  # timm starts every BatchNorm alike
    moved = [k for k, v in fresh.items() if k not in names and not torch.equal(v, trained[k])]
    assert len(moved) == len(fresh) - len(names)


def test_batchnorm_stays_as_it_is_whatever_train_calls_happen() -> None:
    model = create_classifier(BACKBONE, 3)
    for layer in batchnorm_layers(model).values():  # statistics as pretrained weights have them
        torch.nn.init.normal_(layer.running_mean)
        torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    before = batchnorm_state(model)
    set_trainable(model, head_of(model), "all")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        model.train().train(True)
        for module in model.modules():
            module.train()
        model(torch.randn(4, 3, 48, 48)).sum().backward()
        optimizer.step()
    after = batchnorm_state(model)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert not any(layer.training for layer in batchnorm_layers(model).values())


def same_start(weights: Path, *changes: str) -> Recipe:
    """Return a recipe on weights in a file."""
    return small_recipe(*changes).model_copy(update={"weights": str(weights)})


@pytest.fixture(scope="module")
def whole(photos: Path, start_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run from a start in a file."""
    return job.train(photos, same_start(start_weights), tmp_path_factory.mktemp("runs") / "whole").folder


@pytest.mark.usefixtures("blank_charts")
def test_one_seed_gives_the_same_bytes_and_another_does_not(
    whole: Path, photos: Path, start_weights: Path, tmp_path: Path
) -> None:
    job.train(photos, same_start(start_weights), tmp_path / "again")
    job.train(photos, same_start(start_weights, "seed=1"), tmp_path / "other")
    assert weights_of(whole) == weights_of(tmp_path / "again")
    assert weights_of(whole) != weights_of(tmp_path / "other")


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it and tidy up."""


@pytest.mark.usefixtures("blank_charts")
@pytest.mark.parametrize("steps", [3, 8, 14, 16, 21])
def test_resumed_equals_uninterrupted(
    whole: Path, photos: Path, start_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)  # a checkpoint after every step, also within epochs
    done, real = 0, loop.StageTrainer.train_step

    def count_and_die(*args: Any) -> None:
        nonlocal done
        done += 1
        if done > steps:
            raise Killed
        real(*args)

    monkeypatch.setattr(loop.StageTrainer, "train_step", count_and_die)
    with pytest.raises(Killed):
        job.train(photos, same_start(start_weights), tmp_path / "broken")
    monkeypatch.setattr(loop.StageTrainer, "train_step", real)
    assert not (tmp_path / "broken" / "bundle").exists()
    job.resume(tmp_path / "broken")
    assert weights_of(tmp_path / "broken") == weights_of(whole)
    for name in ("predictions/test.csv", "evaluation.json", "split.csv", "stages.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.usefixtures("blank_charts")
def test_resuming_a_finished_run_changes_nothing(run: job.Run) -> None:
    before = weights_of(run.folder)
    job.resume(run.folder)
    assert weights_of(run.folder) == before


def test_a_heads_small_steps_take_one_thread_and_give_the_other_back(
    photos: Path, start_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    seen, before = [], torch.get_num_threads()

    def note_and_die(trainer: loop.StageTrainer, *args: Any) -> None:
        seen.append((trainer.stage.train, torch.get_num_threads()))
        raise Killed

    monkeypatch.setattr(loop.StageTrainer, "train_step", note_and_die)
    try:
        with pytest.raises(Killed):
            job.train(photos, same_start(start_weights), tmp_path / "run")
        assert seen == [("head", 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("blank_charts")
def test_eight_photos_can_be_learned_by_heart(tmp_path: Path) -> None:
    for kind in ("disc", "square"):
        for number in range(6):
            path = tmp_path / "photos" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_shape(kind, number).save(path)
    recipe = small_recipe(
        "stages.0.augment.crop=centre",
        "stages.1.augment.crop=centre",
        "stages.1.augment.flip=0",
        "stages.1.relative_lr=false",
        "stages.1.average=0",
        "stages.1.epochs=30",
        "stages.1.lr=0.003",
        "split.test=0.17",
        "split.val=0.17",
    )
    run = job.train(tmp_path / "photos", recipe, tmp_path / "run")
    last = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert run.plan.side_size("train") == 8
    assert last["accuracy"] == 1.0
    assert last["loss"] < 0.1


def test_a_run_that_exists_is_not_overwritten(run: job.Run, photos: Path) -> None:
    with pytest.raises(job.CommandError, match="--resume"):
        job.train(photos, small_recipe(), run.folder)


def test_nothing_is_written_into_the_photos_folder(photos: Path) -> None:
    with pytest.raises(job.CommandError, match="never written"):
        job.train(photos, small_recipe(), photos / "run")


def test_photos_that_changed_stop_a_resume(tmp_path: Path, run: job.Run, photos: Path) -> None:
    import shutil

    copy = shutil.copytree(photos, tmp_path / "photos")
    (copy / "disc" / "00.png").unlink()
    with pytest.raises(job.CommandError, match="changed"):
        job.resume(run.folder, copy)
    assert checkpoint.load_progress(run.folder).records


@pytest.mark.usefixtures("blank_charts")
def test_a_run_goes_on_with_its_own_split_whatever_would_be_drawn_today(tmp_path: Path, run: job.Run) -> None:
    import shutil

    copy = shutil.copytree(run.folder, tmp_path / "run")
    recipe = (copy / "recipe.toml").read_text("utf-8")
    assert 'keep = ""' in recipe
    # The split that was kept is gone by now, and another seed would give other sides.
    recipe = recipe.replace('keep = ""', f"keep = '{tmp_path / 'gone.csv'}'")
    (copy / "recipe.toml").write_text(recipe, "utf-8")
    lines = (copy / "split.csv").read_text("utf-8").splitlines()
    before = (copy / "evaluation.json").read_bytes()
    for columns in (5, 4):  # runs of earlier versions have no column sha256
        text = "".join(",".join(line.split(",")[:columns]) + "\n" for line in lines)
        (copy / "split.csv").write_text(text, "utf-8")
        job.resume(copy)
        assert (copy / "evaluation.json").read_bytes() == before
    (copy / "split.csv").write_text("".join(f"{line}\n" for line in lines[:-1]), "utf-8")
    with pytest.raises(job.CommandError, match="changed"):
        job.resume(copy)


def test_the_batches_follow_from_the_seed_alone() -> None:
    first = batches.batch_order(1, "transfer", 0, 10, 4)
    assert [len(b) for b in first] == [4, 4, 2]
    assert sorted(i for b in first for i in b) == list(range(10))
    assert [list(b) for b in first] == [list(b) for b in batches.batch_order(1, "transfer", 0, 10, 4)]
    assert [list(b) for b in first] != [list(b) for b in batches.batch_order(1, "transfer", 1, 10, 4)]


def test_split_and_weights_are_what_the_plan_says(run: job.Run, photos: Path) -> None:
    split = split_photos(audit(load_photos(photos)), small_recipe().split)
    assert {side: len(split.side(side)) for side in ("train", "val", "test")} == {
        side: run.plan.side_size(side) for side in ("train", "val", "test")
    }
    model, facts = create_pretrained(BACKBONE, "none", 3, None)
    assert facts.source == "none"
    assert sum(p.numel() for p in model.parameters()) == sum(
        (run.plan.stages[0].trained_weights, run.plan.stages[0].frozen_weights)
    )
