"""Scores in which every class counts the same, however few photos it has, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wildtune.intervals import Interval, wilson_interval


@dataclass(frozen=True)
class ClassAverages:
    """Means over the classes that have photos.

    balanced_accuracy   mean recall, 0-1, with its 95 % interval
    macro_f1            mean F1, 0-1, with its 95 % interval
    """

    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval


def average_classes(confusion: np.ndarray) -> ClassAverages:
    """Return balanced accuracy and macro F1 of (C, C) counts, rows the label and columns the prediction.

    The intervals are Wilson's, for as many photos as would leave a share that uncertain: the scores' variance is that
    of their first-order change with each photo's prediction (the delta method, for macro F1 as in Takahashi et al.
    2022), the number of photos of each class being given. It is at least what classes of these sizes would have if
    each were as hard as all together, so that a class of ten photos that are all right is not called certain. Photos
    are taken not to depend on one another. Raises ValueError without photos.
    """
    present = np.flatnonzero(confusion.sum(axis=1))
    if not len(present):
        raise ValueError("no class has photos to average over")
    photos, taken = confusion.sum(axis=1)[present], confusion.sum(axis=0)[present]
    right = np.diagonal(confusion)[present]
    recall, f1 = right / photos, 2 * right / (photos + taken)
    each = np.eye(len(confusion))[present]
    # What one photo more of each row's class, named as each column's, would add to the sum over the classes.
    by_recall = each / photos[:, None]
    by_f1 = 2 * each / (photos + taken)[:, None]
    by_f1[:, present] -= f1 / (photos + taken)
    shares = confusion[present] / photos[:, None]
    return ClassAverages(
        balanced_accuracy=float(recall.mean()),
        balanced_accuracy_interval=_interval(recall, by_recall, shares, photos),
        macro_f1=float(f1.mean()),
        macro_f1_interval=_interval(f1, by_f1, shares, photos),
    )


def _interval(scores: np.ndarray, added: np.ndarray, shares: np.ndarray, photos: np.ndarray) -> Interval:
    """Return the interval of the mean of (K,) scores of classes with (K,) photos.

    `added` is (K, C), what a photo of a class adds to the scores' sum by what it is taken for; `shares` is (K, C), how
    often it is taken for that, 0-1.
    """
    mean, total, classes = float(scores.mean()), int(photos.sum()), len(photos)
    # About what the classes have in common, not about each one's own mean, to which a few photos lie too close.
    centre = (photos * (shares * added).sum(axis=1)).mean() / photos
    spread = (shares * (added - centre[:, None]) ** 2).sum(axis=1)
    variance = float((photos * spread).sum()) / classes**2
    # How many times the variance of as many photos of classes of one size (Kish 1965).
    effect = total * float((1 / photos).sum()) / classes**2
    alone = mean * (1 - mean) / total
    if alone > 0:
        effect = max(effect, variance / alone)
    return wilson_interval(mean * total / effect, total / effect)
