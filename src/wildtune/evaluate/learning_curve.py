"""How accuracy grows with the number of photos, and what more of them would bring: measured before the training.

Heads on the frozen backbone's features are trained on growing shares of the photos (`growing_heads`), and power laws
are fitted to the errors they make on photos they never saw (`power_law`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.check.groups import number_groups
from wildtune.evaluate.growing_heads import HeldOutErrors, measure_errors
from wildtune.evaluate.power_law import PowerLaws, fit_power_laws
from wildtune.frozen import Frozen
from wildtune.intervals import Interval, clustered_wilson_interval
from wildtune.language import recorded
from wildtune.memo import remember
from wildtune.photos.catalogue import Photo
from wildtune.wording import listed, percent, percent_range

# A curve needs so many photos, and a class so many photos and groups: an eighth of them is then still a few.
LEAST_PHOTOS = 100
LEAST_OF_CLASS = 20
LEAST_GROUPS = 10
# How many times the photos a forecast is made for; further on nothing is said but "more than".
FACTORS = (2.0, 4.0)
FURTHEST, BEYOND = 4.0, 10.0
AIM = 0.95
# Another number measures anew; raise it when the same features, labels and groups would give another curve.
_VERSION = 1


class Measured(Frozen):
    """What heads got right when trained on a share of the photos.

    share      of the photos, 0-1; 1 is all there are, of which each head learns four fifths
    photos     mean number of photos that a head was trained on
    accuracy   of photos the heads never saw, 0-1, with its 95 % interval, which allows for groups
    recalls    of the classes of `LearningCurve.classes`, in their order, 0-1
    """

    share: float
    photos: float
    accuracy: float
    interval: Interval
    recalls: tuple[float, ...]


class Forecast(Frozen):
    """What `factor` times the photos would give: `value`, 0-1, with its 95 % interval; a factor of 1 is the fit."""

    factor: float
    value: float
    interval: Interval


class Needed(Frozen):
    """How many times today's photos bring a class to the aim, with the 95 % interval.

    factor, low, high   from 0; None where it is more than `BEYOND`
    """

    factor: float | None
    low: float | None
    high: float | None

    @property
    def is_reached(self) -> bool:
        """Whether the class is probably there already."""
        return self.factor is not None and self.factor <= 1

    @property
    def is_known(self) -> bool:
        """Whether it can be said at all: not where anything from today's photos to over `BEYOND` times is possible."""
        return not (self.high is None and self.low is not None and self.low <= 1)


class ClassCurve(Frozen):
    """One class: its photos, its forecasts in the order of the factors 1 and `FACTORS`, and what it needs."""

    name: str
    photos: int
    forecasts: tuple[Forecast, ...]
    needed: Needed

    @property
    def gain(self) -> float:
        """How much the recall is expected to grow with twice the photos, 0-1."""
        return self.forecasts[1].value - self.forecasts[0].value


class LearningCurve(Frozen):
    """Accuracy by the number of photos, of heads on the frozen backbone, and what more photos would bring.

    photos     training and validation photos that it rests on
    measured   growing shares of them, the last of them all
    forecasts  of the accuracy of all photos together, in the order of the factors 1 and `FACTORS`
    band       the same at more factors, below and above 1, as a curve to draw
    classes    those with photos enough, in alphabetical order
    left_out   names of classes with too few photos for a curve of their own; they count in the accuracy
    reason     why nothing was measured; "" where it was. All else is then empty
    """

    photos: int
    measured: tuple[Measured, ...] = ()
    forecasts: tuple[Forecast, ...] = ()
    band: tuple[Forecast, ...] = ()
    classes: tuple[ClassCurve, ...] = ()
    left_out: tuple[str, ...] = ()
    reason: str = ""

    @property
    def by_gain(self) -> tuple[ClassCurve, ...]:
        """The classes, the one whose recall is expected to grow most with twice the photos first."""
        return tuple(sorted(self.classes, key=lambda c: (-c.gain, c.name)))


def measure_learning_curve(
    photos: Sequence[Photo], features: np.ndarray, groups: Sequence[str], seed: int = 0
) -> LearningCurve:
    """Return how held-out accuracy and recall grow with these photos, and forecasts for 2 and 4 times as many.

    `photos` are training and validation photos: a test photo would no longer be one. `features` is (N, D) float32 of
    the frozen backbone, row i of photo i without augmentation; photos with the same entry in `groups` (length N) stay
    together everywhere. With too few photos the curve has a `reason` instead. The same photos give the same curve in
    any order; it is remembered.
    """
    order = sorted(range(len(photos)), key=lambda i: (photos[i].sha256, photos[i].label, photos[i].path))
    labels = [photos[i].label for i in order]
    numbers = number_groups([groups[i] for i in order])
    reason = _why_not(labels, numbers)
    if reason:
        return LearningCurve(photos=len(photos), reason=reason)
    ordered = np.ascontiguousarray(features[order], dtype=np.float32)
    question = {
        "features": files.sha256_array(ordered),
        "labels": labels,
        "groups": numbers.tolist(),
        "seed": seed,
        "libraries": [importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-learn")],
    }

    def measure() -> dict[str, object]:
        return _measure(labels, ordered, numbers, seed).model_dump(mode="json")

    return LearningCurve.model_validate(remember(f"learning-curve-{_VERSION}", question, measure))


def save_learning_curve(curve: LearningCurve, path: Path) -> None:
    """Write a curve as JSON."""
    files.write_text(path, curve.model_dump_json(indent=1) + "\n")


def load_learning_curve(path: Path) -> LearningCurve:
    """Read a curve that `save_learning_curve` wrote. Raises CommandError where it is missing or damaged."""
    with files.reading(path):
        return LearningCurve.model_validate_json(path.read_text("utf-8"))


def describe_learning_curve(curve: LearningCurve) -> str:
    """Say in a sentence or two what twice the photos would bring."""
    if curve.reason:
        return f"no learning curve: {curve.reason}"
    now, double = curve.measured[-1], curve.forecasts[1]
    gaining = [c.name for c in most_gaining(curve)]
    most = f"; most for {listed(gaining)}" if gaining else ""
    return (
        f"learning curve: heads on frozen features name {percent(now.accuracy)} of photos they never saw rightly; with "
        f"twice the photos {percent(double.value)} is expected (95 % interval {percent_range(double.interval)}){most}"
    )


def most_gaining(curve: LearningCurve, most: int = 3) -> tuple[ClassCurve, ...]:
    """Return the classes whose recall is expected to grow most with twice the photos, by a point or more."""
    return tuple(c for c in curve.by_gain if c.gain >= 0.01)[:most]


def _why_not(labels: Sequence[str], groups: np.ndarray) -> str:
    """Return why these photos are too few for a curve, "" where they are enough."""
    if len(labels) < LEAST_PHOTOS:
        return recorded(
            "learning curve",
            "a curve needs {least} training and validation photos or more; there are {number}",
            least=LEAST_PHOTOS,
            number=len(labels),
        )
    enough = len(_large_classes(labels, groups))
    if enough == 0:
        return recorded(
            "learning curve",
            "a curve needs two classes with {least} photos in {groups} groups (single photos or photos that belong "
            "together) or more; there is none",
            least=LEAST_OF_CLASS,
            groups=LEAST_GROUPS,
        )
    if enough == 1:
        return recorded(
            "learning curve",
            "a curve needs two classes with {least} photos in {groups} groups (single photos or photos that belong "
            "together) or more; there is one",
            least=LEAST_OF_CLASS,
            groups=LEAST_GROUPS,
        )
    return ""


def _large_classes(labels: Sequence[str], groups: np.ndarray) -> list[str]:
    kinds = np.array(labels, dtype=object)
    return [
        name
        for name in sorted(set(labels))
        if (kinds == name).sum() >= LEAST_OF_CLASS and len(np.unique(groups[kinds == name])) >= LEAST_GROUPS
    ]


def _measure(labels: Sequence[str], features: np.ndarray, groups: np.ndarray, seed: int) -> LearningCurve:
    names = sorted(set(labels))
    targets = np.searchsorted(np.array(names, dtype=object), np.array(labels, dtype=object)).astype(np.int64)
    held_out = measure_errors(features, targets, groups, seed)
    laws = fit_power_laws(held_out.shares, held_out.wrong, targets, groups, seed)
    large = [names.index(name) for name in _large_classes(labels, groups)]
    factors = (1.0, *FACTORS)
    by_factor = [_forecasts(1 - laws.class_errors(factor), factor) for factor in factors]
    needed = laws.factors(1 - AIM)
    return LearningCurve(
        photos=len(labels),
        measured=_points(held_out, targets, groups, large),
        forecasts=tuple(_forecasts(1 - laws.errors(factor)[:, None], factor)[0] for factor in factors),
        band=_band(laws, float(held_out.shares[0])),
        classes=tuple(
            ClassCurve(
                name=names[k],
                photos=int((targets == k).sum()),
                forecasts=tuple(forecasts[k] for forecasts in by_factor),
                needed=_needed(needed[:, k]),
            )
            for k in large
        ),
        left_out=tuple(name for k, name in enumerate(names) if k not in large),
    )


def _points(
    held_out: HeldOutErrors, targets: np.ndarray, groups: np.ndarray, large: Sequence[int]
) -> tuple[Measured, ...]:
    return tuple(
        Measured(
            share=float(share),
            photos=float(trained),
            accuracy=float(1 - wrong.mean()),
            interval=clustered_wilson_interval(1 - wrong, groups),
            recalls=tuple(float(1 - wrong[targets == k].mean()) for k in large),
        )
        for share, trained, wrong in zip(held_out.shares, held_out.trained, held_out.wrong, strict=True)
    )


def _band(laws: PowerLaws, first: float) -> tuple[Forecast, ...]:
    factors = np.geomspace(first, max(FACTORS), 21).round(4).tolist()
    return tuple(_forecasts(1 - laws.errors(factor)[:, None], factor)[0] for factor in factors)


def _forecasts(draws: np.ndarray, factor: float) -> list[Forecast]:
    """Return for each column of (B, K) draws its median and 95 % interval."""
    low, middle, high = np.quantile(draws, (0.025, 0.5, 0.975), axis=0)
    return [
        Forecast(factor=factor, value=float(v), interval=(float(a), float(b)))
        for a, v, b in zip(low, middle, high, strict=True)
    ]


def _needed(factors: np.ndarray) -> Needed:
    """Return the median and 95 % interval of (B,) factors, inf for never."""
    ranked = np.sort(factors)
    found = [float(ranked[round(q * (len(ranked) - 1))]) for q in (0.025, 0.5, 0.975)]
    low, middle, high = (value if value <= BEYOND else None for value in found)
    return Needed(factor=middle, low=low, high=high)
