"""What every test stands on: its own cache folder, one thread, class folders of small generated photos, a start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from shapes import BACKBONE, write_photos
from wildtune.model.backbone import create_classifier
from wildtune.report import figures


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache out of the tests, and the tests out of it.

    One thread, on which tiny networks run best, and no GPU, so that plans are the same on every machine.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    os.environ["WILDTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 16 small photos in each of three classes."""
    return write_photos(tmp_path_factory.mktemp("photos") / "shapes", 16)


@pytest.fixture(scope="session")
def start_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for the smallest network, with a head for other classes, so that features mean something."""
    path = tmp_path_factory.mktemp("weights") / "start.pth"
    torch.manual_seed(0)
    torch.save(create_classifier(BACKBONE, 7).state_dict(), path)
    return path


@pytest.fixture
def blank_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a report's charts blank: drawing them takes longer than training the smallest network."""
    monkeypatch.setattr(figures, "draw", lambda name, *_: f'<svg xmlns="http://www.w3.org/2000/svg" id="{name}"/>')
