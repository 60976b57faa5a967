"""Whether a later stage helped, in a sentence that claims no more than the photos can show."""

from __future__ import annotations

import math
from statistics import NormalDist

from wildtune import wording
from wildtune.evaluate.evaluation import Comparison
from wildtune.report.content import SIDE_NAMES, RunContent, kept_record
from wildtune.wording import counted, listed, points, quoted


def compare_text(content: RunContent, key: tuple[str, str]) -> str:
    """Return whether the stages after `key`'s helped on its side, with the interval and the exact test."""
    comparison = content.evaluation.comparisons[key]
    if not _kept_later(content, key[0]):
        return (
            f"{_later_stages(content, key[0], comparison.second)} changed nothing: no epoch did better on the "
            f"validation photos, so the final model is that of stage {quoted(key[0])}."
        )
    photos = f"{counted(comparison.photos, SIDE_NAMES[key[1]] + ' photo')}"
    later = _later_stages(content, key[0], comparison.second)
    first, second = quoted(comparison.first), quoted(comparison.second)
    changed = comparison.only_first + comparison.only_second
    if not changed:
        spot = _blind_spot(0, comparison.photos)
        return f"{_no_change(content, key, photos)} {later} made no measurable difference. {spot}"
    counts = (
        f"Of {photos}, {second} is right on {wording.whole(comparison.only_second)} that {first} gets wrong, "
        f"and wrong on {wording.whole(comparison.only_first)} that {first} gets right"
    )
    test = f"exact McNemar test, {_p_value(comparison.p_value)}"
    interval = f"95 % interval {wording.points_range(comparison.interval)}"
    if comparison.significant:
        verb = "helped" if comparison.difference > 0 else "harmed"
        text = f"{later} {verb} by {points(comparison.difference)} ({interval}). {counts} ({test})."
        return text + _borderline(comparison)
    return (
        f"{later} made no measurable difference: {_direction(comparison)} ({interval}). "
        f"{counts}, which chance alone could explain ({test}).{_borderline(comparison)} "
        f"{_blind_spot(changed, comparison.photos)}"
    )


def _kept_later(content: RunContent, name: str) -> bool:
    """Say whether any epoch after a stage's was kept; without a history, that one may have been."""
    names = [planned.stage.name for planned in content.plan.stages]
    later = set(names[names.index(name) + 1 :]) if name in names else set(names)
    records = [record for record in content.history if record.stage in later]
    return not records or kept_record(records) is not None


def _later_stages(content: RunContent, name: str, last: str) -> str:
    names = [planned.stage.name for planned in content.plan.stages]
    after = [last]
    if name in names and last in names:
        after = names[names.index(name) + 1 : names.index(last) + 1]
    kinds = {planned.stage.name: planned.stage.train for planned in content.plan.stages}
    if len(after) > 1:
        return f"The stages {listed([quoted(stage) for stage in after])} together"
    return f"Fine-tuning (stage {quoted(last)})" if kinds.get(last) == "all" else f"Stage {quoted(last)}"


def _no_change(content: RunContent, key: tuple[str, str], photos: str) -> str:
    before, after = content.evaluation.before.get(key), content.evaluation.sides.get(key[1])
    pair = f"{quoted(key[0])} and {quoted(content.evaluation.comparisons[key].second)}"
    if before is not None and after is not None:
        answers = [{(m.path, m.prediction) for m in score.mistakes} for score in (before, after)]
        if answers[0] == answers[1]:
            return f"The two stages {pair} give the same answer on every one of {photos}."
    return f"The two stages {pair} are right and wrong on the same photos, all {photos}."


def _direction(comparison: Comparison) -> str:
    if not comparison.difference:
        return "accuracy is the same"
    word = "higher" if comparison.difference > 0 else "lower"
    return f"accuracy is {points(comparison.difference)} {word}"


def _p_value(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def _borderline(comparison: Comparison) -> str:
    low, high = comparison.interval
    if comparison.significant == (low > 0 or high < 0):
        return ""
    return " The interval and the test disagree about zero: a borderline case that more photos would settle."


def smallest_visible_difference(changed: int, photos: int) -> float:
    """Return about how large a true difference must be, 0-1, to be found significant four times in five.

    `changed` of `photos` photos were right by one model only. The normal approximation of McNemar's test
    with that share of changed photos; never below 8 photos, of which at least 6 are then likely to be seen,
    the least number that is significant at 5 % when all point the same way.
    """
    factor = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    return max(8 / photos, factor * math.sqrt(changed) / photos)


def _blind_spot(changed: int, photos: int) -> str:
    smallest = smallest_visible_difference(changed, photos)
    if smallest >= 0.5:
        return f"{counted(photos, 'photo')} are too few to show any but the crudest difference."
    return (
        f"With {counted(photos, 'photo')}, a true difference of about {points(smallest)} or more would "
        "probably have shown (four times in five); a smaller one could stay hidden."
    )
