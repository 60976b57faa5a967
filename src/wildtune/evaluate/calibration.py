"""Fit what a bundle knows about its own answers, on the validation photos."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wildtune.evaluate.conformal import find_review_rule, find_set_rule, find_unknown_rule
from wildtune.intervals import Interval, student_quantile
from wildtune.model.calibration import Calibration
from wildtune.predict.predictions import Predictions

COVERAGES = (0.90, 0.95, 0.99)
CERTAINTY = 0.95
KNOWN_FLAGGED = 0.05

# Temperatures looked among: beyond a factor of 20 no probability would be left to speak of.
_WIDEST = math.log(20)
_GOLDEN = (math.sqrt(5) - 1) / 2


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

    square    mean squared gap, debiased; below 0 where the gaps are smaller than chance alone explains
    gaps      sum of confidence less right answers of each of G clusters in each bin of confidence, (G, bins)
    counts    photos of each cluster in each bin, (G, bins)
    due       variance of each such sum if the confidence is right, (G, bins)
    scatter   how many times that variance the answers have that were seen
    """

    square: float
    gaps: np.ndarray
    counts: np.ndarray
    due: np.ndarray
    scatter: float

    @property
    def root(self) -> float:
        """Root of the mean squared gap, 0-1."""
        return math.sqrt(max(0.0, self.square))

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the true root mean square gap, 0-1: where the test of `_gap_score` does not object."""
        noise, flat, slope = _gap_variance(self.due, self.counts)
        if flat == 0:  # no bin with two clusters says anything about its own chance
            return 0.0, 1.0
        quantile = student_quantile(len(self.gaps) - 1)

        def end(score: float) -> float:
            low, high = 0.0, 1.0
            for _ in range(50):
                middle = (low + high) / 2
                over = _gap_score(self.square, self.scatter, middle, noise, flat, slope) > score
                low, high = (middle, high) if over else (low, middle)
            return math.sqrt(low) if low > 1e-9 else 0.0

        return end(quantile), end(-quantile)


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
    gaps, counts, due = np.zeros((3, int(tied.max()) + 1, bins))
    # A confidence that rounds to 1 still leaves chance something to do.
    alone = np.maximum(confidence * (1 - confidence), 1e-6)
    for table, values in ((gaps, confidence - right), (counts, 1.0), (due, alone)):
        np.add.at(table, (tied, where), values)
    square = debiased_square(gaps.sum(axis=0), counts.sum(axis=0), (gaps**2).sum(axis=0))
    seen = float(((confidence - right) ** 2).sum())
    effect = max(1.0, float((gaps**2).sum()) / seen) if seen else 1.0  # of the clusters
    return CalibrationGap(float(square), gaps, counts, due * effect, seen / float(alone.sum()))


def _gap_variance(due: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Return what makes the variance of a debiased mean squared gap, from (G, bins) `due` and `counts`.

    These are: what chance adds to the mean square before it is taken off; the variance of a calibrated model's; and
    how much more that is for each unit of the true mean square gap. For the last it must be assumed which bins the gap
    is in: its square goes with the fourth root of c (1 - c), because near certainty there is little room for it. That
    power holds what it promises in simulations (`benchmarks/promises.py`); 0 is too narrow and 1 too wide.
    """
    used = counts.any(axis=0)
    due, counts = due[:, used], counts[:, used]
    of_bin, clusters, variance = counts.sum(axis=0), (counts > 0).sum(axis=0), due.sum(axis=0)
    photos = float(of_bin.sum())
    room = (variance / of_bin) ** 0.25
    room *= photos / (of_bin * room).sum()
    flat = 2 * ((variance**2 - (due**2).sum(axis=0)) * (clusters > 1) / of_bin**2).sum() / photos**2
    slope = 4 * (variance * room * (1 - 1 / clusters) ** 2).sum() / photos**2
    return float((variance / of_bin).sum() / photos), float(flat), float(slope)


def _gap_score(square: float, scatter: float, true: float, noise: float, flat: float, slope: float) -> float:
    """Return by how many standard deviations a debiased mean squared gap is above a `true` one.

    Before what chance adds was taken off it was a sum of squares, whose cube root is nearly normal (Wilson and Hilferty
    1931). A calibrated model's answers scatter as its confidence says; the more the true gap explains of the one
    seen, the more they scatter as those seen do.
    """
    more = 1 + (scatter - 1) * (min(1.0, math.sqrt(true / square)) if square > 0 else 1.0)
    mean = noise * more + true
    part = (flat * more**2 + slope * more * true) / (9 * mean**2)
    return (math.cbrt(max(0.0, square + noise * more) / mean) - (1 - part)) / math.sqrt(part)


def debiased_square(gaps: np.ndarray, counts: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the mean squared calibration gap less what chance adds to it, (...), from sums over clusters, (..., bins).

    `gaps` are each bin's sums of confidence less right answers, `counts` its photos, `squares` the sums of the
    clusters' squared gaps.
    """
    found: np.ndarray = ((gaps**2 - squares) / np.maximum(counts, 1)).sum(axis=-1) / counts.sum(axis=-1)
    return found
