"""Cross-validation in numbers: each fold's scores, their mean with its interval, and all photos together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wildtune.evaluate.evaluation import Evaluation, evaluate
from wildtune.evaluate.text import describe_scores
from wildtune.frozen import Frozen
from wildtune.intervals import Interval, student_quantile
from wildtune.predict.predictions import Predictions
from wildtune.wording import counted


class FoldScore(Frozen):
    """One fold: photos it was trained on and tested with, and its test scores, 0-1."""

    fold: int
    trained: int
    photos: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float


class FoldMean(Frozen):
    """One score over the folds: mean and standard deviation, and the 95 % interval of the mean (low, high), 0-1."""

    mean: float
    deviation: float
    interval: Interval


class FoldsEvaluation(Frozen):
    """All folds of a cross-validation.

    folds       each fold's scores, in order
    accuracy, balanced_accuracy, macro_f1   their means over the folds
    pooled      the scores of all out-of-fold predictions together: each photo once, by the model that never saw it
    """

    folds: tuple[FoldScore, ...]
    accuracy: FoldMean
    balanced_accuracy: FoldMean
    macro_f1: FoldMean
    pooled: Evaluation


def evaluate_folds(predictions: Sequence[Predictions], trained: Sequence[int]) -> FoldsEvaluation:
    """Score a cross-validation from each fold's test predictions and the number of photos it was trained on."""
    scores = [evaluate(found, "test") for found in predictions]
    folds = tuple(
        FoldScore(
            fold=number,
            trained=photos,
            photos=score.photos,
            accuracy=score.accuracy,
            balanced_accuracy=score.balanced_accuracy,
            macro_f1=score.macro_f1,
        )
        for number, (score, photos) in enumerate(zip(scores, trained, strict=True), start=1)
    )
    ratio = float(np.mean([fold.photos / fold.trained for fold in folds]))
    means = {
        name: mean_of_folds([getattr(fold, name) for fold in folds], ratio)
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
    }
    return FoldsEvaluation(folds=folds, pooled=evaluate(pool_folds(predictions), "folds"), **means)


def mean_of_folds(values: Sequence[float], ratio: float) -> FoldMean:
    """Return the mean of K folds' scores with its 95 % interval by the corrected resampled t-test.

    `ratio` is that of tested to trained photos. The folds' models share most of their training photos, so the variance
    of the scores is multiplied by 1/K + ratio rather than by 1/K (Nadeau and Bengio, "Inference for the generalization
    error", Machine Learning 52, 2003).
    """
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = student_quantile(len(values) - 1) * deviation * math.sqrt(1 / len(values) + ratio)
    return FoldMean(mean=mean, deviation=deviation, interval=(max(0.0, mean - half), min(1.0, mean + half)))


def pool_folds(predictions: Sequence[Predictions]) -> Predictions:
    """Return the folds' predictions as one, in the order of the paths."""
    paths = [path for found in predictions for path in found.paths]
    order = sorted(range(len(paths)), key=paths.__getitem__)

    def in_order(values: list[str]) -> tuple[str, ...]:
        return tuple(values[i] for i in order)

    return Predictions(
        paths=in_order(paths),
        labels=in_order([label for found in predictions for label in found.labels]),
        errors=in_order([error for found in predictions for error in found.errors]),
        logits=np.concatenate([found.logits for found in predictions])[order],
        class_names=predictions[0].class_names,
    )


def describe_folds(found: FoldsEvaluation) -> str:
    """Return the folds' scores in a few lines for a terminal."""
    lines = ["fold  trained  tested  accuracy  balanced accuracy  macro F1"]
    lines += [
        f"{f.fold:4}  {f.trained:7}  {f.photos:6}  {f.accuracy:8.1%}  {f.balanced_accuracy:17.1%}  {f.macro_f1:8.3f}"
        for f in found.folds
    ]
    lines.append("mean of the folds (95 % interval by Nadeau and Bengio's corrected t)")
    for name, mean in (("accuracy", found.accuracy), ("balanced accuracy", found.balanced_accuracy)):
        lines.append(f"{name:17}  {mean.mean:.1%}  ({mean.interval[0]:.1%} to {mean.interval[1]:.1%})")
    mean = found.macro_f1
    lines.append(f"{'macro F1':17}  {mean.mean:.3f}  ({mean.interval[0]:.3f} to {mean.interval[1]:.3f})")
    lines.append(f"all {counted(found.pooled.photos, 'photo')} together, each by the model that never saw it")
    return "\n".join([*lines, *describe_scores(found.pooled)])
