"""Unequal classes: what is drawn, what counts how much, and that a rare class is recognised more often for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from shapes import small_recipe
from wildtune import job
from wildtune.photos.catalogue import Photo
from wildtune.recipe import Stage
from wildtune.train import batches, loop
from wildtune.train.batches import Side, batch_order, stage_order
from wildtune.train.imbalance import class_weights, create_loss, logit_offsets, number_repeats

METHODS = ("sampling", "class_weights", "logit_adjustment")
COUNTS = (300, 60, 15)


def create_stage(imbalance: str, strength: float = 1.0, **values: Any) -> Stage:
    return Stage(
        name="transfer", train="head", epochs=1, lr=0.1, imbalance=imbalance, imbalance_strength=strength, **values
    )


def create_side(counts: tuple[int, ...]) -> Side:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    photos = tuple(Photo(f"{i}.jpg", str(int(t)), f"{i:064}") for i, t in enumerate(targets))
    return Side(photos, [None] * len(photos), range(len(photos)), targets)  # type: ignore[arg-type]


@pytest.mark.parametrize(("strength", "shares"), [(1.0, (1, 1, 1)), (0.5, np.sqrt(COUNTS))])
def test_sampling_draws_every_class_in_its_share_and_every_photo_as_often(strength: float, shares: Any) -> None:
    side, stage = create_side(COUNTS), create_stage("sampling", strength, batch_size=50)
    order = stage_order(3, stage, 5, side)
    assert [len(batch) for batch in order] == [50] * 7 + [25]
    drawn = np.bincount(np.concatenate(order), minlength=len(side))
    wanted = 375 * np.asarray(shares) / np.sum(shares)
    for k, (count, share) in enumerate(zip(COUNTS, wanted, strict=True)):
        of_class = drawn[side.targets.numpy() == k]
        assert abs(of_class.sum() - share) < 1
        assert set(of_class) <= {int(share // count), int(share // count) + 1}
    assert [list(b) for b in order] == [list(b) for b in stage_order(3, stage, 5, side)]
    assert [list(b) for b in order] != [list(b) for b in stage_order(3, stage, 6, side)]
    # No batch is one class after another.
    assert all(len(set(side.targets[torch.from_numpy(batch)].tolist())) == 3 for batch in order)


def test_other_stages_have_the_order_they_always_had() -> None:
    side = create_side(COUNTS)
    for imbalance in ("none", "class_weights", "logit_adjustment"):
        found = stage_order(1, create_stage(imbalance), 0, side)
        assert [list(b) for b in found] == [list(b) for b in batch_order(1, "transfer", 0, 375, 32)]


def test_a_photo_drawn_again_gets_another_view(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats = number_repeats([np.array([4, 2, 4]), np.array([4, 2])])
    assert [list(batch) for batch in repeats] == [[0, 0, 1], [2, 1]]
    seeds = []
    monkeypatch.setattr(batches, "create_view", lambda pixels, pre, augment, seed: seeds.append(seed))
    side = create_side((2,))
    for repeat in (0, 1, 2):
        side.augmented_input(0, None, create_stage("sampling"), 0, 7, repeat)  # type: ignore[arg-type]
    side.augmented_input(0, None, create_stage("sampling"), 0, 7)  # type: ignore[arg-type]
    assert len(set(seeds)) == 3
    assert seeds[3] == seeds[0]


def test_class_weights_are_balanced_and_average_to_1() -> None:
    weights = class_weights(COUNTS)
    assert weights == pytest.approx([375 / (3 * n) for n in COUNTS])
    for strength in (0.3, 1.0, 1.5):
        weights = class_weights((*COUNTS, 0), strength)
        assert (weights[:3] * COUNTS).sum() / 375 == pytest.approx(1)
        assert weights[1] / weights[0] == pytest.approx(5**strength)
        assert weights[3] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_are_those_computed_by_hand(smoothing: float) -> None:
    logits, targets = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3]]), torch.tensor([0, 2])

    def by_hand(logits: np.ndarray, target: int) -> float:
        logs = logits - np.log(np.exp(logits).sum())
        return float(-(1 - smoothing) * logs[target] - smoothing * logs.mean())

    rows = [row.numpy().astype(float) for row in logits]
    weighted = create_loss(create_stage("class_weights", label_smoothing=smoothing), COUNTS)(logits, targets)
    w = [375 / (3 * n) for n in COUNTS]
    assert float(weighted) == pytest.approx(w[0] * by_hand(rows[0], 0) + w[2] * by_hand(rows[1], 2), rel=1e-5)
    stage = create_stage("logit_adjustment", 1.5, label_smoothing=smoothing)
    prior = 1.5 * np.log(np.array(COUNTS) / 375)
    adjusted = create_loss(stage, COUNTS)(logits, targets)
    assert float(adjusted) == pytest.approx(by_hand(rows[0] + prior, 0) + by_hand(rows[1] + prior, 2), rel=1e-5)
    plain = create_loss(create_stage("none", label_smoothing=smoothing), COUNTS)(logits, targets)
    assert float(plain) == float(cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum"))


def test_classes_without_training_photos_leave_the_loss_a_number() -> None:
    assert np.isfinite(logit_offsets((5, 0, 3))).all()
    for method in METHODS:
        loss = create_loss(create_stage(method, label_smoothing=0.1), (5, 0, 3))
        assert torch.isfinite(loss(torch.zeros(2, 3), torch.tensor([0, 2])))


def train_head(imbalance: str, features: torch.Tensor, side: Side) -> nn.Linear:
    """Fit a linear head as the loop does, batch by batch."""
    stage = create_stage(imbalance, batch_size=64)
    loss = create_loss(stage, COUNTS)
    torch.manual_seed(0)
    head = nn.Linear(features.shape[1], len(COUNTS))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for epoch in range(40):
        for indices in stage_order(0, stage, epoch, side):
            rows = torch.from_numpy(indices)
            optimizer.zero_grad()
            (loss(head(features[rows]), side.targets[rows]) / len(rows)).backward()
            optimizer.step()
    return head


def test_the_rare_class_is_recognised_more_often_with_each_method() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(len(COUNTS), 8, generator=rng) * 0.7
    side = create_side(COUNTS)
    features = centres[side.targets] + torch.randn(len(side), 8, generator=rng)
    fresh = torch.arange(len(COUNTS)).repeat_interleave(400)
    photos = centres[fresh] + torch.randn(len(fresh), 8, generator=rng)

    def recalls(imbalance: str) -> np.ndarray:
        right = train_head(imbalance, features, side)(photos).argmax(dim=1) == fresh
        return np.array([float(right[fresh == k].float().mean()) for k in range(len(COUNTS))])

    plain = recalls("none")
    for method in METHODS:
        found = recalls(method)
        assert found[2] > plain[2] + 0.15, (method, plain, found)
        assert found.mean() > plain.mean() + 0.03, (method, plain, found)


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.usefixtures("blank_charts")
@pytest.mark.parametrize("method", METHODS)
def test_a_treated_run_says_so_and_resumes_exactly(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    uneven = tmp_path / "photos"
    for kind, count in (("disc", 16), ("square", 10), ("stripes", 6)):
        (uneven / kind).mkdir(parents=True)
        for number in range(count):
            (uneven / kind / f"{number}.png").write_bytes((photos / kind / f"{number:02}.png").read_bytes())
    recipe = small_recipe(*(f"stages.{n}.imbalance={method}" for n in (0, 1)), "stages.1.imbalance_strength=0.7")
    run = job.train(uneven, recipe, tmp_path / "whole")
    assert [planned.stage.imbalance for planned in run.plan.stages] == [method, method]
    assert "Against unequal classes" in (run.folder / "report" / "analysis.md").read_text("utf-8")
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    real, done = loop.StageTrainer.train_step, 0

    def count_and_die(*args: Any) -> None:
        nonlocal done
        done += 1
        if done > run.plan.stages[0].steps_per_epoch * 3 + 2:  # within an epoch of fine-tuning
            raise Killed
        real(*args)

    monkeypatch.setattr(loop.StageTrainer, "train_step", count_and_die)
    with pytest.raises(Killed):
        job.train(uneven, recipe, tmp_path / "cut")
    monkeypatch.setattr(loop.StageTrainer, "train_step", real)
    job.resume(tmp_path / "cut")
    for name in ("bundle/model.safetensors", "evaluation.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
