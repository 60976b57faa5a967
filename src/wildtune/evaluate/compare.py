"""Runs against one another on the photos that all of them tested and none of them learned from."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.check.groups import number_groups, unite_groups
from wildtune.errors import CommandError
from wildtune.evaluate.calibration import CalibrationGap, calibration_gap, debiased_square
from wildtune.frozen import Frozen
from wildtune.intervals import (
    Interval,
    clustered_interval,
    clustered_paired_interval,
    clustered_wilson_interval,
    skewed_interval,
)
from wildtune.predict.predictions import Predictions, load_predictions
from wildtune.runtime import seed_from
from wildtune.wording import counted, listed

LEVEL = 0.05
POWER = 0.8
# An error rate that is no further from `LEVEL` need not be mentioned.
_NEAR = 0.01
# Where more groups differ, the rate is `LEVEL` to two thousandths, and counting would take seconds.
_COUNTED_GROUPS = 4000
SCORES = ("accuracy", "balanced accuracy", "log loss", "calibration error")

_SWAPS, _SWAPS_AT_ONCE = 5000, 500


class Score(Frozen):
    """One score of one run with its 95 % interval (low, high); 0-1, the log loss in nats.

    The calibration error is the root mean square one, with what chance adds to it taken off (`calibration_gap`).
    """

    value: float
    interval: Interval


class RunScores(Frozen):
    """A run on the common photos: its folder and each of `SCORES`."""

    run: str
    scores: dict[str, Score]


class Difference(Frozen):
    """One score of the second run less that of the first.

    interval   its 95 % interval (low, high); None of calibration errors, for whose difference we know none that holds
    p_value    two-sided, of the hypothesis that the runs fare alike
    adjusted   the same after Holm's correction for all pairs of runs compared
    """

    value: float
    interval: Interval | None
    p_value: float
    adjusted: float

    @property
    def measurable(self) -> bool:
        """Whether the difference is more than chance explains, at the 5 % level over all pairs of runs."""
        return self.adjusted < LEVEL


class Pair(Frozen):
    """Two runs.

    first, second   their folders
    only_first      photos that only the first gets right
    only_second     photos that only the second gets right
    differences     each of `SCORES`, second less first
    smallest        difference of accuracy that is found in four cases of five, 0-1; None where there are too few
                    photos for any
    false_calls     how often runs that are equally right, and differ on the same photos, are called different in
                    accuracy before the correction for several pairs, 0-1; about `LEVEL` where many groups differ
    """

    first: str
    second: str
    only_first: int
    only_second: int
    differences: dict[str, Difference]
    smallest: float | None
    false_calls: float


class RunsComparison(Frozen):
    """Two or more runs on the same photos.

    photos   photos that count
    groups   how many independent groups they form
    runs     each run's scores
    pairs    every two of them, in the order given
    notes    which photos were left out, and why
    """

    photos: int
    groups: int
    runs: tuple[RunScores, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Contender:
    """What a run said about its test photos, and what each photo of the run was used for.

    name          the run's folder as given
    predictions   of the test photos
    contents      SHA-256 of each of these
    groups        what each is tied to others by, "" where it is by itself
    used          side of every photo the run has, by SHA-256
    """

    name: str
    predictions: Predictions
    contents: tuple[str, ...]
    groups: tuple[str, ...]
    used: dict[str, str]


def compare_runs(runs: Sequence[str | Path]) -> RunsComparison:
    """Compare finished runs, or cross-validations, on the test photos they have in common.

    Photos are matched by content. One that any of the runs trained on or chose its epoch by does not count, nor one
    that they know under different labels. Raises CommandError for fewer than two runs, for a run without test
    predictions, and where no photo is left.
    """
    if len(runs) < 2:
        raise CommandError("A comparison needs at least two runs: wildtune compare RUN RUN")
    folders = [files.user_path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise CommandError(f"Each run once, please. Got {', '.join(map(str, runs))}.")
    return compare_contenders([load_contender(folder) for folder in folders])


def load_contender(run: Path) -> Contender:
    """Read a run's test predictions and split, or a cross-validation's out-of-fold predictions."""
    folds = files.is_folds(run)
    found = run / "predictions" / ("folds.csv" if folds else "test.csv")
    split = (run / "fold-1" if folds else run) / "split.csv"
    for path in (split, found):
        if not path.exists():
            raise CommandError(
                f"{run} has no {path.relative_to(run)}: it is no finished run with test photos.\n"
                f"Go on with it: wildtune train --resume {run}. Or train one whose recipe sets test photos aside."
            )
    with open(split, encoding="utf-8", newline="") as handle:
        rows = {row["path"]: row for row in csv.DictReader(handle)}
    predictions = load_predictions(found)
    unknown = [path for path in predictions.paths if not rows.get(path, {}).get("sha256")]
    if unknown:
        raise CommandError(
            f"{split} does not say what is in {unknown[0]}, so its photos cannot be matched with another run's.\n"
            "Train the run anew with this version of wildtune."
        )
    return Contender(
        name=str(run),
        predictions=predictions,
        contents=tuple(rows[path]["sha256"] for path in predictions.paths),
        groups=tuple(rows[path]["group"] for path in predictions.paths),
        # Of a cross-validation every photo is tested by a model that never saw it.
        used={row["sha256"]: "test" if folds else row["split"] for row in rows.values()},
    )


def compare_contenders(runs: Sequence[Contender]) -> RunsComparison:
    """Compare runs' test predictions; the same predictions give the same comparison.

    Photos that belong together count as one: groups are what the tests and variances are made of. The tests swap the
    two runs' answers at random, group by group (a paired randomization test). For the accuracy the distribution is
    exact, and where every photo is a group by itself the test is McNemar's in its mid-P form (Fagerland, Lydersen and
    Laake 2013). Intervals: Wilson's of shares and Tango's of their differences, with design effects for groups and for
    classes that count the same (Rao and Scott 1992); Hall's of a log loss, Student's of a difference of two; none of
    differences of calibration errors. P-values are corrected for the number of pairs (Holm 1979), each score by itself.
    """
    rows, notes = _common_photos(runs)
    # What one of the runs' splits tied is tied for all, so that their order makes no difference.
    groupings = [[run.groups[row] for row in chosen] for run, chosen in zip(runs, rows, strict=True)]
    clusters = number_groups(unite_groups(*groupings))
    names = sorted({runs[0].predictions.labels[row] for row in rows[0]})
    tables = [
        _tabulate(run.predictions, np.array(chosen), names, clusters) for run, chosen in zip(runs, rows, strict=True)
    ]
    groups = int(clusters.max()) + 1
    scored = tuple(
        RunScores(run=run.name, scores=_run_scores(table, clusters)) for run, table in zip(runs, tables, strict=True)
    )
    found = [
        (a, b, _differences(tables[a], tables[b], clusters, scored[a].scores, scored[b].scores))
        for a, b in combinations(range(len(runs)), 2)
    ]
    adjusted = np.array([holm([pair[2][i][2] for pair in found]) for i in range(len(SCORES))]).T
    pairs = tuple(
        _pair(runs[a].name, runs[b].name, (tables[a], tables[b]), clusters, values, after)
        for (a, b, values), after in zip(found, adjusted, strict=True)
    )
    return RunsComparison(photos=len(clusters), groups=groups, runs=scored, pairs=pairs, notes=tuple(notes))


def sign_flip_p_value(sums: np.ndarray) -> float:
    """Return the two-sided mid-P value that differences are symmetric about 0, from each group's, (G,) whole numbers.

    The distribution of their total under all 2^G choices of signs, in which no group has the better run for a reason.
    With groups of one photo this is McNemar's test in its mid-P form: half of the probability of the observed total
    counts.
    """
    total = int(abs(sums.sum()))
    return float(_mid_p_values(_sign_flips(sums))[total]) if total else 1.0


def false_call_rate(sums: np.ndarray, level: float = LEVEL) -> float:
    """Return how often that p-value is under `level` where the signs are chance, 0-1.

    Few groups leave few totals, of which none need come near to `level`; the rate may be below it or above.
    """
    if np.count_nonzero(sums) > _COUNTED_GROUPS:
        return level
    chance = _sign_flips(sums)
    return float(chance[1:][_mid_p_values(chance)[1:] < level].sum())


def _sign_flips(sums: np.ndarray) -> np.ndarray:
    """Return the probability of each absolute total, from 0, of whole numbers whose signs are chance."""
    sizes = np.abs(sums[sums != 0]).astype(int)
    reach = int(sizes.sum())
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for size in sizes:  # what is shifted out at the ends is zero
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    either: np.ndarray = chance[reach:]
    either[1:] += chance[:reach][::-1]
    return either


def _mid_p_values(chance: np.ndarray) -> np.ndarray:
    """Return the mid-P value of each absolute total, from the probabilities of them all."""
    beyond = np.cumsum(chance[::-1])[::-1] - chance
    p_values: np.ndarray = np.minimum(1.0, beyond + chance / 2)
    return p_values


def gap_p_value(first: CalibrationGap, second: CalibrationGap) -> float:
    """Return the two-sided p-value that two runs are equally well calibrated, by the same swaps, 5,000 of them.

    Both of the same clusters. What is compared is the difference of their debiased squares after each swap.
    """

    seen = (first.counts + second.counts).any(axis=0)

    def sums(gap: CalibrationGap) -> np.ndarray:
        gaps, counts = gap.gaps[:, seen], gap.counts[:, seen]
        return np.hstack([gaps, counts, gaps**2])

    ours, theirs = sums(first), sums(second)
    middle = (ours + theirs).sum(axis=0) / 2
    off = _swap(((ours - theirs) / 2).astype(np.float32))
    after, before = (debiased_square(*np.split(middle + side, 3, axis=1)) for side in (-off, off))
    _, counts, squares = np.split(middle, 3)
    return _swaps_p_value(after - before, second.square - first.square, 1e-6 * float(squares.sum() / counts.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down procedure (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    least, adjusted = 0.0, [0.0] * len(p_values)
    for place, number in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = least
    return adjusted


def smallest_detectable(photos: float, disagreement: float, level: float = LEVEL, power: float = POWER) -> float | None:
    """Return the least true difference of accuracy, 0-1, that McNemar's mid-P test finds with `power`.

    `disagreement` is the share of photos that only one of the two runs gets right; where a difference is larger than
    that, it is all that they disagree on. None where not even runs that differ on every photo would be told apart.
    """
    from scipy.stats import binom

    count = max(1, round(photos))
    changed, wins = np.arange(count + 1), _most_wins(count, level)

    def found(difference: float) -> float:
        share = max(disagreement, difference)
        worse = (share - difference) / 2 / share
        # Beyond eight standard deviations nothing is added but time.
        away = 8 * (math.sqrt(count * share * (1 - share)) + 1)
        near = slice(max(0, int(count * share - away)), int(count * share + away) + 1)
        most, of = wins[near], changed[near]
        ways = binom.cdf(most, of, worse) + binom.cdf(most, of, 1 - worse)
        return float((binom.pmf(of, count, share) * ways).sum())

    if found(1.0) < power:
        return None
    low, high = 0.0, 1.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if middle > 0 and found(middle) >= power else (middle, high)
    return high


@lru_cache(maxsize=8)
def _most_wins(count: int, level: float) -> np.ndarray:
    """Return the most wins of the worse run that are still significant, among 0 to `count` changed photos; -1: none."""
    from scipy.stats import binom

    changed = np.arange(count + 1)
    wins = binom.ppf(level / 2, changed, 0.5) + 1
    for _ in range(3):
        tail = 2 * binom.cdf(wins, changed, 0.5) - binom.pmf(wins, changed, 0.5)
        wins = np.where((wins >= 0) & ((tail >= level) | (2 * wins >= changed)), wins - 1, wins)
    return wins


@dataclass(frozen=True)
class _Table:
    """A run on the common photos, each (N,): weights give every class the same say and have a mean of 1."""

    right: np.ndarray
    loss: np.ndarray
    weights: np.ndarray
    gap: CalibrationGap


def _common_photos(runs: Sequence[Contender]) -> tuple[list[list[int]], list[str]]:
    """Return for each run the rows of the photos that count, in one order, and what to say of the others."""
    places = [{content: row for row, content in enumerate(run.contents)} for run in runs]
    everything = sorted(set().union(*places))
    common, learned, reasons = [], Counter[str](), Counter[str]()
    for content in everything:
        uses = {run.name: run.used.get(content, "") for run in runs}
        if any(use in ("train", "val") for use in uses.values()):
            reasons["learned"] += 1
            learned.update(name for name, use in uses.items() if use in ("train", "val"))
        elif not all(content in place for place in places):
            reasons["absent"] += 1
        else:
            rows = [place[content] for place in places]
            labels = {run.predictions.labels[row] for run, row in zip(runs, rows, strict=True)}
            known = all(
                run.predictions.predicted[row] >= 0 and run.predictions.targets[row] >= 0
                for run, row in zip(runs, rows, strict=True)
            )
            reasons["relabelled" if len(labels) > 1 else "common" if known else "unread"] += 1
            if len(labels) == 1 and known:
                common.append(rows)
    if not common:
        raise CommandError(
            "The runs have no test photo in common that none of them learned from, so they cannot be compared.\n"
            f"{_learned_text(reasons['learned'], learned)}"
            "Train them on the same split: --set split.keep=RUN/split.csv, or cross-validate both with --folds."
        )
    notes = [_learned_text(reasons["learned"], learned).strip()]
    notes += [
        f"{counted(reasons[kind], 'photo')} left out: {why}" if reasons[kind] else ""
        for kind, why in (
            ("absent", "not every run tested them"),
            ("relabelled", "the runs know them under different labels"),
            ("unread", "not every run has a label and a prediction for them"),
        )
    ]
    return [list(rows) for rows in zip(*common, strict=True)], [note for note in notes if note]


def _learned_text(photos: int, learned: Counter[str]) -> str:
    if not photos:
        return ""
    who = listed([f"{name} ({count})" for name, count in sorted(learned.items())])
    return f"{counted(photos, 'test photo')} of one run left out: others trained on them or chose by them: {who}.\n"


def _tabulate(predictions: Predictions, rows: np.ndarray, names: Sequence[str], clusters: np.ndarray) -> _Table:
    index = {name: number for number, name in enumerate(names)}
    label = np.array([index[predictions.labels[row]] for row in rows])
    targets, predicted, probs = predictions.targets[rows], predictions.predicted[rows], predictions.probs[rows]
    right = targets == predicted
    return _Table(
        right=right,
        loss=-np.log(np.maximum(probs[np.arange(len(rows)), targets], 1e-7)),
        weights=len(rows) / (len(names) * np.bincount(label)[label]),
        gap=calibration_gap(probs.max(axis=1), right, clusters),
    )


def _run_scores(table: _Table, clusters: np.ndarray) -> dict[str, Score]:
    """Return each of `SCORES` of a run with its interval."""
    return {
        "accuracy": Score(value=float(table.right.mean()), interval=clustered_wilson_interval(table.right, clusters)),
        "balanced accuracy": Score(
            value=float((table.weights * table.right).mean()),
            interval=clustered_wilson_interval(table.right, clusters, table.weights),
        ),
        "log loss": Score(value=float(table.loss.mean()), interval=_not_below_zero(table.loss, clusters)),
        "calibration error": Score(value=table.gap.root, interval=table.gap.interval),
    }


def _not_below_zero(loss: np.ndarray, clusters: np.ndarray) -> Interval:
    low, high = skewed_interval(loss, clusters)
    return max(0.0, low), high


def _differences(
    first: _Table, second: _Table, clusters: np.ndarray, scores: dict[str, Score], others: dict[str, Score]
) -> list[tuple[float, Interval | None, float]]:
    """Return for each of `SCORES` the difference, second less first, its interval and its p-value."""
    change = second.right.astype(float) - first.right
    loss = second.loss - first.loss
    values = [others[name].value - scores[name].value for name in SCORES]
    spans = [
        clustered_paired_interval(change, clusters, np.ones(len(clusters))),
        clustered_paired_interval(change, clusters, first.weights),
        clustered_interval(loss, clusters),
        None,
    ]
    p_values = [
        sign_flip_p_value(np.bincount(clusters, change)),
        _random_flip_p_value(np.bincount(clusters, change * first.weights)),
        _random_flip_p_value(np.bincount(clusters, loss)),
        gap_p_value(first.gap, second.gap),
    ]
    return list(zip(values, spans, p_values, strict=True))


def _random_flip_p_value(sums: np.ndarray) -> float:
    """Return what `sign_flip_p_value` does, for numbers that are not whole, from 5,000 choices of signs."""
    reached = _swap(sums.astype(np.float32))
    return _swaps_p_value(reached, float(sums.sum()), 1e-5 * float(np.abs(sums).sum()))


def _swaps_p_value(reached: np.ndarray, observed: float, near: float) -> float:
    """Return the mid-P value of a difference, from those that random swaps reached; what is `near` counts as equal.

    Nearer than that single precision cannot tell two of them apart.
    """
    total, away = abs(observed), np.abs(reached)
    over, same = int((away > total + near).sum()), int((np.abs(away - total) <= near).sum())
    # The observed swap is one of the choices, so that no p-value is 0 (Phipson and Smyth 2010).
    return (over + (same + 1) / 2) / (len(reached) + 1) if total > near else 1.0


def _swap(differences: np.ndarray) -> np.ndarray:
    """Return the sums of (G, ...) differences under each choice of signs, (swaps, ...); the same for as many groups.

    A few choices at a time: all of them, for 100,000 photos, would take 2 GB.
    """
    groups = len(differences)
    rng = np.random.default_rng(seed_from("compare swaps", groups))
    parts = []
    for _ in range(_SWAPS // _SWAPS_AT_ONCE):
        signs = 2 * rng.integers(0, 2, (_SWAPS_AT_ONCE, groups), dtype=np.int8) - 1
        parts.append(signs.astype(np.float32) @ differences)
    return np.concatenate(parts)


def _pair(
    first: str,
    second: str,
    tables: tuple[_Table, _Table],
    clusters: np.ndarray,
    values: Sequence[tuple[float, Interval | None, float]],
    adjusted: np.ndarray,
) -> Pair:
    a, b = tables
    changed = int((a.right != b.right).sum())
    sums = np.bincount(clusters, b.right.astype(float) - a.right)
    # Photos that are right and wrong together in their groups count as fewer.
    effect = max(1.0, float((sums**2).sum()) / changed) if changed else len(clusters) / len(sums)
    return Pair(
        first=first,
        second=second,
        only_first=int((a.right & ~b.right).sum()),
        only_second=int((~a.right & b.right).sum()),
        differences={
            name: Difference(value=value, interval=span, p_value=p, adjusted=float(after))
            for name, (value, span, p), after in zip(SCORES, values, adjusted, strict=True)
        },
        smallest=smallest_detectable(len(clusters) / effect, changed / len(clusters)),
        false_calls=false_call_rate(sums),
    )


def describe_comparison(found: RunsComparison) -> str:
    """Return the comparison in sentences and a table for a terminal."""
    tied = f" in {counted(found.groups, 'independent group')}" if found.groups < found.photos else ""
    lines = [f"{counted(found.photos, 'test photo')}{tied} that all runs have in common and none learned from"]
    lines += [f"note: {note}" for note in found.notes]
    width = max(len(run.run) for run in found.runs)
    lines += ["", f"{'run':{width}}  " + "  ".join(f"{name:26}" for name in SCORES).rstrip()]
    for run in found.runs:
        cells = [_score_text(name, run.scores[name]) for name in SCORES]
        lines.append(f"{run.run:{width}}  " + "  ".join(f"{cell:26}" for cell in cells).rstrip())
    lines.append("calibration error: root mean square gap, without what chance adds to it")
    for pair in found.pairs:
        lines += ["", f"{pair.second} against {pair.first}"]
        lines += [f"  {_difference_text(name, pair.differences[name], len(found.pairs))}" for name in SCORES]
        lines.append(
            f"  Only {pair.second} is right on {counted(pair.only_second, 'photo')}, only {pair.first} on "
            f"{counted(pair.only_first, 'photo')}. {_false_calls_text(pair, len(found.pairs))}"
            f"{_power_text(found.photos, pair)}"
        )
    return "\n".join(lines)


def _score_text(name: str, score: Score) -> str:
    low, high = score.interval
    if name in ("accuracy", "balanced accuracy"):
        return f"{score.value:.1%} ({low:.1%} to {high:.1%})"
    return f"{score.value:.3f} ({low:.3f} to {high:.3f})"


def _difference_text(name: str, found: Difference, pairs: int) -> str:
    points = name in ("accuracy", "balanced accuracy")
    size = f"{100 * abs(found.value):.1f} points" if points else f"{abs(found.value):.3f}"
    span = ""
    if found.interval:
        low, high = found.interval
        span = f"{100 * low:+.1f} to {100 * high:+.1f} points" if points else f"{low:+.3f} to {high:+.3f}"
        span = f"95 % interval {span}; "
    word = "higher" if found.value > 0 else "lower" if found.value < 0 else "more or less"
    chance = "p < 0.001" if found.adjusted < 0.001 else f"p = {found.adjusted:.3f}"
    chance += f", corrected for {pairs} pairs" if pairs > 1 else ""
    lead = "" if found.measurable else "no measurable difference, "
    return f"{name}: {lead}{size} {word} ({span}{chance})"


def _false_calls_text(pair: Pair, pairs: int) -> str:
    if abs(pair.false_calls - LEVEL) <= _NEAR or pair.only_first == pair.only_second == 0:
        return ""
    who = "Equal runs that differ on these alone would"
    if not pair.false_calls:
        return f"{who} never be called different in accuracy. "
    before = f", before the correction for {pairs} pairs" if pairs > 1 else ""
    often = f"in {100 * pair.false_calls:.1f} % of cases instead of {100 * LEVEL:.0f} %"
    return f"{who} be called different in accuracy {often}{before}. "


def _power_text(photos: int, pair: Pair) -> str:
    if pair.smallest is None:
        return f"{counted(photos, 'photo')} are too few to tell any two runs apart."
    return (
        f"With {counted(photos, 'photo')}, a true difference of accuracy under {100 * pair.smallest:.1f} points would "
        "be missed more than once in five times (80 % power)."
    )
