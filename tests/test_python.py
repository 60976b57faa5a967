"""What the Python functions take and raise: signatures as documented, paths as text or with `~`, mistakes in words."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import wildtune as wt
from shapes import draw_shape, small_recipe
from wildtune import files
from wildtune.errors import CommandError, PhotosError
from wildtune.recipe import Recipe, dump_recipe

DOCUMENTED = Path(__file__).parents[1] / "docs" / "reference" / "python.md"
# Said once for all functions below their table.
SAID_ONCE = ("reporter", "detections")
REPORTING = {
    *("train", "resume", "train_folds", "resume_folds", "tune", "resume_tuning"),
    *("predict", "evaluate", "check", "report_again"),
}
CROPPING = {"train", "train_folds", "tune", "predict", "evaluate", "check", "load_photos"}


def short_recipe(*changes: str) -> Recipe:
    """Return a recipe of two short stages, which leaves every file that a run leaves."""
    return small_recipe("stages.0.epochs=1", "stages.0.views=1", "stages.1.epochs=1", *changes)


@pytest.fixture
def home(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder with photos in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copytree(photos, tmp_path / "photos")
    return tmp_path


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wt.train(photos, short_recipe(), tmp_path_factory.mktemp("runs") / "run").folder


def report_in_english(run: Path) -> Path:
    return wt.report_again(run, "en")


def test_functions_take_what_the_reference_says() -> None:
    text = DOCUMENTED.read_text("utf-8")
    found = dict(re.findall(r"^\| `wt\.(\w+)\((.*?)\)`", text, re.MULTILINE))
    assert {"train", "resume", "predict", "evaluate", "check", "tune", "report_again", "load_bundle"} <= set(found)
    for name, documented in found.items():
        signature = inspect.signature(getattr(wt, name))
        kept = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in signature.parameters.values()
            if parameter.name not in SAID_ONCE
        ]
        assert ("reporter" in signature.parameters) == (name in REPORTING), name
        assert ("detections" in signature.parameters) == (name in CROPPING), name
        said = str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))[1:-1]
        assert said == documented.replace('"', "'"), name


def test_a_path_from_home_is_read_written_and_recorded_as_one_place(home: Path, blank_charts: None) -> None:
    run = wt.train("~/photos", short_recipe(), "~/runs/a")
    assert run.folder == home / "runs" / "a"
    assert json.loads((run.folder / "environment.json").read_text("utf-8"))["photos"] == str(home / "photos")
    assert wt.resume("~/runs/a").folder == run.folder
    assert wt.load_bundle("~/runs/a").class_names == run.bundle.class_names
    assert wt.report_again("~/runs/a", "en") == run.folder / "report" / "index.html"
    assert wt.evaluate("~/runs/a", "~/photos").without_prediction == 0
    assert len(wt.predict("~/runs/a", "~/photos")) == len(wt.load_photos("~/photos").photos)
    for out in ("~/photos/run", home / "photos" / "run"):
        for source in ("~/photos", home / "photos"):
            with pytest.raises(CommandError, match="never written to"):
                wt.train(source, short_recipe(), out)
            with pytest.raises(CommandError, match="never written to"):
                wt.check(source, out=out)


def test_a_recipe_is_read_by_a_path_too(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(dump_recipe(wt.load_recipe("quick")), "utf-8")
    assert wt.load_recipe(tmp_path / "mine.toml", weights=tmp_path / "w.pth").weights == str(tmp_path / "w.pth")
    assert wt.load_recipe(str(tmp_path / "mine.toml")) == wt.load_recipe("quick")
    assert wt.load_recipe(Path("default")) == wt.load_recipe("default")
    assert wt.load_recipe("default", "seed=3").seed == 3


def test_a_folder_that_cannot_be_one_is_said_before_any_work(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    for out, message in ((tmp_path / "file" / "run", "which is no folder"), (tmp_path / "file", "is a file")):
        with pytest.raises(CommandError, match=message):
            wt.check(photos, out=out)
    with pytest.raises(CommandError, match="which is no folder"):
        wt.train(photos, short_recipe(), tmp_path / "file" / "run")
    with pytest.raises(CommandError, match=r"ends in \.toml"):
        wt.tune(photos, short_recipe(), ".")


def test_corrections_that_cannot_be_read_leave_no_cross_validation(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match=r"nope\.csv"):
        wt.train_folds(photos, short_recipe(), 3, tmp_path / "out", corrections=tmp_path / "nope.csv")
    assert not (tmp_path / "out").exists()


def test_unreadable_photos_are_counted_and_where_all_are_that_is_said(run: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for name in ("disc", "square"):
        (folder / name).mkdir(parents=True)
        (folder / name / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(PhotosError, match="None of the 2 photos"):
        wt.evaluate(run, folder)
    draw_shape("disc", 3).save(folder / "disc" / "right.png")
    scores = wt.evaluate(run, folder)
    assert (scores.photos, scores.without_prediction) == (1, 2)


def test_labels_of_photos_none_of_which_is_usable_are_not_judged(start_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "p" / "disc").mkdir(parents=True)
    (tmp_path / "p" / "disc" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    recipe = small_recipe().model_copy(update={"weights": str(start_weights)})
    found = wt.check(tmp_path / "p", recipe, tmp_path / "out")
    assert not found.usable
    assert "no usable photo has a label" in (tmp_path / "out" / "check.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "content", "use"),
    [
        *(("bundle/bundle.json", text, wt.load_bundle) for text in ("[]", "{", '{"format": 1}')),
        *(("plan.toml", text, wt.resume) for text in ("seed =", "seed = 3\n")),
        *(("environment.json", text, wt.resume) for text in ("{", "[1]")),
        *(("evaluation.json", text, report_in_english) for text in ("{}", "{")),
        ("metrics.jsonl", "{}\n", report_in_english),
        ("checkpoints/stages/transfer.safetensors", "x", wt.resume),
    ],
)
def test_a_damaged_file_of_a_run_is_named(
    run: Path, tmp_path: Path, name: str, content: str, use: Callable[[Path], object]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / name).write_text(content, "utf-8")
    with pytest.raises(CommandError, match=re.escape(str(copy / name))):
        use(copy)


def test_a_file_goes_where_its_folder_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    for name in ("open", "closed"):
        (tmp_path / name / "x.csv").write_text("", "utf-8")
    monkeypatch.setattr("os.access", lambda path, _: Path(path) == tmp_path / "open")  # also where root runs the tests
    files.require_place(tmp_path / "open" / "x.csv")
    files.require_place(tmp_path / "open" / "new.csv")
    files.require_place(tmp_path / "open" / "new" / "folder")
    for place in ("closed", "closed/x.csv", "closed/new.csv", "closed/new/folder"):
        with pytest.raises(CommandError, match="you may not write to"):
            files.require_place(tmp_path / place)


def test_one_run_twice_is_no_comparison(run: Path) -> None:
    with pytest.raises(CommandError, match="Each run once"):
        wt.compare_runs([run, f"{run}/../{run.name}"])
