"""What the preflight's figures mean: which settings cannot matter or must harm, and everything in plain sentences.

Each limit is one of rounding or of common practice, none is fitted to photos:

pixels    under half a grey level on average: rounding a photo to 8 bits changes its values by up to that
weights   under a thousandth of their size: rounding them to bfloat16 changes them by more (`reach.LEAST_REACH`)
input     contrast or brightness more than 40 % off: networks are commonly pretrained with both within 40 % of the
          photo's own (timm's and torchvision's colour jitter of 0.4), so that less is nothing new to them
a step    a tenth of the weights' size: ten steps can undo what a backbone was pretrained to
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wildtune import wording
from wildtune.train.effects import HALF_LEVEL
from wildtune.train.plan import Caution, Effect, Plan, PlannedStage, Preflight, Reach
from wildtune.train.reach import BFLOAT16, LEAST_REACH
from wildtune.wording import listed, quoted, share

JITTER = 0.4
LARGEST_STEP = 0.1
# Where features hardly tell classes apart, as with weights that fit no photos, distances between them say nothing.
_TELLS_CLASSES = 0.9


def find_cautions(plan: Plan) -> tuple[Caution, ...]:
    """Return what to warn of: each setting once for all stages that share its value, each stage's rate by itself."""
    found = plan.preflight
    if found is None:
        return ()
    cautions = [caution for effect in found.effects for caution in _effect_cautions(effect, plan)]
    cautions += _validation_changed(plan, found)
    for number, (planned, reach) in enumerate(zip(plan.stages, found.reaches, strict=True)):
        cautions += _reach_cautions(planned, reach, f"stages.{number}.lr")
    return tuple(cautions)


def describe_preflight(preflight: Preflight) -> list[str]:
    """Return the figures as sentences, without the warnings."""
    lines = [effect_text(effect) for effect in preflight.effects]
    lines += [text for text in [spread_text(preflight.effects)] if text]
    if preflight.outside_share:
        lines.append(
            f"{share(preflight.outside_share)} of the pixel values of photos as they are classified lie outside 0-255, "
            "where the backbone has never seen any."
        )
    lines += [reach_text(reach) for reach in preflight.reaches]
    lines += [batchnorm_text(preflight.batchnorm_layers), times_text(preflight)]
    return lines


def effect_text(effect: Effect) -> str:
    """Say what one setting does to pixels and features."""
    where = "every photo"
    if effect.stages:
        where = ("stage " if len(effect.stages) == 1 else "stages ") + listed([quoted(name) for name in effect.stages])
    often = f", {share(effect.chance)} of the views" if effect.chance < 1 else ""
    text = (
        f"{effect.setting} {effect.value} ({where}{often}): pixels by {levels(effect.pixel_change)} on average, "
        f"{share(effect.changed_share)} of them by more than half a level"
    )
    return (
        f"{text}; features by {_distance(effect.feature_change)}." if effect.feature_change is not None else f"{text}."
    )


def spread_text(effects: Sequence[Effect]) -> str:
    """Say how far the features of different photos are apart, which is what changes of features are to be seen by."""
    measured = [effect for effect in effects if effect.feature_change is not None]
    if not measured:
        return ""
    # Augmentations are seen by the photos as they are classified, which is what the input's settings make of them.
    effect = next((effect for effect in measured if effect.stages), measured[0])
    return f"Features are compared by 1 - cosine, by which {others_text(effect)}." if others_text(effect) else ""


def features_text(effect: Effect) -> str:
    """Say how far a setting moves features, beside how far those of different photos are apart."""
    text = f"moves the features by {_distance(effect.feature_change)} (1 - cosine)"
    text += f", where {others_text(effect)}" if others_text(effect) else ""
    if effect.feature_growth is not None and not 0.5 <= effect.feature_growth <= 2:
        text += f", and makes them {effect.feature_growth:.3g} times as large"
    return text


def reach_text(reach: Reach) -> str:
    """Say how far a stage can move its weights."""
    steps = wording.counted(reach.steps, "step")
    return (
        f"Stage {quoted(reach.stage)}: its rates add up to {wording.rate(reach.lr_sum)} over {steps}, which can move "
        f"the weights by {_limit(reach)} {_of_size(reach.reach)} (root mean square {reach.weights_rms:.3g}), one step "
        f"by {share(reach.largest_step)}."
    )


def batchnorm_text(layers: int) -> str:
    """Say that BatchNorm stays as it is."""
    if not layers:
        return "The network has no BatchNorm layers."
    which = "The BatchNorm layer keeps its" if layers == 1 else f"All {layers} BatchNorm layers keep their"
    return f"{which} scale, shift, mean and variance in every stage: none is ever updated."


def times_text(preflight: Preflight) -> str:
    """Say about how long features and stages will take."""
    times = [f"stage {quoted(stage)} {about_seconds(s)}" for stage, s in preflight.stage_seconds.items()]
    if preflight.feature_seconds >= 0.5:
        times.insert(0, f"features of the photos {about_seconds(preflight.feature_seconds)}")
    return f"Expected time, roughly: {listed(times)}."


def about_seconds(seconds: float) -> str:
    """Return a rough duration in words that claim no precision.

    >>> about_seconds(0.3), about_seconds(17), about_seconds(260), about_seconds(5000)
    ('under 1 s', '17 s', '4 min', '1.4 h')
    """
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def levels(change: float) -> str:
    """Return a change of a pixel's value in grey levels."""
    number = f"{change:.0f}" if change >= 10 else f"{change:.2f}" if change >= 0.01 or not change else f"{change:.1g}"
    return f"{number} of 255 grey levels"


def _effect_cautions(effect: Effect, plan: Plan) -> list[Caution]:
    name = effect.setting.rpartition(".")[2]
    settings = settings_of(effect, plan)
    if effect.pixel_change < HALF_LEVEL:
        return [Caution(kind=f"{name}_no_effect", settings=settings, text=_no_effect_text(effect, settings, plan))]
    change, other = effect.feature_change, effect.other_class
    if not effect.stages or change is None or other is None or not _tells_classes(effect) or change < other:
        return []
    text = (
        f"Under {_assigned(settings, effect)} little is left of the photos: it {features_text(effect)}. A view "
        "is as far from its own photo as one of another class."
    )
    return [Caution(kind=f"{name}_too_strong", settings=settings, text=text)]


def _no_effect_text(effect: Effect, settings: tuple[str, ...], plan: Plan) -> str:
    text = (
        f"{_assigned(settings, effect)} {'does' if len(settings) == 1 else 'do'} nothing: a pixel changes by "
        f"{levels(effect.pixel_change)} on average, and rounding a photo to 8 bits changes it by up to half a level"
    )
    name = effect.setting.rpartition(".")[2]
    if name == "crop":
        room = plan.preprocess.resize <= plan.preprocess.size and effect.value == "random"
        return f"{text}. " + ("There is no room for another place: input.resize is no larger than input.size." * room)
    if effect.setting in ("input.brightness", "augment.noise") and abs(float(effect.value)) <= 1:
        return (
            f"{text}. Its scale is 0-255: {effect.value} of the whole scale would be {float(effect.value) * 255:.3g}."
        )
    return f"{text}."


def _validation_changed(plan: Plan, found: Preflight) -> list[Caution]:
    """Warn of an input that makes every photo, validation and test too, another than the backbone knows."""
    pre = plan.preprocess
    middle = 255 * sum(pre.mean) / 3
    strong = []
    for effect in found.effects:
        change = {
            "input.contrast": abs(pre.contrast - 1),
            "input.brightness": abs(pre.brightness) / middle,
        }.get(effect.setting, 0.0)
        if change > JITTER and effect.pixel_change >= HALF_LEVEL:
            strong.append(effect)
    if not strong:
        return []
    changes = [
        f"{effect.setting}={effect.value} by {levels(effect.pixel_change)} on average"
        + (f" ({features_text(effect)})" if effect.feature_change is not None else "")
        for effect in strong
    ]
    outside = f" {share(found.outside_share)} of their values then lie outside 0-255." if found.outside_share else ""
    text = (
        f"Validation and test photos are changed too, like all others: {listed(changes)}.{outside} That is no "
        "augmentation but part of the classifier from then on, and more than the 40 % either way that backbones are "
        f"commonly pretrained with.{' input.clip=true keeps them within.' if outside else ''}"
    )
    return [Caution(kind="validation_changed", settings=tuple(effect.setting for effect in strong), text=text)]


def _reach_cautions(planned: PlannedStage, reach: Reach, setting: str) -> list[Caution]:
    stage = planned.stage
    name, rate = quoted(stage.name), f"{stage.optimizer} at {wording.rate(stage.lr)}"
    if reach.reach < LEAST_REACH:
        text = (
            f"Stage {name} cannot move its weights: {rate} over {wording.counted(reach.steps, 'step')} can "
            f"go {_limit(reach)} {share(reach.reach)} of their size, and rounding them to bfloat16 changes them by "
            f"{share(BFLOAT16)}. Do not expect it to change the model that it starts from."
        )
        return [Caution(kind="reach_too_small", settings=(setting,), text=text)]
    if reach.stuck_share > 0.5:
        text = (
            f"Stage {name} cannot move {share(reach.stuck_share)} of its weights by more than {share(LEAST_REACH)} of "
            f"their size, and rounding to bfloat16 changes them by {share(BFLOAT16)}: {rate} with its factors for each "
            "layer is too little for them."
        )
        return [Caution(kind="reach_too_small", settings=(setting,), text=text)]
    if stage.train == "all" and reach.largest_step >= LARGEST_STEP:
        text = (
            f"Stage {name} can undo what the backbone knows within {_steps_to_undo(reach)}: one step of {rate} moves "
            f"the weights by {_limit(reach)} {share(reach.largest_step)} of their size."
        )
        return [Caution(kind="lr_too_large", settings=(setting,), text=text)]
    return []


def _steps_to_undo(reach: Reach) -> str:
    return wording.counted(max(1, math.ceil(1 / reach.largest_step)), "step")


def _limit(reach: Reach) -> str:
    """Adam's steps have a limit; those of SGD are as long as the gradient, known from one batch alone."""
    return "at most" if reach.gradient_rms is None else "(as the first batch's gradient has it) about"


def _of_size(reach: float) -> str:
    return f"{reach:,.0f} times their size" if reach >= 2 else f"{share(reach)} of their size"


def settings_of(effect: Effect, plan: Plan) -> tuple[str, ...]:
    """Return the recipe's keys that an effect is about, one for each stage that shares it."""
    if not effect.stages:
        return (effect.setting,)
    numbers = [n for n, planned in enumerate(plan.stages) if planned.stage.name in effect.stages]
    return tuple(f"stages.{number}.{effect.setting}" for number in numbers)


def _assigned(settings: tuple[str, ...], effect: Effect) -> str:
    return f"{listed(settings)}={effect.value}" if len(settings) == 1 else f"{listed(settings)} ({effect.value})"


def others_text(effect: Effect) -> str:
    """Say how far the features of different photos are apart, and whether that tells classes apart at all."""
    pairs = (("one class", effect.same_class), ("different classes", effect.other_class))
    known = [f"of {which} by {_distance(value)}" for which, value in pairs if value is not None]
    if not known:
        return ""
    text = f"two photos {' and two '.join(known)}".replace(" by ", " differ by ", 1)
    return text if _tells_classes(effect) else f"{text} (which hardly tells classes apart, so distances mean little)"


def _tells_classes(effect: Effect) -> bool:
    """Say whether photos of one class are nearer to each other than to others; where that is unknown, that they are."""
    if effect.same_class is None or effect.other_class is None:
        return True
    return effect.same_class < _TELLS_CLASSES * effect.other_class


def _distance(value: float | None) -> str:
    return "an unknown amount" if value is None else f"{value:.2g}"
