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
from wildtune.language import ENGLISH, Language
from wildtune.train.effects import HALF_LEVEL
from wildtune.train.plan import Caution, Effect, Plan, PlannedStage, Preflight, Reach
from wildtune.train.reach import BFLOAT16, LEAST_REACH
from wildtune.wording import listed, quoted, share

JITTER = 0.4
LARGEST_STEP = 0.1
# Where features hardly tell classes apart, as with weights that fit no photos, distances between them say nothing.
_TELLS_CLASSES = 0.9


def find_cautions(plan: Plan, language: Language = ENGLISH) -> tuple[Caution, ...]:
    """Return what to warn of: each setting once for all stages that share its value, each stage's rate by itself."""
    found = plan.preflight
    if found is None:
        return ()
    cautions = [caution for effect in found.effects for caution in _effect_cautions(effect, plan, language)]
    cautions += _validation_changed(plan, found, language)
    for number, (planned, reach) in enumerate(zip(plan.stages, found.reaches, strict=True)):
        cautions += _reach_cautions(planned, reach, f"stages.{number}.lr", language)
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


def features_text(effect: Effect, language: Language = ENGLISH) -> str:
    """Say how far a setting moves features, beside how far those of different photos are apart."""
    text = language.say(
        "moves the features by {distance} (1 - cosine)", distance=_distance(effect.feature_change, language)
    )
    if others := others_text(effect, language):
        text = language.say("{moved}, where {others}", moved=text, others=others)
    if effect.feature_growth is not None and not 0.5 <= effect.feature_growth <= 2:
        growth = language.numeral(f"{effect.feature_growth:.3g}")
        text = language.say("{moved}, and makes them {times} times as large", moved=text, times=growth)
    return text


def reach_text(reach: Reach) -> str:
    """Say how far a stage can move its weights."""
    steps = wording.counted(reach.steps, "step")
    size = _limited(_of_size(reach.reach), reach, ENGLISH)
    return (
        f"Stage {quoted(reach.stage)}: its rates add up to {wording.rate(reach.lr_sum)} over {steps}, which can move "
        f"the weights by {size} (root mean square {reach.weights_rms:.3g}), one step "
        f"by {share(reach.largest_step)}."
    )


def batchnorm_text(layers: int, language: Language = ENGLISH) -> str:
    """Say that BatchNorm stays as it is."""
    if not layers:
        return language.say("The network has no BatchNorm layers.")
    if layers == 1:
        return language.say(
            "The BatchNorm layer keeps its scale, shift, mean and variance in every stage: none is ever updated."
        )
    return language.say_counted(
        "All {n} BatchNorm layer keep their scale, shift, mean and variance in every stage: none is ever updated.",
        "All {n} BatchNorm layers keep their scale, shift, mean and variance in every stage: none is ever updated.",
        layers,
    )


def times_text(preflight: Preflight) -> str:
    """Say about how long features and stages will take."""
    times = [f"stage {quoted(stage)} {about_seconds(s)}" for stage, s in preflight.stage_seconds.items()]
    if preflight.feature_seconds >= 0.5:
        times.insert(0, f"features of the photos {about_seconds(preflight.feature_seconds)}")
    return f"Expected time, roughly: {listed(times)}."


def about_seconds(seconds: float, language: Language = ENGLISH) -> str:
    """Return a rough duration in words that claim no precision.

    >>> about_seconds(0.3), about_seconds(17), about_seconds(260), about_seconds(5000)
    ('under 1 s', '17 s', '4 min', '1.4 h')
    """
    if seconds < 1:
        return language.say("under 1 s")
    if seconds < 90:
        return language.units(f"{seconds:.0f} s")
    return language.units(f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h")


def levels(change: float, language: Language = ENGLISH) -> str:
    """Return a change of a pixel's value in grey levels."""
    return language.say("{number} of 255 grey levels", number=level_number(change, language))


def level_number(change: float, language: Language = ENGLISH) -> str:
    """Return the number alone of a change in grey levels."""
    number = f"{change:.0f}" if change >= 10 else f"{change:.2f}" if change >= 0.01 or not change else f"{change:.1g}"
    return language.numeral(number)


def _effect_cautions(effect: Effect, plan: Plan, language: Language) -> list[Caution]:
    name = effect.setting.rpartition(".")[2]
    settings = settings_of(effect, plan)
    if effect.pixel_change < HALF_LEVEL:
        text = _no_effect_text(effect, settings, plan, language)
        return [Caution(kind=f"{name}_no_effect", settings=settings, text=text)]
    change, other = effect.feature_change, effect.other_class
    if not effect.stages or change is None or other is None or not _tells_classes(effect) or change < other:
        return []
    text = language.say(
        "Under {settings} little is left of the photos: it {moved}. A view is as far from its own photo as one of "
        "another class.",
        settings=_assigned(settings, effect, language),
        moved=features_text(effect, language),
    )
    return [Caution(kind=f"{name}_too_strong", settings=settings, text=text)]


def _no_effect_text(effect: Effect, settings: tuple[str, ...], plan: Plan, language: Language) -> str:
    say = language.say
    values = {
        "settings": _assigned(settings, effect, language),
        "levels": levels(effect.pixel_change, language),
    }
    if len(settings) == 1:
        text = say(
            "{settings} does nothing: a pixel changes by {levels} on average, and rounding a photo to 8 bits changes "
            "it by up to half a level.",
            **values,
        )
    else:
        text = say(
            "{settings} do nothing: a pixel changes by {levels} on average, and rounding a photo to 8 bits changes it "
            "by up to half a level.",
            **values,
        )
    name = effect.setting.rpartition(".")[2]
    if name == "crop":
        if plan.preprocess.resize <= plan.preprocess.size and effect.value == "random":
            room = say("There is no room for another place: input.resize is no larger than input.size.")
            return f"{text} {room}"
        return f"{text} "
    if effect.setting in ("input.brightness", "augment.noise") and abs(float(effect.value)) <= 1:
        scale = say(
            "Its scale is 0-255: {value} of the whole scale would be {levels}.",
            value=language.numeral(effect.value),
            levels=language.numeral(f"{float(effect.value) * 255:.3g}"),
        )
        return f"{text} {scale}"
    return text


def _validation_changed(plan: Plan, found: Preflight, language: Language) -> list[Caution]:
    """Warn of an input that makes every photo, validation and test too, another than the backbone knows."""
    pre, say = plan.preprocess, language.say
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
    changes = []
    for effect in strong:
        change_text = say(
            "{setting} by {levels} on average",
            setting=f"{effect.setting}={effect.value}",
            levels=levels(effect.pixel_change, language),
        )
        moved = f" ({features_text(effect, language)})" if effect.feature_change is not None else ""
        changes.append(change_text + moved)
    texts = [
        say("Validation and test photos are changed too, like all others: {changes}.", changes=language.listed(changes))
    ]
    if found.outside_share:
        outside = language.share(found.outside_share)
        texts.append(say("{share} of their values then lie outside 0-255.", share=outside))
    texts.append(
        say(
            "That is no augmentation but part of the classifier from then on, and more than the 40 % either way that "
            "backbones are commonly pretrained with."
        )
    )
    if found.outside_share:
        texts.append(say("input.clip=true keeps them within."))
    settings = tuple(effect.setting for effect in strong)
    return [Caution(kind="validation_changed", settings=settings, text=" ".join(texts))]


def _reach_cautions(planned: PlannedStage, reach: Reach, setting: str, language: Language) -> list[Caution]:
    stage = planned.stage
    values = {
        "name": language.quoted(stage.name),
        "optimizer": stage.optimizer,
        "rate": language.rate(stage.lr),
    }
    if reach.reach < LEAST_REACH:
        text = language.say_counted(
            "Stage {name} cannot move its weights: {optimizer} at {rate} over {n} step can go {share} of their size, "
            "and rounding them to bfloat16 changes them by {rounding}. Do not expect it to change the model that it "
            "starts from.",
            "Stage {name} cannot move its weights: {optimizer} at {rate} over {n} steps can go {share} of their size, "
            "and rounding them to bfloat16 changes them by {rounding}. Do not expect it to change the model that it "
            "starts from.",
            reach.steps,
            share=_limited(language.share(reach.reach), reach, language),
            rounding=language.share(BFLOAT16),
            **values,
        )
        return [Caution(kind="reach_too_small", settings=(setting,), text=text)]
    if reach.stuck_share > 0.5:
        text = language.say(
            "Stage {name} cannot move {share} of its weights by more than {least} of their size, and rounding to "
            "bfloat16 changes them by {rounding}: {optimizer} at {rate} with its factors for each layer is too little "
            "for them.",
            share=language.share(reach.stuck_share),
            least=language.share(LEAST_REACH),
            rounding=language.share(BFLOAT16),
            **values,
        )
        return [Caution(kind="reach_too_small", settings=(setting,), text=text)]
    if stage.train == "all" and reach.largest_step >= LARGEST_STEP:
        text = language.say_counted(
            "Stage {name} can undo what the backbone knows within {n} step: one step of {optimizer} at {rate} moves "
            "the weights by {share} of their size.",
            "Stage {name} can undo what the backbone knows within {n} steps: one step of {optimizer} at {rate} moves "
            "the weights by {share} of their size.",
            max(1, math.ceil(1 / reach.largest_step)),
            share=_limited(language.share(reach.largest_step), reach, language),
            **values,
        )
        return [Caution(kind="lr_too_large", settings=(setting,), text=text)]
    return []


def _limited(size: str, reach: Reach, language: Language) -> str:
    """Adam's steps have a limit; those of SGD are as long as the gradient, known from one batch alone."""
    if reach.gradient_rms is None:
        return language.say("at most {size}", size=size)
    return language.say("(as the first batch's gradient has it) about {size}", size=size)


def _of_size(reach: float) -> str:
    return f"{reach:,.0f} times their size" if reach >= 2 else f"{share(reach)} of their size"


def settings_of(effect: Effect, plan: Plan) -> tuple[str, ...]:
    """Return the recipe's keys that an effect is about, one for each stage that shares it."""
    if not effect.stages:
        return (effect.setting,)
    numbers = [n for n, planned in enumerate(plan.stages) if planned.stage.name in effect.stages]
    return tuple(f"stages.{number}.{effect.setting}" for number in numbers)


def _assigned(settings: tuple[str, ...], effect: Effect, language: Language) -> str:
    keys, value = language.listed(settings), language.retell("effect", effect.value)
    return f"{keys}={value}" if len(settings) == 1 else f"{keys} ({value})"


def others_text(effect: Effect, language: Language = ENGLISH) -> str:
    """Say how far the features of different photos are apart, and whether that tells classes apart at all."""
    same, other = (_distance(value, language) for value in (effect.same_class, effect.other_class))
    if effect.same_class is None and effect.other_class is None:
        return ""
    if effect.other_class is None:
        text = language.say("two photos of one class differ by {same}", same=same)
    elif effect.same_class is None:
        text = language.say("two photos of different classes differ by {other}", other=other)
    else:
        text = language.say(
            "two photos of one class differ by {same} and two of different classes by {other}", same=same, other=other
        )
    if _tells_classes(effect):
        return text
    return language.say("{text} (which hardly tells classes apart, so distances mean little)", text=text)


def _tells_classes(effect: Effect) -> bool:
    """Say whether photos of one class are nearer to each other than to others; where that is unknown, that they are."""
    if effect.same_class is None or effect.other_class is None:
        return True
    return effect.same_class < _TELLS_CLASSES * effect.other_class


def _distance(value: float | None, language: Language = ENGLISH) -> str:
    return language.say("an unknown amount") if value is None else language.numeral(f"{value:.2g}")
