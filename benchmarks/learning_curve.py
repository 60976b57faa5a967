"""Whether forecasts of the learning curve come true: fitted to a quarter and half of the photos, compared with all.

python benchmarks/learning_curve.py PHOTOS --backbone NAME --weights FILE [--seeds 3]

For each seed a quarter, and half, of each class's photos are drawn, in whole groups. The curve of these alone is
fitted, and its forecast for as many photos as there are is compared with heads trained on that many: cross-validated on
all photos, and judged on those that the curve did not see. The photos are only read.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import numpy as np

from wildtune.check.groups import create_groups, number_groups
from wildtune.check.steps import extract_features
from wildtune.evaluate.growing_heads import draw_share, measure_errors
from wildtune.evaluate.learning_curve import LEAST_OF_CLASS
from wildtune.evaluate.power_law import PowerLaws, fit_power_laws
from wildtune.photos.audit import audit
from wildtune.photos.sources import load_photos
from wildtune.progress import Reporter
from wildtune.recipe import load_recipe


@dataclass
class Found:
    """What became of the forecasts from one share: whether intervals held, how wide they are, how far off."""

    held_alone: list[bool] = field(default_factory=list)
    held_with_chance: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    whole_off: list[float] = field(default_factory=list)


def compare(
    laws: PowerLaws,
    factor: float,
    now: np.ndarray,
    right: np.ndarray,
    targets: np.ndarray,
    found: Found,
    rng: np.random.Generator,
) -> None:
    """Add one forecast: `right` (M,) 0-1 and `targets` (M,) are of photos that the curve did not see."""
    draws = 1 - laws.class_errors(factor)
    for k in np.unique(targets):
        if not np.isfinite(now[k]):  # no group of the class was drawn
            continue
        seen, total = float(right[targets == k].mean()), int((targets == k).sum())
        low, high = np.quantile(draws[:, k], (0.025, 0.975))
        found.held_alone.append(bool(low <= seen <= high))
        again = rng.binomial(total, np.repeat(draws[:, k], 10)) / total
        low_c, high_c = np.quantile(again, (0.025, 0.975))
        found.held_with_chance.append(bool(low_c <= seen <= high_c))
        found.widths.append(float(high - low))
        found.off.append(float(np.median(draws[:, k])) - seen)
        found.unchanged.append(float(now[k]) - seen)
    common = 1 - laws.errors(factor)
    seen = float(right.mean())
    low, high = np.quantile(rng.binomial(len(right), np.repeat(common, 10)) / len(right), (0.025, 0.975))
    found.whole.append(bool(low <= seen <= high))
    found.whole_off.append(float(np.median(common)) - seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    findings = audit(load_photos(options.photos))
    photos = list(findings.usable)
    recipe = load_recipe("default", backbone=options.backbone, weights=options.weights)
    with Reporter().bar("features") as tell:
        features = extract_features(findings.catalogue, photos, recipe, tell)
    groups = number_groups(create_groups(findings, photos))
    names = sorted({photo.label for photo in photos})
    targets = np.array([names.index(photo.label) for photo in photos])
    started = time.perf_counter()
    truth = [measure_errors(features, targets, groups, seed) for seed in range(options.seeds)]
    seconds = (time.perf_counter() - started) / options.seeds
    started = time.perf_counter()
    laws = fit_power_laws(truth[0].shares, truth[0].wrong, targets, groups, 0)
    print(f"{len(photos)} photos, {len(names)} classes; {options.backbone}")
    print(f"measuring {seconds:.1f} s, fitting {time.perf_counter() - started:.1f} s")
    for share, trained, wrong in zip(truth[0].shares, truth[0].trained, truth[0].wrong, strict=True):
        print(f"  {share:5.3f} of the photos ({trained:6.1f} learned): accuracy {1 - wrong.mean():.1%}")
    for factor in (1.0, 2.0, 4.0):
        low, middle, high = np.quantile(1 - laws.errors(factor), (0.025, 0.5, 0.975))
        print(f"  {factor:g} x photos: {middle:.1%} ({low:.1%} to {high:.1%})")
    for share in (0.25, 0.5):
        found, rng = Found(), np.random.default_rng(0)
        for seed, known in enumerate(truth):
            drawn = draw_share(share, np.ones(len(targets), dtype=bool), targets, groups, 1000 + seed)
            rest = np.setdiff1d(np.arange(len(targets)), drawn)
            numbers = number_groups([str(group) for group in groups[drawn]])
            seen = measure_errors(features[drawn], targets[drawn], numbers, seed)
            fitted = fit_power_laws(seen.shares, seen.wrong, targets[drawn], numbers, seed)
            count = np.bincount(targets[drawn], minlength=len(names))
            now = 1 - np.bincount(targets[drawn], seen.wrong[-1], len(names)) / np.where(count, count, np.nan)
            compare(fitted, 1 / share, now, 1 - known.wrong[-1, rest], targets[rest], found, rng)
        off, plain = np.abs(found.off), np.abs(found.unchanged)
        few = np.bincount(targets[drawn]).min()
        print(
            f"from {share:g} of the photos ({few} or more a class, {LEAST_OF_CLASS} are asked for), "
            f"{len(found.off)} classes: 95 % intervals hold the measured recall in "
            f"{np.mean(found.held_with_chance):.1%} with its own chance, {np.mean(found.held_alone):.1%} without; "
            f"mean width {100 * np.mean(found.widths):.1f} points; off by {100 * off.mean():.1f} points "
            f"(bias {100 * np.mean(found.off):+.1f}), the recall of the share by {100 * plain.mean():.1f}. All photos: "
            f"held {sum(found.whole)} of {len(found.whole)}, bias {100 * np.mean(found.whole_off):+.1f} points"
        )


if __name__ == "__main__":
    main()
