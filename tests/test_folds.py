"""Cross-validation: every photo tested once, groups whole, and an interrupted one ends as if nothing had happened."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wildtune as wt
from shapes import small_recipe
from wildtune import cli, folds
from wildtune.errors import CommandError, PhotosError, RecipeError
from wildtune.evaluate.folds import mean_of_folds
from wildtune.model import features
from wildtune.photos.audit import audit
from wildtune.photos.sources import load_photos
from wildtune.photos.split import Split, split_photos
from wildtune.recipe import Recipe, SplitOptions
from wildtune.train import loop

COUNT = 3

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture(scope="module")
def grouped(photos: Path) -> Path:
    """A CSV file that puts the photos into groups of one to three."""
    lines = [
        f"shapes/{p.parent.name}/{p.name},{p.parent.name},{p.parent.name}{math.isqrt(2 * int(p.stem))}"
        for p in sorted(photos.glob("*/*"))
    ]
    path = photos.parent / "folds.csv"
    path.write_text("\n".join(["path,label,group", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def recipe(start_weights: Path) -> Recipe:
    changes = ("stages.0.epochs=2", "stages.0.views=1", "stages.1.epochs=1")
    return small_recipe(*changes).model_copy(update={"weights": str(start_weights)})


@pytest.fixture(scope="module")
def done(grouped: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> folds.Folds:
    return wt.train_folds(grouped, recipe, COUNT, tmp_path_factory.mktemp("folds") / "whole")


def splits(source: Path, count: int, **values: Any) -> list[Split]:
    findings = audit(load_photos(source))
    return [split_photos(findings, SplitOptions(folds=count, fold=fold + 1, **values)) for fold in range(count)]


def test_every_photo_is_tested_once_with_its_group_and_its_class_in_even_shares(grouped: Path) -> None:
    found = splits(grouped, 4, group_by="none")
    tested = [photo.path for split in found for photo in split.side("test")]
    assert sorted(tested) == sorted(photo.path for photo in found[0].photos)
    for split in found:
        sides: dict[str, set[str]] = {}
        for group, side in zip(split.groups, split.sides, strict=True):
            sides.setdefault(group, set()).add(side)
        assert all(len(of_group) == 1 for of_group in sides.values())
        counts = np.bincount(split.targets("test"), minlength=3)
        assert counts.min() >= 2, "16 photos of each class in groups of up to 3, 4 folds"
        assert counts.max() <= 6
        assert split.side("val")
    again = splits(grouped, 4, group_by="none")
    assert [split.sides for split in again] == [split.sides for split in found]
    assert [split.sides for split in splits(grouped, 4, group_by="none", seed=1)] != [s.sides for s in found]


def test_a_split_of_the_users_is_passed_over_and_too_many_folds_are_refused(photos: Path) -> None:
    lines = [f"shapes/{p.parent.name}/{p.name},{p.parent.name},train,g{p.stem}" for p in sorted(photos.glob("*/*"))]
    path = photos.parent / "sides.csv"
    path.write_text("\n".join(["path,label,split,group", *lines]) + "\n")
    first = splits(path, 2)[0]
    assert any("passed over" in notice for notice in first.notices)
    assert 20 <= len(first.side("test")) <= 28
    with pytest.raises(PhotosError, match="need as many groups"):
        splits(path, 17)
    for wrong in ({"folds": 1}, {"folds": 3, "fold": 4}, {"folds": 2, "val": 0.5}, {"folds": 2, "keep": "split.csv"}):
        with pytest.raises(ValueError, match="fold"):
            SplitOptions(**wrong)  # type: ignore[arg-type]


def test_the_folds_are_whole_runs_and_their_scores_are_put_together(done: folds.Folds) -> None:
    assert [run.name for run in done.runs] == ["fold-1", "fold-2", "fold-3"]
    for run in done.runs:
        assert (run / "report" / "index.html").exists()
        assert (run / "bundle" / "model.safetensors").exists()
    with open(done.folder / "predictions" / "folds.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0])[:6] == ["path", "label", "prediction", "confidence", "error", "fold"]
    assert len({row["path"] for row in rows}) == len(rows) == 48
    right = sum(row["label"] == row["prediction"] for row in rows)
    saved = json.loads((done.folder / "folds.json").read_text("utf-8"))
    assert saved["pooled"]["accuracy"] == right / 48
    for entry in saved["folds"]:
        own = [row for row in rows if row["fold"] == str(entry["fold"])]
        assert entry["photos"] == len(own)
        assert entry["accuracy"] == pytest.approx(sum(r["label"] == r["prediction"] for r in own) / len(own))
    assert saved["accuracy"]["mean"] == pytest.approx(np.mean([entry["accuracy"] for entry in saved["folds"]]))
    assert folds.saved_folds(done.folder) == done.evaluation
    assert 'href="fold-2/report/index.html"' in (done.folder / "folds.html").read_text("utf-8")


def test_the_interval_of_the_mean_is_nadeau_and_bengios() -> None:
    found = mean_of_folds([0.8, 0.85, 0.9, 0.95, 0.75], ratio=0.25)
    half = 2.776445 * 0.0790569 * math.sqrt(1 / 5 + 0.25)
    assert found.mean == pytest.approx(0.85)
    assert found.interval == pytest.approx((0.85 - half, min(1.0, 0.85 + half)), abs=1e-5)


class Killed(BaseException):
    """Stands for kill -9."""


def test_an_interrupted_cross_validation_ends_as_a_whole_one(
    done: folds.Folds, grouped: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    real, steps = loop.StageTrainer.train_step, 0

    def count_and_die(*args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > 20:  # within the second fold
            raise Killed
        real(*args)

    out = tmp_path / "cut"
    monkeypatch.setattr(loop.StageTrainer, "train_step", count_and_die)
    # A beginning that was given up before it had a plan, by a kill in the middle of a file, leaves nothing behind.
    (out / "fold-1").mkdir(parents=True)
    for place in (out, out / "fold-1"):
        (place / "corrections.csv").write_text("path,action,label\nno/such.png,drop,\n")
        (place / ".split.csv.abc.part").write_text("half")
    with pytest.raises(Killed):
        folds.train_folds(grouped, recipe, COUNT, out)
    assert not (out / "fold-1" / "corrections.csv").exists()
    monkeypatch.setattr(loop.StageTrainer, "train_step", real)
    assert (out / "fold-2" / "plan.toml").exists()
    assert not (out / "fold-3").exists()
    with pytest.raises(CommandError, match="not all been trained"):
        folds.saved_folds(out)
    with pytest.raises(CommandError, match="--resume"):
        folds.train_folds(grouped, recipe, COUNT, out)
    wt.resume_folds(out)
    names = ["folds.json", "folds.html", "predictions/folds.csv"]
    names += [f"fold-{k}/{name}" for k in (1, 2, 3) for name in ("bundle/model.safetensors", "evaluation.json")]
    for name in names:
        assert (out / name).read_bytes() == (done.folder / name).read_bytes(), name


def test_the_folds_share_decoded_photos_and_features(
    grouped: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "cache"))
    computed, real = [], features._write_file

    def count(folder: Path, contents: list[str], found: Any) -> None:
        computed.append(len(contents))
        real(folder, contents, found)

    monkeypatch.setattr(features, "_write_file", count)
    head = recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"augment": wt_augment()}),)})
    folds.train_folds(grouped, head, COUNT, tmp_path / "out")
    assert sum(computed) == 48
    assert len(list((tmp_path / "cache" / "store").iterdir())) == 1


def wt_augment() -> Any:
    from wildtune.recipe import Augment

    return Augment()


def test_folds_that_had_other_photos_are_not_scored_together(done: folds.Folds, tmp_path: Path) -> None:
    runs = []
    for run in done.runs:
        copy = tmp_path / run.name
        copy.mkdir()
        (copy / "split.csv").write_bytes((run / "split.csv").read_bytes())
        runs.append(copy)
    folds._require_same_photos(runs)
    text = (runs[1] / "split.csv").read_text()
    (runs[1] / "split.csv").write_text("\n".join(text.splitlines()[:-1]) + "\n")
    with pytest.raises(PhotosError, match="changed between the folds"):
        folds._require_same_photos(runs)


def test_the_command_line(
    done: folds.Folds, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["wildtune", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            return left.code or 0
        return 0

    before = (done.folder / "folds.json").read_bytes()
    assert run("train", "--resume", str(done.folder)) == 0
    assert (done.folder / "folds.json").read_bytes() == before
    assert "Nadeau and Bengio" in capsys.readouterr().err
    assert run("evaluate", str(done.folder)) == 0
    assert "all 48 photos together" in capsys.readouterr().out
    assert run("train", str(photos), "--folds", "1", "--out", str(tmp_path / "one")) == 2
    assert "at least 2 folds" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="fold"):
        folds.train_folds(photos, small_recipe("split.val=0.6"), 2, tmp_path / "wide")
    assert run("train", str(tmp_path / "missing"), "--folds", "3", "--out", str(tmp_path / "late")) == 3
    assert run("train", str(tmp_path / "missing"), "--folds", "3", "--out", str(tmp_path / "late")) == 3
