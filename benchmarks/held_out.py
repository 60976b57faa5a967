"""What promises fitted on validation photos are worth on real ones: a cross-validation, divided at random many times.

    wildtune train PHOTOS --folds 5 --out FOLDS
    python benchmarks/held_out.py FOLDS

Each time some of the held-out predictions play the validation photos and the others are new; groups stay whole.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np

from wildtune.evaluate.calibration import fit_calibration
from wildtune.evaluate.compare import load_contender
from wildtune.evaluate.trust import TrustScore, score_trust
from wildtune.predict.predictions import Predictions


def load_held_out(run: Path) -> tuple[Predictions, np.ndarray]:
    """Return the out-of-fold predictions with logits as trained, and the (N,) number of each photo's group."""
    contender = load_contender(run)
    found = contender.predictions
    with open(run / "predictions" / "folds.csv", encoding="utf-8", newline="") as handle:
        folds = [row["fold"] for row in csv.DictReader(handle)]
    # The file has calibrated probabilities, each fold with its own temperature.
    heat = {
        fold: json.loads((run / f"fold-{fold}" / "bundle" / "bundle.json").read_text())["calibration"]["temperature"]
        for fold in set(folds)
    }
    logits = found.logits * np.array([heat[fold] for fold in folds], dtype=np.float32)[:, None]
    names = [group or f"\0{row}" for row, group in enumerate(contender.groups)]
    return dataclasses.replace(found, logits=logits), np.unique(names, return_inverse=True)[1]


def part(found: Predictions, rows: np.ndarray) -> Predictions:
    """Return some rows of the predictions, (M,)."""
    return Predictions(
        paths=tuple(found.paths[row] for row in rows),
        labels=tuple(found.labels[row] for row in rows),
        errors=tuple(found.errors[row] for row in rows),
        logits=found.logits[rows],
        class_names=found.class_names,
    )


def score_division(rng: np.random.Generator, found: Predictions, groups: np.ndarray, photos: int) -> TrustScore:
    """Fit on about so many photos, in whole groups, and score on the others."""
    order = np.argsort(rng.permutation(groups.max() + 1)[groups], kind="stable")
    while photos < len(order) and groups[order[photos - 1]] == groups[order[photos]]:
        photos += 1
    calibration = fit_calibration(part(found, order[:photos]))
    score = score_trust(dataclasses.replace(part(found, order[photos:]), calibration=calibration), "new")
    assert score is not None
    return score


def describe(photos: int, scores: list[TrustScore]) -> str:
    """Return the means over the divisions."""
    kept = [score.review for score in scores if score.review.accuracy is not None]
    sent = np.mean([review.reviewed for review in kept])
    flagged = np.mean([score.unknown_flagged for score in scores])
    broken = np.mean([review.accuracy < review.promised for review in kept])
    in_full = np.mean([review.promised == review.target for review in kept])
    lines = [
        f"{photos} validation photos, {scores[0].photos:,} new ones, {len(scores):,} divisions",
        *(
            f"  sets of {sets[0].promised:.0%} hold {np.mean([s.held for s in sets]):.1%}, nineteen of twenty between "
            f"{np.quantile([s.held for s in sets], 0.025):.1%} and {np.quantile([s.held for s in sets], 0.975):.1%}; "
            f"{np.mean([s.size for s in sets]):.2f} classes"
            for sets in zip(*(score.sets for score in scores), strict=True)
        ),
        f"  review: accuracy of {kept[0].target:.0%} promised in {in_full:.0%}, {sent:.1%} "
        f"to review, promise broken in {broken:.1%} (at most {1 - kept[0].certainty:.0%})",
        f"  called unknown {flagged:.1%} (at most {scores[0].unknown_promised:.0%})",
    ]
    names = ("calibration_error_before", "calibration_error", "calibration_error_by_chance")
    before, after, chance = (np.mean([getattr(score, name) for score in scores]) for name in names)
    lines.append(f"  calibration error {before:.3f} as trained, {after:.3f} calibrated, {chance:.3f} by chance alone")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folds", type=Path, help="what wildtune train --folds K left")
    parser.add_argument("--validation", type=int, nargs="+", default=[185, 500], help="photos that are fitted on")
    parser.add_argument("--divisions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    found, groups = load_held_out(asked.folds)
    rng = np.random.default_rng(asked.seed)
    few = [photos for photos in asked.validation if photos > len(groups) // 2]
    if few:
        parser.error(f"--validation {few[0]} leaves too few of {len(groups)} photos to judge by: give half or less")
    for photos in asked.validation:
        print(
            describe(photos, [score_division(rng, found, groups, photos) for _ in range(asked.divisions)]), flush=True
        )


if __name__ == "__main__":
    main()
