"""Whether a later stage helped, in a sentence that claims no more than the photos can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from wildtune.evaluate.evaluation import Comparison
from wildtune.language import Language
from wildtune.report.content import RunContent, kept_record, photos_of


def compare_text(content: RunContent, key: tuple[str, str]) -> str:
    """Return whether the stages after `key`'s helped on its side, with the interval and the exact test."""
    comparison, language = content.evaluation.comparisons[key], content.language
    say, later = language.say, _later_stages(content, key[0], comparison.second)
    if not _kept_later(content, key[0]):
        return say(
            "{later} changed nothing: no epoch did better on the validation photos, so the final model is that of "
            "stage {name}.",
            later=later,
            name=language.quoted(key[0]),
        )
    photos = photos_of(language, key[1], comparison.photos)
    changed = comparison.only_first + comparison.only_second
    if not changed:
        none = say("{later} made no measurable difference.", later=later)
        return f"{_no_change(content, key, photos)} {none} {_blind_spot(0, comparison.photos, language)}"
    values = {
        "photos": photos,
        "first": language.quoted(comparison.first),
        "second": language.quoted(comparison.second),
        "gained": language.whole(comparison.only_second),
        "lost": language.whole(comparison.only_first),
        "test": say("exact McNemar test, {p}", p=language.numeral(_p_value(comparison.p_value))),
    }
    verdict = {
        "later": later,
        "points": language.points(comparison.difference),
        "range": language.points_range(comparison.interval),
    }
    if comparison.significant:
        if comparison.difference > 0:
            text = say("{later} helped by {points} (95 % interval {range}).", **verdict)
        else:
            text = say("{later} harmed by {points} (95 % interval {range}).", **verdict)
        counts = say(
            "Of {photos}, {second} is right on {gained} that {first} gets wrong, and wrong on {lost} that {first} gets "
            "right ({test}).",
            **values,
        )
        return f"{text} {counts}{_borderline(comparison, language)}"
    counts = say(
        "Of {photos}, {second} is right on {gained} that {first} gets wrong, and wrong on {lost} that {first} gets "
        "right, which chance alone could explain ({test}).",
        **values,
    )
    return (
        f"{_no_difference(comparison, verdict, language)} {counts}{_borderline(comparison, language)} "
        f"{_blind_spot(changed, comparison.photos, language)}"
    )


def _no_difference(comparison: Comparison, verdict: Mapping[str, str], language: Language) -> str:
    if not comparison.difference:
        return language.say(
            "{later} made no measurable difference: accuracy is the same (95 % interval {range}).",
            later=verdict["later"],
            range=verdict["range"],
        )
    if comparison.difference > 0:
        return language.say(
            "{later} made no measurable difference: accuracy is {points} higher (95 % interval {range}).", **verdict
        )
    return language.say(
        "{later} made no measurable difference: accuracy is {points} lower (95 % interval {range}).", **verdict
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
    language = content.language
    if len(after) > 1:
        return language.say(
            "The stages {names} together", names=language.listed([language.quoted(stage) for stage in after])
        )
    if kinds.get(last) == "all":
        return language.say("Fine-tuning (stage {name})", name=language.quoted(last))
    return language.say("Stage {name}", context="later", name=language.quoted(last))


def _no_change(content: RunContent, key: tuple[str, str], photos: str) -> str:
    before, after = content.evaluation.before.get(key), content.evaluation.sides.get(key[1])
    language = content.language
    values = {
        "first": language.quoted(key[0]),
        "second": language.quoted(content.evaluation.comparisons[key].second),
        "photos": photos,
    }
    if before is not None and after is not None:
        answers = [{(m.path, m.prediction) for m in score.mistakes} for score in (before, after)]
        if answers[0] == answers[1]:
            return language.say(
                "The two stages {first} and {second} give the same answer on every one of {photos}.", **values
            )
    return language.say(
        "The two stages {first} and {second} are right and wrong on the same photos, all {photos}.", **values
    )


def _p_value(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def _borderline(comparison: Comparison, language: Language) -> str:
    low, high = comparison.interval
    if comparison.significant == (low > 0 or high < 0):
        return ""
    return " " + language.say(
        "The interval and the test disagree about zero: a borderline case that more photos would settle."
    )


def smallest_visible_difference(changed: int, photos: int) -> float:
    """Return about how large a true difference must be, 0-1, to be found significant four times in five.

    `changed` of `photos` photos were right by one model only. The normal approximation of McNemar's test
    with that share of changed photos; never below 8 photos, of which at least 6 are then likely to be seen,
    the least number that is significant at 5 % when all point the same way.
    """
    factor = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    return max(8 / photos, factor * math.sqrt(changed) / photos)


def _blind_spot(changed: int, photos: int, language: Language) -> str:
    smallest = smallest_visible_difference(changed, photos)
    if smallest >= 0.5:
        return language.say_counted(
            "{n} photo are too few to show any but the crudest difference.",
            "{n} photos are too few to show any but the crudest difference.",
            photos,
        )
    return language.say_counted(
        "With {n} photo, a true difference of about {points} or more would probably have shown (four times in five); "
        "a smaller one could stay hidden.",
        "With {n} photos, a true difference of about {points} or more would probably have shown (four times in five); "
        "a smaller one could stay hidden.",
        photos,
        points=language.points(smallest),
    )
