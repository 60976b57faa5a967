"""What becomes of a recipe's sizes on given backbones, and the stage that no epoch improved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shapes import small_recipe
from wildtune import job, runtime
from wildtune.errors import RecipeError
from wildtune.model.backbone import create_classifier, larger_size, read_facts
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.recipe import Augment, load_recipe
from wildtune.train import planning
from wildtune.train.plan import load_plan

pytestmark = pytest.mark.usefixtures("blank_charts")


def sizes(name: str) -> tuple[int, int]:
    """Return a backbone's own size and the larger one."""
    model = create_classifier(name, 3)
    own = read_facts(model, name).size
    return own, larger_size(model, own)


def test_larger_inputs_are_a_multiple_of_32_where_the_network_takes_them() -> None:
    assert sizes("test_efficientnet") == (160, 192)
    assert sizes("resnet10t") == (176, 224)
    assert sizes("test_vit") == (160, 160)
    # Not marked as bound to one size, but its attention takes only multiples of its block.
    assert sizes("haloregnetz_b") == (224, 224)


def test_a_stage_can_train_on_smaller_inputs_than_photos_are_classified_at(photos: Path, tmp_path: Path) -> None:
    run = job.train(photos, small_recipe("stages.1.size=32"), tmp_path / "run")
    assert [planned.size for planned in load_plan(tmp_path / "run" / "plan.toml").stages] == [48, 32]
    assert run.bundle.preprocess.size == 48


def test_a_stage_cannot_train_on_larger_ones(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="must be at most the input's 48 pixels"):
        job.train(photos, small_recipe("stages.1.size=64"), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"a head has input\.size"):
        load_recipe("default", ["stages.0.size=64"])


def test_a_stage_that_no_epoch_improved_hands_on_what_it_started_from(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # A rate that destroys every tensor.
    recipe = small_recipe("split.val=0.3", "stages.0.epochs=8", "stages.1.lr=2.0", "stages.1.average=0")
    run = job.train(photos, recipe, folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert not any(row["kept"] for row in rows if row["stage"] == "finetune")
    best = [row for row in rows if row["stage"] == "transfer" and row["kept"]][-1]
    assert run.evaluation.sides["val"].accuracy == best["val_accuracy"]
    start = load_file(folder / "checkpoints" / "stages" / "transfer.safetensors")
    kept = load_file(folder / "checkpoints" / "stages" / "finetune.safetensors")
    assert all(torch.equal(start[name], kept[name]) for name in start)
    assert "is what it started from" in (folder / "report" / "analysis.md").read_text()


def test_a_batch_in_parts_trains_as_the_whole_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for part in (3, 8):
        monkeypatch.setattr(planning, "CPU_PART", part)
        run = job.train(photos, small_recipe(), tmp_path / str(part))
        assert [stage.part_size for stage in run.plan.stages] == [8, part]
        kept.append(load_file(tmp_path / str(part) / "checkpoints" / "stages" / "finetune.safetensors"))
    for name, weights in kept[0].items():
        torch.testing.assert_close(weights, kept[1][name], rtol=1e-3, atol=1e-5)


def compile_everything(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    """Plan every stage as compiled, on a processor with bfloat16 or without; compiling changes nothing."""
    monkeypatch.setattr(planning, "COMPILE_FROM_VIEWS", {"float32": 0, "bfloat16": 0})
    monkeypatch.setattr(planning, "COMPILE_FROM_WEIGHTS", 0)
    monkeypatch.setattr(runtime, "can_compile", lambda: True)
    monkeypatch.setattr(runtime, "has_fast_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)


def test_a_last_part_that_is_filled_up_changes_no_gradient(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for name in ("plain", "compiled"):
        run = job.train(photos, small_recipe("stages.1.batch_size=7"), tmp_path / name)
        assert [stage.compile for stage in run.plan.stages] == [False, name == "compiled"]
        kept.append(load_file(tmp_path / name / "checkpoints" / "stages" / "finetune.safetensors"))
        compile_everything(monkeypatch, bfloat16=False)
        monkeypatch.setattr(planning, "CPU_PART", 4)
    for name, weights in kept[0].items():
        torch.testing.assert_close(weights, kept[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_frozen_backbone_computes_augmented_views_in_bfloat16_where_that_is_fast(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, engine: str
) -> None:
    monkeypatch.setattr(planning.runtime, "has_fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(planning, "choose_engine", lambda *_: engine)
    plain = small_recipe().stages[0].model_copy(update={"augment": Augment()})
    augmented = plain.model_copy(update={"name": "augmented", "augment": Augment(flip=0.5)})
    recipe = small_recipe().model_copy(update={"stages": (plain, augmented)})
    asked: set[tuple[bool, str]] = set()
    load = FeatureCache.load

    def note(cache: FeatureCache, some: object, view: object, key: object, tell: object = None, kind: str = "float32"):
        asked.add((key == PLAIN_VIEW, kind))
        return load(cache, some, view, key, tell, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureCache, "load", note)
    stages = job.train(photos, recipe, tmp_path / "run").plan.stages
    lower = "bfloat16" if fast and engine == "openvino" else "float32"
    assert [stage.precision for stage in stages] == ["float32", lower]
    assert asked == {(True, "float32"), (False, lower)}
    assert ("views computed in bfloat16" in (tmp_path / "run" / "train.log").read_text()) == (lower == "bfloat16")


def test_bfloat16_is_only_for_the_arithmetic_of_what_is_compiled(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_everything(monkeypatch, bfloat16=True)
    # What is expected of the time is measured before anything is compiled, in float32.
    monkeypatch.setattr(job, "add_preflight", lambda plan, *_: plan)
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    forward = nn.Linear.forward

    def note(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        outputs = forward(layer, inputs)
        dtypes[layer.training and inputs.requires_grad].add(outputs.dtype)
        return outputs

    monkeypatch.setattr(nn.Linear, "forward", note)
    run = job.train(photos, small_recipe(), tmp_path / "run")
    assert [stage.precision for stage in run.plan.stages] == ["float32", "bfloat16"]
    assert [stage.part_size for stage in run.plan.stages] == [8, 8]
    assert "computed in bfloat16" in (tmp_path / "run" / "train.log").read_text()
    assert dtypes[True] == {torch.bfloat16}  # training every weight
    assert dtypes[False] == {torch.float32}  # a head on its features, validation, heat maps
    for path in (tmp_path / "run" / "checkpoints" / "stages").glob("*.safetensors"):
        assert {weights.dtype for weights in load_file(path).values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize(("bfloat16", "views", "compiled"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_what_is_faster_in_bfloat16_is_compiled_for_fewer_views(
    bfloat16: bool, views: int, compiled: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "add_preflight", lambda plan, *_: plan)
    monkeypatch.setattr(job, "_carry_out", lambda plan, *_: plan)
    compile_everything(monkeypatch, bfloat16)
    epochs = small_recipe().stages[1].epochs
    train = job.train(photos, small_recipe(), tmp_path / "counted").side_size("train")  # type: ignore[attr-defined]
    monkeypatch.setattr(
        planning, "COMPILE_FROM_VIEWS", {"float32": epochs * train + 1, "bfloat16": epochs * train + views}
    )
    plan = job.train(photos, small_recipe(), tmp_path / "run")
    assert plan.stages[1].compile is compiled  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("capability", "fast"), [("amx_bf16", True), ("avx512_bf16", True), ("avx512_f", False), ("avx2", False)]
)
def test_bfloat16_is_fast_where_the_processor_multiplies_it(
    capability: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    assert runtime.has_fast_bfloat16("cpu") is fast


def test_a_network_built_for_one_size_trains_at_that(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "add_preflight", lambda plan, *_: plan)
    monkeypatch.setattr(job, "_carry_out", lambda plan, *_: plan)
    own, smaller = (
        small_recipe("input.size=256", f"stages.1.size={size}").model_copy(update={"backbone": "vit_tiny_patch16_224"})
        for size in ("own", "224")
    )
    plan = job.train(photos, own, tmp_path / "own")
    assert [planned.size for planned in plan.stages] == [256, 256]  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="Leave it at 'input'"):
        job.train(photos, smaller, tmp_path / "smaller")
