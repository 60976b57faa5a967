"""What a model's own doubts were worth on labelled photos: calibration, prediction sets, review, unknown animals."""

from __future__ import annotations

import numpy as np

from wildtune.evaluate.calibration import expected_calibration_error, expected_chance_gap, log_loss, scaled_probs
from wildtune.frozen import Frozen
from wildtune.intervals import Interval, wilson_interval
from wildtune.model.calibration import ReviewRule, SetRule, set_members
from wildtune.predict.predictions import Predictions
from wildtune.wording import counted

# Shares of the photos, the least sure first, that the curve of review is given at.
_CURVE = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


class SetScore(Frozen):
    """How one promise of prediction sets fared.

    promised   coverage promised, 0-1
    held       share of the photos whose set holds their label, 0-1, with its 95 % Wilson interval
    size       mean number of classes in a set
    single     share of the photos whose set is one class, 0-1
    """

    promised: float
    held: float
    interval: Interval
    size: float
    single: float


class ReviewScore(Frozen):
    """How the rule for review fared.

    promised, certainty   accuracy promised of the answers left, and the probability that the promise holds, 0-1
    target                accuracy that was asked for, 0-1
    reviewed              share of the photos sent to review, 0-1, with its 95 % Wilson interval
    accuracy              share right among the others, 0-1, with its 95 % Wilson interval; None where none is left
    """

    promised: float
    certainty: float
    target: float
    reviewed: float
    reviewed_interval: Interval
    accuracy: float | None
    interval: Interval


class CurvePoint(Frozen):
    """Accuracy of the other photos, 0-1, once the least sure share `reviewed` is looked at; with its 95 % interval."""

    reviewed: float
    accuracy: float
    interval: Interval


class TrustScore(Frozen):
    """A model's own doubts, on photos of its classes.

    side                 as in `Evaluation`
    photos               photos with a label and a prediction
    fitted_on            validation photos that everything was fitted on
    temperature          what the logits are divided by
    calibration_error_before, calibration_error   expected calibration error without and with the temperature, 0-1
    calibration_error_by_chance                   what a perfectly calibrated model would show on as many photos, 0-1
    log_loss_before, log_loss                     nats, without and with the temperature
    sets                 each promised coverage
    review               the rule for review
    curve                accuracy of the rest by the share reviewed
    unknown_promised     share of photos of its classes that is called unknown at most, 0-1
    unknown_flagged      share of these that was, 0-1, with its 95 % Wilson interval
    """

    side: str
    photos: int
    fitted_on: int
    temperature: float
    calibration_error_before: float
    calibration_error: float
    calibration_error_by_chance: float
    log_loss_before: float
    log_loss: float
    sets: tuple[SetScore, ...]
    review: ReviewScore
    curve: tuple[CurvePoint, ...]
    unknown_promised: float
    unknown_flagged: float
    unknown_interval: Interval


def score_trust(predictions: Predictions, side: str) -> TrustScore | None:
    """Score the calibration that predictions came with; None where they have none or no row has a label."""
    calibration = predictions.calibration
    keep = (predictions.targets >= 0) & (predictions.predicted >= 0)
    if calibration is None or not keep.any():
        return None
    logits, targets, probs = predictions.logits[keep], predictions.targets[keep], predictions.probs[keep]
    confidence, right = probs.max(axis=1), predictions.predicted[keep] == targets
    flagged = int(predictions.unknown[keep].sum())
    return TrustScore(
        side=side,
        photos=len(targets),
        fitted_on=calibration.photos,
        temperature=calibration.temperature,
        calibration_error_before=expected_calibration_error(scaled_probs(logits, 1.0).max(axis=1), right),
        calibration_error=expected_calibration_error(confidence, right),
        calibration_error_by_chance=expected_chance_gap(confidence),
        log_loss_before=log_loss(logits, targets),
        log_loss=log_loss(logits, targets, calibration.temperature),
        sets=tuple(_score_sets(probs, targets, rule) for rule in calibration.sets),
        review=_score_review(predictions.review[keep], right, calibration.review),
        curve=review_curve(confidence, right),
        unknown_promised=calibration.unknown.known_flagged,
        unknown_flagged=flagged / len(targets),
        unknown_interval=wilson_interval(flagged, len(targets)),
    )


def review_curve(confidence: np.ndarray, right: np.ndarray) -> tuple[CurvePoint, ...]:
    """Return how accurate the other answers are when the least sure of (N,) are looked at first."""
    ranked = right[np.argsort(confidence, kind="stable")]
    points: list[CurvePoint] = []
    for share in _CURVE:
        rest = ranked[round(share * len(ranked)) :]
        if len(rest) and (not points or len(rest) < len(ranked) * (1 - points[-1].reviewed)):
            hits = int(rest.sum())
            points.append(
                CurvePoint(
                    reviewed=1 - len(rest) / len(ranked),
                    accuracy=hits / len(rest),
                    interval=wilson_interval(hits, len(rest)),
                )
            )
    return tuple(points)


def describe_trust(score: TrustScore) -> str:
    """Return what the doubts are worth in a few lines for a terminal."""
    review = score.review
    lines = [
        f"confidence, fitted on {counted(score.fitted_on, 'validation photo')} and judged on "
        f"{counted(score.photos, f'{score.side} photo')}",
        f"calibration error  {score.calibration_error_before:.3f} as trained, {score.calibration_error:.3f} at "
        f"temperature {score.temperature:.2f} (a perfect model: about {score.calibration_error_by_chance:.3f})",
    ]
    lines += [
        f"prediction sets    promised {s.promised:.0%}, held {s.held:.1%} (95 % interval {s.interval[0]:.1%} to "
        f"{s.interval[1]:.1%}), {s.size:.2f} classes on average"
        for s in score.sets
    ]
    rest = "none left" if review.accuracy is None else f"{review.accuracy:.1%} right"
    span = f"{review.interval[0]:.1%} to {review.interval[1]:.1%}"
    lines.append(
        f"review             {review.reviewed:.1%} of the photos; of the others {rest} (95 % interval {span}), "
        f"promised {review.promised:.1%} with {review.certainty:.0%} certainty"
    )
    low, high = score.unknown_interval
    lines.append(
        f"called unknown     {score.unknown_flagged:.1%} of these photos of known classes (95 % interval {low:.1%} to "
        f"{high:.1%}), promised {score.unknown_promised:.0%} at most"
    )
    return "\n".join(lines)


def _score_sets(probs: np.ndarray, targets: np.ndarray, rule: SetRule) -> SetScore:
    members = set_members(probs, rule)
    held, sizes = int(members[np.arange(len(targets)), targets].sum()), members.sum(axis=1)
    return SetScore(
        promised=rule.coverage,
        held=held / len(targets),
        interval=wilson_interval(held, len(targets)),
        size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
    )


def _score_review(review: np.ndarray, right: np.ndarray, rule: ReviewRule) -> ReviewScore:
    sent, rest = int(review.sum()), int((~review).sum())
    hits = int(right[~review].sum())
    return ReviewScore(
        promised=rule.accuracy,
        certainty=rule.certainty,
        target=rule.target,
        reviewed=sent / len(review),
        reviewed_interval=wilson_interval(sent, len(review)),
        accuracy=hits / rest if rest else None,
        interval=wilson_interval(hits, rest),
    )
