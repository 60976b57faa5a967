"""What gives a class away beside the animal: how well it can be guessed from the file's own marks alone.

For each mark (format, pixel size, ...) and each class, a cross-validated one-mark Bayes classifier says "this class" or
"another", and its balanced accuracy is compared with that under labels dealt anew (a permutation test), the largest of
all comparisons at a time (Westfall and Young, "Resampling-based multiple testing", 1993, the max-T method), so that
looking at many marks and classes raises no false alarm. Photos of one group stay in one fold and are dealt a label as
one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from wildtune.check.groups import number_groups
from wildtune.check.marks import PhotoMarks
from wildtune.language import recorded
from wildtune.photos.audit import Finding
from wildtune.runtime import seed_from

# Chance of accusing anything at all in a set without a giveaway.
ALPHA = 0.01
PERMUTATIONS = 499
FOLDS = 5
# A giveaway matters where even the low end of its 95 % interval is this far above a coin's 0.5.
MATTERS = 0.60
LEAST_PHOTOS = 10
MOST_NAMED = 4
_COMMON_SHARE = 0.05
_COMMON_COUNT = 5
_MOST_CATEGORIES = 30
_RANGES = 8
_RESAMPLES = 400
# Rare values barely move an accuracy, but with long tails: they count as if they moved it by this much.
_LEAST_DEVIATION = 0.02


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing a file says.

    name    in a sentence
    value   a number (float), a word, or None where the file does not say
    say     a value in words
    advice  what to do about it
    """

    name: str
    value: Callable[[PhotoMarks], float | str | None]
    say: Callable[[Any], str]
    advice: str


def _hours(marks: PhotoMarks) -> str | None:
    if marks.taken is None:
        return None
    start = marks.taken.hour // 3 * 3
    return _range(f"{start:02}:00", f"{start + 3:02}:00")


def _range(low: str, high: str) -> str:
    return recorded("part", "{number_low} to {number_high}", number_low=low, number_high=high)


_ALIKE = recorded("part", "Where you can, take photos of every class from the same sources, or convert them all alike.")
MARKS = (
    Mark(recorded("part", "file format"), lambda m: m.format, str, _ALIKE),
    Mark(
        recorded("part", "number of pixels"),
        lambda m: m.width * m.height / 1e6,
        lambda v: recorded("part", "{number} megapixels", number=f"{v:.3g}"),
        _ALIKE,
    ),
    Mark(
        recorded("part", "shape of the picture"),
        lambda m: round(m.width / m.height, 3),
        lambda v: recorded("part", "{number} times as wide as high", number=f"{v:.3g}"),
        _ALIKE,
    ),
    Mark(
        recorded("part", "file size for its pixels"),
        lambda m: round(m.size / (m.width * m.height), 4),
        lambda v: recorded("part", "{number} bytes a pixel", number=f"{v:.2g}"),
        recorded(
            "part",
            "Smooth scenes make small files too, so part of this may be the picture itself. Where you can, take photos "
            "of every class from the same sources, or convert them all alike.",
        ),
    ),
    Mark(
        recorded("part", "camera"),
        lambda m: m.camera or None,
        str,
        recorded(
            "part",
            "Where you can, add photos of the class from other cameras, and keep each camera's photos together with a "
            "`group` column.",
        ),
    ),
    Mark(
        recorded("part", "date"),
        lambda m: float(m.taken.toordinal()) if m.taken else None,
        lambda v: date.fromordinal(round(v)).isoformat(),
        recorded(
            "part",
            "Where you can, add photos from other days, and keep each day's photos together with a `group` column.",
        ),
    ),
    Mark(
        recorded("part", "time of day"),
        _hours,
        str,
        recorded(
            "part",
            "It may be the animals' way of life; even so a classifier may learn darkness instead of the animal.",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Giveaway:
    """One mark that tells one class from the others.

    accuracy   mean of the share of the class recognised and the share of the others recognised, 0-1; chance is 0.5
    interval   its 95 % interval, by drawing groups anew
    p_value    chance of any mark telling any class this well in a set without giveaways
    typical    the value of the mark that speaks most for the class, in words
    inside, outside  share of the class, and of the other photos, that have this value, 0-1
    """

    mark: Mark
    class_name: str
    accuracy: float
    interval: tuple[float, float]
    p_value: float
    typical: str
    inside: float
    outside: float


@dataclass(frozen=True)
class _Coded:
    """A mark of every photo as small numbers: codes (N,) int64, and the words for each code."""

    mark: Mark
    codes: np.ndarray
    words: tuple[str, ...]


def find_giveaways(
    marks: Sequence[PhotoMarks | None], labels: Sequence[str], groups: Sequence[str], seed: int = 0
) -> tuple[Giveaway, ...]:
    """Return every mark and class where the mark tells the class from the others beyond chance and by enough.

    `marks`, `labels` and `groups` are (N,), one entry a photo; a photo without marks counts as saying nothing.
    Strongest first. The same input gives the same answer.
    """
    class_names = sorted(set(labels))
    targets = np.searchsorted(np.array(class_names, dtype=object), np.array(labels, dtype=object)).astype(np.int64)
    members = number_groups(groups)
    counts = np.bincount(targets, minlength=len(class_names))
    candidates = np.flatnonzero((counts >= LEAST_PHOTOS) & (len(targets) - counts >= LEAST_PHOTOS))
    if len(class_names) == 2:
        candidates = candidates[:1]  # the other class is the same question
    coded = [found for mark in MARKS if len((found := _code(mark, marks)).words) > 1]
    group_count = int(members.max(initial=-1)) + 1
    if not coded or not len(candidates) or group_count < 2:
        return ()
    rng = np.random.default_rng(seed_from(seed, "confounds"))
    folds = (rng.permutation(group_count) % FOLDS)[members]
    tables = [_Table(found, folds, len(class_names)) for found in coded]
    observed = np.stack([table.accuracies(targets) for table in tables])[:, candidates]
    dealt = np.empty((PERMUTATIONS, *observed.shape))
    deal = _Dealer(targets, members)
    for number in range(PERMUTATIONS):
        labels_dealt = deal.anew(rng)
        for row, table in enumerate(tables):
            dealt[number, row] = table.accuracies(labels_dealt)[candidates]
    p_values = _max_t(observed, dealt)
    giveaways = []
    for row, column in zip(*np.nonzero((p_values <= ALPHA) & (observed > MATTERS)), strict=True):
        target = int(candidates[column])
        interval = tables[row].interval(targets, target, members, rng)
        if interval[0] > MATTERS:
            typical = _most_telling(coded[row], targets == target)
            accuracy, p_value = float(observed[row, column]), float(p_values[row, column])
            giveaways.append(Giveaway(coded[row].mark, class_names[target], accuracy, interval, p_value, *typical))
    return tuple(sorted(giveaways, key=lambda g: (-g.accuracy, g.mark.name, g.class_name)))


def confound_findings(giveaways: Sequence[Giveaway], class_count: int) -> tuple[Finding, ...]:
    """Return one warning for each mark that gives classes away; `path` is "", because it is about the whole set."""
    found = []
    rest = recorded("part", "the other class") if class_count == 2 else recorded("part", "the other classes")
    for mark in dict.fromkeys(g.mark for g in giveaways):
        first, *others = (g for g in giveaways if g.mark == mark)
        low, high = first.interval
        values = {
            "mark": mark.name,
            "name": first.class_name,
            "rest": rest,
            "accuracy": _percent(first.accuracy),
            "low": f"{low * 100:.0f}",
            "high": _percent(high),
            "typical": first.typical,
            "inside": _percent(first.inside),
            "outside": _percent(first.outside),
            "advice": mark.advice,
        }
        if not others:
            text = recorded(
                "finding",
                "the whole set: the {mark} alone tells '{name}' from {rest} in {accuracy} of cases, both sides "
                "counting the same (chance 50 %, 95 % interval {low} to {high}). It is {typical} in {inside} of "
                "'{name}' and in {outside} of the others. A classifier may learn this instead of the animal. {advice}",
                **values,
            )
        else:
            named = ", ".join(f"'{g.class_name}' ({_percent(g.accuracy)})" for g in others[:MOST_NAMED])
            if len(others) > MOST_NAMED:
                named = recorded("part", "{names} and {count} more", names=named, count=len(others) - MOST_NAMED)
            text = recorded(
                "finding",
                "the whole set: the {mark} alone tells '{name}' from {rest} in {accuracy} of cases, both sides "
                "counting the same (chance 50 %, 95 % interval {low} to {high}). It is {typical} in {inside} of "
                "'{name}' and in {outside} of the others. So it does {also}. A classifier may learn this instead of "
                "the animal. {advice}",
                also=named,
                **values,
            )
        found.append(Finding("", "confound", "warning", text))
    return tuple(found)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


class _Table:
    """One coded mark with its folds, ready to be scored against many labellings."""

    def __init__(self, coded: _Coded, folds: np.ndarray, classes: int) -> None:
        self._cells = folds * len(coded.words) + coded.codes
        self._shape = (FOLDS, len(coded.words), classes)

    def _decide(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return counts and decisions, each (fold, code, class): 1 says the class, 0 another, 0.5 cannot tell."""
        counts = np.bincount(self._cells * self._shape[2] + targets, minlength=int(np.prod(self._shape)))
        counts = counts.reshape(self._shape).astype(np.float64)
        fitted = counts.sum(axis=0) - counts
        either = fitted.sum(axis=2, keepdims=True)
        share = either / np.maximum(either.sum(axis=1, keepdims=True), 1)
        others = either - fitted
        # One more photo with the average of all classes: a value never seen speaks for neither side.
        inside = (fitted + share) / (fitted.sum(axis=1, keepdims=True) + 1)
        outside = (others + share) / (others.sum(axis=1, keepdims=True) + 1)
        return counts, np.where(np.isclose(inside, outside), 0.5, inside > outside)

    def accuracies(self, targets: np.ndarray) -> np.ndarray:
        """Return (C,) balanced accuracies, 0-1, of telling each class from all others by this mark."""
        counts, says = self._decide(targets)
        others = counts.sum(axis=2, keepdims=True) - counts
        hits = (counts * says).sum(axis=(0, 1)) / np.maximum(counts.sum(axis=(0, 1)), 1)
        passes = (others * (1 - says)).sum(axis=(0, 1)) / np.maximum(others.sum(axis=(0, 1)), 1)
        return np.asarray((hits + passes) / 2)

    def interval(
        self, targets: np.ndarray, target: int, members: np.ndarray, rng: np.random.Generator
    ) -> tuple[float, float]:
        """Return the 95 % interval of one class's balanced accuracy, by drawing whole groups with replacement."""
        says = self._decide(targets)[1].reshape(-1, self._shape[2])[self._cells, target]
        inside = targets == target
        sums = np.stack(
            [
                np.bincount(members, weights)
                for weights in (inside * says, inside, ~inside * (1 - says), (~inside).astype(float))
            ]
        )
        groups = sums.shape[1]
        draws = rng.multinomial(groups, np.full(groups, 1 / groups), _RESAMPLES) @ sums.T
        values = (draws[:, 0] / np.maximum(draws[:, 1], 1) + draws[:, 2] / np.maximum(draws[:, 3], 1)) / 2
        low, high = np.quantile(values, (0.025, 0.975))
        return float(low), float(high)


class _Dealer:
    """Deals the labels anew, each group getting those of another group as a whole."""

    def __init__(self, targets: np.ndarray, members: np.ndarray) -> None:
        self._sizes = np.bincount(members)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        order = np.argsort(members, kind="stable")
        self._by_group = targets[order]
        self._members = members
        self._places = np.empty(len(members), dtype=np.int64)
        self._places[order] = np.arange(len(members)) - self._starts[members[order]]

    def anew(self, rng: np.random.Generator) -> np.ndarray:
        """Return (N,) class indices."""
        giver = rng.permutation(len(self._sizes))[self._members]
        return self._by_group[self._starts[giver] + self._places % self._sizes[giver]]


def _max_t(observed: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Return family-wise p-values of the shape of `observed`, of (P, ...) values under labels dealt anew."""
    mean = dealt.mean(axis=0)
    scale = np.maximum(dealt.std(axis=0), _LEAST_DEVIATION)
    largest = ((dealt - mean) / scale).reshape(len(dealt), -1).max(axis=1)
    return np.asarray((1 + (largest[:, None, None] >= (observed - mean) / scale).sum(axis=0)) / (1 + len(dealt)))


def _code(mark: Mark, marks: Sequence[PhotoMarks | None]) -> _Coded:
    """Turn a mark's values into few codes, without looking at labels: common values as they are, others by range."""
    values = [None if m is None else mark.value(m) for m in marks]
    tally = Counter(value for value in values if value is not None)
    numeric = any(isinstance(value, float) for value in tally)
    least = max(_COMMON_COUNT, _COMMON_SHARE * len(values)) if numeric else _COMMON_COUNT
    ordered = sorted(tally.items(), key=lambda item: (-item[1], str(item[0])))
    common = [value for value, count in ordered if count >= least][:_MOST_CATEGORIES]
    code_of = {value: number for number, value in enumerate(common)}
    words = [mark.say(value) for value in common]
    rest: list[Any] = [value for value in values if value is not None and value not in code_of]
    edges = np.unique(np.quantile(rest, np.linspace(0, 1, _RANGES + 1)[1:-1])) if numeric and rest else np.empty(0)
    codes = np.empty(len(values), dtype=np.int64)
    for i, value in enumerate(values):
        if value is None:
            codes[i] = -1
        elif value in code_of:
            codes[i] = code_of[value]
        else:
            codes[i] = len(common) + (int(np.searchsorted(edges, value)) if numeric else 0)
    if rest:
        words += _range_words(mark, edges, rest) if numeric else [recorded("part", "another one")]
    if (codes == -1).any():
        codes[codes == -1] = len(words)
        words.append(recorded("part", "none named"))
    return _Coded(mark, codes, tuple(words))


def _range_words(mark: Mark, edges: np.ndarray, rest: Sequence[Any]) -> list[str]:
    ends = [min(rest), *edges.tolist(), max(rest)]
    return [_range(mark.say(low), mark.say(high)) for low, high in itertools.pairwise(ends)]


def _most_telling(coded: _Coded, inside: np.ndarray) -> tuple[str, float, float]:
    """Return the value that differs most between a class (bool (N,)) and the others, and its share in both, 0-1."""
    counts = [np.bincount(coded.codes[rows], minlength=len(coded.words)) for rows in (inside, ~inside)]
    shares = [count / count.sum() for count in counts]
    code = int((shares[0] - shares[1]).argmax())
    return coded.words[code], float(shares[0][code]), float(shares[1][code])
