"""Fit what a bundle knows about its own answers, on the validation photos."""

from __future__ import annotations

import math

import numpy as np

from wildtune.evaluate.conformal import find_review_rule, find_set_rule, find_unknown_rule
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
