"""Folds for cross-validation: each photo held out once, groups whole, classes as even as that allows."""

from __future__ import annotations

import warnings

import numpy as np


def most_folds(targets: np.ndarray, groups: np.ndarray) -> int:
    """Return into how many folds photos can be divided: as many as groups, and as the largest class has photos.

    `targets` (N,) are class indices, `groups` (N,) numbers from 0.
    """
    return min(int(groups.max(initial=-1)) + 1, int(np.bincount(targets).max(initial=0)))


def number_folds(targets: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the fold of each photo, int64 (N,) from 0; all 0 where there are fewer than 2 folds.

    `targets` (N,) are class indices, `groups` (N,) numbers from 0: photos of one group share a fold. There are `count`
    folds, or `most_folds` where that is fewer. By scikit-learn's StratifiedGroupKFold, or its StratifiedKFold where
    every photo is by itself. The same input gives the same folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    folds = np.zeros(len(targets), dtype=np.int64)
    count = min(count, most_folds(targets, groups))
    if count < 2:
        return folds
    kind = StratifiedKFold if int(groups.max(initial=-1)) + 1 == len(targets) else StratifiedGroupKFold
    splitter = kind(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class smaller than the number of folds: those who call deal with it
        for fold, (_, held) in enumerate(splitter.split(np.zeros(len(targets)), targets, groups)):
            folds[held] = fold
    return folds
