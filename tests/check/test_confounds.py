"""A planted giveaway is found and put in plain words; a clean set is accused no more often than is stated."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, example, noise, shard, write
from PIL import Image

from wildtune.check import confounds
from wildtune.check.balance import describe_imbalance
from wildtune.check.confounds import confound_findings, find_giveaways
from wildtune.check.marks import PhotoMarks, create_marks
from wildtune.check.steps import find_confounds
from wildtune.photos.audit import Findings, audit
from wildtune.photos.catalogue import Photo, create_catalogue
from wildtune.photos.sources import load_photos

SIZES = ((640, 480), (480, 640), (1024, 768))


def make_marks(rng: np.random.Generator, count: int) -> list[PhotoMarks]:
    """Return marks as of photos from many sources, drawn without regard to any class."""
    marks = []
    for _ in range(count):
        width, height = SIZES[rng.integers(3)] if rng.random() < 0.7 else rng.integers(200, 900, 2).tolist()
        taken = datetime(2021, 1, 1) + timedelta(hours=float(rng.integers(9000)))
        marks.append(
            PhotoMarks(
                str(rng.choice(["JPEG", "PNG", "WEBP"], p=[0.8, 0.15, 0.05])),
                width,
                height,
                int(width * height * rng.lognormal(-1.5, 0.5)),
                str(rng.choice(["", "A 1", "B 2", "C 3"])),
                taken if rng.random() < 0.8 else None,
            )
        )
    return marks


def deal_labels(rng: np.random.Generator, count: int, classes: int) -> list[str]:
    return [str(k) for k in rng.permutation(np.arange(count) % classes)]


def false_alarms(monkeypatch: pytest.MonkeyPatch, grouped: bool, seeds: int = 40) -> int:
    """Return how many clean sets are accused when every accuracy that chance does not explain counts."""
    monkeypatch.setattr(confounds, "MATTERS", 0.5)
    monkeypatch.setattr(confounds, "PERMUTATIONS", 99)
    alarms = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        if grouped:  # each camera's photos share their marks and their label
            marks, labels = make_marks(rng, 20), deal_labels(rng, 20, 3)
            members = np.repeat(np.arange(20), rng.integers(2, 12, 20))
        else:
            marks, labels, members = make_marks(rng, 120), deal_labels(rng, 120, 3), np.arange(120)
        groups = [str(m) for m in members]
        alarms += bool(find_giveaways([marks[m] for m in members], [labels[m] for m in members], groups, seed))
    return alarms


@pytest.mark.parametrize("grouped", [False, True])
def test_clean_sets_are_seldom_accused(monkeypatch: pytest.MonkeyPatch, grouped: bool) -> None:
    # At the stated 1 %, more than 4 of 40 would come once in ten thousand times.
    assert false_alarms(monkeypatch, grouped) <= 4


def test_a_format_that_gives_one_class_of_many_away_is_found() -> None:
    rng = np.random.default_rng(0)
    marks, labels = make_marks(rng, 400), deal_labels(rng, 400, 10)
    for i, label in enumerate(labels):
        png = label == "3" and rng.random() < 0.95
        marks[i] = PhotoMarks("PNG" if png else "JPEG", marks[i].width, marks[i].height, marks[i].size)
    found = find_giveaways(marks, labels, [str(i) for i in range(400)])
    assert [(g.mark.name, g.class_name, g.typical) for g in found] == [("file format", "3", "PNG")]
    assert found[0].accuracy == pytest.approx(0.97, abs=0.03)
    assert found[0].interval[0] < found[0].accuracy <= found[0].interval[1]
    assert found[0].outside == 0
    (finding,) = confound_findings(found, 10)
    assert (finding.kind, finding.path, finding.severity) == ("confound", "", "warning")
    for part in ("the file format alone tells '3' from the other classes in 9", "PNG", "chance 50 %", "instead of"):
        assert part in finding.detail


def test_every_mark_can_give_away() -> None:
    rng = np.random.default_rng(1)
    day = datetime(2021, 5, 1, 12)
    plain = PhotoMarks("JPEG", 640, 480, 100_000, "A 1", day)
    others = {
        "number of pixels": PhotoMarks("JPEG", 1280, 960, 400_000, "A 1", day),
        "shape of the picture": PhotoMarks("JPEG", 480, 640, 100_000, "A 1", day),
        "file size for its pixels": PhotoMarks("JPEG", 640, 480, 20_000, "A 1", day),
        "camera": PhotoMarks("JPEG", 640, 480, 100_000, "", day),
        "date": PhotoMarks("JPEG", 640, 480, 100_000, "A 1", day + timedelta(days=90)),
        "time of day": PhotoMarks("JPEG", 640, 480, 100_000, "A 1", day + timedelta(hours=11)),
    }
    labels = deal_labels(rng, 80, 2)
    for name, other in others.items():
        marks = [(other if (label == "1") != (rng.random() < 0.1) else plain) for label in labels]
        found = find_giveaways(marks, labels, [str(i) for i in range(80)])
        assert [g.mark.name for g in found] == [name]
        assert found[0].accuracy == pytest.approx(0.9, abs=0.1)


def test_a_giveaway_within_one_group_cannot_be_told_from_the_group() -> None:
    marks = [PhotoMarks("PNG" if i < 40 else "JPEG", 100, 100, 900) for i in range(80)]
    labels = ["a" if i < 40 else "b" for i in range(80)]
    assert find_giveaways(marks, labels, [str(i) for i in range(80)])
    assert find_giveaways(marks, labels, ["x" if i < 40 else "y" for i in range(80)]) == ()


def test_too_little_to_say_anything() -> None:
    mark = PhotoMarks("JPEG", 10, 10, 10)
    assert find_giveaways([], [], []) == ()
    assert find_giveaways([mark, None], ["a", "b"], ["1", "2"]) == ()
    assert find_giveaways([mark] * 60, ["a", "b"] * 30, [str(i) for i in range(60)]) == ()


def exif_photo(camera: str, taken: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Reco", camera, orientation
    exif.get_ifd(0x8769)[0x9003] = taken
    return encode(noise(1, 40, 60), "JPEG", exif=exif)


def marks_of(findings: Findings) -> dict[str, PhotoMarks]:
    photos = findings.catalogue.photos
    return {p.path: create_marks(p, findings.facts[p.path]) for p in photos if p.path in findings.facts}


def test_marks_are_read_from_folders_and_shards(tmp_path: Path) -> None:
    photo = exif_photo("Reco HC500", "2021:05:02 23:59:01", 6)
    write(tmp_path / "p" / "a" / "1.jpg", photo)
    write(tmp_path / "p" / "a" / "2.png", encode(noise(2), "PNG"))
    write(tmp_path / "p" / "b" / "3.webp", encode(noise(3), "WEBP"))
    write(tmp_path / "p" / "b" / "4.jpg", b"nothing")
    write(tmp_path / "p" / "b" / "5.jpg", exif_photo("X", "0000:00:00 00:00:00"))
    found = marks_of(audit(load_photos(tmp_path / "p")))
    expected = PhotoMarks("JPEG", 40, 60, len(photo), "Reco HC500", datetime(2021, 5, 2, 23, 59, 1))
    assert found["a/1.jpg"] == expected
    assert (found["a/2.png"].format, found["a/2.png"].width, found["a/2.png"].camera) == ("PNG", 60, "")
    assert found["b/3.webp"].format == "WEBP"
    assert "b/4.jpg" not in found
    assert (found["b/5.jpg"].camera, found["b/5.jpg"].taken) == ("Reco X", None)
    write(tmp_path / "s" / "x.tfrecord", shard(example(image=photo, label=1), example(image=b"no", label=0)))
    assert expected in marks_of(audit(load_photos(tmp_path / "s"))).values()


def test_a_folder_whose_classes_have_their_own_format(tmp_path: Path) -> None:
    for i in range(24):
        image = Image.fromarray(noise(i))
        for name, suffix, kind in (("bear", "png", "PNG"), ("cat", "jpg", "JPEG")):
            encoded = io.BytesIO()
            image.rotate(90 * (name == "cat")).save(encoded, kind)
            write(tmp_path / name / f"{i}.{suffix}", encoded.getvalue())
    findings = find_confounds(audit(load_photos(tmp_path)))
    assert any("the file format alone tells 'bear' from the other class in 100 %" in f.detail for f in findings)


def test_imbalance_is_noticed_above_ten() -> None:
    def photos(few: int) -> list[Photo]:
        return [*(Photo(f"{i}", "cat") for i in range(few)), *(Photo(f"d{i}", "deer") for i in range(100))]

    assert describe_imbalance(photos(10)) == ""
    said = describe_imbalance(photos(9))
    assert all(part in said for part in ("'deer' has 100", "'cat' 9", "11 times"))
    assert describe_imbalance([]) == ""


def test_marks_of_a_crop_and_what_the_source_knows(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg", exif_photo("HC500", "2021:05:02 23:59:01"))
    size = (tmp_path / "1.jpg").stat().st_size
    photo = Photo(
        "1.jpg#1", "a", container="1.jpg", camera="site 7", taken="2020-01-02T03:04:05+02:00", box=(0.5, 0, 0.5, 0.5)
    )
    (marks,) = marks_of(audit(create_catalogue(tmp_path, [photo]))).values()
    assert marks == PhotoMarks("JPEG", 30, 20, round(size / 4), "site 7", datetime(2020, 1, 2, 3, 4, 5))
