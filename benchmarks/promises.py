"""Whether the statistics keep their word: error rates, intervals, coverage and promises on simulated photos.

python benchmarks/promises.py --simulations 2000
python benchmarks/promises.py --simulations 4000 --seed 1 --gaps --sure 2.5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wildtune.evaluate.averages import average_classes
from wildtune.evaluate.calibration import calibration_gap, fit_calibration, scaled_probs
from wildtune.evaluate.compare import LEVEL, SCORES, Contender, compare_contenders
from wildtune.model.calibration import set_members
from wildtune.predict.predictions import Predictions

CLASSES = 6


def draw_logits(rng: np.random.Generator, targets: np.ndarray, skill: float, shared: np.ndarray) -> np.ndarray:
    """Return (N, C) logits of a classifier; those with the same `shared` noise tend to make the same mistakes."""
    noise = 0.8 * shared + 0.6 * rng.normal(size=shared.shape)
    noise[np.arange(len(targets)), targets] += skill
    logits: np.ndarray = 2 * noise
    return logits


def as_predictions(logits: np.ndarray, targets: np.ndarray) -> Predictions:
    """Return logits as the predictions of photos 0, 1, ..."""
    names = tuple("abcdefghij"[: logits.shape[1]])
    return Predictions(
        paths=tuple(map(str, range(len(targets)))),
        labels=tuple(names[t] for t in targets),
        errors=("",) * len(targets),
        logits=logits.astype(np.float32),
        class_names=names,
    )


@dataclass(frozen=True)
class Setting:
    """Simulated photos, in groups of `group` that are nearly alike, and the accuracy of the runs, 0-1.

    The first and second run are equally good; the third has the accuracy `other` and is too sure of itself, or less
    sure than right.
    """

    photos: int
    group: int
    accuracy: float
    other: float


SETTINGS = (
    Setting(100, 1, 0.60, 0.66),
    Setting(100, 1, 0.90, 0.93),
    Setting(392, 1, 0.90, 0.92),
    Setting(392, 4, 0.90, 0.92),
    Setting(392, 1, 0.98, 0.985),
    Setting(2000, 1, 0.90, 0.91),
    Setting(2000, 4, 0.90, 0.91),
)
# Where the interval of a calibration error is looked at too.
FURTHER = (Setting(200, 1, 0.80, 0.80), Setting(1000, 3, 0.95, 0.95))
SURE = 1.3

# The classes' shares of the photos, and how often each is recognised, 0-1.
COMMON_AND_RARE = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
CLASSIFIERS = {
    "all alike, 66 %": ((1 / 6,) * 6, (0.66,) * 6),
    "all alike, 93 %": ((1 / 6,) * 6, (0.93,) * 6),
    "all alike, 98.5 %": ((1 / 6,) * 6, (0.985,) * 6),
    "22 classes, 80 to 100 %": ((1 / 22,) * 22, tuple(np.linspace(0.8, 1, 22))),
    "rare ones hard, 70 to 98 %": (COMMON_AND_RARE, (0.98, 0.97, 0.95, 0.9, 0.8, 0.7)),
    "rare ones hard, 90 to 99.5 %": ((0.5, 0.3, 0.1, 0.05, 0.03, 0.02), (0.995, 0.99, 0.98, 0.97, 0.95, 0.9)),
    "rare ones easy, 80 to 100 %": (COMMON_AND_RARE, (0.8, 0.8, 0.9, 0.9, 1.0, 1.0)),
}


def skill_for(accuracy: float) -> float:
    """Return the head start of the right class with which a classifier is right that often."""
    noise = np.random.default_rng(0).normal(size=(200_000, CLASSES))
    low, high = 0.0, 8.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (noise[:, 0] + middle > noise[:, 1:].max(axis=1)).mean() < accuracy else (low, middle)
        )
    return low


def draw_noise(rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
    """Return (N, C) noise of variance 1, nine tenths of which photos of one group of several share."""
    own = rng.normal(size=(len(groups), CLASSES))
    if groups[-1] + 1 == len(groups):
        return own
    shared = rng.normal(size=(groups[-1] + 1, CLASSES))[groups]
    noise: np.ndarray = np.sqrt(0.9) * shared + np.sqrt(0.1) * own
    return noise


def draw_runs(
    rng: np.random.Generator, photos: int, group: int, skills: tuple[float, float], third: float
) -> list[Contender]:
    """Return three runs' answers, two of the first skill and one of the second; they share most of their mistakes.

    The third's logits are `third` times as large as they should be.
    """
    groups = np.arange(photos) // group
    targets = rng.integers(0, CLASSES, groups[-1] + 1)[groups]
    common, names = draw_noise(rng, groups), tuple(map(str, range(photos)))
    runs = []
    for number, (skill, sure) in enumerate(((skills[0], 1.0), (skills[0], 1.0), (skills[1], third))):
        logits = np.sqrt(0.7) * common + np.sqrt(0.3) * draw_noise(rng, groups)
        logits[np.arange(photos), targets] += skill
        # Times the skill, the softmax is the true probability of each class.
        runs.append(
            Contender(
                name=str(number),
                predictions=as_predictions(skill * sure * logits, targets),
                contents=names,
                groups=tuple(f"g{g}" for g in groups) if group > 1 else ("",) * photos,
                used=dict.fromkeys(names, "test"),
            )
        )
    return runs


def true_scores(found: Predictions) -> tuple[float, float, float, float]:
    """Return `SCORES` of so many photos that chance has no part in them."""
    rows, right = np.arange(len(found)), found.predicted == found.targets
    loss = -np.log(found.probs[rows, found.targets]).mean()
    return right.mean(), right.mean(), loss, calibration_gap(found.confidence, right, rows // 100).root


def prepare(seed: int, number: int) -> tuple[Setting, np.random.Generator, tuple[float, float]]:
    """Return a setting by its number, a generator of its own and the skills of the first two runs and of the third."""
    at = (SETTINGS + FURTHER)[number]
    return at, np.random.default_rng((seed, number)), (skill_for(at.accuracy), skill_for(at.other))


def check_comparisons(seed: int, simulations: int, numbers: Sequence[int], third: float) -> None:
    for number in numbers:
        at, rng, skills = prepare(seed, number)
        truth = np.array([true_scores(run.predictions) for run in draw_runs(rng, 200_000, 1, skills, third)])
        called, own, between = np.zeros((3, len(SCORES)))
        stated = 0.0
        for _ in range(simulations):
            found = compare_contenders(draw_runs(rng, at.photos, at.group, skills, third))
            stated += found.pairs[0].false_calls
            called += [found.pairs[0].differences[name].p_value < LEVEL for name in SCORES]
            for column, name in enumerate(SCORES):
                low, high = found.runs[2].scores[name].interval
                own[column] += low <= truth[2, column] <= high
                low, high = found.pairs[1].differences[name].interval or (np.nan, np.nan)  # none of calibration errors
                between[column] += low <= truth[2, column] - truth[0, column] <= high
        print(f"{at.photos} photos in groups of {at.group}, {at.accuracy:.1%} and {at.other:.1%} right")
        print(f"  equal runs called different in accuracy, as stated by the comparison: {stated / simulations:.1%}")
        for what, counts in (
            ("equal runs called different (5 %)", called),
            ("a run's interval holds the truth (95 %)", own),
            ("a difference's interval does (95 %)", between[:3]),
        ):
            said = ", ".join(f"{name} {n / simulations:.1%}" for name, n in zip(SCORES, counts, strict=False))
            print(f"  {what:40} {said}", flush=True)


def check_gaps(seed: int, simulations: int, numbers: Sequence[int], third: float) -> None:
    """Print how often the interval of the third run's calibration error holds the truth, without comparing runs."""
    for number in numbers:
        at, rng, skills = prepare(seed, number)
        truth = true_scores(draw_runs(rng, 200_000, 1, skills, third)[2].predictions)[3]
        below, above = 0, 0
        for _ in range(simulations):
            found = draw_runs(rng, at.photos, at.group, skills, third)[2].predictions
            groups = np.arange(at.photos) // at.group
            low, high = calibration_gap(found.confidence, found.predicted == found.targets, groups).interval
            below, above = below + (truth < low), above + (truth > high)
        print(
            f"{at.photos} photos in groups of {at.group}, {at.other:.1%} right, logits {third} times too large: "
            f"the calibration error's interval holds it in {1 - (below + above) / simulations:.1%} (95 %), "
            f"is above it in {below / simulations:.1%}, below it in {above / simulations:.1%}",
            flush=True,
        )


def check_promises(rng: np.random.Generator, simulations: int) -> None:
    for photos in (195, 1000):
        for skill in (2.4, 3.6):
            covered, broken, promised, reviewed, flagged = np.zeros(3), 0, 0, 0.0, 0.0
            for _ in range(simulations):
                targets = rng.integers(0, CLASSES, photos + 20_000)
                shared = rng.normal(size=(len(targets), CLASSES))
                logits = draw_logits(rng, targets, skill, shared)
                rule = fit_calibration(as_predictions(logits[:photos], targets[:photos]))
                assert rule is not None
                probs, labels = scaled_probs(logits[photos:], rule.temperature), targets[photos:]
                confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
                rows = np.arange(len(labels))
                covered += [set_members(probs, one)[rows, labels].mean() for one in rule.sets]
                kept = confidence >= rule.review.least_confidence
                broken += right[kept].mean() < rule.review.accuracy
                promised += rule.review.accuracy == rule.review.target
                reviewed += 1 - kept.mean()
                flagged += (confidence < rule.unknown.least_confidence).mean()
            sets = ", ".join(f"{share:.1%}" for share in covered / simulations)
            print(
                f"{photos} validation photos, {right.mean():.0%} right: sets of 90, 95 and 99 % hold {sets}; accuracy "
                f"of {rule.review.target:.0%} promised in {promised / simulations:.0%}, {reviewed / simulations:.1%} "
                f"to review, promise broken in {broken / simulations:.1%} (at most 5 %); known photos called unknown "
                f"{flagged / simulations:.1%} (at most 5 %)",
                flush=True,
            )


def check_averages(rng: np.random.Generator, simulations: int) -> None:
    """Print how often the intervals of balanced accuracy and macro F1 hold what they would be with endless photos."""
    for name, (of_photos, recalls) in CLASSIFIERS.items():
        count = len(recalls)
        rows = [np.insert(rng.dirichlet(np.ones(count - 1)) * (1 - r), k, r) for k, r in enumerate(recalls)]
        for total in (100, 392, 2000):
            held = np.zeros(2)
            for _ in range(simulations):
                photos = rng.multinomial(total, of_photos)
                expected, there = photos[:, None] * np.array(rows), photos > 0
                f1 = 2 * np.diagonal(expected) / np.maximum(photos + expected.sum(axis=0), 1e-9)
                truth = np.array(recalls)[there].mean(), f1[there].mean()
                found = average_classes(np.array([rng.multinomial(n, p) for n, p in zip(photos, rows, strict=True)]))
                spans = found.balanced_accuracy_interval, found.macro_f1_interval
                held += [low <= one <= high for one, (low, high) in zip(truth, spans, strict=True)]
            said = "balanced accuracy {:.1%}, macro F1 {:.1%} (95 %)".format(*held / simulations)
            print(f"{name}, {total} photos: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", type=int, nargs="+", help="numbers from 0 of comparisons to simulate alone")
    parser.add_argument("--sure", type=float, default=SURE, help="how many times too large the third run's logits are")
    parser.add_argument("--gaps", action="store_true", help="nothing but intervals of calibration errors, more quickly")
    asked = parser.parse_args()
    if asked.gaps:
        numbers = asked.settings or range(len(SETTINGS + FURTHER))
        check_gaps(asked.seed, asked.simulations, numbers, asked.sure)
        return
    check_comparisons(asked.seed, asked.simulations, asked.settings or range(len(SETTINGS)), asked.sure)
    if not asked.settings:
        check_averages(np.random.default_rng(asked.seed), asked.simulations)
        check_promises(np.random.default_rng(asked.seed), max(1, asked.simulations // 5))


if __name__ == "__main__":
    main()
