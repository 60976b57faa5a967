from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photo_files import encode, noise, write
from trap_files import (
    PHOTOS,
    camtrap_tables,
    coco,
    detection,
    megadetector,
    write_camtrap,
    write_coco,
    write_photo_files,
)

from wildtune.errors import PhotosError
from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue, load_catalogue, save_catalogue
from wildtune.photos.sources import Detections, list_photos, load_photos
from wildtune.photos.sources.camera_traps import group_by_camera
from wildtune.photos.split import split_photos
from wildtune.recipe import SplitOptions


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_photo_files(tmp_path)
    return tmp_path


def facts(catalogue: Catalogue) -> dict[str, tuple[str, str, str]]:
    return {photo.path: (photo.label, photo.camera, photo.group) for photo in catalogue.photos}


def notes(catalogue: Catalogue) -> str:
    return "\n".join(catalogue.notices)


def test_the_same_photos_from_every_source_give_the_same_catalogue(place: Path) -> None:
    for seed, (path, label, *_) in enumerate(PHOTOS):
        write(place / "folders" / label / Path(path).name, encode(noise(seed)))
    rows = "".join(f"{path},{label},{site},{time}\n" for path, label, site, _, time in PHOTOS)
    table = write(place / "list.csv", b"path,label,camera,taken\n" + rows.encode())
    package = write_camtrap(place, camtrap_tables())
    folders = load_photos(place / "folders")
    for source in (table, write_coco(place, coco()), package, place):
        found = load_photos(source)
        assert [(p.sha256, p.label) for p in found.photos] == [(p.sha256, p.label) for p in folders.photos], source
        assert found.class_names == folders.class_names == ("Capreolus capreolus", "Vulpes vulpes", "empty")
        assert facts(found) == {path: (label, site, f"camera {site}") for path, label, site, *_ in PHOTOS}
        times = {p.path: p.taken.removesuffix("+02:00") for p in found.photos}
        assert times == {path: time for path, _, _, _, time in PHOTOS}
        assert not any(p.error for p in found.photos)


def test_no_camera_is_on_two_sides(tmp_path: Path) -> None:
    content = coco()
    content["images"], content["annotations"] = [], []
    for number in range(60):
        image = {"id": number, "file_name": f"{number}.jpg", "location": number % 12, "seq_id": f"s{number}"}
        content["images"].append(image)
        content["annotations"].append({"id": number, "image_id": number, "category_id": number // 12 % 2 + 1})
        write(tmp_path / f"{number}.jpg", encode(noise(number)))
    catalogue = load_photos(write_coco(tmp_path, content))
    split = split_photos(Findings(catalogue, ()), SplitOptions())
    sides: dict[str, set[str]] = {}
    for photo, side in zip(split.photos, split.sides, strict=True):
        sides.setdefault(photo.camera, set()).add(side)
    assert len(sides) == 12
    assert all(len(found) == 1 for found in sides.values())
    assert set(split.sides) == {"train", "val", "test"}


def grouped(*photos: Photo) -> tuple[dict[str, str], str]:
    found = group_by_camera(create_catalogue(Path(), photos))
    return {photo.path: photo.group for photo in found.photos}, notes(found)


def test_groups_without_enough_cameras_are_sequences() -> None:
    photos = [Photo("1", camera="a", sequence="s"), Photo("2", camera="b"), Photo("3", sequence="s")]
    groups, said = grouped(*photos)
    assert groups == {"1": "sequence s", "2": "", "3": "sequence s"}
    assert "2 cameras, too few to keep apart" in said
    assert "1 photo without a sequence, such as 2: frames of one burst may be on two sides" in said
    assert "neither camera" not in said
    groups, said = grouped(*photos, Photo("4", camera="c"), Photo("5"), Photo("6", sequence="t"))
    assert groups == {"1": "camera a", "2": "camera b", "3": "camera a", "4": "camera c", "5": "", "6": "sequence t"}
    assert "none of the 3 is on two sides" in said
    assert "1 photo with neither camera nor sequence, such as 5" in said


def test_cameras_without_sequences_are_warned_of_bursts() -> None:
    _, said = grouped(Photo("1", camera="a"), Photo("2", camera="a"), Photo("3"))
    assert "1 camera, too few" in said
    assert "No sequence is known: frames of one burst may be on two sides of the split." in said


def test_a_sequence_is_never_torn() -> None:
    photos = [Photo(camera, camera=camera) for camera in "abcde"]
    burst = [Photo("1", sequence="s"), Photo("2", camera="a", sequence="s"), Photo("3", camera="b", sequence="s")]
    groups, said = grouped(*photos, *burst)
    assert {groups[name] for name in ("1", "2", "3", "a", "b")} == {"camera a"}
    assert len(set(groups.values())) == 4
    assert "none of the 5, 4 once those with a sequence in common are taken as one, is on two sides" in said
    groups, said = grouped(*photos[:3], *burst)
    assert {groups[name] for name in ("1", "2", "3")} == {"sequence s"}
    assert "3 cameras, 2 once those with a sequence in common are taken as one, too few" in said


def test_cameras_count_where_their_photos_are(tmp_path: Path) -> None:
    """A download of some files of many cameras is grouped by what is there, as are crops."""
    content = coco()
    content["images"], content["annotations"] = [], []
    for number in range(100):
        name = f"{number}.jpg"
        content["images"].append({"id": number, "file_name": name, "location": f"c{number}", "seq_id": f"s{number}"})
        content["annotations"].append({"id": number, "image_id": number, "category_id": number % 2 + 1})
    rows = "".join(f"{number}.jpg,x,c{number}\n" for number in range(100))
    for number in range(2):
        write(tmp_path / f"{number}.jpg", encode(noise(number)))
    for source in (write_coco(tmp_path, content), write(tmp_path / "list.csv", f"path,label,camera\n{rows}".encode())):
        found = load_photos(source)
        assert "2 cameras, too few to keep apart" in notes(found), source
        assert not any(photo.group.startswith("camera") for photo in found.photos)
    for number in range(2, 6):
        write(tmp_path / f"{number}.jpg", encode(noise(number)))
    found = load_photos(source)
    assert "none of the 6 is on two sides" in notes(found)
    seen = [{"file": f"{n}.jpg", "detections": [detection([0, 0, 0.5, 0.5], 0.9 if n < 2 else 0.1)]} for n in range(6)]
    results = write(tmp_path / "md.json", json.dumps(megadetector(seen)).encode())
    cropped = load_photos(source, detections=Detections(results))
    assert "2 cameras, too few to keep apart" in notes(cropped)
    whole = {photo.path: photo.sha256 for photo in found.photos}
    assert {p.path: p.group for p in cropped.photos if p.box} == {f"{n}.jpg#1": whole[f"{n}.jpg"] for n in range(2)}


def test_a_csv_file_with_a_camera_and_a_group_keeps_the_group(tmp_path: Path) -> None:
    rows = "a.jpg,x,north,2021-05-02 04:10,g\nb.jpg,x,,2021:05:02 04:10:00,\n"
    table = write(tmp_path / "list.csv", b"path,label,Camera,taken,group\n" + rows.encode())
    catalogue = load_photos(table, read=False)
    assert facts(catalogue) == {"a.jpg": ("x", "north", "g"), "b.jpg": ("x", "", "")}
    assert {photo.taken for photo in catalogue.photos} == {"2021-05-02T04:10:00"}
    assert catalogue.notices == ()
    write(table, b"path,label,taken\na.jpg,x,yesterday\n")
    with pytest.raises(PhotosError, match="line 2: taken must be a time"):
        load_photos(table)


def test_coco_says_what_became_of_every_photo(place: Path) -> None:
    content = coco()
    content["annotations"][1]["sequence_level_annotation"] = True
    content["annotations"][2]["id"] = "other"
    content["annotations"] += [
        {"id": "more", "image_id": "i2", "category_id": 2},
        {"id": "same", "image_id": "i0", "category_id": 2},
    ]
    del content["annotations"][4]
    content["images"][0]["datetime"] = "May 2nd"
    content["images"][1]["location"] = None
    content["categories"][0]["name"] = "Blank"
    path = write_coco(place, content)
    catalogue = load_photos(path)
    assert {p.path: p.label for p in catalogue.photos} == {
        "north/1.jpg": "Vulpes vulpes",
        "north/2.jpg": "Vulpes vulpes",
        "south/4.jpg": "empty",
    }
    for part in (
        "1 photo with several labels left out, most often Capreolus capreolus and Vulpes vulpes (1)",
        "1 photo with no label left out, such as west/5.jpg",
        "1 photo without an animal, in the class 'empty'",
        "1 photo labelled as part of a sequence",
        "1 time not understood and left empty, such as 'May 2nd'",
    ):
        assert part in notes(catalogue), part
    everything = list_photos(path)
    assert len(everything.photos) == len(PHOTOS)
    assert sorted(p.label for p in everything.photos)[:2] == ["", ""]
    assert "taken without a label" in notes(everything)


def test_coco_without_annotations_can_be_predicted(place: Path) -> None:
    path = write_coco(place, {"images": [{"id": 7, "file_name": "north\\1.jpg"}]})
    (photo,) = list_photos(path).photos
    assert (photo.path, photo.label, bool(photo.sha256)) == ("north/1.jpg", "", True)
    with pytest.raises(PhotosError, match="there is no list 'annotations'"):
        load_photos(path)


def change_coco(key: str, place: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[key][place].update(values)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (change_coco("images", 1, id="i0"), ["images[1]: the id 'i0' is that of an earlier image, north/1.jpg"]),
        (change_coco("images", 1, id=None), ["images[1]: id must be text or a whole number. Got null"]),
        (change_coco("images", 1, file_name=5), ["images[1]: file_name must be text. Got the number 5"]),
        (change_coco("images", 1, file_name="../x.jpg"), ["below the JSON file's folder. Got '../x.jpg'"]),
        (change_coco("images", 1, file_name="/x.jpg"), ["below the JSON file's folder"]),
        (change_coco("images", 1, file_name="C:\\x.jpg"), ["below the JSON file's folder"]),
        (change_coco("images", 1, file_name="a\0b"), ["below the JSON file's folder"]),
        (change_coco("images", 1, file_name="north/./1.jpg"), ["north/1.jpg is listed by images[0] already"]),
        (change_coco("images", 1, location=[1]), ["location must be text or a whole number. Got a list"]),
        (change_coco("images", 1, datetime=2021), ["datetime must be text", "Got the number 2021"]),
        (change_coco("annotations", 0, image_id="gone"), ["annotations[0]: image_id 'gone' is no image's id"]),
        (
            change_coco("annotations", 0, category_id="1"),
            ["category_id '1' is no category's id: it is text here, and the number 1 there"],
        ),
        (change_coco("annotations", 0, category_id=1.5), ["category_id must be text or a whole number"]),
        (change_coco("annotations", 0, id="a1"), ["annotations[1]: the id 'a1' is that of an earlier annotation"]),
        (change_coco("categories", 1, id=0), ["categories[1]: the id 0 is that of an earlier category, 'empty'"]),
        (change_coco("categories", 1, name=3), ["categories[1]: name must be text. Got the number 3"]),
        (lambda content: content["images"].insert(0, "x"), ["images[0] must be an object. Got the text 'x'"]),
        (lambda content: content.update(images={}), ["images must be a list. Got an empty object"]),
        (lambda content: content.pop("categories"), ["there is no list 'categories' (found: annotations"]),
        (lambda content: content["images"][0].pop("file_name"), ["Got no file_name (found: datetime"]),
    ],
)
def test_malformed_coco(place: Path, change: Callable[[dict[str, Any]], None], parts: list[str]) -> None:
    content = coco()
    change(content)
    with pytest.raises(PhotosError) as caught:
        load_photos(write_coco(place, content))
    text = str(caught.value)
    assert text.startswith(f"{place / 'metadata.json'} has ")
    assert text.endswith("Mend the file and try again.")
    for part in parts:
        assert part in text


def test_all_problems_of_a_coco_file_are_told_together(place: Path) -> None:
    content = coco()
    for image in content["images"]:
        image["file_name"] = None
    content["annotations"][0]["category_id"] = 99
    with pytest.raises(PhotosError, match=r"has 6 problems:") as caught:
        load_photos(write_coco(place, content))
    assert str(caught.value).count("\n  - ") == 6
    assert "  - and 1 more" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON: Expecting value in line 1, column 1"),
        (b'{"images": [', "is not JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b'{"images": ["\\ud800"]}', "is not UTF-8 text"),
        (b"[" * 200_000, "cannot be read"),
        (b"[1]", "of no kind that lists photos.*found a list"),
        (b'{"a": 1}', "found an object with the keys a"),
        (b"{}", "found an empty object"),
        (b'{"detection_categories": {}, "images": []}', "--detections metadata.json"),
        (b'{"images": [], "annotations": [], "categories": []}', "lists no photos with a label"),
    ],
)
def test_json_of_other_kinds(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(PhotosError, match=f"(?s){message}"):
        load_photos(write(tmp_path / "metadata.json", data))


def test_photos_that_are_not_there(place: Path) -> None:
    content = coco()
    (place / "north" / "1.jpg").unlink()
    errors = {p.path: p.error for p in load_photos(write_coco(place, content)).photos if p.error}
    assert errors == {"north/1.jpg": "no such file"}
    for source in (write_coco(place / "elsewhere", content), write_camtrap(place / "elsewhere", camtrap_tables())):
        with pytest.raises(PhotosError, match=r"(?s)None of the 5 photos .* put .*\.json into the folder"):
            load_photos(source)


def change_row(table: str, row: int, **values: str) -> Callable[[dict[str, list[dict[str, str]]]], None]:
    return lambda tables: tables[table][row].update(values)


def test_people_count_before_machines_and_photos_before_events(place: Path) -> None:
    tables = camtrap_tables()
    rows = tables["observations"]
    for number, values in enumerate(
        [
            {"mediaID": "m1", "observationType": "blank", "scientificName": ""},  # a frame of the event
            {"mediaID": "m2", "scientificName": "Canis lupus", "classificationMethod": "machine"},
            {"mediaID": "m3", "observationType": "unclassified", "scientificName": ""},
            {"mediaID": "m4", "observationType": "human", "scientificName": "Homo sapiens"},
        ]
    ):
        rows.append({**rows[1], "observationID": f"more{number}", **values})
    rows[3]["classificationMethod"] = "machine"  # of m4, where a person says otherwise
    found = load_photos(write_camtrap(place, tables))
    assert {p.path: p.label for p in found.photos} == {
        "north/1.jpg": "Vulpes vulpes",
        "north/2.jpg": "empty",
        "south/3.jpg": "Capreolus capreolus",
        "south/4.jpg": "empty",
        "west/5.jpg": "human",
    }
    assert "1 photo labelled as part of an event" in notes(found)
    assert "machine" not in notes(found)
    rows[2]["classificationMethod"] = "machine"
    assert "1 photo with a label that a machine gave" in notes(load_photos(write_camtrap(place, tables)))


def test_videos_web_addresses_and_unlabelled_photos_are_told(place: Path) -> None:
    tables = camtrap_tables()
    media = tables["media"]
    media.append({**media[0], "mediaID": "v", "filePath": "north/film.mp4", "fileMediatype": "video/mp4"})
    media[2]["filePath"] = "https://example.org/3.jpg"
    tables["observations"][2].update(observationType="unknown", scientificName="")
    package = write_camtrap(place, tables)
    found = load_photos(place)
    by_path = {p.path: p for p in found.photos}
    assert set(by_path) == {"north/1.jpg", "north/2.jpg", "https://example.org/3.jpg", "west/5.jpg"}
    assert "download it" in by_path["https://example.org/3.jpg"].error
    for part in (
        "1 video or other file that is no photo",
        "1 photo only at a web address",
        "1 photo with no label left out, such as south/4.jpg",
    ):
        assert part in notes(found)
    assert len(list_photos(package).photos) == 5
    for row in media:
        row["filePath"] = "https://example.org/" + row["filePath"]
    with pytest.raises(PhotosError, match=r"(?s)All 5 photos .* are at web addresses.*downloads no photos"):
        load_photos(write_camtrap(place, tables))


def test_a_photo_of_two_events_with_two_species_has_no_label(place: Path) -> None:
    tables = camtrap_tables()
    row = tables["observations"][0]
    tables["observations"].append({**row, "observationID": "two", "scientificName": "Meles meles"})
    found = load_photos(write_camtrap(place, tables))
    assert "2 photos with several labels left out, most often Meles meles and Vulpes vulpes (2)" in notes(found)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (change_row("media", 1, mediaID="m0"), "media.csv, line 3: mediaID 'm0' is that of line 2 already"),
        (change_row("media", 1, mediaID=""), "media.csv, line 3: mediaID is empty"),
        (change_row("media", 1, deploymentID="d9"), "media.csv, line 3: deploymentID 'd9' is not in deployments.csv"),
        (change_row("media", 1, filePath="../1.jpg"), "line 3: filePath must lead to a file below the package"),
        (change_row("media", 1, filePath="north/1.jpg"), "line 3: north/1.jpg is listed in line 2 already"),
        (change_row("media", 1, timestamp="noon"), "line 3: timestamp must be a time as 2020-03-24T11:21:46Z"),
        (change_row("observations", 1, mediaID="m9"), "observations.csv, line 3: mediaID 'm9' is not in media.csv"),
        (change_row("observations", 1, mediaID=""), "a media-based observation must have a mediaID"),
        (change_row("observations", 0, eventEnd=""), "observations.csv, line 2: eventEnd must be a time"),
        (change_row("observations", 1, observationLevel="photo"), "observationLevel must be media or event"),
        (change_row("observations", 1, observationType="fox"), "observationType must be one of animal, blank"),
        (change_row("observations", 1, deploymentID="d9"), "deploymentID 'd9' is not in deployments.csv"),
        (change_row("deployments", 1, deploymentID="d-north"), "deployments.csv, line 3: deploymentID 'd-north' is"),
        (lambda tables: tables.pop("observations"), "there is no resource 'observations', so it is no Camtrap DP"),
        (lambda tables: [row.pop("mediaID") for row in tables["media"]], "media.csv: there is no column 'mediaID'"),
    ],
)
def test_malformed_camtrap_dp(
    place: Path, change: Callable[[dict[str, list[dict[str, str]]]], None], part: str
) -> None:
    tables = camtrap_tables()
    change(tables)
    with pytest.raises(PhotosError) as caught:
        load_photos(write_camtrap(place, tables))
    text = str(caught.value)
    assert text.startswith(f"{place / 'datapackage.json'} has ")
    assert part in text


@pytest.mark.parametrize(
    ("resources", "part"),
    [
        ({}, "it must be an object whose resources are a list. Got an empty object"),
        ([{"name": "media", "path": "https://example.org/media.csv"}], "path must lead to a file below the package"),
        ([{"name": "media", "path": "../media.csv"}], "path must lead to a file below the package"),
        ([{"name": "media", "data": []}], "Got null"),
        ([{"name": "media", "path": ["gone.csv"]}], "resource 'media': there is no file gone.csv"),
    ],
)
def test_data_packages_that_are_no_camtrap_dp(tmp_path: Path, resources: Any, part: str) -> None:
    write(tmp_path / "datapackage.json", json.dumps({"resources": resources}).encode())
    with pytest.raises(PhotosError) as caught:
        load_photos(tmp_path)
    assert part in str(caught.value)


def test_a_catalogue_is_read_as_it_was_saved(place: Path) -> None:
    catalogue = load_photos(write_coco(place, coco()))
    save_catalogue(catalogue, place / "catalogue.csv")
    assert load_catalogue(place / "catalogue.csv", place).photos == catalogue.photos
