"""How many planted label errors stand in the first tenth of the ranking, and whether planted giveaways are found.

python benchmarks/label_errors.py PHOTOS --backbone NAME --weights FILE [--share 0.05] [--seeds 3]

Wrong labels are planted in two ways: any other class, and the class that heads trained on the right labels find most
like the photo, which is how people err. The photos are only read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wildtune.check.confounds import find_giveaways
from wildtune.check.groups import create_groups
from wildtune.check.label_suspects import held_out_probabilities, rank_labels
from wildtune.check.marks import PhotoMarks, create_marks
from wildtune.check.steps import extract_features
from wildtune.photos.audit import audit
from wildtune.photos.catalogue import Photo
from wildtune.photos.sources import load_photos
from wildtune.progress import Reporter
from wildtune.recipe import load_recipe


def plant(targets: np.ndarray, probs: np.ndarray, bad: np.ndarray, like: bool, rng: np.random.Generator) -> np.ndarray:
    """Return the (N,) targets with those of the photos `bad` wrong: the likest other class, or any other."""
    wrong = targets.copy()
    if like:
        others = np.nan_to_num(probs[bad]).copy()
        others[np.arange(len(bad)), targets[bad]] = -1
        wrong[bad] = others.argmax(axis=1)
    else:
        classes = probs.shape[1]
        wrong[bad] = (targets[bad] + rng.integers(1, classes, len(bad))) % classes
    return wrong


def report_labels(photos: Sequence[Photo], features: np.ndarray, groups: list[str], share: float, seeds: int) -> None:
    """Print the recall within the first tenth of the ranking for each way of planting and each seed."""
    names = sorted({photo.label for photo in photos})
    targets = np.array([names.index(photo.label) for photo in photos])
    started = time.perf_counter()
    ranking = rank_labels(photos, features, groups)
    seconds = time.perf_counter() - started
    print(f"as they are: {ranking.estimate} labels doubtful, heads agree with {ranking.agreement:.1%}; {seconds:.1f} s")
    probs = held_out_probabilities(features, targets, groups)
    for like in (False, True):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            bad = rng.choice(len(photos), round(share * len(photos)), replace=False)
            wrong = plant(targets, probs, bad, like, rng)
            given = [replace(photo, label=names[k]) for photo, k in zip(photos, wrong, strict=True)]
            started = time.perf_counter()
            found = rank_labels(given, features, groups, seed)
            planted = {photos[i].path for i in bad}
            first = sum(row.path in planted for row in found.rows[: len(photos) // 10])
            named = sum(row.path in planted for row in found.suspects)
            print(
                f"{'likest' if like else 'any':6} class, seed {seed}: {len(bad)} planted; first tenth holds "
                f"{first / len(bad):.1%}; {len(found.suspects)} reported, {named} of them planted; "
                f"{time.perf_counter() - started:.1f} s"
            )


def report_giveaways(photos: Sequence[Photo], marks: list[PhotoMarks | None], groups: list[str], seeds: int) -> None:
    """Print what is found in the photos' files as they are, with one class's format changed, and with labels dealt."""
    labels = [photo.label for photo in photos]
    started = time.perf_counter()
    found = find_giveaways(marks, labels, groups)
    named = ", ".join(f"{g.mark.name}: {g.class_name} {g.accuracy:.0%}" for g in found) or "none"
    print(f"giveaways as they are: {named}; {time.perf_counter() - started:.1f} s")
    chosen = sorted(set(labels))[0]
    planted = [
        replace(m, format="PNG" if label == chosen else "JPEG") if m else None
        for m, label in zip(marks, labels, strict=True)
    ]
    hits = [g for g in find_giveaways(planted, labels, groups) if g.mark.name == "file format"]
    print(f"format planted in '{chosen}': {', '.join(f'{g.class_name} {g.accuracy:.0%}' for g in hits) or 'missed'}")
    alarms = 0
    for seed in range(seeds):
        dealt = np.random.default_rng(seed).permutation(np.array(labels, dtype=object)).tolist()
        alarms += bool(find_giveaways(marks, dealt, groups, seed))
    print(f"labels dealt at random: {alarms} of {seeds} sets accused")


def main() -> None:
    """Read the command line and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    reporter = Reporter()
    findings = audit(load_photos(options.photos))
    photos = list(findings.usable)
    groups = create_groups(findings, photos)
    recipe = load_recipe("default", backbone=options.backbone, weights=options.weights)
    started = time.perf_counter()
    with reporter.bar("features") as tell:
        features = extract_features(findings.catalogue, photos, recipe, tell)
    print(f"features of {len(photos)} photos: {time.perf_counter() - started:.1f} s (none where they are cached)")
    report_labels(photos, features, groups, options.share, options.seeds)
    marks = [create_marks(photo, findings.facts[photo.path]) for photo in photos]
    report_giveaways(photos, marks, groups, 10 * options.seeds)


if __name__ == "__main__":
    main()
