"""The checks at the start of a training and on the command line; corrections from the page to the run and back."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from photo_files import encode, scene, write

from shapes import small_recipe
from wildtune import cli, files, job
from wildtune.check import steps
from wildtune.check.label_suspects import load_ranking
from wildtune.errors import CommandError, PhotosError, WeightsError
from wildtune.photos.audit import load_findings
from wildtune.photos.corrections import Correction, load_corrections, save_corrections
from wildtune.recipe import Recipe

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture(scope="module")
def mixed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos with one square among the discs."""
    copy = shutil.copytree(photos, tmp_path_factory.mktemp("mixed") / "photos")
    (copy / "square" / "05.png").rename(copy / "disc" / "wrong.png")
    return copy


def recipe_with(weights: Path, *changes: str) -> Recipe:
    return small_recipe("stages.0.epochs=1", "stages.1.epochs=1", *changes).model_copy(update={"weights": str(weights)})


@pytest.fixture(scope="module")
def run(mixed: Path, start_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> job.Run:
    folder = tmp_path_factory.mktemp("runs")
    save_corrections(
        [
            Correction("disc/00.png", "drop"),
            Correction("disc/wrong.png", "relabel", "square"),
            Correction("disc/01.png", "keep"),
        ],
        folder / "mine.csv",
    )
    return job.train(mixed, recipe_with(start_weights), folder / "run", corrections=folder / "mine.csv")


def test_corrections_reach_the_split_the_plan_and_the_bundle(run: job.Run, mixed: Path) -> None:
    split = (run.folder / "split.csv").read_text("utf-8")
    assert "disc/00.png" not in split
    assert "disc/wrong.png,square," in split
    assert (mixed / "disc" / "00.png").exists()
    sha256 = files.sha256_file(run.folder / "corrections.csv")
    assert tomllib.loads((run.folder / "plan.toml").read_text("utf-8"))["corrections"] == sha256
    assert sha256 in (run.folder / "bundle" / "bundle.json").read_text("utf-8")
    assert "1 relabelled, 1 dropped, 1 confirmed" in " ".join(run.plan.notices)
    assert len(load_corrections(run.folder / "corrections.csv")) == 3


def test_every_used_photo_is_ranked_and_none_is_left_out_for_it(run: job.Run) -> None:
    rows = load_ranking(run.folder / "label_ranking.csv")
    sides = {line.split(",")[0]: line.split(",")[2] for line in (run.folder / "split.csv").read_text().splitlines()[1:]}
    judges = {row.path: row.judge for row in rows}
    assert judges == {path: "model" if side == "test" else "heads" for path, side in sides.items()}
    suspects = {row.path for row in rows if row.suspect}
    found = {f.path for f in load_findings(run.folder / "findings.csv") if f.kind == "label_suspect"}
    assert found == suspects - {"disc/01.png"}
    assert found <= set(sides)


def test_resuming_uses_the_runs_own_corrections(run: job.Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "run")
    names = ("findings.csv", "label_ranking.csv", "split.csv", "predictions/test.csv", "evaluation.json")
    before = {name: (copy / name).read_bytes() for name in names}
    job.resume(copy)
    assert {name: (copy / name).read_bytes() for name in names} == before
    save_corrections([Correction("disc/02.png", "drop")], copy / "corrections.csv")
    with pytest.raises(CommandError, match="not the file of corrections"):
        job.resume(copy)
    (copy / "corrections.csv").unlink()
    with pytest.raises(CommandError, match="Bring it back"):
        job.resume(copy)


def test_wrong_corrections_stop_before_anything_is_written(mixed: Path, start_weights: Path, tmp_path: Path) -> None:
    save_corrections([Correction("disc/99.png", "drop")], tmp_path / "c.csv")
    with pytest.raises(PhotosError, match="none of the photos"):
        job.train(mixed, recipe_with(start_weights), tmp_path / "run", corrections=tmp_path / "c.csv")
    assert not (tmp_path / "run").exists()


def test_a_check_with_weights_ranks_and_writes_the_page(mixed: Path, start_weights: Path, tmp_path: Path) -> None:
    findings = job.check(mixed, recipe=recipe_with(start_weights), out=tmp_path / "out")
    rows = load_ranking(tmp_path / "out" / "label_ranking.csv")
    assert {row.path for row in rows} == {photo.path for photo in findings.usable}
    assert (tmp_path / "out" / "check.html").exists()
    assert load_findings(tmp_path / "out" / "findings.csv") == findings.findings


def test_the_page_is_never_written_among_the_photos(mixed: Path) -> None:
    with pytest.raises(CommandError, match="never written"):
        job.check(mixed, out=mixed / "out")


def run_check(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr("sys.argv", ["wildtune", "check", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


def test_without_a_network_the_rest_is_checked_and_one_line_says_what_was_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mixed: Path, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise WeightsError("no network")

    monkeypatch.setattr(steps, "create_pretrained", refuse)
    (tmp_path / "p" / "a").mkdir(parents=True)
    (tmp_path / "p" / "a" / "1.jpg").write_bytes(b"")
    shutil.copytree(mixed / "disc", tmp_path / "p" / "disc")
    assert run_check(monkeypatch, str(tmp_path / "p"), "--out", str(tmp_path / "out")) == 0
    said = capsys.readouterr()
    assert said.out.startswith("error: unreadable: a/1.jpg: ")
    lines = [line for line in said.err.splitlines() if "not looked for" in line]
    assert len(lines) == 1
    assert "--weights FILE" in lines[0]
    assert "--weights FILE" in (tmp_path / "out" / "check.html").read_text("utf-8")
    assert not (tmp_path / "out" / "label_ranking.csv").exists()


def test_options_of_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mixed: Path, tmp_path: Path
) -> None:
    for i in range(6):
        write(tmp_path / "p" / "ab"[i % 2] / f"{i}.jpg", encode(scene(i)))
    assert run_check(monkeypatch, str(tmp_path / "p"), "--no-model", "--out", str(tmp_path / "findings.csv")) == 0
    assert load_findings(tmp_path / "findings.csv") == ()
    assert not (tmp_path / "check.html").exists()
    assert run_check(monkeypatch, str(mixed), "--no-model", "--weights", "none") == 2
    assert run_check(monkeypatch, str(mixed), "--weights", str(tmp_path / "no.pth")) == 3
    assert "There is no weights file" in capsys.readouterr().err


def test_random_weights_judge_no_labels(mixed: Path, tmp_path: Path) -> None:
    run = job.train(mixed, small_recipe("stages.0.epochs=1", "stages.1.epochs=1"), tmp_path / "run")
    assert not (run.folder / "label_ranking.csv").exists()
    assert "random weights" in (run.folder / "train.log").read_text("utf-8")
    assert json.loads((run.folder / "bundle" / "bundle.json").read_text("utf-8"))
