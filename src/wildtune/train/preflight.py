"""Before training: what each setting does, how far each stage can move its weights, and how long it may take.

Measured on a few training photos within seconds, and remembered by all that decides the answer. The validation and
test photos are not looked at.
"""

from __future__ import annotations

import torch
from torch import nn

from wildtune.memo import remember
from wildtune.model.backbone import head_of
from wildtune.model.features import FeatureCache
from wildtune.model.freeze import batchnorm_layers
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.split import Split
from wildtune.progress import Reporter
from wildtune.train.cautions import find_cautions
from wildtune.train.effects import Sample, measure_effects, measure_outside
from wildtune.train.pace import estimate_seconds
from wildtune.train.plan import Plan, PlannedStage, Preflight, Reach
from wildtune.train.reach import measure_gradients, measure_reach, needs_gradient

_VERSION = 1
_GRADIENT_PHOTOS = 8


def add_preflight(
    plan: Plan, split: Split, catalogue: Catalogue, model: nn.Module, cache: FeatureCache, reporter: Reporter
) -> Plan:
    """Return the plan with what was measured before training.

    `model` is the classifier on its pretrained weights with its fresh head, which are not changed; `cache` that of
    its frozen backbone. Raises PhotosError where a photo is no longer as it was.
    """
    sample = Sample(split.side("train"), catalogue, plan)
    with reporter.bar("preflight", "measurements") as tell:
        effects = measure_effects(plan, sample, cache)
        tell(1, 3)
        reaches = tuple(_reach(plan, planned, model, sample, cache) for planned in plan.stages)
        tell(2, 3)
        feature_seconds, stage_seconds = estimate_seconds(plan, split, model, sample, cache)
        tell(3, 3)
    found = Preflight(
        photos=len(sample.photos),
        outside_share=measure_outside(plan, sample),
        batchnorm_layers=len(batchnorm_layers(model)),
        feature_seconds=feature_seconds,
        stage_seconds=stage_seconds,
        effects=effects,
        reaches=reaches,
    )
    plan = plan.model_copy(update={"preflight": found})
    return plan.model_copy(update={"preflight": found.model_copy(update={"warnings": find_cautions(plan)})})


def _reach(plan: Plan, planned: PlannedStage, model: nn.Module, sample: Sample, cache: FeatureCache) -> Reach:
    if not needs_gradient(planned.stage):
        return measure_reach(model, planned)

    def measure() -> dict[str, float]:
        size = plan.preprocess.at_size(planned.size)
        photos = sample.photos[:_GRADIENT_PHOTOS]
        inputs = sample.inputs(size, len(photos))
        if planned.stage.train == "head":
            inputs = sample.features(sample.plain, cache)[: len(photos)]
        targets = torch.tensor([plan.class_names.index(photo.label) for photo in photos])
        device = next(head_of(model).parameters()).device
        return measure_gradients(model, inputs.to(device), targets.to(device), planned.stage)

    question = {
        "version": _VERSION,
        "weights": [plan.backbone, plan.weights.sha256, plan.seed, len(plan.class_names)],
        "stage": [planned.stage.train, planned.size, planned.stage.label_smoothing],
        "preprocess": plan.preprocess.model_dump(mode="json"),
        "photos": [(photo.sha256, photo.label) for photo in sample.photos[:_GRADIENT_PHOTOS]],
        "classes": plan.class_names,
    }
    return measure_reach(model, planned, remember("gradients", question, measure))
