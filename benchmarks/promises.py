"""Whether the statistics keep their word: error rates, intervals, coverage and promises on simulated photos.

python benchmarks/promises.py --simulations 2000
"""

from __future__ import annotations

import argparse

import numpy as np

from wildtune.evaluate.calibration import fit_calibration, scaled_probs
from wildtune.evaluate.compare import SCORES, Contender, compare_contenders, smallest_detectable
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


def draw_pair(
    rng: np.random.Generator, photos: int, skills: tuple[float, float], group: int
) -> tuple[Contender, Contender]:
    """Return two classifiers' answers; photos of one group, `group` of them, are nearly alike."""
    groups = np.arange(photos) // group
    targets = rng.integers(0, CLASSES, groups.max() + 1)[groups]
    shared = rng.normal(size=(photos, CLASSES))
    own = [rng.normal(size=(groups.max() + 1, CLASSES))[groups] for _ in skills]
    runs = []
    for number, skill in enumerate(skills):
        noise = shared if group == 1 else own[number] + 0.3 * shared
        runs.append(
            Contender(
                name=str(number),
                predictions=as_predictions(draw_logits(rng, targets, skill, noise), targets),
                contents=tuple(map(str, range(photos))),
                groups=tuple(f"g{g}" if group > 1 else "" for g in groups),
                used={str(row): "test" for row in range(photos)},
            )
        )
    return runs[0], runs[1]


def true_scores(rng: np.random.Generator, skills: tuple[float, float]) -> list[float]:
    """Return the difference of accuracy, of balanced accuracy and of log loss over many photos."""
    targets = rng.integers(0, CLASSES, 400_000)
    shared = rng.normal(size=(len(targets), CLASSES))
    values = []
    for skill in skills:
        logits = draw_logits(rng, targets, skill, shared)
        probs = scaled_probs(logits, 1.0)
        right = (probs.argmax(axis=1) == targets).mean()
        values.append((right, right, -np.log(probs[np.arange(len(targets)), targets]).mean()))
    return [b - a for a, b in zip(*values, strict=True)]


def check_comparisons(rng: np.random.Generator, simulations: int, photos: int) -> None:
    for group in (1, 4):
        wrong = np.zeros(len(SCORES))
        for _ in range(simulations):
            pair = compare_contenders(draw_pair(rng, photos, (2.4, 2.4), group)).pairs[0]
            wrong += [pair.differences[name].measurable for name in SCORES]
        said = ", ".join(f"{name} {share:.1%}" for name, share in zip(SCORES, wrong / simulations, strict=True))
        print(f"equal runs, {photos} photos in groups of {group}: called different (should be 5 %): {said}", flush=True)
    skills = (2.4, 2.6)
    truth = true_scores(rng, skills)
    held, found, visible = np.zeros(3), 0, []
    for _ in range(simulations):
        pair = compare_contenders(draw_pair(rng, photos, skills, 1)).pairs[0]
        spans = [pair.differences[name].interval for name in SCORES[:3]]
        held += [low <= value <= high for (low, high), value in zip(spans, truth, strict=True)]
        found += pair.differences["accuracy"].measurable
        visible.append((pair.only_first + pair.only_second) / photos)
    said = ", ".join(f"{name} {share:.1%}" for name, share in zip(SCORES, held / simulations, strict=False))
    print(f"intervals of differences hold the truth (should be 95 %): {said}")
    least = smallest_detectable(photos, float(np.mean(visible)))
    print(f"a difference of {truth[0]:.1%} was found in {found / simulations:.0%}; 80 % is promised at {least:.1%}")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--photos", type=int, default=392, help="test photos of each simulated pair of runs")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    check_comparisons(rng, asked.simulations, asked.photos)
    check_promises(rng, max(1, asked.simulations // 5))


if __name__ == "__main__":
    main()
