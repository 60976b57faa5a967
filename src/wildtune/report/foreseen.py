"""What was foreseen before training, beside what came of it."""

from __future__ import annotations

from wildtune import wording
from wildtune.report.content import RunContent, kept_record
from wildtune.train.cautions import about_seconds, levels, others_text, settings_of
from wildtune.train.history import StageMove
from wildtune.train.plan import Caution, PlannedStage, Preflight
from wildtune.wording import counted, nats, percent, quoted, share

# The exact McNemar test needs six photos that only one of two models gets right: with five, p is 0.06.
SIGNIFICANT_FROM_PHOTOS = 6


def foreseen_paragraphs(content: RunContent) -> tuple[str, ...]:
    """Return each warning of the preflight with what the run found about it; nothing where there was no preflight."""
    preflight = content.plan.preflight
    if preflight is None:
        return ()
    lead = (
        f"Before training, each setting's effect was measured on {counted(preflight.photos, 'training photo')}, and "
        "each stage's learning rate was set against the size of the weights."
    )
    if not preflight.warnings:
        return (f"{lead} Nothing was found that cannot matter or must harm.",)
    count = len(preflight.warnings)
    lead += f" {counted(count, 'warning')} came of it; below each is what the run shows."
    return (lead, *(f"{caution.text} {_outcome(content, preflight, caution)}" for caution in preflight.warnings))


def moved_text(content: RunContent, planned: PlannedStage) -> str:
    """Say how far a stage moved its weights, beside how far it could have, and how long it was expected to take."""
    name = planned.stage.name
    move = next((move for move in content.moves if move.stage == name), None)
    if move is None:
        return ""
    text = f"Its last step left the weights {share(move.moved)} of their size away from where they were"
    preflight = content.plan.preflight
    reach = next((r for r in preflight.reaches if r.stage == name), None) if preflight else None
    if reach is not None and reach.gradient_rms is None:
        text += f", where its learning rates could have moved them by {share(reach.reach)}"
    text += _kept_text(move)
    if preflight and preflight.batchnorm_layers and move.batchnorm_unchanged:
        text += f" The {counted(preflight.batchnorm_layers, 'BatchNorm layer')} did not change by a bit."
    if preflight and name in preflight.stage_seconds:
        text += f" Roughly expected: {about_seconds(preflight.stage_seconds[name])}."
    return text


def curve_text(content: RunContent, name: str) -> str:
    """Say whether a stage's validation accuracy went anywhere, from what it started from to its last epoch."""
    records, photos = content.stage_records(name), content.plan.side_size("val")
    before = [record for record in content.history if record.stage != name]
    before = before[: next((i for i, r in enumerate(content.history) if r.stage == name), 0)]
    start = kept_record(before)
    course = [*([start] if start else []), *records]
    apart = round((max(r.val_accuracy for r in course) - min(r.val_accuracy for r in course)) * photos)
    first, last = course[0], course[-1]
    began = "before it" if start else "after its first epoch"
    text = (
        f"validation accuracy was {percent(first.val_accuracy)} {began} and {percent(last.val_accuracy)} after its "
        f"last epoch, validation loss {nats(first.val_loss)} and {nats(last.val_loss)}"
    )
    if apart < SIGNIFICANT_FROM_PHOTOS:
        return (
            f"Its curve is flat, before and after it alike: {text}. The highest and lowest point are "
            f"{counted(apart, 'photo')} of {wording.whole(photos)} apart, no measurable difference (at least "
            f"{SIGNIFICANT_FROM_PHOTOS} would be needed, by the exact McNemar test)."
        )
    return f"Its {text}; the highest and lowest point are {counted(apart, 'photo')} of {wording.whole(photos)} apart."


def effect_rows(content: RunContent) -> list[dict[str, str]]:
    """Return the measured settings as rows of the page's table."""
    preflight = content.plan.preflight
    return [
        {
            "setting": effect.setting,
            "value": effect.value,
            "where": wording.listed([wording.plain(stage) for stage in effect.stages]) or "every photo",
            "pixels": levels(effect.pixel_change).removesuffix(" of 255 grey levels"),
            "changed": share(effect.changed_share),
            "features": _number(effect.feature_change),
            "same": _number(effect.same_class),
            "other": _number(effect.other_class),
        }
        for effect in (preflight.effects if preflight else ())
    ]


def reach_rows(content: RunContent) -> list[dict[str, str]]:
    """Return how far each stage could and did move its weights, as rows of the page's table."""
    preflight = content.plan.preflight
    moves = {move.stage: move for move in content.moves}
    rows = []
    for reach in preflight.reaches if preflight else ():
        expected = preflight.stage_seconds.get(reach.stage) if preflight else None
        rows.append(
            {
                "stage": wording.plain(reach.stage),
                "sum": wording.rate(reach.lr_sum),
                "step": share(reach.largest_step),
                "reach": share(reach.reach),
                "moved": share(moves[reach.stage].moved) if reach.stage in moves else "",
                "expected": about_seconds(expected) if expected is not None else "",
                "took": wording.duration(sum(r.seconds for r in content.stage_records(reach.stage))),
            }
        )
    return rows


def _outcome(content: RunContent, preflight: Preflight, caution: Caution) -> str:
    if caution.kind == "validation_changed":
        score = content.evaluation.headline
        return (
            f"The accuracy of {percent(score.accuracy)} in this report is that on photos so changed; it holds for "
            "photos that pass through this classifier, which changes them all."
        )
    if caution.kind in ("reach_too_small", "lr_too_large"):
        number = int(caution.settings[0].split(".")[1])
        name = content.plan.stages[number].stage.name
        if not content.stage_records(name):
            return f"Stage {quoted(name)} was not trained."
        move = next((move for move in content.moves if move.stage == name), None)
        moved = f"Stage {quoted(name)} moved the weights by {share(move.moved)} of their size. " if move else ""
        return moved + curve_text(content, name)
    effect = next((e for e in preflight.effects if settings_of(e, content.plan) == caution.settings), None)
    if effect is None:
        return ""
    text = f"Measured: {share(effect.changed_share)} of the pixel values changed by more than half a level"
    if effect.feature_change is not None:
        text += f", and the features by {_number(effect.feature_change)} (1 - cosine)"
        text += f", where {others}" if (others := others_text(effect)) else ""
    return f"{text}."


def _kept_text(move: StageMove) -> str:
    if abs(move.kept - move.moved) <= 0.005 * move.moved:
        return "."
    return f"; the weights it handed on are {share(move.kept)} away." if move.kept else "; it handed on those it had."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
