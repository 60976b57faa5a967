"""The feature cache: what is known is not computed again, and what is damaged is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from wildtune import files
from wildtune.model import features
from wildtune.model.backbone import create_classifier
from wildtune.model.engine import Engine
from wildtune.model.features import FeatureCache
from wildtune.model.preprocess import Preprocess, create_preprocess
from wildtune.photos.catalogue import Photo
from wildtune.recipe import Input

PLAIN: dict[str, object] = {"augment": None}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path))
    return []


def create(**changes: int) -> FeatureCache:
    torch.manual_seed(0)
    model = create_classifier("test_efficientnet", 3)
    pre: Preprocess = create_preprocess(Input(**changes), (0.5,) * 3, (0.5,) * 3, 32)  # type: ignore[arg-type]
    return FeatureCache(model, "test_efficientnet", pre, "torch", 1, "cpu", {})


def test_a_network_that_is_being_trained_still_gives_its_plain_features(asked: list[int]) -> None:
    torch.manual_seed(0)
    model = create_classifier("test_vit", 3)
    for module in model.modules():
        if hasattr(module, "drop_path1"):
            module.drop_path1 = torch.nn.Dropout(0.9)
    pre = create_preprocess(Input(), (0.5,) * 3, (0.5,) * 3, 160)
    cache = FeatureCache(model, "test_vit", pre, "torch", 1, "cpu", {})
    photos = [Photo("1.png", sha256="1")]
    plain = cache.load(photos, lambda i: torch.ones(3, 160, 160), PLAIN)
    model.train()
    other = cache.load(photos, lambda i: torch.ones(3, 160, 160), {"augment": "the same, under another name"})
    assert torch.equal(plain, other)


def load(cache: FeatureCache, numbers: list[int], asked: list[int], key: dict[str, object] = PLAIN) -> Tensor:
    def view(i: int) -> Tensor:
        asked.append(numbers[i])
        return torch.full((3, 32, 32), numbers[i] / 10)

    return cache.load([Photo(f"{n}.png", sha256=f"{n:064}") for n in numbers], view, key)


def test_only_photos_that_are_not_known_are_computed(asked: list[int]) -> None:
    first = load(create(), [1, 2, 3], asked)
    assert asked == [1, 2, 3]
    again = load(create(), [3, 4, 1, 4], asked)
    assert asked == [1, 2, 3, 4]
    assert torch.equal(again[[0, 2]], first[[2, 0]])
    assert torch.equal(again[1], again[3])


def test_another_view_and_another_size_are_computed_anew(asked: list[int]) -> None:
    load(create(), [1], asked)
    load(create(), [1], asked, {"augment": "another"})
    load(create(resize=40), [1], asked)
    assert asked == [1, 1, 1]


def test_each_precision_has_features_and_an_engine_of_its_own(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = features.create_engine

    def note(*arguments: object) -> Engine:
        made.append(str(arguments[-1]))
        return make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "create_engine", note)
    cache, photo = create(), [Photo("1.png", sha256="1")]
    for precision in ("float32", "bfloat16", "bfloat16", "float32"):
        cache.load(photo, lambda i: torch.ones(3, 32, 32), PLAIN, None, precision)  # type: ignore[arg-type]
    assert made == ["float32", "bfloat16"]
    assert [cache.count_missing(photo, PLAIN, kind) for kind in ("float32", "bfloat16")] == [0, 0]  # type: ignore[arg-type]
    cache.engine("bfloat16")
    assert made == ["float32", "bfloat16"]


def test_a_damaged_file_is_computed_anew(asked: list[int]) -> None:
    expected = load(create(), [1, 2], asked)
    (path,) = files.cache_folder("features").glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    assert torch.equal(load(create(), [1, 2], asked), expected)
    assert asked == [1, 2, 1, 2]
