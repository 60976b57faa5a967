from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, noise, write

from wildtune.errors import PhotosError
from wildtune.photos import store as store_module
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.decode import Box, decode_photo
from wildtune.photos.sources import load_photos
from wildtune.photos.store import load_store


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    for i, (height, width) in enumerate(((30, 50), (64, 64), (300, 200), (130, 700))):
        format_name = ("JPEG", "PNG")[i % 2]
        write(
            tmp_path / "in" / "ab"[i % 2] / f"{i}.{format_name.lower()}",
            encode(noise(i, height, width), format_name),
        )
    return load_photos(tmp_path / "in")


def half(data: bytes, box: Box | None = None) -> np.ndarray:
    return decode_photo(data, box=box)[::2, ::2]


def whole_photo(data: bytes, box: Box | None = None) -> np.ndarray:
    return decode_photo(data, box=box)


def test_store_holds_what_is_prepared_of_each_photo(catalogue: Catalogue) -> None:
    calls: list[tuple[int, int]] = []
    tell = lambda done, total: calls.append((done, total))  # noqa: E731
    store = load_store(catalogue, catalogue.photos, half, "half", progress=tell)
    assert calls == [(i, 4) for i in range(1, 5)]
    assert len(store) == 4
    for i, photo in enumerate(catalogue.photos):
        assert store[i].dtype == np.uint8
        assert not store[i].flags.writeable
        assert (store[i] == half(catalogue.read_bytes(photo))).all()
    assert (store[-1] == store[3]).all()
    with pytest.raises(IndexError):
        store[4]
    again = pickle.loads(pickle.dumps(store))
    assert (again[2] == store[2]).all()
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store[0]


def test_views_stay_right_when_memory_is_let_go(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LET_GO_AFTER", 1)
    store = load_store(catalogue, catalogue.photos, half, "half")
    views = [store[i] for i in (0, 1, 2, 3, 2, 1, 0)]
    for view, i in zip(views, (0, 1, 2, 3, 2, 1, 0), strict=True):
        assert (view == half(catalogue.read_bytes(catalogue.photos[i]))).all()


def test_store_is_made_once(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_store(catalogue, catalogue.photos, half, "half")
    monkeypatch.setattr(store_module, "_create_store", lambda *_: pytest.fail("made twice"))
    assert (load_store(catalogue, catalogue.photos, half, "half")[3] == first[3]).all()


def test_the_key_and_the_photos_name_the_store(catalogue: Catalogue) -> None:
    whole = load_store(catalogue, catalogue.photos, whole_photo, "whole")
    other = load_store(catalogue, catalogue.photos, half, "half")
    assert whole[0].shape != other[0].shape
    assert load_store(catalogue, catalogue.photos[::-1], half, "half").folder != other.folder


def test_damaged_store_is_made_again(catalogue: Catalogue) -> None:
    first = load_store(catalogue, catalogue.photos, half, "half")
    expected = first[0].copy()
    first.close()
    with open(first.folder / "pixels.bin", "ab") as handle:
        handle.write(b"x")
    assert (load_store(catalogue, catalogue.photos, half, "half")[0] == expected).all()


def test_an_interrupt_leaves_nothing(catalogue: Catalogue, cache: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_store(catalogue, catalogue.photos, half, "half", progress=interrupt)
    assert list((cache / "store").iterdir()) == []


def test_what_a_killed_process_left_is_removed(catalogue: Catalogue, cache: Path) -> None:
    child = os.fork()
    if child == 0:  # dies as if killed, in the middle of writing
        load_store(catalogue, catalogue.photos, half, "half", progress=lambda done, total: os._exit(9))
        os._exit(0)
    os.waitpid(child, 0)
    (leftover,) = (cache / "store").iterdir()
    assert leftover.name.endswith(".part")
    alive = cache / "store" / f"0.{store_module._host()}.{os.getpid()}.x.part"
    alive.mkdir()
    store = load_store(catalogue, catalogue.photos, half, "half")
    assert set((cache / "store").iterdir()) == {store.folder, alive}


def test_changed_and_missing_photos(catalogue: Catalogue) -> None:
    path = catalogue.root / catalogue.photos[0].path
    path.write_bytes(encode(noise(9)))
    with pytest.raises(PhotosError, match="has changed"):
        load_store(catalogue, catalogue.photos, half, "half")
    path.unlink()
    with pytest.raises(PhotosError, match="no such file"):
        load_store(catalogue, catalogue.photos, half, "half")
    with pytest.raises(PhotosError, match="content of"):
        load_store(catalogue, load_photos(catalogue.root, read=False).photos, half, "half")


def test_no_photos(catalogue: Catalogue) -> None:
    assert len(load_store(catalogue, (), half, "half")) == 0
