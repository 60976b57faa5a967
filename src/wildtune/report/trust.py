"""Which single answers to trust, in sentences that promise no more than the photos allow."""

from __future__ import annotations

from wildtune.evaluate.trust import ReviewScore, SetScore, TrustScore
from wildtune.language import ENGLISH, Language
from wildtune.report.content import photos_of, photos_on


def trust_texts(score: TrustScore | None, language: Language = ENGLISH) -> tuple[str, ...]:
    """Return the paragraphs about temperature, review, prediction sets and unknown animals."""
    if score is None:
        return ()
    of = photos_of(language, score.side, score.photos)
    return (
        _temperature(score, language),
        _review(score.review, of, language),
        _sets(score.sets, photos_on(language, score.side, score.photos), language),
        _unknown(score, of, language),
    )


def _temperature(score: TrustScore, language: Language) -> str:
    text = language.say_counted(
        "Confidence is the network's at a temperature of {temperature}, fitted on {n} validation photo: the "
        "calibration error was {before} as trained and is {after}; about {chance} would be chance.",
        "Confidence is the network's at a temperature of {temperature}, fitted on {n} validation photos: the "
        "calibration error was {before} as trained and is {after}; about {chance} would be chance.",
        score.fitted_on,
        temperature=language.numeral(f"{score.temperature:.2f}"),
        before=language.points(score.calibration_error_before),
        after=language.points(score.calibration_error),
        chance=language.points(score.calibration_error_by_chance),
    )
    if score.side == "val":
        judged = language.say(
            "With no test photos it was fitted and judged on the same ones, which flatters all of this."
        )
    else:
        judged = language.say(
            "The validation photos may have chosen the epoch too, so what is promised from them can be a little too "
            "good: what is said here of the test photos is the check."
        )
    return f"{text} {judged}"


def _review(review: ReviewScore, photos: str, language: Language) -> str:
    say = language.say
    promise = {"promised": language.percent(review.promised), "certainty": language.percent(review.certainty)}
    if review.promised < review.target:
        text = say(
            "No share to review up to a half lets the validation photos promise an accuracy of {target}. The most that "
            "can be promised: with the less sure half reviewed, the others are right {promised} of the time or more, "
            "with {certainty} certainty.",
            target=language.percent(review.target),
            **promise,
        )
    else:
        text = say(
            "If the answers that the column “review” marks are looked at, the others are right {promised} of the time "
            "or more, with {certainty} certainty.",
            **promise,
        )
    reviewed = {
        "photos": photos,
        "reviewed": language.percent(review.reviewed),
        "reviewed_range": language.percent_range(review.reviewed_interval),
    }
    if review.accuracy is None:
        none = say(
            "Of {photos} that is {reviewed} (95 % interval {reviewed_range}) to review, which leaves none.", **reviewed
        )
        return f"{text} {none}"
    text += " " + say(
        "Of {photos} that is {reviewed} (95 % interval {reviewed_range}) to review; of the others {accuracy} are right "
        "(95 % interval {range}).",
        **reviewed,
        accuracy=language.percent(review.accuracy),
        range=language.percent_range(review.interval),
    )
    if review.interval[1] < review.promised:
        text += " " + say("That breaks the promise: these photos differ from the validation photos.")
    return text


def _sets(sets: tuple[SetScore, ...], photos: str, language: Language) -> str:
    parts = [
        language.say(
            "promised {promised}, held {held} (95 % interval {range}) with {size} classes on average",
            promised=language.percent(s.promised),
            held=language.percent(s.held),
            range=language.percent_range(s.interval),
            size=language.numeral(f"{s.size:.2f}"),
        )
        for s in sets
    ]
    text = language.say(
        "Prediction sets name every class that may be right. On {photos}: {sets}.", photos=photos, sets="; ".join(parts)
    )
    if any(s.interval[1] < s.promised for s in sets):
        text += " " + language.say(
            "Where the interval lies below what was promised, these photos differ from the validation photos."
        )
    return text


def _unknown(score: TrustScore, photos: str, language: Language) -> str:
    return language.say(
        "The column “unknown” marks photos that may show none of the classes. It should mark at most {promised} of "
        "photos that do show one; of {photos} it marks {flagged} (95 % interval {range}). Animals that look like a "
        "class can pass unmarked.",
        promised=language.percent(score.unknown_promised),
        photos=photos,
        flagged=language.percent(score.unknown_flagged),
        range=language.percent_range(score.unknown_interval),
    )
