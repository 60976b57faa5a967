"""Which single answers to trust, in sentences that promise no more than the photos allow."""

from __future__ import annotations

from wildtune.evaluate.trust import ReviewScore, SetScore, TrustScore
from wildtune.report.content import SIDE_NAMES
from wildtune.wording import counted, percent, percent_range, points


def trust_texts(score: TrustScore | None) -> tuple[str, ...]:
    """Return the paragraphs about temperature, review, prediction sets and unknown animals."""
    if score is None:
        return ()
    photos = counted(score.photos, f"{SIDE_NAMES.get(score.side, score.side)} photo")
    return (_temperature(score), _review(score.review, photos), _sets(score.sets, photos), _unknown(score, photos))


def _temperature(score: TrustScore) -> str:
    before, after = score.calibration_error_before, score.calibration_error
    text = (
        f"Confidence is the network's at a temperature of {score.temperature:.2f}, fitted on "
        f"{counted(score.fitted_on, 'validation photo')}: the calibration error was {points(before)} as trained and is "
        f"{points(after)}; about {points(score.calibration_error_by_chance)} would be chance. "
    )
    if score.side == "val":
        return text + "With no test photos it was fitted and judged on the same ones, which flatters all of this."
    return text + (
        "The validation photos may have chosen the epoch too, so what is promised from them can be a little too good: "
        "what is said here of the test photos is the check."
    )


def _review(review: ReviewScore, photos: str) -> str:
    often, certainty = percent(review.promised), percent(review.certainty)
    promise = f"the others are right {often} of the time or more, with {certainty} certainty"
    if review.promised < review.target:
        text = (
            f"No share to review up to a half lets the validation photos promise an accuracy of "
            f"{percent(review.target)}. The most that can be promised: with the less sure half reviewed, {promise}."
        )
    else:
        text = f"If the answers that the column “review” marks are looked at, {promise}."
    text += (
        f" Of {photos} that is {percent(review.reviewed)} (95 % interval {percent_range(review.reviewed_interval)}) "
        "to review"
    )
    if review.accuracy is None:
        return f"{text}, which leaves none."
    text += f"; of the others {percent(review.accuracy)} are right (95 % interval {percent_range(review.interval)})."
    if review.interval[1] < review.promised:
        text += " That breaks the promise: these photos differ from the validation photos."
    return text


def _sets(sets: tuple[SetScore, ...], photos: str) -> str:
    parts = [
        f"promised {percent(s.promised)}, held {percent(s.held)} (95 % interval {percent_range(s.interval)}) with "
        f"{s.size:.2f} classes on average"
        for s in sets
    ]
    text = f"Prediction sets name every class that may be right. On {photos}: {'; '.join(parts)}."
    if any(s.interval[1] < s.promised for s in sets):
        text += " Where the interval lies below what was promised, these photos differ from the validation photos."
    return text


def _unknown(score: TrustScore, photos: str) -> str:
    return (
        f"The column “unknown” marks photos that may show none of the classes. It should mark at most "
        f"{percent(score.unknown_promised)} of photos that do show one; of {photos} it marks "
        f"{percent(score.unknown_flagged)} (95 % interval {percent_range(score.unknown_interval)}). Animals that look "
        "like a class can pass unmarked."
    )
