from __future__ import annotations

import math

import pytest

from wildtune.recipe import Policy
from wildtune.train.schedule import lr_factor


def factors(policy: Policy, epochs: int = 10, steps: int = 5) -> list[float]:
    return [lr_factor(policy, e, s, steps, epochs) for e in range(epochs) for s in range(steps)]


def test_exp_decay_is_the_reports() -> None:
    found = factors(Policy(name="exp_decay", rate=0.3), epochs=20)
    for epoch in range(20):
        assert found[epoch * 5 : epoch * 5 + 5] == [pytest.approx(math.exp(-0.3 * epoch))] * 5


def test_step_drops_every_so_many_epochs() -> None:
    found = factors(Policy(name="step", every=4, factor=0.5))
    assert [found[e * 5] for e in range(10)] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_cosine_falls_from_one_to_its_floor() -> None:
    found = factors(Policy(name="cosine", floor=0.1))
    assert found[0] == 1.0
    assert found[-1] == pytest.approx(0.1)
    assert found == sorted(found, reverse=True)


def test_one_cycle_rises_then_falls() -> None:
    found = factors(Policy(name="one_cycle", peak=0.3))
    top = found.index(max(found))
    assert found[0] < 0.1
    assert max(found) == pytest.approx(1.0, abs=0.02)
    assert 12 <= top <= 17
    assert found[-1] == pytest.approx(0.0, abs=1e-9)


def test_warmup_rises_from_near_zero_then_the_policy_begins() -> None:
    found = factors(Policy(name="exp_decay", rate=0.3, warmup=2))
    assert found[:10] == sorted(found[:10])
    assert found[0] == pytest.approx(1 / 11)
    assert found[10] == 1.0
    assert found[15] == pytest.approx(math.exp(-0.3))


def test_plateau_drops_when_the_loss_stops_falling() -> None:
    policy = Policy(name="plateau", patience=2, factor=0.1)
    losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.5]
    found = [lr_factor(policy, e, 0, 5, 10, losses[:e]) for e in range(8)]
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
