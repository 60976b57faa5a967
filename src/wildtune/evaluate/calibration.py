"""Fit what a bundle knows about its own answers, on the validation photos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from wildtune.evaluate.conformal import find_review_rule, find_set_rule, find_unknown_rule
from wildtune.intervals import Interval, last_kept
from wildtune.model.calibration import Calibration
from wildtune.predict.predictions import Predictions

COVERAGES = (0.90, 0.95, 0.99)
CERTAINTY = 0.95
KNOWN_FLAGGED = 0.05

# Temperatures looked among: beyond a factor of 20 no probability would be left to speak of.
_WIDEST = math.log(20)
_GOLDEN = (math.sqrt(5) - 1) / 2

_NORMAL = NormalDist()
_LEVEL = 0.05
_PRIOR_RARE = 1
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
    spread   variance that one answer of a calibrated model has in each bin, (bins,); at least that of one mistake in
             all clusters and two more
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
        """The 95 % interval of the true root mean square gap, 0-1; the found one is in it.

        Its square holds those true ones that a test of what was found does not reject at 5 %. Near 0 the test rejects
        more for too much found than for too little, as Feldman and Cousins (1998) order it: no interval can end below
        0, so that one that leaves out 2.5 % on either side would hold the truth too often there.
        (0, 1) where no bin has photos of two clusters.
        """
        if (self.counts > 0).sum(axis=0).max() < 2:  # one alone is all chance or all gap
            return 0.0, 1.0
        at = self._chance()
        # Gaps smaller than chance makes them are themselves chance: ten photos, nine of them right at a confidence of
        # 90 %, do not make sure of no gap at all.
        found = max(self.square + at.added, _LEAST_FOUND * at.added)
        most = max(1.0, 2 * found / at.seen)  # more than there can be, where what is found is more than likely
        likeliest = last_kept(0.0, most, lambda true: at.score(true, found) > 0)
        low, high = (
            math.sqrt(min(1.0, last_kept(likeliest, end, lambda true: at.p_value(true, found) >= _LEVEL)))
            for end in (0.0, most)
        )
        return min(low, self.root), max(high, self.root)

    def _chance(self) -> _Chance:
        # A bin with one cluster shows no gap, but what it would be by chance leaves room for one.
        used = self.counts.any(axis=0)
        gaps, counts, spread = self.gaps[:, used], self.counts[:, used], self.spread[used]
        of_bin, photos, clusters = counts.sum(axis=0), self.counts.sum(), len(gaps)
        mean, sizes = gaps.sum(axis=0) / of_bin, (counts**2).sum(axis=0)
        own = gaps - counts * mean
        # Few answers of the rarer kind show little of the variance, none of them none at all: a calibrated model's
        # counts as much as `_PRIOR_RARE` of them.
        known = self.rare / (self.rare + _PRIOR_RARE)
        shown = known * own.T @ own + (1 - known) * np.diag(sizes * spread)
        shown /= np.sqrt(np.outer(of_bin, of_bin)) * photos
        own_variance = 2 * float((shown**2).sum())
        # Found gaps that are mostly chance do not tell how the variance grows: then as with gaps in proportion to the
        # variance of the answers.
        way = np.sqrt(of_bin) * spread
        if photos == clusters:
            # Each photo by itself: what chance does to a calibrated model is known from its confidence, and only pairs
            # of photos count. What the gaps show of it is less where they are large by chance.
            covariance = np.diag(spread) / photos
            pairs = 1 - 1 / of_bin
            added, variance = float((spread * pairs).sum() / photos), float(2 * (spread**2 * pairs).sum() / photos**2)
            # The gaps of a model that is too sure are larger where it is surer; in groups, where the variance is known
            # less well, that makes intervals too narrow.
            way *= -np.log(1 - (np.flatnonzero(used) + 0.5) / self.counts.shape[1])
        else:
            covariance, added, variance = shown, float(np.trace(shown)), own_variance
        usual = 4 * float(max(way @ covariance @ way, way @ shown @ way) / (way @ way))
        # What each cluster adds beyond its due: their squares' sum is the variance of a large gap, and twice that
        # of no gap at all.
        shares = (2 * gaps @ mean - counts @ mean**2 - of_bin @ mean**2 / photos * counts.sum(axis=1)) / photos
        large = float((shares**2).sum()) * clusters / (clusters - 1)
        more = max(0.0, max(0.0, large - 2 * own_variance) + own_variance - variance)
        weight = _USUAL_WEIGHT * math.sqrt(max(variance, own_variance))
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
    added      what chance adds to the mean squared gap of a calibrated model
    variance   that of the debiased one without any true gap
    slope      how much larger it is for each unit of the true one
    """

    seen: float
    added: float
    variance: float
    slope: float

    def score(self, true: float, found: float) -> float:
        """Return what was found, with what chance adds, as about a standard normal number if `true` were the true one.

        What is found is a sum of squares of nearly normal gaps, so about gamma-distributed (Patnaik 1949), and its cube
        root is about normal (Wilson and Hilferty 1931).
        """
        factor, term = self._line(true)
        return float(factor * found ** (1 / 3) - term)

    def p_value(self, true: float, found: float) -> float:
        """Return how often chance makes of a true mean squared gap what speaks against it at least as much.

        What speaks against it is the square of its score less that of the score which fits best from no gap on: 0, but
        where less was found than chance alone makes (after Feldman and Cousins 1998, who compare likelihoods).
        """
        against = self.score(true, found) ** 2 - min(0.0, self.score(0.0, found)) ** 2
        if against <= 0:
            return 1.0
        (factor, term), (factor_0, term_0) = self._line(true), self._line(0.0)
        above = _NORMAL.cdf(-math.sqrt(against))
        # As much speaks against cube roots below this one, but that below `bend` no gap fits best.
        root, bend = (term - math.sqrt(against)) / factor, term_0 / factor_0
        if root >= bend:
            return 2 * above
        # There what speaks against it is a parabola of the cube root.
        bent, half = factor**2 - factor_0**2, factor * term - factor_0 * term_0
        inner = half**2 - bent * (term**2 - term_0**2 - against)
        if bent == 0 or inner < 0:
            return above
        first, second = sorted(((half - math.sqrt(inner)) / bent, (half + math.sqrt(inner)) / bent))
        if bent > 0:
            return above + _NORMAL.cdf(factor * min(first, bend) - term)
        return above + max(0.0, _NORMAL.cdf(factor * min(second, bend) - term) - _NORMAL.cdf(factor * first - term))

    def _line(self, true: float) -> tuple[float, float]:
        """Return the factor of the cube root and the term taken off it that make a score."""
        mean, variance = self.seen * true + self.added, self.variance + self.slope * true
        steep = 3 * mean / math.sqrt(variance)
        return steep / mean ** (1 / 3), steep - 1 / steep


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
    # However sure: of n clusters, of all bins, all right one more would still be wrong in one case of n + 2 (Laplace).
    least = (len(gaps) + 1) / (len(gaps) + 2) ** 2
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
