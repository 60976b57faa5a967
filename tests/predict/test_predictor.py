"""The predictor: it equals the evaluation and the exported bundle, and no file stops it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from trap_files import detection, megadetector

from shapes import draw_shape, small_recipe
from wildtune import job
from wildtune.errors import CommandError, PhotosError
from wildtune.evaluate.compare import compare_runs, describe_comparison, load_contender
from wildtune.model import engine
from wildtune.model.bundle import load_bundle
from wildtune.model.engine import create_engine
from wildtune.model.preprocess import create_input, decode_stored
from wildtune.photos.sources import Detections, load_photos
from wildtune.predict import predictor
from wildtune.predict.predicting import predict
from wildtune.predict.predictions import load_predictions, predictions_csv, save_predictions
from wildtune.runtime import Precision

pytestmark = pytest.mark.usefixtures("blank_charts")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> job.Run:
    return job.train(photos, small_recipe("stages.1.lr=0.01"), tmp_path_factory.mktemp("runs") / "run")


def test_predictions_equal_the_evaluations(run: job.Run, photos: Path) -> None:
    found = predict(run.folder, photos)
    rows = {path: row for row, path in enumerate(found.paths)}
    for side in ("val", "test"):
        evaluated = load_predictions(run.folder / "predictions" / f"{side}.csv")
        logits = found.probs[[rows[path] for path in evaluated.paths]]
        np.testing.assert_allclose(logits, evaluated.probs, atol=1e-6)
        assert [found.labels[rows[path]] for path in evaluated.paths] == list(evaluated.labels)
    right = (found.predicted == found.targets)[[rows[p] for p in evaluated.paths]]
    assert right.mean() == run.evaluation.sides["test"].accuracy


def test_a_photos_logits_do_not_depend_on_its_company(run: job.Run, photos: Path, tmp_path: Path) -> None:
    together = predict(run.folder, photos)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "one.png").write_bytes((photos / "disc" / "05.png").read_bytes())
    alone = predict(run.folder, tmp_path / "alone")
    assert np.array_equal(alone.logits[0], together.logits[together.paths.index("disc/05.png")])


def test_a_crop_is_predicted_as_a_photo_of_the_same_pixels(run: job.Run, photos: Path, tmp_path: Path) -> None:
    whole = Image.open(photos / "disc" / "05.png").convert("RGB")  # 72 x 60
    (tmp_path / "alone").mkdir()
    whole.crop((9, 0, 69, 60)).save(tmp_path / "alone" / "crop.png")
    image = {"file": "disc/05.png", "detections": [detection([9 / 72, 0, 60 / 72, 1])]}
    (tmp_path / "md.json").write_text(json.dumps(megadetector([image])))
    found = predict(run.folder, photos, detections=Detections(tmp_path / "md.json", margin=0))
    assert found.paths == ("disc/05.png#1",)
    assert found.labels == ("disc",)
    assert np.array_equal(found.logits, predict(run.folder, tmp_path / "alone").logits)


def test_a_run_on_crops_is_resumed_on_the_same_crops(
    run: job.Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_whole_photos = run
    images = [
        {
            "file": path.relative_to(photos).as_posix(),
            "detections": [detection([0, 0, 0.5, 0.5]), detection([0.5, 0.5, 0.5, 0.5])],
        }
        for path in photos.glob("*/*.png")
    ]
    (tmp_path / "md.json").write_text(json.dumps(megadetector(images)))
    detections = Detections(tmp_path / "md.json", threshold=0.5, margin=0.1)
    run = job.train(
        photos, small_recipe("stages.0.epochs=1", "stages.1.epochs=1"), tmp_path / "run", detections=detections
    )
    assert sum(sum(counts.values()) for counts in run.plan.counts.values()) == 2 * len(images)
    before = (run.folder / "evaluation.json").read_bytes()
    assert job.resume(run.folder).folder == run.folder
    assert (run.folder / "evaluation.json").read_bytes() == before
    side_of: dict[str, set[str]] = {}
    with open(run.folder / "split.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            side_of.setdefault(row["path"].partition("#")[0], set()).add(row["split"])
    assert all(len(sides) == 1 for sides in side_of.values())

    moved = (tmp_path / "md.json").rename(tmp_path / "moved.json")
    with pytest.raises(CommandError, match=rf"no longer at .*\n.*--resume {run.folder} --detections FILE"):
        job.resume(run.folder)
    assert job.resume(run.folder, detections_path=moved).folder == run.folder
    assert job.resume(run.folder).folder == run.folder, "where they have moved to is remembered"
    assert (run.folder / "evaluation.json").read_bytes() == before
    moved.write_text(json.dumps(megadetector([{**image, "detections": image["detections"][:1]} for image in images])))
    with pytest.raises(CommandError, match=rf"have changed .*\n.*\nIts crops depend on the detections too: {moved}"):
        job.resume(run.folder, detections_path=moved)
    with pytest.raises(CommandError, match="was trained on whole photos"):
        job.resume(of_whole_photos.folder, detections_path=moved)

    assert load_bundle(run.folder).provenance["detections"] == {"threshold": 0.5, "margin": 0.1}
    assert load_bundle(of_whole_photos.folder).provenance["detections"] is None
    now = Detections(moved)
    for use in (predict, job.evaluate):
        for trained, given, note in (
            (run, None, "was trained on crops of animals and is given whole photos"),
            (of_whole_photos, now, "was trained on whole photos and is given crops"),
            (run, now, ""),
            (of_whole_photos, None, ""),
        ):
            capsys.readouterr()
            use(trained.folder, photos, detections=given)
            said = [line for line in capsys.readouterr().err.splitlines() if "the classifier was trained" in line]
            assert len(said) == bool(note)
            assert all(line.startswith("note: ") and note in line for line in said)


def test_plain_timm_opens_the_bundle_and_gives_the_same_logits(run: job.Run, photos: Path) -> None:
    model = timm.create_model(f"local-dir:{run.folder / 'bundle'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"][-1] == 48
    assert tuple(model.pretrained_cfg["label_names"]) == run.bundle.class_names
    found = predict(run.folder, photos)
    transform = timm.data.create_transform(**config, is_training=False)
    pre = run.bundle.preprocess
    for path in found.paths[:6]:
        data = (photos / path).read_bytes()
        with torch.no_grad():
            logits = model(create_input(decode_stored(data, pre), pre)[None])[0].numpy()
            theirs = model(transform(Image.open(photos / path).convert("RGB"))[None])[0].softmax(0).numpy()
        np.testing.assert_allclose(logits, found.logits[found.paths.index(path)], atol=1e-4)
        # timm's own preprocessing rounds elsewhere, so its answer is near, not equal.
        as_trained = torch.from_numpy(found.logits[found.paths.index(path)]).softmax(0).numpy()
        np.testing.assert_allclose(theirs, as_trained, atol=0.03)


def test_openvino_gives_torchs_numbers(run: job.Run) -> None:
    pytest.importorskip("openvino")
    model = load_bundle(run.folder).model
    images = torch.randn(11, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    found = create_engine(model, 48, "openvino", threads=1)
    assert found.kind == "openvino"
    expected = create_engine(model, 48, "torch", threads=1)(images)
    torch.testing.assert_close(found(images), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found(images[:3]), found(images)[:3])


def test_a_kept_network_predicts_the_same_bits_without_timm(
    run: job.Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "OPENVINO_FROM_WEIGHTS", 0)
    first = predict(run.folder, photos)
    monkeypatch.setattr(predictor, "load_bundle", None)  # what makes the network
    again = predict(run.folder / "bundle", photos)
    assert again.paths == first.paths
    assert np.array_equal(again.logits, first.logits)
    np.testing.assert_array_equal(again.probs, first.probs)
    heavy = "'timm', 'torchvision', 'torch._dynamo', 'sklearn', 'scipy', 'matplotlib', 'optuna'"
    code = (
        "import sys; from wildtune.predict.predicting import predict; predict(*sys.argv[1:]); "
        f"print([name for name in ({heavy}) if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(run.folder), str(photos)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    monkeypatch.undo()

    shutil.copytree(run.folder / "bundle", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CommandError, match="missing or damaged"):
        predict(tmp_path / "damaged", photos)


@pytest.mark.parametrize(("fast", "large"), [(True, True), (True, False), (False, True)])
def test_bfloat16_is_used_where_it_is_fast_and_else_refused(
    run: job.Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, large: bool
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "OPENVINO_FROM_WEIGHTS", 0 if large else 10**9)
    monkeypatch.setattr(predictor.runtime, "has_fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(predictor.runtime, "detect_device", lambda: "cpu")
    if not (fast and large):
        with pytest.raises(CommandError, match="run by torch" if fast else "no products of it on this processor"):
            predict(run.folder, photos, precision="bfloat16")
        return
    compiled: list[str] = []
    make = engine._create_openvino

    def note(network: object, streams: int, precision: Precision = "float32") -> engine.Engine:
        compiled.append(precision)
        return make(network, streams, precision)

    monkeypatch.setattr(engine, "_create_openvino", note)
    with pytest.raises(CommandError, match="must be float32 or bfloat16"):
        predict(run.folder, photos, precision="float16")  # type: ignore[arg-type]
    exact = predict(run.folder, photos)
    shutil.rmtree(tmp_path / "cache")
    for _ in range(2):  # the second time without making the network
        lower = predict(run.folder, photos, precision="bfloat16")
        assert compiled[-1] == "bfloat16"
        np.testing.assert_allclose(lower.probs, exact.probs, atol=0.05)
        monkeypatch.setattr(predictor, "load_bundle", None)  # what makes the network


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_every_file_gets_a_row_and_a_reason_where_there_is_no_prediction(run: job.Run, tmp_path: Path) -> None:
    shape = draw_shape("disc", 1, (400, 300))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [draw_shape("square", n).convert("P") for n in range(3)]
    contents = {
        "text.jpg": b"this is no photo",
        "truncated.jpg": encoded(shape, "JPEG")[:6000],
        "cmyk.jpg": encoded(shape.convert("CMYK"), "JPEG"),
        "rotated.jpg": encoded(shape, "JPEG", exif=exif),
        "deep.png": encoded(Image.fromarray(np.full((60, 60), 40000, dtype=np.uint16)), "PNG"),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "empty.jpg": b"",
    }
    folder = tmp_path / "new"
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    found = predict(run.folder, folder)
    rows = list(csv.DictReader(io.StringIO(predictions_csv(found))))
    assert [row["path"] for row in rows] == sorted(contents)
    for row in rows:
        broken = row["path"] in ("text.jpg", "truncated.jpg", "empty.jpg")
        assert bool(row["error"]) == broken, row
        assert bool(row["prediction"]) != broken
        if not broken:
            assert abs(sum(float(row[f"p_{name}"]) for name in run.bundle.class_names) - 1) < 1e-4
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


def test_predictions_survive_their_file(run: job.Run, photos: Path, tmp_path: Path) -> None:
    found = predict(run.folder, photos)
    save_predictions(found, tmp_path / "p.csv")
    again = load_predictions(tmp_path / "p.csv")
    assert again.paths == found.paths
    odd = dataclasses.replace(found, paths=("disc/Icon\r", 'a\n",b.png', *found.paths[2:]))
    save_predictions(odd, tmp_path / "odd.csv")
    assert load_predictions(tmp_path / "odd.csv").paths == odd.paths
    assert np.array_equal(again.predicted, found.predicted)
    np.testing.assert_allclose(again.probs, found.probs, atol=1e-5)


def test_evaluating_on_photos_of_unknown_classes_is_an_error(run: job.Run, tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "insects" / name).mkdir(parents=True)
        draw_shape("disc", number).save(tmp_path / "insects" / name / f"{name}.png")
    with pytest.raises(PhotosError, match="disc, square, stripes"):
        job.evaluate(run.folder, tmp_path / "insects")


def test_evaluating_on_the_same_photos_gives_their_accuracy(run: job.Run, photos: Path) -> None:
    scores = job.evaluate(run.folder, photos)
    found = predict(run.folder, photos)
    assert scores.photos == len(load_photos(photos).photos)
    assert scores.accuracy == (found.predicted == found.targets).mean()


def test_the_bundle_keeps_its_calibration_and_one_without_predicts_as_before(
    run: job.Run, photos: Path, tmp_path: Path
) -> None:
    calibration = load_bundle(run.folder).calibration
    assert calibration == run.bundle.calibration
    assert calibration is not None
    found = predict(run.folder, photos)
    scaled = torch.from_numpy(found.logits).double() / calibration.temperature
    np.testing.assert_allclose(found.probs, scaled.softmax(1).numpy(), atol=1e-9)
    rows = list(csv.DictReader(io.StringIO(predictions_csv(found))))
    assert list(rows[0])[-3:] == ["prediction_set", "review", "unknown"]
    for row in rows:
        assert row["prediction"] == row["prediction_set"].split("|")[0]
        assert row["review"] == ("yes" if float(row["confidence"]) < calibration.review.least_confidence else "no")
    wider = list(csv.DictReader(io.StringIO(predictions_csv(predict(run.folder, photos, coverage=0.99)))))
    assert all(len(a["prediction_set"]) <= len(b["prediction_set"]) for a, b in zip(rows, wider, strict=True))
    with pytest.raises(CommandError, match=r"one of 0.9, 0.95, 0.99. Got 0.5"):
        predict(run.folder, photos, coverage=0.5)

    shutil.copytree(run.folder / "bundle", tmp_path / "old")
    about = json.loads((tmp_path / "old" / "bundle.json").read_text())
    del about["calibration"]
    (tmp_path / "old" / "bundle.json").write_text(json.dumps(about))
    old = predict(tmp_path / "old", photos)
    np.testing.assert_array_equal(old.logits, found.logits)
    assert next(csv.DictReader(io.StringIO(predictions_csv(old))))["prediction_set"] == ""
    with pytest.raises(CommandError, match="no prediction sets"):
        predict(tmp_path / "old", photos, coverage=0.9)


def test_runs_are_compared_on_the_test_photos_that_none_learned_from(
    run: job.Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("stages.0.epochs=1", "stages.1.epochs=1")
    same = job.train(photos, small_recipe(*quick, "seed=1"), tmp_path / "same")
    other = job.train(photos, small_recipe(*quick, "split.seed=5"), tmp_path / "other")
    found = compare_runs([run.folder, same.folder])
    assert found.photos == run.evaluation.sides["test"].photos
    for scores, one in zip(found.runs, (run, same), strict=True):
        assert scores.scores["accuracy"].value == one.evaluation.sides["test"].accuracy
        assert scores.scores["log loss"].value == pytest.approx(one.evaluation.sides["test"].log_loss, abs=1e-3)
    assert "no measurable difference" in describe_comparison(found)
    tested = [set(load_contender(one.folder).contents) for one in (run, other)]
    common = tested[0] & tested[1]
    if common:
        apart = compare_runs([run.folder, other.folder])
        assert apart.photos == len(common)
        assert "others trained on them" in apart.notes[0]
    else:
        with pytest.raises(CommandError, match=r"no test photo in common.*\n.*\n.*split.keep"):
            compare_runs([run.folder, other.folder])
    with pytest.raises(CommandError, match="at least two runs"):
        compare_runs([run.folder])
