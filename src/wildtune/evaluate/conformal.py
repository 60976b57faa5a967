"""Promises about new photos that follow from how labelled ones fared: sets, answers to review, unknown animals.

They hold for photos like the validation photos: drawn from the same places and times, none depending on another.
"""

from __future__ import annotations

import math

import numpy as np

from wildtune.intervals import share_upper_bound
from wildtune.model.calibration import ReviewRule, SetRule, UnknownRule

# Accuracies of the unreviewed answers that may be aimed at, the most wanted first.
_TARGETS = (0.99, 0.98, 0.95, 0.90, 0.80)
# Shares of the validation photos that are left unreviewed, in the order in which they are tried.
_KEPT_SHARES = tuple(share / 100 for share in range(50, 101, 5))


def find_set_rule(label_probs: np.ndarray, coverage: float) -> SetRule:
    """Return which probability a class needs to be in a prediction set, from those of N photos' labels, (N,).

    Split conformal prediction with the score of Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers
    with bounded error levels" (2019), whose sets are the smallest on average. The least probability is the k-th
    smallest, k = floor((N + 1) (1 - coverage)): then the sets of new photos hold their label in at least `coverage`
    of cases, over these photos and the new one.
    """
    place = math.floor((len(label_probs) + 1) * (1 - coverage) + 1e-9)
    least = float(np.sort(label_probs)[place - 1]) if place else 0.0
    return SetRule(coverage=coverage, least_prob=least)


def find_review_rule(confidence: np.ndarray, right: np.ndarray, certainty: float) -> ReviewRule:
    """Return below which confidence answers need review, so that the others are right as often as promised.

    `confidence` is (N,) in 0-1, `right` (N,) bool. The accuracy aimed at follows from N alone: the highest that half
    of the photos could show with one of them wrong. Then the surest half of the photos is tried, the surest 55 % and
    so on, and the last share before the first that fails is taken; it fails where the upper bound of its share of
    wrong answers (Clopper and Pearson 1934) exceeds what was aimed at. As the order is fixed beforehand, each may be
    tried at the full level (fixed sequence testing in Angelopoulos et al., "Learn then test", 2021). Where the surest
    half fails already, it is taken all the same, and its own bound is all that is promised.
    """
    order = np.argsort(-confidence, kind="stable")
    # Rounded down, so that the photo a confidence comes from is not sent to review by its last digit.
    ranked, wrong = np.floor(confidence[order] * 1e9) / 1e9, np.cumsum(~right[order])
    # A confidence keeps all photos that share it, however many were wanted.
    counts = [int((ranked >= ranked[max(1, math.ceil(share * len(ranked))) - 1]).sum()) for share in _KEPT_SHARES]
    target = next((t for t in _TARGETS if share_upper_bound(1, counts[0], certainty) <= 1 - t), _TARGETS[-1])
    bounds = [share_upper_bound(int(wrong[count - 1]), count, certainty) for count in counts]
    held = next((i for i, bound in enumerate(bounds) if bound > 1 - target), len(bounds))
    kept = counts[max(held - 1, 0)]
    return ReviewRule(
        least_confidence=0.0 if kept == len(ranked) else float(ranked[kept - 1]),
        accuracy=target if held else 1 - bounds[0],
        target=target,
        certainty=certainty,
        photos=len(ranked),
        reviewed=1 - kept / len(ranked),
    )


def find_unknown_rule(confidence: np.ndarray, known_flagged: float) -> UnknownRule:
    """Return below which confidence a photo is held to show no class, from that of N photos of the classes, (N,).

    As in `find_set_rule`, so that of new photos of the classes at most the share `known_flagged` falls below it. The
    confidence told animals that were never learned from known ones better than the energy of Liu et al. (2020) and the
    largest logit did (`benchmarks/unknown.py`).
    """
    place = math.floor((len(confidence) + 1) * known_flagged + 1e-9)
    # Too few photos to allow any to be flagged: then none is.
    return UnknownRule(
        least_confidence=float(np.sort(confidence)[place - 1]) if place else 0.0, known_flagged=known_flagged
    )
