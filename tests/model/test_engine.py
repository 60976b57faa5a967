"""What runs a network forward: the same numbers for a photo whatever runs beside it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wildtune import runtime
from wildtune.model import engine as engines
from wildtune.model import saved_networks
from wildtune.model.backbone import create_classifier
from wildtune.model.engine import Engine, TrainingEngine, create_engine, find_engine
from wildtune.runtime import Precision, has_fast_bfloat16

IMAGES = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def create(kind: str, threads: int = 2, identity: str = "", precision: Precision = "float32") -> Engine:
    """Make an engine of a network so small that taking it over takes no time to speak of."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ]
    return create_engine(nn.Sequential(*layers), 32, kind, threads, identity=identity, precision=precision)


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_a_photo_gets_the_same_numbers_alone_and_in_any_company(kind: str) -> None:
    pytest.importorskip("openvino")
    engine = create(kind)
    assert engine.kind == kind
    together = engine.run_all(11, lambda i: IMAGES[i])
    backwards = engine.run_all(11, lambda i: IMAGES[10 - i]).flip(0)
    if kind == "openvino":  # one photo at a time, so that not even its place in a batch matters
        assert torch.equal(together, backwards)
    torch.testing.assert_close(together, backwards, atol=1e-5, rtol=1e-5)
    assert torch.equal(engine(IMAGES[4:5]), engine(IMAGES[4:6])[:1])


def test_bfloat16_gives_the_numbers_of_float32_but_for_rounding_or_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    compiled: list[str] = []
    make = engines._create_openvino

    def note(network: object, streams: int, precision: Precision = "float32") -> Engine:
        compiled.append(precision)
        return make(network, streams, precision)

    monkeypatch.setattr(engines, "_create_openvino", note)
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path))
    exact = create("openvino")
    for _ in range(2):  # taken over just now, and found again
        lower = create("openvino", identity="of a network", precision="bfloat16")
        assert compiled[-2:] == ["float32", "bfloat16"]
        torch.testing.assert_close(lower(IMAGES), exact(IMAGES), rtol=0.05, atol=0.05)
        if has_fast_bfloat16("cpu"):
            assert not torch.equal(lower(IMAGES), exact(IMAGES))

    def fail(network: object, streams: int, precision: Precision = "float32") -> Engine:
        if precision == "bfloat16":
            raise RuntimeError("no such operation")
        return make(network, streams, precision)

    for name, flaw in (("TOLERANCES", {"float32": 1e-3, "bfloat16": -1.0}), ("_create_openvino", fail)):
        monkeypatch.setattr(engines, name, flaw)
        refused = create("openvino", identity="of a network", precision="bfloat16")
        assert torch.equal(refused(IMAGES), exact(IMAGES))
        assert "cannot be run in bfloat16" in caplog.text
        assert find_engine("of a network", 32, 2) is not None  # what works is kept
        caplog.clear()


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_what_cannot_be_made_is_left_out_and_the_rest_keeps_its_place(kind: str) -> None:
    pytest.importorskip("openvino")
    engine = create(kind)
    bad, told = {0, 3, 9, 10}, []

    def load(i: int) -> Tensor | None:
        return None if i in bad else IMAGES[i]

    found: dict[int, Tensor] = {}
    for rows, outputs in engine.stream(11, load, lambda done, total: told.append((done, total))):
        assert len(rows) == len(outputs) > 0
        found |= dict(zip(rows, outputs, strict=True))
    assert list(found) == [i for i in range(11) if i not in bad]
    for i, output in found.items():
        torch.testing.assert_close(output, engine(IMAGES[i : i + 1])[0], atol=1e-5, rtol=1e-5)
    assert told == [(i, 11) for i in range(1, 12)]
    assert list(engine.stream(3, lambda i: None)) == []
    assert list(engine.stream(0, load)) == []


def test_what_stops_an_input_stops_the_rest() -> None:
    pytest.importorskip("openvino")
    asked: list[int] = []

    def load(i: int) -> Tensor:
        asked.append(i)
        if i == 2:
            raise OSError("gone")
        return IMAGES[0]

    with pytest.raises(OSError, match="gone"):
        create("openvino").run_all(1000, load)
    assert len(asked) < 100


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("openvino")
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path))
    return tmp_path / "networks"


def test_a_network_taken_over_before_is_found_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_engine("one", 32, 1) is None
    expected = create("openvino", identity="one")(IMAGES)
    create("openvino")
    (folder,) = cache.iterdir()  # the one without an identity is not kept
    assert folder.stat().st_mode & 0o777 == 0o755, "a cache may be shared"
    monkeypatch.setattr(engines, "_take_over", None)
    again = create("openvino", identity="one")
    assert again.kind == "openvino"
    assert torch.equal(again(IMAGES), expected)
    assert create("openvino", identity="another").kind == "torch", "else the identity does not count"
    assert find_engine("one", 48, 1) is None
    monkeypatch.setattr(runtime, "processor_kind", lambda: "another")
    assert find_engine("one", 32, 1) is None, "it was held against torch on another processor"


def test_the_first_answer_is_given_before_there_are_threads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that came to OpenVINO's first answer together hung for ever in five processes of six."""
    import openvino

    create("openvino", identity="one")
    answered, infer = [], openvino.InferRequest.infer
    monkeypatch.setattr(
        openvino.InferRequest,
        "infer",
        lambda *args, **kwargs: answered.append(threading.current_thread()) or infer(*args, **kwargs),
    )
    assert find_engine("one", 32, 2) is not None
    assert answered == [threading.current_thread()]


def test_a_damaged_network_is_taken_over_anew(cache: Path) -> None:
    expected = create("openvino", identity="one")(IMAGES)
    (file,) = cache.glob("*/network.xml")
    file.write_text("<net")
    assert find_engine("one", 32, 1) is None
    assert not list(cache.iterdir())
    assert torch.equal(create("openvino", identity="one")(IMAGES), expected)
    file.unlink()  # half of it is gone
    assert find_engine("one", 32, 1) is None
    create("openvino", identity="one")
    assert torch.equal(find_engine("one", 32, 1)(IMAGES), expected)  # type: ignore[misc]


def test_networks_not_used_for_longest_go_and_a_cache_that_cannot_be_written_is_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(saved_networks, "KEPT", 2)
    for name in ("one", "two", "one", "three"):
        create("openvino", identity=name)
    assert [name for name in ("one", "two", "three") if find_engine(name, 32, 1)] == ["one", "three"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "file"))
    assert create("openvino", identity="one").kind == "openvino"


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_a_network_in_training_is_run_with_the_weights_it_has_by_then(
    monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    pytest.importorskip("openvino")
    taken, take_over = [], engines._take_over_in_place
    monkeypatch.setattr(engines, "_take_over_in_place", lambda *a: taken.append(1) or take_over(*a))
    torch.manual_seed(0)
    model = create_classifier(backbone, 3)
    size = model.pretrained_cfg["input_size"][-1]
    images = torch.randn(3, 3, size, size)
    follower = TrainingEngine(model, size, "openvino", 2)
    before = follower.now()(images)
    for weight in model.parameters():
        weight.data.mul_(1.1).add_(0.01)
    after = follower.now()
    assert after.kind == "openvino"
    expected = create_engine(model, size, "torch", 2)(images)
    torch.testing.assert_close(after(images), expected, atol=1e-4, rtol=1e-4)
    assert (before - expected).abs().max() > 1e-2
    assert len(taken) == 1
    # As after an interruption.
    assert torch.equal(after(images), TrainingEngine(model, size, "openvino", 2).now()(images))


def test_a_network_whose_weights_are_not_read_in_place_is_run_by_torch(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("openvino")

    class Tabled(nn.Module):
        """Computes a table from its weights on the way into inference, as some attention layers do."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.table = nn.Parameter(torch.ones(3)), torch.ones(3)

        def train(self, mode: bool = True) -> Tabled:
            self.table = self.weight.detach() * 2
            return super().train(mode)

        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(2, 3)) * self.table

    model = Tabled()
    follower = TrainingEngine(model, 32, "openvino", 2)
    for factor in (1.0, 3.0):
        model.weight.data.fill_(factor)
        engine = follower.now()
        assert engine.kind == "torch"
        torch.testing.assert_close(engine(IMAGES), 2 * factor * IMAGES.mean(dim=(2, 3)))
    assert caplog.text.count("not read in place") == 1
