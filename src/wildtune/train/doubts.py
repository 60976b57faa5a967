"""What frozen features say of a run's photos: doubtful labels, a split at random, and what more photos would bring.

Of the photos it trains on before it begins; of the test photos' labels once it has ended.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wildtune.check.groups import create_groups, number_groups, unite_groups
from wildtune.check.label_suspects import (
    MODEL,
    LabelRanking,
    describe_ranking,
    rank_labels,
    rank_predictions,
    save_ranking,
)
from wildtune.check.random_split import RandomSplit, describe_random_split, known_answers, measure_random_split
from wildtune.check.steps import RANDOM_WEIGHTS, add_suspects
from wildtune.evaluate.learning_curve import (
    describe_learning_curve,
    measure_learning_curve,
    save_learning_curve,
)
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.photos.audit import Findings, save_findings
from wildtune.photos.catalogue import Photo
from wildtune.photos.corrections import load_corrections
from wildtune.photos.split import Split
from wildtune.predict.predictions import Predictions
from wildtune.progress import Reporter
from wildtune.train.batches import Side
from wildtune.train.plan import Plan


@dataclass(frozen=True)
class Doubts:
    """What heads on the first features say before training.

    findings      those given, with the doubtful labels among the training and validation photos
    ranking       these photos by how likely their labels are wrong; None where the weights are random
    random_split  what a split at random would make of the accuracy; None also where no photos belong together
    """

    findings: Findings
    ranking: LabelRanking | None
    random_split: RandomSplit | None


def doubt_labels(
    plan: Plan,
    findings: Findings,
    split: Split,
    cache: FeatureCache,
    sides: dict[str, Side],
    folder: Path,
    reporter: Reporter,
) -> Doubts:
    """Add the training and validation photos' doubtful labels to the findings, here and in the run's folder.

    The features are those that the first stage begins with, so they are computed once, by `cache`; on them it is also
    tried what a split that tears the groups apart would look like, and what more photos would bring
    (`learning_curve.json`). The test photos have no part in any of this. Nothing is chosen by the doubts: no photo is
    left out for them.
    """
    if plan.weights.source == "none":
        reporter.say(f"note: label errors were not looked for: {RANDOM_WEIGHTS}")
        return Doubts(findings, None, None)
    photos: list[Photo] = []
    features = []
    for name in ("train", "val"):  # the test photos are not looked at yet
        side = sides[name]
        view = functools.partial(side.plain_input, preprocess=plan.preprocess)
        with reporter.bar(f"features of the {name} photos") as tell:
            features.append(cache.load(side.photos, view, PLAIN_VIEW, tell))
        photos += side.photos
    every, groups = torch.cat(features).numpy(), create_groups(findings, photos)
    ranking = rank_labels(photos, every, groups, plan.seed)
    reporter.say(describe_ranking(ranking))
    names = dict(zip(split.photos, split.groups, strict=True))
    ours = [names[photo] or photo.path for photo in photos]
    same = np.array_equal(number_groups(ours), number_groups(groups))
    random_split = measure_random_split(photos, every, ours, plan.seed, known_answers(ranking) if same else None)
    if random_split is not None:
        reporter.say(f"note: {describe_random_split(random_split)}")
    # Near copies stay together here even where the user lets the split tear them apart.
    curve = measure_learning_curve(photos, every, unite_groups(ours, groups), plan.seed)
    reporter.say(describe_learning_curve(curve))
    save_learning_curve(curve, folder / "learning_curve.json")
    findings = add_suspects(findings, ranking, _confirmed(folder))
    save_findings(findings, folder / "findings.csv")
    save_ranking([ranking], folder / "label_ranking.csv")
    return Doubts(findings, ranking, random_split)


def doubt_test_labels(
    findings: Findings, ranking: LabelRanking | None, predictions: Predictions, folder: Path
) -> Findings:
    """Add the test photos' doubtful labels, by the final model's predictions, once there is nothing left to choose."""
    if ranking is None:
        return findings
    found = rank_predictions(predictions.paths, predictions.labels, predictions.probs, predictions.class_names, MODEL)
    findings = add_suspects(findings, found, _confirmed(folder), of_test=True)
    save_findings(findings, folder / "findings.csv")
    save_ranking([ranking, found], folder / "label_ranking.csv")
    return findings


def _confirmed(folder: Path) -> frozenset[str]:
    """Return the paths of a run's photos whose labels the user has looked at and kept."""
    path = folder / "corrections.csv"
    decisions = load_corrections(path) if path.exists() else ()
    return frozenset(decision.path for decision in decisions if decision.action == "keep")
