from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from photo_files import encode, scene, write
from PIL import Image

from wildtune.photos.audit import audit
from wildtune.photos.catalogue import Photo
from wildtune.photos.decode import decode_with_facts
from wildtune.photos.groups import folder_of, group_photos
from wildtune.photos.sources import load_photos


def shot(path: str, taken: str = "", camera: str = "", group: str = "") -> Photo:
    digest = hashlib.sha256(path.encode()).hexdigest()
    return Photo(path, path.split("/")[0], digest, group, camera=camera, taken=taken)


def together(photos: list[Photo], group_by: str = "auto", near: dict[str, str] | None = None) -> set[frozenset[str]]:
    groups, _ = group_photos(photos, near or {}, {}, group_by)
    assert sorted(i for group in groups for i in group.photos) == list(range(len(photos)))
    return {frozenset(photos[i].path for i in group.photos) for group in groups if len(group.photos) > 1}


def test_bursts_are_of_one_camera_and_a_minute_from_shot_to_shot() -> None:
    photos = [
        shot("a/1", "2021-05-02T10:00:00", "X"),
        shot("a/2", "2021-05-02T10:01:00", "X"),
        shot("b/3", "2021-05-02T10:01:59", "X"),
        shot("a/4", "2021-05-02T10:03:00", "X"),
        shot("a/5", "2021-05-02T10:00:30", "Y"),
        shot("a/6", "2021-05-02T12:00:30+02:00", "Y"),
        shot("a/7", "", "X"),
        shot("a/8", "yesterday", "X"),
    ]
    assert together(photos) == {frozenset(("a/1", "a/2", "b/3")), frozenset(("a/5", "a/6"))}
    assert together(photos, "none") == set()
    _, notices = group_photos(photos, {}, {}, "auto")
    assert notices == ["5 photos are of 2 bursts, at most 60 s from shot to shot; each stays on one side."]


def test_without_a_camera_the_folder_stands_for_it() -> None:
    photos = [shot("a/x/1", "2021-05-02T10:00:00"), shot("a/x/2", "2021-05-02T10:00:01")]
    assert together([*photos, shot("a/y/3", "2021-05-02T10:00:00")]) == {frozenset(("a/x/1", "a/x/2"))}


def test_dates_without_a_time_make_no_burst() -> None:
    assert together([shot("a/1", "2021-05-02"), shot("a/2", "2021-05-02T00:00:00")]) == set()


def test_folders_and_cameras() -> None:
    photos = [shot("a/cam1/1"), shot("a/cam1/day2/2"), shot("b/cam1/3"), shot("b/cam2/4", camera="Z"), shot("a/5")]
    photos.append(shot("b/6", camera="Z"))
    assert together(photos) == set()
    assert "Photos lie in 2 sub-folders" in group_photos(photos, {}, {}, "auto")[1][-1]
    assert together(photos, "folder") == {frozenset(("a/cam1/1", "a/cam1/day2/2", "b/cam1/3"))}
    assert together(photos, "camera") == {frozenset(("b/cam2/4", "b/6"))}
    assert folder_of(Photo("other/place/1.jpg", "bear")) == "other/place"
    assert folder_of(Photo("train/bear/cam/1.jpg", "bear")) == "cam"
    assert "No photo has a camera" in group_photos([shot("a/1")], {}, {}, "camera")[1][-1]


def test_all_ties_are_united_and_names_lead() -> None:
    photos = [
        shot("a/1", "2021-05-02T10:00:00", "X"),
        shot("a/2", "2021-05-02T10:00:10", "X"),
        shot("a/3", group="pond"),
        shot("a/4", group="pond"),
        shot("a/5"),
    ]
    near = {"a/2": "a/2", "a/3": "a/2"}
    groups, _ = group_photos(photos, near, {}, "auto")
    assert [(g.key, g.name, g.photos) for g in groups] == [
        ("pond", "pond", (0, 1, 2, 3)),
        (photos[4].sha256, "", (4,)),
    ]
    groups, _ = group_photos(photos[:2], {}, {}, "auto")
    assert (groups[0].key, groups[0].name) == (photos[0].sha256, "a/1")


@pytest.mark.parametrize(
    ("tags", "more", "camera", "taken"),
    [
        ({271: "RECONYX", 272: "RECONYX HP2X"}, {36867: "2021:05:02 10:11:12", 42033: "H1"}, "RECONYX HP2X H1", "T10"),
        ({271: "Canon", 272: "EOS\x00"}, {36867: "2021:05:02 10:11:12"}, "Canon EOS in a", "T10"),
        ({271: "Canon"}, {36867: "0000:00:00 00:00:00"}, "Canon in a", ""),
        ({}, {36867: "    :  :     :  :  "}, "", ""),
        ({}, {}, "", ""),
    ],
)
def test_camera_and_time_come_from_exif(
    tmp_path: Path, tags: dict[int, str], more: dict[int, str], camera: str, taken: str
) -> None:
    exif = Image.Exif()
    exif.update(tags)
    exif.get_ifd(0x8769).update(more)
    data = encode(scene(1), exif=exif)
    _, facts = decode_with_facts(data)
    assert facts.taken == ("2021-05-02T10:11:12" if taken else "")
    write(tmp_path / "a" / "1.jpg", data)
    write(tmp_path / "a" / "2.jpg", encode(scene(2)))
    write(tmp_path / "a" / "3.jpg", encode(scene(3), exif=exif))
    write(tmp_path / "b" / "4.jpg", encode(scene(4), exif=exif))
    findings = audit(load_photos(tmp_path))
    groups, _ = group_photos(findings.usable, findings.near_groups, findings.facts, "camera")
    names = {findings.usable[i].path: group.name for group in groups for i in group.photos}
    assert names["a/1.jpg"] == names["a/3.jpg"] == (f"camera {camera}" if camera else "")
    assert names["a/2.jpg"] == ""
    assert (names["b/4.jpg"] == names["a/1.jpg"]) == (not camera or facts.serial != "")
    taken_together = len(group_photos(findings.usable[:], {}, findings.facts, "auto")[0]) < 4
    assert taken_together == bool(taken)
