"""What was foreseen before training, beside what came of it."""

from __future__ import annotations

from wildtune import wording
from wildtune.language import ENGLISH, Language
from wildtune.report.content import RunContent, kept_record
from wildtune.train.cautions import about_seconds, find_cautions, level_number, others_text, settings_of
from wildtune.train.history import StageMove
from wildtune.train.plan import Caution, Effect, Plan, PlannedStage, Preflight

# The exact McNemar test needs six photos that only one of two models gets right: with five, p is 0.06.
SIGNIFICANT_FROM_PHOTOS = 6


def foreseen_paragraphs(content: RunContent) -> tuple[str, ...]:
    """Return each warning of the preflight with what the run found about it; nothing where there was no preflight."""
    preflight, language = content.plan.preflight, content.language
    if preflight is None:
        return ()
    lead = language.say_counted(
        "Before training, each setting's effect was measured on {n} training photo, and each stage's learning rate was "
        "set against the size of the weights.",
        "Before training, each setting's effect was measured on {n} training photos, and each stage's learning rate "
        "was set against the size of the weights.",
        preflight.photos,
    )
    if not preflight.warnings:
        return (f"{lead} {language.say('Nothing was found that cannot matter or must harm.')}",)
    lead += " " + language.say_counted(
        "{n} warning came of it; below each is what the run shows.",
        "{n} warnings came of it; below each is what the run shows.",
        len(preflight.warnings),
    )
    texts = _caution_texts(content.plan, language)
    return (lead, *(f"{text} {_outcome(content, preflight, caution)}" for caution, text in texts))


def _caution_texts(plan: Plan, language: Language) -> list[tuple[Caution, str]]:
    """Return each warning with its words in a language: those recorded, and else what they are said of again."""
    assert plan.preflight is not None
    if language == ENGLISH:
        return [(caution, caution.text) for caution in plan.preflight.warnings]
    again = {(caution.kind, caution.settings): caution.text for caution in find_cautions(plan, language)}
    return [(c, again.get((c.kind, c.settings), c.text)) for c in plan.preflight.warnings]


def moved_text(content: RunContent, planned: PlannedStage) -> str:
    """Say how far a stage moved its weights, beside how far it could have, and how long it was expected to take."""
    name, language = planned.stage.name, content.language
    move = next((move for move in content.moves if move.stage == name), None)
    if move is None:
        return ""
    preflight = content.plan.preflight
    reach = next((r for r in preflight.reaches if r.stage == name), None) if preflight else None
    limit = language.share(reach.reach) if reach is not None and reach.gradient_rms is None else ""
    texts = [_step_text(move, limit, language)]
    if preflight and preflight.batchnorm_layers and move.batchnorm_unchanged:
        texts.append(
            language.say_counted(
                "The {n} BatchNorm layer did not change by a bit.",
                "The {n} BatchNorm layers did not change by a bit.",
                preflight.batchnorm_layers,
            )
        )
    if preflight and name in preflight.stage_seconds:
        expected = about_seconds(preflight.stage_seconds[name], language)
        texts.append(language.say("Roughly expected: {time}.", time=expected))
    return " ".join(texts)


def _step_text(move: StageMove, limit: str, language: Language) -> str:
    say, shares = language.say, {"moved": language.share(move.moved)}
    if limit:
        shares["limit"] = limit
    if abs(move.kept - move.moved) <= 0.005 * move.moved:
        if limit:
            return say(
                "Its last step left the weights {moved} of their size away from where they were, where its learning "
                "rates could have moved them by {limit}.",
                **shares,
            )
        return say("Its last step left the weights {moved} of their size away from where they were.", **shares)
    if not move.kept:
        if limit:
            return say(
                "Its last step left the weights {moved} of their size away from where they were, where its learning "
                "rates could have moved them by {limit}; it handed on those it had.",
                **shares,
            )
        return say(
            "Its last step left the weights {moved} of their size away from where they were; it handed on those it "
            "had.",
            **shares,
        )
    shares["kept"] = language.share(move.kept)
    if limit:
        return say(
            "Its last step left the weights {moved} of their size away from where they were, where its learning "
            "rates could have moved them by {limit}; the weights it handed on are {kept} away.",
            **shares,
        )
    return say(
        "Its last step left the weights {moved} of their size away from where they were; the weights it handed on are "
        "{kept} away.",
        **shares,
    )


def curve_text(content: RunContent, name: str) -> str:
    """Say whether a stage's validation accuracy went anywhere, from what it started from to its last epoch."""
    records, photos, language = content.stage_records(name), content.plan.side_size("val"), content.language
    before = [record for record in content.history if record.stage != name]
    before = before[: next((i for i, r in enumerate(content.history) if r.stage == name), 0)]
    start = kept_record(before)
    course = [*([start] if start else []), *records]
    apart = round((max(r.val_accuracy for r in course) - min(r.val_accuracy for r in course)) * photos)
    first, last = course[0], course[-1]
    values = {
        "began": language.percent(first.val_accuracy),
        "ended": language.percent(last.val_accuracy),
        "began_loss": language.nats(first.val_loss),
        "ended_loss": language.nats(last.val_loss),
        "photos": language.whole(photos),
    }
    if apart >= SIGNIFICANT_FROM_PHOTOS:
        return _moving_curve(values, apart, start is not None, language)
    return _flat_curve({**values, "least": str(SIGNIFICANT_FROM_PHOTOS)}, apart, start is not None, language)


def _flat_curve(values: dict[str, str], apart: int, begun_before: bool, language: Language) -> str:
    apart_text = language.say_counted(
        "The highest and lowest point are {n} photo of {photos} apart, no measurable difference (at least {least} "
        "would be needed, by the exact McNemar test).",
        "The highest and lowest point are {n} photos of {photos} apart, no measurable difference (at least {least} "
        "would be needed, by the exact McNemar test).",
        apart,
        photos=values.pop("photos"),
        least=values.pop("least"),
    )
    if begun_before:
        text = language.say(
            "Its curve is flat, before and after it alike: validation accuracy was {began} before it and {ended} after "
            "its last epoch, validation loss {began_loss} and {ended_loss}.",
            **values,
        )
    else:
        text = language.say(
            "Its curve is flat, before and after it alike: validation accuracy was {began} after its first epoch and "
            "{ended} after its last epoch, validation loss {began_loss} and {ended_loss}.",
            **values,
        )
    return f"{text} {apart_text}"


def _moving_curve(values: dict[str, str], apart: int, begun_before: bool, language: Language) -> str:
    if begun_before:
        return language.say_counted(
            "Its validation accuracy was {began} before it and {ended} after its last epoch, validation loss "
            "{began_loss} and {ended_loss}; the highest and lowest point are {n} photo of {photos} apart.",
            "Its validation accuracy was {began} before it and {ended} after its last epoch, validation loss "
            "{began_loss} and {ended_loss}; the highest and lowest point are {n} photos of {photos} apart.",
            apart,
            **values,
        )
    return language.say_counted(
        "Its validation accuracy was {began} after its first epoch and {ended} after its last epoch, validation loss "
        "{began_loss} and {ended_loss}; the highest and lowest point are {n} photo of {photos} apart.",
        "Its validation accuracy was {began} after its first epoch and {ended} after its last epoch, validation loss "
        "{began_loss} and {ended_loss}; the highest and lowest point are {n} photos of {photos} apart.",
        apart,
        **values,
    )


def effect_rows(content: RunContent) -> list[dict[str, str]]:
    """Return the measured settings as rows of the page's table."""
    preflight, language = content.plan.preflight, content.language
    return [
        {
            "setting": effect.setting,
            "value": language.retell("effect", effect.value),
            "where": language.listed([wording.plain(stage) for stage in effect.stages]) or language.say("every photo"),
            "pixels": level_number(effect.pixel_change, language),
            "changed": language.share(effect.changed_share),
            "features": _number(effect.feature_change, language),
            "same": _number(effect.same_class, language),
            "other": _number(effect.other_class, language),
        }
        for effect in (preflight.effects if preflight else ())
    ]


def reach_rows(content: RunContent) -> list[dict[str, str]]:
    """Return how far each stage could and did move its weights, as rows of the page's table."""
    preflight, language = content.plan.preflight, content.language
    moves = {move.stage: move for move in content.moves}
    rows = []
    for reach in preflight.reaches if preflight else ():
        expected = preflight.stage_seconds.get(reach.stage) if preflight else None
        rows.append(
            {
                "stage": wording.plain(reach.stage),
                "sum": language.rate(reach.lr_sum),
                "step": language.share(reach.largest_step),
                "reach": language.share(reach.reach),
                "moved": language.share(moves[reach.stage].moved) if reach.stage in moves else "",
                "expected": about_seconds(expected, language) if expected is not None else "",
                "took": language.duration(sum(r.seconds for r in content.stage_records(reach.stage))),
            }
        )
    return rows


def _outcome(content: RunContent, preflight: Preflight, caution: Caution) -> str:
    language = content.language
    say = language.say
    if caution.kind == "validation_changed":
        return say(
            "The accuracy of {accuracy} in this report is that on photos so changed; it holds for photos that pass "
            "through this classifier, which changes them all.",
            accuracy=language.percent(content.evaluation.headline.accuracy),
        )
    if caution.kind in ("reach_too_small", "lr_too_large"):
        number = int(caution.settings[0].split(".")[1])
        name = content.plan.stages[number].stage.name
        if not content.stage_records(name):
            return say("Stage {name} was not trained.", name=language.quoted(name))
        move = next((move for move in content.moves if move.stage == name), None)
        if move is None:
            return curve_text(content, name)
        moved = say(
            "Stage {name} moved the weights by {share} of their size.",
            name=language.quoted(name),
            share=language.share(move.moved),
        )
        return f"{moved} {curve_text(content, name)}"
    effect = next((e for e in preflight.effects if settings_of(e, content.plan) == caution.settings), None)
    return _measured_text(effect, language) if effect else ""


def _measured_text(effect: Effect, language: Language) -> str:
    changed = {"share": language.share(effect.changed_share)}
    if effect.feature_change is None:
        return language.say("Measured: {share} of the pixel values changed by more than half a level.", **changed)
    changed["features"] = _number(effect.feature_change, language)
    others = others_text(effect, language)
    if not others:
        return language.say(
            "Measured: {share} of the pixel values changed by more than half a level, and the features by {features} "
            "(1 - cosine).",
            **changed,
        )
    return language.say(
        "Measured: {share} of the pixel values changed by more than half a level, and the features by {features} "
        "(1 - cosine), where {others}.",
        **changed,
        others=others,
    )


def _number(value: float | None, language: Language) -> str:
    return "" if value is None else language.numeral(f"{value:.2g}")
