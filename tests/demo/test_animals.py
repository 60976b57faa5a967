"""The generated photos: the same for a seed, of the promised sizes, the faults where they are said to be."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wildtune.demo.animals import PLANTED_FAULTS, SPECIES, draw_animal, write_demo_photos
from wildtune.demo.species import DEMO_SPECIES, random_species
from wildtune.errors import CommandError


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_demo_photos(folder, seed=3, per_species=3)
    return folder


def test_same_seed_same_bytes(photos: Path, tmp_path: Path) -> None:
    write_demo_photos(tmp_path, seed=3, per_species=3)
    assert digests(tmp_path) == digests(photos)


def test_more_photos_keep_the_first_ones(photos: Path, tmp_path: Path) -> None:
    write_demo_photos(tmp_path, seed=3, per_species=1)
    few, many = digests(tmp_path), digests(photos)
    assert few.items() <= many.items()


def test_another_seed_other_photos(photos: Path, tmp_path: Path) -> None:
    write_demo_photos(tmp_path, seed=4, per_species=1)
    name = "bushy_fox/bushy_fox_001.jpg"
    assert digests(tmp_path)[name] != digests(photos)[name]


def test_one_folder_a_species_and_no_leftovers(photos: Path) -> None:
    assert sorted(path.name for path in photos.iterdir()) == list(SPECIES)
    assert len(digests(photos)) == 3 * len(SPECIES) + len(PLANTED_FAULTS)


def test_planted_faults_are_there(photos: Path) -> None:
    found = digests(photos)
    assert set(PLANTED_FAULTS) <= set(found)
    assert found["bushy_fox/IMG_0901.jpg"] == found["bushy_fox/bushy_fox_001.jpg"]
    assert found["humped_bear/IMG_0902.jpg"] == found["humped_bear/humped_bear_001.jpg"]
    assert found["slim_jackal/IMG_0903.jpg"] == found["plain_deer/plain_deer_001.jpg"]
    with pytest.raises(OSError, match="truncated"):
        Image.open(photos / "spotted_cat/IMG_0904.jpg").load()
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(photos / "patched_horse/IMG_0905.jpg")
    assert Image.open(photos / "plain_deer/IMG_0906.jpg").convert("L").getextrema() in {
        (9, 9),
        (9, 10),
        (10, 10),
    }
    assert Image.open(photos / "striped_horse/IMG_0907.jpg").format == "PNG"
    assert Image.open(photos / "spotted_deer/IMG_0908.png").mode == "RGBA"


def test_the_other_files_are_sound_photos(photos: Path) -> None:
    for name in set(digests(photos)) - set(PLANTED_FAULTS):
        with Image.open(photos / name) as image:
            assert image.mode == "RGB"
            assert image.format == ("PNG" if name.endswith(".png") else "JPEG")
            assert 200 <= min(image.size) <= max(image.size) <= 480
            assert np.asarray(image).std() > 5


def test_invented_species_can_be_drawn_small() -> None:
    rng = np.random.default_rng(0)
    for index in range(12):
        image = draw_animal(random_species(str(index), rng), rng, scale=0.5)
        assert 100 <= min(image.size) <= 150


def test_demo_species_differ_by_more_than_their_name() -> None:
    assert len({replace(species, name="") for species in DEMO_SPECIES.values()}) == 8


def test_no_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"at least 1\. Got 0"):
        write_demo_photos(tmp_path, per_species=0)
