"""What more photos would bring, in sentences and a table that say as much about what is not known."""

from __future__ import annotations

from wildtune.evaluate.learning_curve import (
    AIM,
    BEYOND,
    FURTHEST,
    ClassCurve,
    LearningCurve,
    Needed,
    most_gaining,
)
from wildtune.language import ENGLISH, Language
from wildtune.wording import plain


def more_photos_texts(curve: LearningCurve | None, language: Language = ENGLISH) -> tuple[str, ...]:
    """Return the paragraphs about a learning curve, none where it was not tried."""
    if curve is None:
        return ()
    if curve.reason:
        reason = language.retell("learning curve", plain(curve.reason))
        return (language.say("What more photos would bring cannot be said: {reason}.", reason=reason),)
    return (
        _measured(curve, language),
        f"{_gaining(curve, language)} {_aim(curve, language)}",
        _limits(curve, language),
    )


def more_photos_rows(curve: LearningCurve | None, language: Language = ENGLISH) -> list[dict[str, str]]:
    """Return a row of the table for each class, the one that gains most first."""
    return [_row(known, language) for known in curve.by_gain] if curve is not None else []


def _measured(curve: LearningCurve, language: Language) -> str:
    now, half = curve.measured[-1], next(point for point in curve.measured if point.share == 0.5)
    twice, four_times = curve.forecasts[1:]
    return language.say_counted(
        "Heads on the frozen backbone that learn four fifths of the {n} training and validation photo name {now} of "
        "the other fifth rightly (95 % interval {now_range}); with half as many photos it is {half}. If every class "
        "had twice as many photos like these, {twice} would be expected (95 % interval {twice_range}); with four times "
        "as many, {four_times} ({four_times_range}).",
        "Heads on the frozen backbone that learn four fifths of the {n} training and validation photos name {now} of "
        "the other fifth rightly (95 % interval {now_range}); with half as many photos it is {half}. If every class "
        "had twice as many photos like these, {twice} would be expected (95 % interval {twice_range}); with four times "
        "as many, {four_times} ({four_times_range}).",
        curve.photos,
        now=language.percent(now.accuracy),
        now_range=language.percent_range(now.interval),
        half=language.percent(half.accuracy),
        twice=language.percent(twice.value),
        twice_range=language.percent_range(twice.interval),
        four_times=language.percent(four_times.value),
        four_times_range=language.percent_range(four_times.interval),
    )


def _gaining(curve: LearningCurve, language: Language) -> str:
    gaining = most_gaining(curve)
    if not gaining:
        return language.say("No class is expected to gain a point of recall by twice the photos.")
    named = language.listed([_gain(known, language) for known in gaining])
    return language.say("Recall would grow most by twice the photos for {classes}.", classes=named)


def _gain(known: ClassCurve, language: Language) -> str:
    now, twice = known.forecasts[:2]
    return language.say_counted(
        "{name}, from {now} with {n} photo to {twice} (95 % interval {twice_range})",
        "{name}, from {now} with {n} photos to {twice} (95 % interval {twice_range})",
        known.photos,
        name=language.quoted(known.name),
        now=language.percent(now.value),
        twice=language.percent(twice.value),
        twice_range=language.percent_range(twice.interval),
    )


def _aim(curve: LearningCurve, language: Language) -> str:
    needed = [known.needed for known in curve.classes]
    reached = sum(need.is_reached and need.is_known for need in needed)
    near = sum(need.factor is not None and 1 < need.factor <= FURTHEST and need.is_known for need in needed)
    return language.say_counted(
        "A recall of {aim} is probably reached already by {reached} of {n} class; {near} more would probably reach it "
        "with up to four times their photos; for the other {others} it takes more, or cannot be said from these "
        "photos.",
        "A recall of {aim} is probably reached already by {reached} of {n} classes; {near} more would probably reach "
        "it with up to four times their photos; for the other {others} it takes more, or cannot be said from these "
        "photos.",
        len(needed),
        aim=language.percent(AIM),
        reached=reached,
        near=near,
        others=len(needed) - reached - near,
    )


def _limits(curve: LearningCurve, language: Language) -> str:
    text = language.say(
        "This is the curve of heads on the frozen backbone: fine-tuning usually lies above it, and what more photos "
        "would bring to it was not measured. All classes are taken to grow alike by photos like these; more of one "
        "class alone, or photos of other places and seasons, may bring less or more. The further from today's number, "
        "the more a forecast is a guess, and beyond four times the photos none is made."
    )
    if not curve.left_out:
        return text
    named = [language.quoted(name) for name in curve.left_out[:8]]
    if len(curve.left_out) > 8:
        more = len(curve.left_out) - 8
        named.append(language.say_counted("{n} more class", "{n} more classes", more))
    few = language.say("Too few photos for a curve of their own: {classes}.", classes=language.listed(named))
    return f"{text} {few}"


def _row(known: ClassCurve, language: Language) -> dict[str, str]:
    now, twice, four_times = known.forecasts
    return {
        "name": plain(known.name),
        "photos": language.whole(known.photos),
        "now": language.percent(now.value),
        "now_range": language.percent_range(now.interval),
        "twice": language.percent(twice.value),
        "twice_range": language.percent_range(twice.interval),
        "four_times": language.percent(four_times.value),
        "four_times_range": language.percent_range(four_times.interval),
        "needed": needed_text(known.needed, known.photos, language),
    }


def needed_text(needed: Needed, photos: int, language: Language = ENGLISH) -> str:
    """Return how many photos a class of `photos` needs for the aim, and nothing that cannot be known."""

    def about(factor: float) -> str:
        rounded = int(float(f"{factor * photos:.2g}"))  # two significant digits
        return language.whole(max(rounded, photos))

    if not needed.is_known:
        return language.say("cannot be said")
    if needed.is_reached:
        return language.say("probably enough")
    if needed.factor is None:
        return language.say("more than {photos}", photos=about(BEYOND))
    if needed.factor > FURTHEST:
        return language.say("more than {photos}; how many cannot be said", photos=about(FURTHEST))
    values = {
        "photos": about(needed.factor),
        "low": language.whole(photos) if needed.low is None or needed.low <= 1 else about(needed.low),
    }
    if needed.high is None:
        return language.say("about {photos} ({low} to over {high})", high=about(BEYOND), **values)
    return language.say("about {photos} ({low} to {high})", high=about(needed.high), **values)
