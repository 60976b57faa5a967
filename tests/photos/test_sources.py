from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from photo_files import encode, example, noise, shard, write

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.sources import list_photos, load_photos

PHOTOS = {"bear/1.jpg": 1, "bear/deep/2.jpg": 2, "deer/3.png": 3, "deer/4.PNG": 4, "deer/copy.jpg": 1}


def make_folder(root: Path) -> dict[str, bytes]:
    data = {
        name: encode(noise(seed), "PNG" if "g" in name[-1].lower() and "png" in name.lower() else "JPEG")
        for name, seed in PHOTOS.items()
    }
    for name, content in data.items():
        write(root / name, content)
    return data


def seen(catalogue: Catalogue) -> list[tuple[str, str]]:
    assert all(not p.error for p in catalogue.photos)
    import hashlib

    for photo in catalogue.photos:
        assert hashlib.sha256(catalogue.read_bytes(photo)).hexdigest() == photo.sha256
    return [(p.sha256, p.label) for p in catalogue.photos]


@pytest.mark.parametrize("packed", [False, True])
def test_same_catalogue_from_every_source(tmp_path: Path, packed: bool) -> None:
    data = make_folder(tmp_path / "folder")
    folder = load_photos(tmp_path / "folder")
    assert sorted(p.path for p in folder.photos) == sorted(PHOTOS)
    assert folder.class_names == ("bear", "deer")
    assert folder.notices == ()
    rows = "".join(f"folder\\{name.replace('/', chr(92))};{name.split('/')[0]}\r\n" for name in data)
    table = write(tmp_path / "list.csv", ("\ufeff Path ;LABEL\r\n" + rows).encode())
    records = [example(image__encoded=d, image__class__text=n.split("/")[0].encode()) for n, d in data.items()]
    for i, part in enumerate((records[:2], records[2:])):
        content = shard(*part)
        name = f"x.tfrecord-0000{i}-of-00002"
        write(tmp_path / "tf" / name, gzip.compress(content) if packed else content)
    for source in (table, tmp_path / "tf"):
        other = load_photos(source)
        assert seen(other) == seen(folder)
        assert other.class_names == folder.class_names
    assert {p.path for p in load_photos(table).photos} == {f"folder/{name}" for name in PHOTOS}


def test_folder_notices(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for name in ("loose.jpg", "bear/notes.txt", "bear/.hidden.jpg", "bear/Thumbs.db", "__MACOSX/x/1.jpg"):
        write(tmp_path / name, b"x")
    (tmp_path / "empty").mkdir()
    catalogue = load_photos(tmp_path)
    assert len(catalogue.photos) == len(PHOTOS)
    text = "\n".join(catalogue.notices)
    assert len(catalogue.notices) == 3
    for part in ("loose.jpg", "1 file passed over", "bear/notes.txt", "folder empty holds no photos"):
        assert part in text


def test_own_split_folders(tmp_path: Path) -> None:
    for i, name in enumerate(("Train/a/1.jpg", "Train/b/2.jpg", "valid/a/3.jpg", "test/b/4.jpg")):
        write(tmp_path / name, encode(noise(i)))
    catalogue = load_photos(tmp_path)
    assert {p.path: (p.label, p.split) for p in catalogue.photos} == {
        "Train/a/1.jpg": ("a", "train"),
        "Train/b/2.jpg": ("b", "train"),
        "valid/a/3.jpg": ("a", "val"),
        "test/b/4.jpg": ("b", "test"),
    }


def test_links_do_not_loop_and_broken_ones_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jpg", encode(noise(1)))
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    catalogue = load_photos(tmp_path)
    assert sorted((p.path, p.error) for p in catalogue.photos)[:2] == [
        ("a/1.jpg", ""),
        ("a/gone.jpg", "no such file"),
    ]


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jpg", encode(noise(1)))
    os.rename(tmp_path / "a" / "1.jpg", os.fsencode(tmp_path / "a") + b"/\xff.jpg")
    (photo,) = load_photos(tmp_path).photos
    photo.path.encode()
    assert "not valid UTF-8" in photo.error


def test_missing_sources(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    with pytest.raises(PhotosError, match=r"Did you mean .*photos\?"):
        load_photos(tmp_path / "photoes")
    write(tmp_path / "flat" / "1.jpg", b"x")
    with pytest.raises(PhotosError, match="in no class folder"):
        load_photos(tmp_path / "flat")
    (tmp_path / "none").mkdir()
    for load in (load_photos, list_photos):
        with pytest.raises(PhotosError):
            load(tmp_path / "none")
    with pytest.raises(PhotosError, match="sub-folder per class"):
        load_photos(write(tmp_path / "a.zip", b"PK"))


def test_table_problems_together(tmp_path: Path) -> None:
    rows = "a.jpg,bear,\nb.jpg,,\nc.jpg,deer,nowhere\na.jpg,deer,\n./a.jpg,bear,val\n,x,\nd.jpg,,\n"
    table = write(tmp_path / "list.csv", b"path,label,split\n" + rows.encode())
    with pytest.raises(PhotosError) as caught:
        load_photos(table)
    text = str(caught.value)
    for part in ("6 problems", "line 3", "line 4", "'deer' here and 'bear' in line 2", "and 1 more"):
        assert part in text
    with pytest.raises(PhotosError, match="rename 'labels'"):
        load_photos(write(tmp_path / "x.csv", b"path,labels\na.jpg,bear\n"))


def test_table_paths_and_missing_files(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out.jpg"
    write(inside / "a.jpg", encode(noise(1)))
    write(outside, encode(noise(2)))
    rows = f"./a.jpg,x,g1,TRAIN\n../out.jpg,x,,\n{inside}/a.jpg,x,g1,train\ngone.jpg,y,,validation\n"
    catalogue = load_photos(write(inside / "list.csv", b"path,label,group,split\n" + rows.encode()))
    by_path = {p.path: p for p in catalogue.photos}
    assert set(by_path) == {"a.jpg", str(outside), "gone.jpg"}
    assert (by_path["a.jpg"].group, by_path["a.jpg"].split) == ("g1", "train")
    assert by_path["gone.jpg"].error == "no such file"
    assert "1 repeated row left out" in catalogue.notices[0]


@pytest.mark.parametrize("label", [2, [0, 0, 1], [0.1, 0.2, 0.7], b"2"])
def test_labels_in_shards(tmp_path: Path, label: object) -> None:
    path = write(tmp_path / "x.tfrecord", shard(example(image=encode(noise(1)), image__label=label)))
    assert load_photos(path).photos[0].label == "2"
    if label != b"2":
        for name, text in (("labels.txt", "bear\ndeer\nlynx\n"), ("labels.txt", "0:bear\n2: lynx\n")):
            write(tmp_path / name, text.encode())
            assert load_photos(path).photos[0].label == "lynx"


def test_shard_names_groups_splits(tmp_path: Path) -> None:
    def record(seed: int, name: bytes) -> bytes:
        return example(
            image__encoded=encode(noise(seed)),
            label=1,
            image__filename=name,
            image__group=b"g",
            image__split=b"Validation",
        )

    write(tmp_path / "x.tfrec", shard(record(1, b"one.jpg"), record(2, b"same.jpg"), record(3, b"same.jpg")))
    photos = load_photos(tmp_path).photos
    assert sorted(p.path for p in photos) == ["one.jpg", "x.tfrec#1", "x.tfrec#2"]
    assert {(p.group, p.split, p.container) for p in photos} == {("g", "val", "x.tfrec")}


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_shards(tmp_path: Path, packed: bool) -> None:
    records = [example(image__encoded=encode(noise(i)), label=i) for i in range(3)]
    whole = shard(*records)
    start = len(shard(*records[:1]))
    for place in (start + 3, start + 9, start + 100, len(shard(*records[:2])) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path = write(tmp_path / "x.tfrecord", gzip.compress(damaged) if packed else bytes(damaged))
        with pytest.raises(PhotosError, match=r"x\.tfrecord is damaged at record 1"):
            load_photos(path)
    for length in (start + 5, start + 200):
        path = write(tmp_path / "x.tfrecord", gzip.compress(whole[:length]) if packed else whole[:length])
        with pytest.raises(PhotosError, match="record 1: the file ends within it"):
            load_photos(path)
    path = write(tmp_path / "x.tfrecord", gzip.compress(whole)[:-30])
    with pytest.raises(PhotosError, match="damaged or truncated gzip"):
        load_photos(path)


def test_shards_that_lack_something(tmp_path: Path) -> None:
    unlabelled = write(tmp_path / "a.tfrecord", shard(example(image=encode(noise(1)))))
    with pytest.raises(PhotosError, match="no label in record 0"):
        load_photos(unlabelled)
    assert list_photos(unlabelled).photos[0].label == ""
    with pytest.raises(PhotosError, match="no encoded image in record 0"):
        load_photos(write(tmp_path / "b.tfrecord", shard(example(label=1))))
    with pytest.raises(PhotosError, match=r"no tf\.train\.Example in record 0"):
        load_photos(write(tmp_path / "c.tfrecord", shard(b"\xff\xff\xff")))


def test_list_photos(tmp_path: Path) -> None:
    for name in ("1.jpg", "cam/day/2.jpg", "cam/raw.nef", "cam/odd", "notes.txt", ".hidden.jpg", "film.mp4"):
        write(tmp_path / name, b"")
    catalogue = list_photos(tmp_path)
    labels = {p.path: p.label for p in catalogue.photos}
    assert labels == {"1.jpg": "", "cam/day/2.jpg": "cam", "cam/raw.nef": "cam", "cam/odd": "cam"}
    (photo,) = list_photos(write(tmp_path / "one.jpg", encode(noise(1)))).photos
    assert (photo.path, photo.label) == ("one.jpg", "")
    table = write(tmp_path / "list.csv", b"path\none.jpg\n")
    assert list_photos(table).photos[0].sha256 == photo.sha256
    with pytest.raises(PhotosError, match="label"):
        load_photos(table)


def test_names_only(tmp_path: Path) -> None:
    make_folder(tmp_path)
    catalogue = load_photos(tmp_path, read=False)
    assert [p.sha256 for p in catalogue.photos] == [""] * len(PHOTOS)
