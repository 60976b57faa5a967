"""What every test stands on: its own cache folder, one thread, and class folders of small generated photos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shapes import write_photos


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache out of the tests, and the tests out of it; tiny networks run best on one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["WILDTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 16 small photos in each of three classes."""
    return write_photos(tmp_path_factory.mktemp("photos") / "shapes", 16)
