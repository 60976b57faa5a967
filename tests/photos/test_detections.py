from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_files import encode, example, noise, shard, write
from PIL import Image
from trap_files import coco, detection, megadetector, write_coco, write_photo_files

from wildtune.errors import CommandError, PhotosError
from wildtune.photos.audit import Findings, audit
from wildtune.photos.catalogue import Catalogue, create_catalogue, load_catalogue, photo_sha256, save_catalogue
from wildtune.photos.decode import Box, create_thumbnail, decode_photo, decode_with_facts, read_size
from wildtune.photos.sources import Detections, list_photos, load_photos
from wildtune.photos.sources.detections import widen_box
from wildtune.photos.split import split_photos
from wildtune.photos.store import load_store
from wildtune.recipe import SplitOptions


def write_results(path: Path, images: list[dict[str, Any]]) -> Path:
    return write(path, json.dumps(megadetector(images)).encode())


def quarters() -> np.ndarray:
    """uint8 (80, 120, 3): red, green, blue and white quarters, each with its own shade."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60], pixels[:40, 60:] = (200, 0, 0), (0, 200, 0)
    pixels[40:, :60], pixels[40:, 60:] = (0, 0, 200), (200, 200, 200)
    return pixels


QUARTERS: dict[str, Box] = {
    "red": (0.0, 0.0, 0.5, 0.5),
    "green": (0.5, 0.0, 0.5, 0.5),
    "blue": (0.0, 0.5, 0.5, 0.5),
    "white": (0.5, 0.5, 0.5, 0.5),
}
COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "white": (200, 200, 200)}


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 8])
def test_a_box_is_cut_out_of_the_upright_photo(format_name: str, orientation: int, scale: int) -> None:
    upright = Image.fromarray(quarters().repeat(scale, axis=0).repeat(scale, axis=1))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what makes the stored photo of the upright one
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, format_name, exif=exif)
    assert read_size(data) == upright.size
    for name, box in QUARTERS.items():
        for min_side in (None, 16):
            pixels, facts = decode_with_facts(data, min_side, box)
            assert (facts.width, facts.height) == (60 * scale, 40 * scale)
            assert min(pixels.shape[:2]) >= 16
            assert pixels.flags.c_contiguous
            assert np.abs(pixels[2:-2, 2:-2].astype(int) - COLOURS[name]).max() < 40, (name, min_side)


def test_a_reduced_jpeg_keeps_the_boxs_side() -> None:
    data = encode(noise(1, 400, 1600))
    assert decode_photo(data, 100).shape[0] == 100
    assert decode_photo(data, 100, (0.0, 0.0, 0.25, 1.0)).shape == (100, 100, 3)
    assert decode_photo(data, 100, (0.0, 0.0, 0.125, 1.0)).shape == (200, 100, 3)
    assert decode_photo(data, 100, (0.9999, 0.9999, 0.0, 0.0)).shape == (1, 1, 3)
    assert Image.open(io.BytesIO(create_thumbnail(data, 50, (0.5, 0.0, 0.25, 1.0)))).size == (50, 50)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.4, 0.4, 0.2, 0.2), (0.38, 0.26, 0.24, 0.48)),  # 40 x 20 pixels become 48 x 48 about the same middle
        ((0.0, 0.9, 0.1, 0.1), (0.0, 0.76, 0.12, 0.24)),  # moved inwards at a corner
        ((0.1, 0.0, 0.8, 1.0), (0.02, 0.0, 0.96, 1.0)),  # as square as the photo allows
        ((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)),
        ((1.005, 0.5, 0.0, 0.0), (0.994, 0.494, 0.006, 0.012)),
    ],
)
def test_a_box_becomes_a_square_with_a_margin(box: Box, expected: Box) -> None:
    found = widen_box(box, 200, 100, 0.1)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[0] + found[2] <= 1.000001
    assert found[1] + found[3] <= 1.000001


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Class folders with ten photos, and results: two animals in bear/1, one in deer/*, others as named."""
    for name, seed in (("bear/1.jpg", 1), ("bear/empty.jpg", 2), ("bear/person.jpg", 3), ("bear/unseen.jpg", 4)):
        write(tmp_path / "photos" / name, encode(noise(seed, 200, 300)))
    write(tmp_path / "photos" / "bear" / "failed.jpg", encode(noise(5)))
    write(tmp_path / "photos" / "bear" / "damaged.jpg", b"\xff\xd8\xff no more")
    images = [
        {
            "file": "bear\\1.jpg",
            "detections": [
                detection([0.1, 0.1, 0.2, 0.3]),
                detection([0.5, 0.5, 0.1, 0.1], category="2"),
                detection([0.6, 0.2, 0.1, 0.1], conf=0.3),
                detection([0.7, 0.7, 0.1, 0.1], conf=0.19),
            ],
        },
        {"file": "bear/empty.jpg", "detections": [], "failure": None},
        {
            "file": "bear/person.jpg",
            "detections": [detection([0, 0, 1, 1], category="2"), detection([0, 0, 1, 1], 0.1)],
        },
        {"file": "bear/failed.jpg", "detections": None, "failure": "Failure image access"},
        {"file": "bear/damaged.jpg", "detections": [detection([0, 0, 1, 1])]},
        {"file": "film.mp4", "frame_rate": 20, "detections": [{**detection([0, 0, 1, 1]), "frame_number": 0}]},
    ]
    for number in range(4):
        write(tmp_path / "photos" / f"deer/{number}.jpg", encode(noise(10 + number, 200, 300)))
        images.append({"file": f"deer/{number}.jpg", "detections": [detection([0.2, 0.2, 0.3, 0.3])]})
    write_results(tmp_path / "photos" / "md.json", images)
    return tmp_path / "photos"


def crops(place: Path, **options: float) -> Catalogue:
    return load_photos(place, detections=Detections(place / "md.json", **options))


def test_each_animal_is_a_crop_and_nothing_is_lost_silently(place: Path) -> None:
    catalogue = crops(place)
    by_path = {photo.path: photo for photo in catalogue.photos}
    deer = {f"deer/{number}.jpg#1" for number in range(4)}
    assert set(by_path) == {"bear/1.jpg#1", "bear/1.jpg#3", "bear/damaged.jpg", "bear/failed.jpg"} | deer
    assert catalogue.class_names == ("bear", "deer")
    notes = "\n".join(catalogue.notices)
    for part in (
        "6 crops of animals from 5 photos, by md.json",
        "2 photos without an animal of confidence 0.2 or more left out as empty, such as bear/",
        "1 photo not in md.json left out, such as bear/unseen.jpg",
        "1 photo that the detector failed on set aside",
    ):
        assert part in notes, part
    assert "bear/1.jpg#4" in {photo.path for photo in crops(place, threshold=0.15).photos}
    reasons = {finding.path: finding.detail for finding in audit(catalogue).findings if finding.kind == "unreadable"}
    assert set(reasons) == {"bear/damaged.jpg", "bear/failed.jpg"}
    assert "the detector failed on it: Failure image access" in reasons["bear/failed.jpg"]


def test_every_place_that_reads_pixels_sees_the_crop(place: Path) -> None:
    catalogue = crops(place, margin=0.5)
    photo = next(photo for photo in catalogue.photos if photo.path == "bear/1.jpg#3")
    whole = decode_photo((place / "bear" / "1.jpg").read_bytes())
    left, top = round(photo.box[0] * 300), round(photo.box[1] * 200)
    expected = whole[top : top + 60, left : left + 60]
    assert (decode_photo(catalogue.read_bytes(photo), box=photo.box) == expected).all()
    store = load_store(catalogue, [photo], lambda data, box: decode_photo(data, box=box), "whole")
    assert (store[0] == expected).all()
    small = next(p for p in crops(place, margin=0).photos if p.path == "bear/1.jpg#3")
    findings = audit(create_catalogue(place, [small])).findings
    assert [(f.kind, f.detail[:42]) for f in findings] == [("tiny", "kept: only 30 x 30 pixels in the crop, sho")]


def test_a_crop_is_known_by_its_photo_and_its_box(place: Path, tmp_path: Path) -> None:
    catalogue = crops(place)
    first, second = (p for p in catalogue.photos if p.file_name == "bear/1.jpg")
    data = (place / "bear" / "1.jpg").read_bytes()
    own = hashlib.sha256(data).hexdigest()
    assert len({first.sha256, second.sha256, own}) == 3
    assert first.sha256 == photo_sha256(data, first.box)
    shares = " ".join(f"{share:.6f}" for share in first.box)
    assert first.sha256 == hashlib.sha256(f"{own} {shares}".encode()).hexdigest()
    assert first.group == second.group == own
    save_catalogue(catalogue, tmp_path / "catalogue.csv")
    assert load_catalogue(tmp_path / "catalogue.csv", place).photos == catalogue.photos
    unread = load_photos(place, read=False, detections=Detections(place / "md.json"))
    assert {p.path: p.box for p in unread.photos} == {p.path: p.box for p in catalogue.photos}
    assert {p.sha256 for p in unread.photos} == {""}
    assert {p.group for p in unread.photos if p.file_name == "bear/1.jpg"} == {"bear/1.jpg"}


def test_crops_of_one_photo_are_never_on_two_sides_and_go_where_it_would(tmp_path: Path) -> None:
    images = []
    for number in range(40):
        name = f"{'ab'[number % 2]}/{number}.jpg"
        write(tmp_path / name, encode(noise(number)))
        boxes = [[0.1 * k, 0.1 * k, 0.2, 0.2] for k in range(2)]
        images.append({"file": name, "detections": [detection(box) for box in boxes]})
    results = Detections(write_results(tmp_path / "md.json", images))
    whole = split_photos(Findings(load_photos(tmp_path), ()), SplitOptions())
    cropped = split_photos(Findings(load_photos(tmp_path, detections=results), ()), SplitOptions())
    side_of = dict(zip((p.path for p in whole.photos), whole.sides, strict=True))
    assert len(cropped.photos) == 80
    for photo, side in zip(cropped.photos, cropped.sides, strict=True):
        assert side == side_of[photo.file_name]


def test_crops_keep_their_photos_camera_group_and_split(tmp_path: Path) -> None:
    write_photo_files(tmp_path)
    content = coco()
    images = [{"file": i["file_name"], "detections": [detection([0, 0, 0.5, 0.5])]} for i in content["images"]]
    results = Detections(write_results(tmp_path / "md.json", images))
    found = {p.path: p for p in load_photos(write_coco(tmp_path, content), detections=results).photos}
    photo = found["west/5.jpg#1"]
    assert (photo.camera, photo.group, photo.taken) == ("west", "camera west", "2021-05-05T06:30:00")
    assert photo.label == "Capreolus capreolus"


def test_crops_of_photos_in_shards(tmp_path: Path) -> None:
    data = encode(quarters(), "PNG")
    record = example(image__encoded=data, image__class__text=b"bear", image__filename=b"1.jpg")
    write(tmp_path / "x.tfrecord", shard(record))
    box = detection([0.6, 0.1, 0.2, 0.2])
    results = write_results(tmp_path / "md.json", [{"file": "1.jpg", "detections": [box]}])
    catalogue = load_photos(tmp_path / "x.tfrecord", detections=Detections(results))
    (photo,) = catalogue.photos
    assert (photo.path, photo.container) == ("1.jpg#1", "x.tfrecord")
    pixels = decode_photo(catalogue.read_bytes(photo), box=photo.box)
    assert (pixels == COLOURS["green"]).all()
    assert [f.kind for f in audit(catalogue).findings] == ["misnamed", "tiny", "blank"]


@pytest.mark.parametrize("kind", ["from the photos' parent", "absolute", "beside the results"])
def test_files_are_found_however_they_are_named(place: Path, kind: str) -> None:
    results = place.parent / "md.json" if kind != "absolute" else place.parent / "elsewhere" / "md.json"
    start = {"from the photos' parent": "photos/", "absolute": f"{place}/", "beside the results": "./photos/"}[kind]
    write_results(results, [{"file": f"{start}bear/1.jpg", "detections": [detection([0, 0, 1, 1])]}])
    (photo,) = list_photos(place / "bear", detections=Detections(results)).photos
    assert photo.path == "1.jpg#1"


def change_box(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["images"][0]["detections"][0].update(values)


def change_image(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["images"][0].update(values)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (change_box(category=1), 'images[0].detections[0]: category must be text, as "1". Got the number 1'),
        (change_box(conf="0.9"), "conf must be a number from 0 to 1. Got the text '0.9'"),
        (change_box(conf=90), "conf must be a number from 0 to 1. Got the number 90"),
        (change_box(conf=True), "Got true"),
        (change_box(bbox=[10, 20, 200, 100]), "as shares from 0 to 1. Got [10, 20, 200, 100]"),
        (change_box(bbox=[0, 0, 1]), "Got [0, 0, 1]"),
        (change_box(bbox=["0", 0, 1, 1]), "bbox must be [x_min, y_min, width, height]"),
        (change_box(bbox=[float("nan"), 0, 1, 1]), "bbox must be"),
        (change_box(bbox=None), "Got null"),
        (change_image(detections=None), "images[0]: detections must be a list where there is no failure. Got null"),
        (change_image(detections=["x"]), "images[0].detections[0] must be an object. Got the text 'x'"),
        (change_image(file=3), "images[0] must be an object whose file is text"),
        (change_image(failure=3), "images[0]: failure must be text or null. Got the number 3"),
        (change_image(file="./bear/empty.jpg"), "images[1]: bear/empty.jpg is in images[0] already"),
        (lambda content: content["images"].insert(0, 5), "images[0] must be an object"),
        (lambda content: content.update(detection_categories={"1": "person"}), "no detection category is named"),
        (lambda content: content.update(detection_categories=["animal"]), "must be an object of names by id"),
        (lambda content: content.update(info={"format_version": "2.0"}), "must be 1.x. Got the text '2.0'"),
    ],
)
def test_malformed_results(place: Path, change: Callable[[dict[str, Any]], None], part: str) -> None:
    content = json.loads((place / "md.json").read_text())
    change(content)
    (place / "md.json").write_text(json.dumps(content))
    with pytest.raises(PhotosError) as caught:
        crops(place)
    assert str(caught.value).startswith(f"{place / 'md.json'} has ")
    assert part in str(caught.value)


def test_results_of_other_photos_or_other_kinds(place: Path) -> None:
    write_results(place / "md.json", [{"file": "x/1.jpg", "detections": []}])
    with pytest.raises(PhotosError, match=r"(?s)None of the photos is in .* names files as x/1\.jpg.*Run the detector"):
        crops(place)
    write_results(place / "md.json", [{"file": "bear/1.jpg", "detections": [detection([0, 0, 1, 1], 0.1)]}])
    with pytest.raises(PhotosError, match=r"confidence 0\.2 or more") as caught:
        crops(place)
    assert str(caught.value).endswith("Lower the threshold.")
    for data in (b"[]", b'{"images": {}}', b'{"annotations": []}'):
        write(place / "md.json", data)
        with pytest.raises(PhotosError, match="holds no results of MegaDetector"):
            crops(place)
    for values in ({"threshold": 1.5}, {"margin": -1}, {"threshold": float("nan")}):
        with pytest.raises(CommandError, match="must be from 0 to"):
            replace(Detections("md.json"), **values)


def test_missing_results_are_said_before_the_photos_are_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Catalogue, "read_bytes", lambda *_: pytest.fail("a photo was read"))
    for load in (load_photos, list_photos):
        with pytest.raises(PhotosError) as caught:
            load(place, detections=Detections(place / "md.jsn"))
        assert str(caught.value).endswith(f"Did you mean {place / 'md.json'}?\nCheck the path.")
        assert "permissions" not in str(caught.value)
        with pytest.raises(PhotosError, match="has no 'gone'\\.\nCheck the path"):
            load(place, detections=Detections(place / "gone" / "other.txt"))
        with pytest.raises(PhotosError, match="is a folder, not a file of detections"):
            load(place, detections=Detections(place / "bear"))
