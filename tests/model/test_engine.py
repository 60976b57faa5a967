"""What runs a network forward: the same numbers for a photo whatever runs beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildtune.model.backbone import create_classifier
from wildtune.model.engine import Engine, create_engine

IMAGES = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def create(kind: str, threads: int = 2) -> Engine:
    torch.manual_seed(0)
    return create_engine(create_classifier("test_efficientnet", 3), 32, kind, threads)


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
