"""Fit what a bundle knows about its own answers, on the validation photos."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wildtune.evaluate.conformal import find_review_rule, find_set_rule, find_unknown_rule
from wildtune.intervals import Interval
from wildtune.model.calibration import Calibration
from wildtune.predict.predictions import Predictions

COVERAGES = (0.90, 0.95, 0.99)
CERTAINTY = 0.95
KNOWN_FLAGGED = 0.05

# Temperatures looked among: beyond a factor of 20 no probability would be left to speak of.
_WIDEST = math.log(20)
_GOLDEN = (math.sqrt(5) - 1) / 2

_PRIOR_RARE = 1  # clusters
_LEAST_FOUND = 0.25  # of what chance adds on average
_USUAL_WEIGHT = 2  # in standard deviations of what is found without any gap


def fit_calibration(predictions: Predictions) -> Calibration | None:
    """Fit temperature, prediction sets, the rule for review and that for unknown animals to validation photos.

    The logits are taken as the head gives them, whatever calibration the predictions have. Rows without a label
    or a prediction are left out; None where no row is left.
    """
    keep = (predictions.targets >= 0) & (predictions.predicted >= 0)
    if not keep.any():
        return None
    logits, targets = predictions.logits[keep].astype(np.float64), predictions.targets[keep]
    temperature = fit_temperature(logits, targets)
    probs = scaled_probs(logits, temperature)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == targets
    return Calibration(
        temperature=temperature,
        photos=len(targets),
        sets=tuple(find_set_rule(probs[np.arange(len(targets)), targets], coverage) for coverage in COVERAGES),
        review=find_review_rule(confidence, right, CERTAINTY),
        unknown=find_unknown_rule(confidence, KNOWN_FLAGGED),
    )


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature that makes the labels likeliest, from (N, C) logits and (N,) targets.

    Guo et al., "On calibration of modern neural networks" (2017). Its logarithm has a standard normal prior, which
    weighs as much as about one photo: without it, photos that are all named rightly would ask for a temperature of 0.
    The loss has one minimum in 1 / temperature; it is found by golden section, to a millionth.
    """

    def cost(log_temperature: float) -> float:
        return log_loss(logits, targets, math.exp(log_temperature)) * len(targets) + log_temperature**2 / 2

    # Not scipy's minimize_scalar: a head trained again on known photos needs nothing else of scipy, and importing its
    # optimizers takes half a second of the five.
    low, high = -_WIDEST, _WIDEST
    while high - low > 1e-6:
        width = _GOLDEN * (high - low)
        if cost(high - width) <= cost(low + width):
            high = low + width
        else:
            low = high - width
    return round(math.exp((low + high) / 2), 6)


def scaled_probs(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return the softmax of (N, C) logits at a temperature, (N, C) float64 in 0-1."""
    scaled = logits.astype(np.float64) / temperature
    probs: np.ndarray = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1)[:, None])
    return probs


def log_loss(logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the targets at a temperature, nats.

    From the logits, because a probability of a confident mistake may round to 0.
    """
    scaled = logits.astype(np.float64) / temperature
    return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(targets)), targets]).mean())


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, 0-1, over equal bins of confidence (Naeini et al. 2015).

    `confidence` is (N,) in 0-1, `right` (N,) bool.
    """
    gaps = np.bincount(confidence_bin(confidence, bins), weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def confidence_bin(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return which of the equal bins of confidence each answer falls into, (N,) int64 from 0."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def expected_chance_gap(confidence: np.ndarray, bins: int = 15) -> float:
    """Return the calibration error that a perfectly calibrated model shows by chance, 0-1.

    `confidence` is (N,) in 0-1. In each bin the number of right answers then has the variance sum c (1 - c),
    and a normal variable is off its mean by sqrt(2 / pi) standard deviations on average.
    """
    variance = np.bincount(confidence_bin(confidence, bins), weights=confidence * (1 - confidence), minlength=bins)
    return float(np.sqrt(2 / np.pi * np.maximum(variance, 0)).sum() / len(confidence))


@dataclass(frozen=True)
class CalibrationGap:
    """How far confidence is from accuracy, with what chance adds to it taken off.

    square   mean squared gap, debiased; below 0 where the gaps are smaller than chance alone explains
    gaps     sum of confidence less right answers of each of G clusters in each bin of confidence, (G, bins)
    counts   photos of each cluster in each bin, (G, bins)
    spread   variance that one answer of a calibrated model has in each bin, (bins,), above 0
    rare     clusters with right answers, or those with wrong ones, whichever are fewer
    """

    square: float
    gaps: np.ndarray
    counts: np.ndarray
    spread: np.ndarray
    rare: int

    @property
    def root(self) -> float:
        """Root of the mean squared gap, 0-1."""
        return math.sqrt(max(0.0, self.square))

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the true root mean square gap, 0-1.

        Its square holds those true ones with which the found one is not among the 2.5 % of lowest or highest. What
        would be found, with what chance adds to it, is a sum of squares of nearly normal gaps, and so about
        gamma-distributed (Patnaik 1949): its mean is the true one's and chance's, its variance grows with the true one.
        (0, 1) where no bin has photos of two clusters.
        """
        from scipy.special import gammainc

        if (self.counts > 0).sum(axis=0).max() < 2:  # one alone is all chance or all gap
            return 0.0, 1.0
        at = self._chance()
        # Gaps smaller than chance makes them are themselves chance: ten photos, nine of them right at a confidence of
        # 90 %, do not make sure of no gap at all.
        found = max(self.square + at.added, _LEAST_FOUND * at.added)

        def below(true: float) -> float:
            mean, variance = at.seen * true + at.added, at.variance + at.slope * true
            return float(gammainc(mean**2 / variance, found * mean / variance))

        def largest(share: float) -> float:
            if below(1.0) > share:
                return 1.0
            low, high = 0.0, 1.0
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (middle, high) if below(middle) > share else (low, middle)
            return math.sqrt(low)

        return min(self.root, largest(0.975)), max(self.root, largest(0.025))

    def _chance(self) -> _Chance:
        # A bin with one cluster shows no gap, but what it would be by chance leaves room for one.
        used = self.counts.any(axis=0)
        gaps, counts = self.gaps[:, used], self.counts[:, used]
        of_bin, photos, clusters = counts.sum(axis=0), self.counts.sum(), len(gaps)
        mean, sizes = gaps.sum(axis=0) / of_bin, (counts**2).sum(axis=0)
        own = gaps - counts * mean
        # Few answers of the rarer kind show little of the variance, none of them none at all: a calibrated model's
        # counts as much as one.
        known = self.rare / (self.rare + _PRIOR_RARE)
        covariance = known * own.T @ own + (1 - known) * np.diag(sizes * self.spread[used])
        scaled = covariance / np.sqrt(np.outer(of_bin, of_bin)) / photos
        added, variance = float(np.trace(scaled)), float(2 * (scaled**2).sum())
        # What each cluster adds beyond its due: their squares' sum is the variance of a large gap, and twice that
        # of no gap at all.
        shares = (2 * gaps @ mean - counts @ mean**2 - of_bin @ mean**2 / photos * counts.sum(axis=1)) / photos
        more = max(0.0, float((shares**2).sum()) * clusters / (clusters - 1) - 2 * variance)
        # Found gaps that are mostly chance do not tell how the variance grows: then as with gaps in proportion to the
        # variance of the answers, as of a model that is too sure.
        way = np.sqrt(of_bin) * np.diagonal(scaled)
        usual = 4 * float(way @ scaled @ way / (way @ way))
        weight = _USUAL_WEIGHT * math.sqrt(variance)
        return _Chance(
            seen=float((of_bin - sizes / of_bin).sum() / photos),
            added=added,
            variance=variance,
            slope=known * (more + usual * weight) / (max(0.0, self.square) + weight) + (1 - known) * usual,
        )


@dataclass(frozen=True)
class _Chance:
    """What chance does to the debiased mean squared gap.

    seen       share of the true one that is found on average: gaps within a cluster alone in its bin are not
    added      what chance adds to the mean squared gap, and debiasing takes off
    variance   that of the debiased one without any true gap
    slope      how much larger it is for each unit of the true one
    """

    seen: float
    added: float
    variance: float
    slope: float


def calibration_gap(
    confidence: np.ndarray, right: np.ndarray, clusters: np.ndarray | None = None, bins: int = 15
) -> CalibrationGap:
    """Return the root mean square calibration error over equal bins of confidence, debiased.

    `confidence` is (N,) in 0-1, `right` (N,) bool, `clusters` (N,) numbers from 0 without gaps, of photos that depend
    on one another; by default each is by itself. The expected calibration error grows by chance, the more so the fewer
    the photos and the more of them are wrong. Of the square the part that is chance is known and taken off
    (Kumar, Liang and Ma, "Verified uncertainty calibration", 2019), so that models of different accuracy can be
    compared. With few clusters in a bin it leans towards 0.
    """
    where = confidence_bin(confidence, bins)
    tied = np.arange(len(right)) if clusters is None else clusters
    gaps, counts = np.zeros((2, int(tied.max()) + 1, bins))
    np.add.at(gaps, (tied, where), confidence - right)
    np.add.at(counts, (tied, where), 1.0)
    of_bin = counts.sum(axis=0)
    square = debiased_square(gaps.sum(axis=0), of_bin, (gaps**2).sum(axis=0))
    doubt = np.bincount(where, weights=confidence * (1 - confidence), minlength=bins)
    # However sure: of n clusters all right one more would still be wrong in one case of n + 2 (Laplace).
    clusters = (counts > 0).sum(axis=0)
    least = (clusters + 1) / (clusters + 2) ** 2
    return CalibrationGap(
        square=float(square),
        gaps=gaps,
        counts=counts,
        spread=np.maximum(doubt / np.maximum(of_bin, 1), least),
        rare=min(len(np.unique(tied[right])), len(np.unique(tied[~right]))),
    )


def debiased_square(gaps: np.ndarray, counts: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the mean squared calibration gap less what chance adds to it, (...), from sums over clusters, (..., bins).

    `gaps` are each bin's sums of confidence less right answers, `counts` its photos, `squares` the sums of the
    clusters' squared gaps.
    """
    found: np.ndarray = ((gaps**2 - squares) / np.maximum(counts, 1)).sum(axis=-1) / counts.sum(axis=-1)
    return found
