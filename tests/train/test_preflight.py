"""What is said before training: the warnings a recipe deserves and no others, and figures that hold afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from shapes import BACKBONE, planned_stage, small_recipe, write_photos
from wildtune import job
from wildtune.check.steps import audit_set
from wildtune.model.backbone import create_classifier, head_of
from wildtune.model.freeze import set_trainable
from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import Photo
from wildtune.photos.sources import load_photos
from wildtune.progress import Reporter
from wildtune.recipe import Recipe, Stage, load_recipe
from wildtune.train.checkpoint import trained_weights
from wildtune.train.effects import Sample, choose_photos
from wildtune.train.history import load_moves
from wildtune.train.loop import relative_change
from wildtune.train.optimizer import create_optimizer
from wildtune.train.plan import Plan, PlannedStage, load_plan
from wildtune.train.reach import BFLOAT16, LEAST_REACH, measure_reach, sum_rates
from wildtune.train.schedule import lr_factor

FOUR = ["brightness_no_effect", "noise_no_effect", "validation_changed", "reach_too_small"]
SENSIBLE = (
    "input.contrast=1",
    "input.brightness=30",
    "stages.0.augment.noise=10",
    "stages.1.augment.noise=10",
    "stages.1.lr=1e-4",
)

pytestmark = pytest.mark.usefixtures("blank_charts")


def lab5(*changes: str, backbone: str = BACKBONE, weights: str = "none") -> Recipe:
    small = ("input.size=48", "input.resize=52", "stages.0.batch_size=8", "stages.1.batch_size=8")
    return load_recipe("lab5", (*small, *changes), backbone=backbone, weights=weights)


@pytest.fixture(scope="module")
def findings(photos: Path) -> Findings:
    return audit_set(load_photos(photos), 0, Reporter())


@pytest.fixture
def plan_of(photos: Path, findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that gives the plan of a recipe, preflight and all; it checks no photo anew, trains nothing."""
    monkeypatch.setattr(job, "audit_set", lambda *_: findings)
    monkeypatch.setattr(job, "_carry_out", lambda plan, *_: plan)

    def plan(recipe: Recipe) -> Plan:
        return job.train(photos, recipe, tmp_path / str(len(list(tmp_path.iterdir()))))  # type: ignore[return-value]

    return plan


def kinds(plan: Plan) -> list[str]:
    assert plan.preflight is not None
    return [caution.kind for caution in plan.preflight.warnings]


def test_lab5_is_warned_of_in_four_places_and_the_run_bears_each_out(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = job.train(photos, lab5("stages.0.epochs=1", "stages.1.epochs=1"), folder)
    assert kinds(run.plan) == FOUR
    assert load_plan(folder / "plan.toml").preflight == run.plan.preflight
    said = [line.split(" ", 2)[2] for line in (folder / "train.log").read_text().splitlines()]
    assert [line.split("(")[1].split(")")[0] for line in said if line.startswith("warning (")] == FOUR
    found = run.plan.preflight
    assert found is not None
    brightness = next(effect for effect in found.effects if effect.setting == "input.brightness")
    assert brightness.pixel_change == pytest.approx(0.1, abs=1e-3)
    assert brightness.changed_share == 0
    noise = next(effect for effect in found.effects if effect.setting == "augment.noise")
    assert noise.pixel_change == pytest.approx(0.05 * (2 / torch.pi) ** 0.5, rel=0.02)
    assert noise.stages == ("transfer", "finetune")
    moves = {move.stage: move for move in load_moves(folder / "stages.jsonl")}
    assert 0 < moves["finetune"].moved <= found.reaches[1].reach < LEAST_REACH
    assert all(move.batchnorm_unchanged for move in moves.values())
    text = (folder / "report" / "analysis.md").read_text()
    assert "4 warnings came of it" in text
    assert "Its curve is flat, before and after it alike" in text
    assert "made no measurable difference" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), FOUR),
        (("input.clip=true",), FOUR),
        (("stages.1.relative_lr=true",), FOUR),
        (SENSIBLE, []),
        ((*SENSIBLE, "input.clip=true"), []),
        (("stages.1.lr=1e-4",), FOUR[:3]),
        (("input.contrast=1",), [FOUR[0], FOUR[1], FOUR[3]]),
        (("input.contrast=1.2",), [FOUR[0], FOUR[1], FOUR[3]]),
        (("input.brightness=90",), FOUR[1:]),
        (("stages.0.augment.noise=0",), FOUR),
        (("stages.0.augment.noise=10", "stages.1.augment.noise=10"), [FOUR[0], *FOUR[2:]]),
        ((*SENSIBLE, "stages.1.lr=0.05"), ["lr_too_large"]),
        ((*SENSIBLE, "stages.1.layer_decay=0.01"), ["reach_too_small"]),
        ((*SENSIBLE, "stages.1.epsilon=1.0"), ["reach_too_small"]),
        ((*SENSIBLE, "stages.1.optimizer=sgd", "stages.1.lr=1e-9"), ["reach_too_small"]),
        ((*SENSIBLE, "stages.1.optimizer=sgd", "stages.1.lr=1e-2"), []),
        ((*SENSIBLE, "stages.0.lr=1e-8"), ["reach_too_small"]),
        ((*SENSIBLE, "stages.0.augment.rotation=1e-5"), ["rotation_no_effect"]),
        ((*SENSIBLE, "input.resize=48"), ["crop_no_effect"]),
        ((*SENSIBLE, "stages.0.augment.saturation=0.001"), ["saturation_no_effect"]),
        ((*SENSIBLE, "stages.0.augment.flip=0.001"), []),
    ],
)
def test_each_warning_comes_where_it_is_due_and_nowhere_else(plan_of, changes, expected) -> None:  # type: ignore[no-untyped-def]
    assert kinds(plan_of(lab5(*changes))) == expected


@pytest.mark.parametrize("name", ["default", "demo"])
def test_recipes_with_sensible_values_are_not_warned_of(plan_of, name: str) -> None:  # type: ignore[no-untyped-def]
    assert kinds(plan_of(small_recipe(name=name))) == []


def test_a_network_without_batchnorm_and_weights_from_a_file(plan_of, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=2).state_dict(), path)
    recipe = load_recipe("lab5", ["input.size=160", "input.resize=168"], backbone="test_vit", weights=str(path))
    plan = plan_of(recipe)
    assert kinds(plan) == FOUR
    assert plan.preflight.batchnorm_layers == 0
    # The contrast moves features far more than the noise does, and both are seen beside those of other photos.
    changes = {effect.setting: effect for effect in plan.preflight.effects}
    contrast, noise = changes["input.contrast"], changes["augment.noise"]
    assert noise.feature_change < 0.01 * contrast.feature_change
    assert noise.same_class > 0


def test_clipping_leaves_no_pixel_outside(plan_of) -> None:  # type: ignore[no-untyped-def]
    assert plan_of(lab5()).preflight.outside_share > 0.02
    assert plan_of(lab5("input.clip=true")).preflight.outside_share == 0


def test_what_was_measured_is_not_measured_again(plan_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    first = plan_of(lab5(*SENSIBLE, "stages.1.optimizer=sgd"))
    monkeypatch.setattr(Sample, "pixels", property(lambda _: pytest.fail("decoded again")))
    again = plan_of(lab5(*SENSIBLE, "stages.1.optimizer=sgd"))
    assert again.preflight.effects == first.preflight.effects
    assert again.preflight.reaches == first.preflight.reaches


def planned(**values: object) -> PlannedStage:
    settings = {"name": "s", "train": "all", "epochs": 5, "lr": 1e-4, "optimizer": "adam", **values}
    return planned_stage(Stage.model_validate(settings))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"relative_lr": True, "lr": 1e-3},
        {"layer_decay": 0.7},
        {"policy": {"name": "one_cycle", "warmup": 1.0}},
        {"train": "head", "policy": {"name": "exp_decay"}},
        {"optimizer": "sgd", "lr": 0.01, "epochs": 60},
    ],
)
def test_steps_that_all_go_one_way_reach_what_is_foreseen(values: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_classifier(BACKBONE, 3)
    whole = planned(**values)
    stage, steps = whole.stage, whole.steps_per_epoch
    set_trainable(model, head_of(model), stage.train)
    slopes = {n: torch.randn_like(p) for n, p in model.named_parameters() if p.requires_grad}
    if stage.optimizer == "adam":  # its step is the rate whatever the gradient
        slopes = {n: s.sign() * 1e-3 for n, s in slopes.items()}
    foreseen = measure_reach(model, whole, {n: float(s.square().mean().sqrt()) for n, s in slopes.items()}).reach
    optimizer, start = create_optimizer(model, stage), trained_weights(model)
    for step in range(steps * stage.epochs):
        for group in optimizer.param_groups:
            factor = lr_factor(stage.policy, step // steps, step % steps, steps, stage.epochs)
            group["lr"] = stage.lr * factor * group.get("lr_scale", 1.0)
        for name, weight in model.named_parameters():
            weight.grad = slopes.get(name)
        optimizer.step()
    moved = relative_change(start, trained_weights(model))
    assert moved <= foreseen * 1.001
    assert moved >= foreseen * 0.96


def test_the_least_reach_is_less_than_rounding_to_bfloat16() -> None:
    weights = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    change = relative_change({"w": weights}, {"w": weights.bfloat16().float()})
    assert change == pytest.approx(BFLOAT16, rel=0.05)
    assert change > LEAST_REACH


def test_long_epochs_are_summed_from_some_of_their_steps() -> None:
    stage = planned(policy={"name": "cosine", "warmup": 0.5}).stage
    exact = sum(lr_factor(stage.policy, epoch, i, 730, stage.epochs) for epoch in range(5) for i in range(730))
    assert sum_rates(stage, 730)[0] == pytest.approx(stage.lr * exact, rel=0.01)


def test_an_average_keeps_its_share_of_the_way() -> None:
    model = create_classifier(BACKBONE, 3)
    whole, half = (measure_reach(model, planned(average=share)).reach for share in (0.0, 0.5))
    assert half == pytest.approx(whole / 2)


def test_the_sample_has_pairs_of_a_class_and_follows_from_content() -> None:
    photos = [Photo(f"{i}.jpg", "abcde"[i % 5], f"{i * 7919 % 97:064x}") for i in range(40)]
    chosen = choose_photos(photos, 10)
    assert sorted(photo.label for photo in chosen) == sorted("aabbccddee")
    assert choose_photos(reversed(photos), 10) == chosen
    assert len(choose_photos(photos[:3], 10)) == 3


def test_a_handful_of_photos_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "cache"))  # nothing measured before
    run = job.train(write_photos(tmp_path / "photos", per_class=3), small_recipe(), tmp_path / "run")
    assert run.plan.side_size("train") < 4
    assert run.plan.preflight is not None


def test_a_stage_says_how_far_it_went_and_what_it_handed_on(photos: Path, tmp_path: Path) -> None:
    recipe = small_recipe("split.seed=1", "stages.0.epochs=8", "stages.1.lr=2.0", "stages.1.average=0")
    run = job.train(photos, recipe, tmp_path / "run")
    assert kinds(run.plan) == ["lr_too_large"]
    moves = [json.loads(line) for line in (tmp_path / "run" / "stages.jsonl").read_text().splitlines()]
    assert [move["stage"] for move in moves] == ["transfer", "finetune"]
    assert moves[1]["moved"] > 0.5
    assert moves[1]["kept"] == 0.0  # no epoch beat the head's
    assert "it handed on those it had" in (tmp_path / "run" / "report" / "analysis.md").read_text()
