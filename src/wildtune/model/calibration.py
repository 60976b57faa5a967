"""What a bundle knows about its own answers: how sure they are, how far to trust them, and what it has never seen."""

from __future__ import annotations

import math

import numpy as np
import pydantic

from wildtune.errors import CommandError
from wildtune.frozen import Frozen


class SetRule(Frozen):
    """One promise of prediction sets.

    coverage       share of new photos whose set holds the right class, 0-1
    least_prob     least probability of a class that is in the set, 0-1; 0 where the photos were too few to promise it,
                   so that every class is
    """

    coverage: float
    least_prob: float


class ReviewRule(Frozen):
    """Which answers a person should look at.

    least_confidence   answers below it are for review, 0-1
    accuracy           least accuracy promised of the others, 0-1
    target             accuracy that was asked for, 0-1; where `accuracy` is less, it could not be promised
    certainty          probability that the promise holds, over the photos it was found on, 0-1
    photos             validation photos it was found on
    reviewed           share of these that fell below the confidence, 0-1
    """

    least_confidence: float
    accuracy: float
    target: float
    certainty: float
    photos: int
    reviewed: float


class UnknownRule(Frozen):
    """Which photos show none of the classes.

    least_confidence  photos whose answer has less are held to show none of them, 0-1 (Hendrycks and Gimpel 2017)
    known_flagged     share of photos of the classes for which that happens wrongly, at most, 0-1
    """

    least_confidence: float
    known_flagged: float


class Calibration(Frozen):
    """Fitted on the validation photos and kept in the bundle.

    temperature   the logits are divided by it before they become probabilities, over 0 (Guo et al. 2017)
    photos        validation photos it was fitted on
    sets          prediction sets; predictions show the first
    review        answers to look at
    unknown       photos that show none of the classes
    """

    temperature: float = pydantic.Field(gt=0)
    photos: int
    sets: tuple[SetRule, ...]
    review: ReviewRule
    unknown: UnknownRule

    def with_coverage(self, coverage: float) -> Calibration:
        """Return this calibration with the sets of `coverage` first. Raises CommandError where there are none."""
        chosen = [rule for rule in self.sets if math.isclose(rule.coverage, coverage)]
        if not chosen:
            known = ", ".join(f"{rule.coverage:g}" for rule in self.sets)
            raise CommandError(f"The coverage of prediction sets must be one of {known}. Got {coverage:g}.")
        return self.model_copy(update={"sets": (*chosen, *(rule for rule in self.sets if rule not in chosen))})


def set_members(probs: np.ndarray, rule: SetRule) -> np.ndarray:
    """Return which classes are in the set of each photo, (N, C) bool, from (N, C) probabilities.

    The likeliest class always is: an empty set would help nobody, and a class more can only raise the coverage.
    """
    members: np.ndarray = probs >= rule.least_prob
    members[np.arange(len(probs)), probs.argmax(axis=1)] = True
    return members
