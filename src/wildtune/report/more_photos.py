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
from wildtune.wording import counted, listed, percent, percent_range, plain, quoted, whole


def more_photos_texts(curve: LearningCurve | None) -> tuple[str, ...]:
    """Return the paragraphs about a learning curve, none where it was not tried."""
    if curve is None:
        return ()
    if curve.reason:
        return (f"What more photos would bring cannot be said: {plain(curve.reason)}.",)
    return (_measured(curve), f"{_gaining(curve)} {_aim(curve)}", _limits(curve))


def more_photos_rows(curve: LearningCurve | None) -> list[dict[str, str]]:
    """Return a row of the table for each class, the one that gains most first."""
    classes = curve.classes if curve is not None else ()
    return [_row(known) for known in sorted(classes, key=lambda c: (-c.gain, c.name))]


def _measured(curve: LearningCurve) -> str:
    now, half = curve.measured[-1], next(point for point in curve.measured if point.share == 0.5)
    photos = counted(curve.photos, "training and validation photo")
    twice, four_times = curve.forecasts[1:]
    return (
        f"Heads on the frozen backbone that learn four fifths of the {photos} name {percent(now.accuracy)} of the "
        f"other fifth rightly (95 % interval {percent_range(now.interval)}); with half as many photos it is "
        f"{percent(half.accuracy)}. If every class had twice as many photos like these, {percent(twice.value)} would "
        f"be expected (95 % interval {percent_range(twice.interval)}); with four times as many, "
        f"{percent(four_times.value)} ({percent_range(four_times.interval)})."
    )


def _gaining(curve: LearningCurve) -> str:
    gaining = most_gaining(curve)
    if not gaining:
        return "No class is expected to gain a point of recall by twice the photos."
    named = listed([_gain(known) for known in gaining])
    return f"Recall would grow most by twice the photos for {named}."


def _gain(known: ClassCurve) -> str:
    now, twice = known.forecasts[:2]
    return (
        f"{quoted(known.name)}, from {percent(now.value)} with {counted(known.photos, 'photo')} to "
        f"{percent(twice.value)} (95 % interval {percent_range(twice.interval)})"
    )


def _aim(curve: LearningCurve) -> str:
    needed = [known.needed for known in curve.classes]
    reached = sum(need.is_reached for need in needed)
    near = sum(need.factor is not None and 1 < need.factor <= FURTHEST and need.is_known for need in needed)
    return (
        f"A recall of {percent(AIM)} is probably reached already by {reached} of "
        f"{counted(len(needed), 'class', 'classes')}; {near} more would probably reach it with up to four times their "
        f"photos; for the other {len(needed) - reached - near} it takes more, or cannot be said from these photos."
    )


def _limits(curve: LearningCurve) -> str:
    text = (
        "This is the curve of heads on the frozen backbone: fine-tuning usually lies above it, and what more photos "
        "would bring to it was not measured. All classes are taken to grow alike by photos like these; more of one "
        "class alone, or photos of other places and seasons, may bring less or more. The further from today's number, "
        "the more a forecast is a guess, and beyond four times the photos none is made."
    )
    if not curve.left_out:
        return text
    few = listed([quoted(name) for name in curve.left_out[:8]])
    more = len(curve.left_out) - 8
    if more > 0:
        return (
            f"{text} Too few photos for a curve of their own: {few} and {counted(more, 'more class', 'more classes')}."
        )
    return f"{text} Too few photos for a curve of their own: {few}."


def _row(known: ClassCurve) -> dict[str, str]:
    now, twice, four_times = known.forecasts
    return {
        "name": plain(known.name),
        "photos": whole(known.photos),
        "now": percent(now.value),
        "now_range": percent_range(now.interval),
        "twice": percent(twice.value),
        "twice_range": percent_range(twice.interval),
        "four_times": percent(four_times.value),
        "four_times_range": percent_range(four_times.interval),
        "needed": needed_text(known.needed, known.photos),
    }


def needed_text(needed: Needed, photos: int) -> str:
    """Return how many photos a class of `photos` needs for the aim, and nothing that cannot be known."""
    if needed.is_reached:
        return "probably enough"
    if not needed.is_known:
        return "cannot be said"
    if needed.factor is None:
        return f"more than {_about(BEYOND * photos)}"
    if needed.factor > FURTHEST:
        return f"more than {_about(FURTHEST * photos)}; how many cannot be said"
    low = whole(photos) if needed.low is None or needed.low <= 1 else _about(needed.low * photos)
    if needed.high is None:
        return f"about {_about(needed.factor * photos)} ({low} to over {_about(BEYOND * photos)})"
    return f"about {_about(needed.factor * photos)} ({low} to {_about(needed.high * photos)})"


def _about(photos: float) -> str:
    """Return a number of photos with two significant digits."""
    return whole(int(float(f"{photos:.2g}")))
