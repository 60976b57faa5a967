"""Temperature, prediction sets, review and unknown animals: by hand, and on simulated photos nobody has seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wildtune.evaluate.calibration import fit_calibration, fit_temperature, scaled_probs
from wildtune.evaluate.conformal import find_review_rule, find_set_rule
from wildtune.evaluate.trust import describe_trust, review_curve, score_trust
from wildtune.intervals import share_upper_bound
from wildtune.model.calibration import set_members
from wildtune.predict.predictions import Predictions

CLASSES = 5


def draw(rng: np.random.Generator, photos: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, C) logits, calibrated at temperature `sharpness`, and targets drawn from their probabilities."""
    logits = rng.normal(0, 3, (photos, CLASSES))
    probs = scaled_probs(logits, 1.0)
    targets = (probs.cumsum(axis=1) > rng.random((photos, 1))).argmax(axis=1)
    return logits * sharpness, targets


def as_predictions(logits: np.ndarray, targets: np.ndarray) -> Predictions:
    names = tuple("abcde")
    paths = tuple(map(str, range(len(targets))))
    return Predictions(paths, tuple(names[t] for t in targets), ("",) * len(paths), logits.astype(np.float32), names)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(sharpness: float) -> None:
    logits, targets = draw(np.random.default_rng(0), 4000, sharpness)
    assert fit_temperature(logits, targets) == pytest.approx(sharpness, rel=0.06)


def test_few_photos_all_right_do_not_make_the_model_certain() -> None:
    logits = np.eye(3)[np.arange(9) % 3] * 2
    assert 0.3 < fit_temperature(logits, np.arange(9) % 3) < 1
    assert fit_calibration(as_predictions(np.zeros((0, CLASSES)), np.zeros(0, dtype=int))) is None


def test_the_upper_bound_of_a_share() -> None:
    assert share_upper_bound(0, 59, 0.95) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert share_upper_bound(3, 100, 0.95) == pytest.approx(0.0757, abs=1e-4)  # beta quantile, 4 and 97
    assert share_upper_bound(4, 4, 0.95) == share_upper_bound(0, 0, 0.95) == 1.0


def test_sets_too_few_photos_to_promise_hold_every_class() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    assert set_members(probs, find_set_rule(np.full(18, 0.5), 0.95)).all()
    rule = find_set_rule(np.linspace(0.05, 0.95, 19), 0.95)
    assert rule.least_prob == pytest.approx(0.05)
    assert set_members(np.array([[0.3, 0.3, 0.4]]), find_set_rule(np.full(19, 0.9), 0.95)).tolist() == [
        [False, False, True]
    ]


def test_review_aims_at_what_the_photos_could_show() -> None:
    confidence = np.linspace(0.99, 0.3, 200)
    perfect = find_review_rule(confidence, np.ones(200, dtype=bool), 0.95)
    assert (perfect.target, perfect.accuracy, perfect.reviewed, perfect.least_confidence) == (0.95, 0.95, 0.0, 0.0)
    right = np.arange(200) < 150
    partly = find_review_rule(confidence, right, 0.95)
    assert partly.accuracy == 0.95
    assert 0.2 <= partly.reviewed <= 0.25
    assert right[confidence >= partly.least_confidence].mean() >= 0.95
    # The confidences that 150 photos share keep all of them, of which a third are wrong, or none.
    tied = find_review_rule(np.repeat([1.0, 0.5], [150, 50]), np.arange(200) % 150 < 100, 0.95)
    assert tied.least_confidence == 1.0
    assert tied.accuracy == pytest.approx(1 - share_upper_bound(50, 150, 0.95))
    assert tied.reviewed == 0.25
    hopeless = find_review_rule(confidence, np.arange(200) % 2 == 0, 0.95)
    assert hopeless.reviewed == 0.5
    assert hopeless.accuracy == pytest.approx(1 - share_upper_bound(50, 100, 0.95))
    assert hopeless.accuracy < hopeless.target


def test_promises_hold_on_photos_nobody_has_seen() -> None:
    """Over simulated validation sides: coverage on average, and the accuracy of the rest in 95 % of cases."""
    rng, rounds, fitted, fresh = np.random.default_rng(3), 150, 200, 4000
    covered, flagged, broken = np.zeros(3), 0.0, 0
    for _ in range(rounds):
        logits, targets = draw(rng, fitted + fresh, 2.0)
        rule = fit_calibration(as_predictions(logits[:fitted], targets[:fitted]))
        assert rule is not None
        probs, labels = scaled_probs(logits[fitted:], rule.temperature), targets[fitted:]
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
        covered += [set_members(probs, one)[np.arange(fresh), labels].mean() for one in rule.sets]
        flagged += (confidence < rule.unknown.least_confidence).mean()
        broken += right[confidence >= rule.review.least_confidence].mean() < rule.review.accuracy
    assert (covered / rounds >= np.array([0.90, 0.95, 0.99]) - 0.006).all(), covered / rounds
    assert (covered / rounds <= np.array([0.92, 0.97, 1.00])).all(), covered / rounds
    assert flagged / rounds <= 0.056
    assert broken / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


def test_the_score_of_trust_is_that_of_the_photos_it_is_given() -> None:
    rng = np.random.default_rng(1)
    rule = fit_calibration(as_predictions(*draw(rng, 500, 3.0)))
    logits, targets = draw(rng, 2000, 3.0)
    found = as_predictions(logits, targets)
    assert score_trust(found, "test") is None
    object.__setattr__(found, "calibration", rule)
    score = score_trust(found, "test")
    assert score is not None
    assert score.calibration_error < 0.05 < score.calibration_error_before
    assert score.log_loss < score.log_loss_before
    assert score.review.accuracy == (found.predicted == targets)[~found.review].mean()
    assert "judged on 2,000 test photos" in describe_trust(score)
    assert [point.reviewed for point in review_curve(np.array([0.5]), np.array([True]))] == [0.0]
