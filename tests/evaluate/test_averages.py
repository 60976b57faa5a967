"""Scores in which every class counts the same: by hand, and how often their intervals hold the truth."""

from __future__ import annotations

import time

import numpy as np
import pytest

from wildtune.evaluate.averages import average_classes
from wildtune.intervals import wilson_interval


def test_scores_by_hand_and_classes_without_photos_count_for_nothing() -> None:
    scores = average_classes(np.array([[8, 2, 0, 0], [1, 3, 0, 1], [0, 0, 5, 0], [0, 0, 0, 0]]))
    assert scores.balanced_accuracy == pytest.approx((8 / 10 + 3 / 5 + 1) / 3)
    assert scores.macro_f1 == pytest.approx((16 / 19 + 6 / 10 + 1) / 3)
    low, high = scores.balanced_accuracy_interval
    assert 0.5 < low < scores.balanced_accuracy < high < 1
    even = average_classes(np.array([[18, 2], [2, 18]]))
    assert even.balanced_accuracy_interval == pytest.approx(wilson_interval(36, 40))
    assert even.macro_f1_interval == pytest.approx(wilson_interval(36, 40))


def test_the_extremes_stay_within_0_and_1_and_are_not_called_certain() -> None:
    perfect = average_classes(np.eye(5, dtype=int) * 10)
    assert perfect.balanced_accuracy_interval[1] == perfect.macro_f1_interval[1] == 1.0
    assert perfect.balanced_accuracy_interval == perfect.macro_f1_interval == pytest.approx(wilson_interval(50, 50))
    few = average_classes(np.diag([1000, 5]))
    assert few.balanced_accuracy_interval == pytest.approx(wilson_interval(19.9, 19.9), rel=1e-3)
    hopeless = average_classes(np.array([[0, 4], [4, 0]]))
    assert (hopeless.balanced_accuracy, hopeless.balanced_accuracy_interval[0]) == (0.0, 0.0)
    assert hopeless.balanced_accuracy_interval[1] > 0.1
    assert average_classes(np.array([[7]])).macro_f1 == 1.0
    with pytest.raises(ValueError, match="no class"):
        average_classes(np.zeros((3, 3), dtype=int))


@pytest.mark.parametrize(
    ("photos", "recalls"),
    [
        ((4, 6, 8, 12, 20, 40, 90, 200), (0.6, 0.95, 0.8, 0.85, 0.75, 0.9, 0.92, 0.97)),
        # Few mistakes, most of them in classes of which there are few photos.
        ((196, 118, 39, 20, 12, 8), (0.995, 0.99, 0.98, 0.97, 0.95, 0.9)),
    ],
)
def test_intervals_cover(photos: tuple[int, ...], recalls: tuple[float, ...]) -> None:
    """Over simulated classifiers of rare and common classes they hold the truth about as often as they say."""
    rng, counts, others = np.random.default_rng(0), np.array(photos), len(photos) - 1
    shares = np.array([np.insert(rng.dirichlet(np.full(others, 0.4)) * (1 - r), k, r) for k, r in enumerate(recalls)])
    expected = counts[:, None] * shares
    recall, f1 = np.mean(recalls), (2 * np.diagonal(expected) / (counts + expected.sum(axis=0))).mean()
    held = np.zeros(2)
    for _ in range(1000):
        found = average_classes(np.array([rng.multinomial(n, p) for n, p in zip(counts, shares, strict=True)]))
        held += (
            found.balanced_accuracy_interval[0] <= recall <= found.balanced_accuracy_interval[1],
            (found.macro_f1_interval[0] <= f1 <= found.macro_f1_interval[1]),
        )
    assert (held / 1000 >= 0.92).all(), held / 1000
    assert (held / 1000 <= 0.98).all(), held / 1000


def test_two_hundred_classes_take_no_time_to_speak_of() -> None:
    rng = np.random.default_rng(0)
    confusion = np.diag(rng.integers(1, 60, 200)) + (rng.random((200, 200)) < 0.02)
    started = time.process_time()
    average_classes(confusion)
    assert time.process_time() - started < 2.0
