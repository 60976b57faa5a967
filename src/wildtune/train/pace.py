"""About how long each stage will take, from a short measurement that is remembered for the machine and the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildtune import runtime
from wildtune.memo import remember
from wildtune.model.backbone import head_of
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.model.freeze import set_trainable
from wildtune.model.preprocess import create_input
from wildtune.photos.split import Split
from wildtune.runtime import Precision
from wildtune.train.batches import validation_engine, view_key
from wildtune.train.effects import Sample
from wildtune.train.plan import Plan, PlannedStage

# Measured with EfficientNet-B0 (docs/performance.md): what compiling costs, the time a compiled step takes as a share
# of one that is not, what OpenVINO takes to take a network over and, each time, its new weights. Backward costs about
# twice forward.
_COMPILE_S = 60.0
_COMPILED_SHARE = {"float32": 0.5, "bfloat16": 0.35}
_TAKE_OVER_S = 5.0
_NEW_WEIGHTS_S = 1.0
_FORWARD_SHARE = 1 / 3

_TIMED_PHOTOS = 4
_TIMED_HEAD_STEPS = 5
_VERSION = 1


def estimate_seconds(
    plan: Plan, split: Split, model: nn.Module, sample: Sample, cache: FeatureCache
) -> tuple[float, dict[str, float]]:
    """Return about how long plain features and each stage will take, in seconds.

    Features that the cache knows cost nothing. What was measured once for this network, size and machine is not
    measured again. Start-up, the test photos and the report are not in it.
    """
    train, val = split.side("train"), split.side("val")
    missing = cache.count_missing(train, PLAIN_VIEW) + cache.count_missing(val, PLAIN_VIEW)
    seconds = {}
    for planned in plan.stages:
        name = planned.stage.name
        if planned.stage.train == "head":
            keys = [view_key(planned.stage, plan.seed, number) for number in range(planned.views)]
            precision = planned.precision
            views = sum(cache.count_missing(train, key, precision) for key in keys if key != PLAIN_VIEW)
            steps = planned.steps_per_epoch * planned.stage.epochs
            seconds[name] = steps * _time_head_step(model, planned)
            seconds[name] += views * _forward_seconds(plan, sample, cache, precision) if views else 0.0
        else:
            seconds[name] = _fine_tuning_seconds(plan, planned, len(train), len(val), model, sample, cache)
    return (missing * _forward_seconds(plan, sample, cache) if missing else 0.0), seconds


def _fine_tuning_seconds(
    plan: Plan, planned: PlannedStage, train: int, val: int, model: nn.Module, sample: Sample, cache: FeatureCache
) -> float:
    step = _training_seconds(plan, planned, model, sample)
    size = planned.size / plan.preprocess.size
    forward = step * _FORWARD_SHARE / size**2
    start, validation = 0.0, val * forward
    if validation_engine(plan, planned, val) == "openvino":
        start, validation = _TAKE_OVER_S, _NEW_WEIGHTS_S + val * _forward_seconds(plan, sample, cache)
    if planned.compile:
        start += _COMPILE_S
        step *= _COMPILED_SHARE[planned.precision]
    return start + planned.stage.epochs * (train * step + validation)


def _forward_seconds(plan: Plan, sample: Sample, cache: FeatureCache, precision: Precision = "float32") -> float:
    """Return what the frozen backbone takes for a photo, its view included."""

    def measure() -> float:
        photos, engine = sample.pixels, cache.engine(precision)
        return _time(lambda: engine.run_all(len(photos), lambda i: create_input(photos[i], plan.preprocess))) / len(
            photos
        )

    what = {"forward": plan.preprocess.size, "engine": plan.engine, "precision": precision}
    return _remember(plan, what, measure)


def _training_seconds(plan: Plan, planned: PlannedStage, model: nn.Module, sample: Sample) -> float:
    """Return what a photo takes forward and back through the whole network, not compiled."""

    def measure() -> float:
        count = planned.part_size if plan.device == "cuda" else min(planned.part_size, _TIMED_PHOTOS)
        images = sample.inputs(plan.preprocess.at_size(planned.size), count)
        targets = torch.zeros(len(images), dtype=torch.int64, device=plan.device)
        set_trainable(model, head_of(model), "all")
        model.train()
        images = images.to(plan.device, memory_format=torch.channels_last)
        model.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def step() -> None:
            # A CPU is slower in bfloat16 until the network is compiled.
            lower = plan.device == "cuda" and planned.precision == "bfloat16"
            with torch.autocast(torch.device(plan.device).type, torch.bfloat16, enabled=lower):
                loss = cross_entropy(model(images).float(), targets)
            loss.backward()
            float(loss.detach())  # a GPU works on after the call

        step()  # the first one is slower
        seconds = _time(step) / len(images)
        model.zero_grad(set_to_none=True)
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model.eval()
        return seconds

    return _remember(plan, {"training": planned.size, "part": planned.part_size}, measure)


def _time_head_step(model: nn.Module, planned: PlannedStage) -> float:
    """Return what one step of a head takes, without the optimiser: too short to be worth remembering."""
    head = nn.Linear(head_of(model).in_features, head_of(model).out_features)
    inputs: Tensor = torch.zeros(planned.stage.batch_size, head.in_features)

    def steps() -> None:
        for _ in range(_TIMED_HEAD_STEPS):
            head(inputs).sum().backward()

    steps()
    return _time(steps) / _TIMED_HEAD_STEPS


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _remember(plan: Plan, what: dict[str, Any], measure: Callable[[], float]) -> float:
    gpu = torch.cuda.get_device_name() if plan.device == "cuda" else ""
    question = {
        "version": _VERSION,
        "what": what,
        "backbone": plan.backbone,
        "machine": [plan.device, plan.threads, runtime.processor_kind(), gpu],
        "versions": runtime.environment()["packages"],
    }
    return float(remember("pace", question, measure))
