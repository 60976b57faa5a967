"""What the numbers of a run mean, in plain sentences that follow from the numbers alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wildtune import wording
from wildtune.check.random_split import describe_random_split
from wildtune.evaluate.calibration import expected_chance_gap
from wildtune.evaluate.evaluation import ClassScore, Evaluation
from wildtune.intervals import wilson_interval
from wildtune.language import ENGLISH, Language, message
from wildtune.photos.audit import Finding, sets_aside
from wildtune.recipe import Stage
from wildtune.report.content import RunContent, epochs_text, kept_record, photos_of, photos_on, photos_text
from wildtune.report.convergence import DEFINITION, find_convergence
from wildtune.report.foreseen import foreseen_paragraphs, moved_text
from wildtune.report.more_photos import more_photos_texts
from wildtune.report.trust import trust_texts
from wildtune.report.verdict import compare_text
from wildtune.train.history import EpochRecord
from wildtune.train.imbalance import describe_treatment
from wildtune.train.plan import PlannedStage

SMALL_CLASS = 10

FAULTS = {
    "unreadable": message("unreadable, so that nothing can be learned"),
    "misnamed": message("of another file type than the name says"),
    "tiny": message("with too few pixels to show an animal well"),
    "blank": message("blank, a single even colour"),
    "exact_duplicate": message(
        "surplus copies of another photo, the same bytes or pixels (on both sides of the split they would flatter the "
        "accuracy)"
    ),
    "near_duplicate": message(
        "that are another photo rescaled, cropped, mirrored or with other light (all on its side of the split)"
    ),
    "label_conflict": message("under two different labels, of which at most one is right"),
    "label_suspect": message("that do not look like their label to a model that never saw them"),
    "confound": message("marks of the files, such as their format, that give classes away beside the animal"),
}
KINDS = {
    "unreadable": message("Unreadable"),
    "misnamed": message("Misnamed"),
    "tiny": message("Tiny"),
    "blank": message("Blank"),
    "exact_duplicate": message("Exact duplicate"),
    "near_duplicate": message("Near duplicate"),
    "label_conflict": message("Label conflict"),
    "label_suspect": message("Label suspect"),
    "confound": message("Confound"),
}


@dataclass(frozen=True)
class Section:
    """A heading and the paragraphs below it, as plain text."""

    heading: str
    paragraphs: tuple[str, ...]


def write_analysis(content: RunContent) -> tuple[Section, ...]:
    """Return the analysis of a run in its language: the same numbers always give the same words."""
    say = content.language.say
    sections = [
        Section(say("Result"), _result(content)),
        Section(say("What was trained"), _training(content)),
        Section(say("Foreseen before training"), foreseen_paragraphs(content)),
        *_stage_sections(content),
        Section(say("Did the later stages help?"), _comparisons(content)),
        Section(say("Would a random split look better?"), _random_split(content)),
        Section(say("Classes"), _classes(content)),
        Section(say("How many more photos?"), more_photos_texts(content.learning_curve, content.language)),
        Section(say("Confidence"), _calibration(content)),
        Section(say("Which answers to trust"), trust_texts(content.evaluation.trust, content.language)),
        Section(say("Faults in the photos"), _findings(content)),
    ]
    return tuple(section for section in sections if section.paragraphs)


def analysis_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the analysis as Markdown, with every character that Markdown would interpret escaped."""
    blocks = [f"# {_escape(wording.plain(title))}"]
    for section in sections:
        blocks += [f"## {_escape(section.heading)}", *(_escape(text) for text in section.paragraphs)]
    return "\n\n".join(blocks) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>&#|~])", r"\\\1", text)


def _right(score: Evaluation) -> int:
    return round(score.accuracy * score.photos)


def _result(content: RunContent) -> tuple[str, ...]:
    language, score = content.language, content.evaluation.headline
    first = language.say(
        "The model names the right class for {right} of {photos}: an accuracy of {accuracy} (95 % interval {range}).",
        right=language.whole(_right(score)),
        photos=photos_of(language, score.side, score.photos),
        accuracy=language.percent(score.accuracy),
        range=language.percent_range(score.interval),
    )
    averaged = language.say(
        "Averaged over the classes, each counting the same, it is {accuracy} (balanced accuracy, {range}).",
        accuracy=language.percent(score.balanced_accuracy),
        range=language.percent_range(score.balanced_accuracy_interval),
    )
    texts = [f"{first} {averaged} {_baseline(score, language)}"]
    validation = content.evaluation.sides.get("val")
    if score.side == "val":
        texts.append(_without_test(content))
    else:
        texts.append(
            language.say("The test photos were looked at once, after all training; nothing was chosen by them.")
        )
        if validation is not None:
            texts.append(_beside_validation(content, score, validation))
    if score.without_prediction:
        texts.append(
            language.say_counted(
                "Left out of these numbers: {n} photo without a prediction.",
                "Left out of these numbers: {n} photos without a prediction.",
                score.without_prediction,
            )
        )
    return tuple(texts)


def _baseline(score: Evaluation, language: Language) -> str:
    most = max(c.photos for c in score.classes)
    common = [c.name for c in score.classes if c.photos == most]
    share = language.percent(most / score.photos)
    if len(common) > 1:
        return language.say(
            "Always answering one of the most frequent classes would be right {share} of the time.", share=share
        )
    return language.say(
        "Always answering {name}, the most frequent class, would be right {share} of the time.",
        name=language.quoted(common[0]),
        share=share,
    )


def _without_test(content: RunContent) -> str:
    language, uses = content.language, _uses_of_validation(content)
    parts = [language.say("No photos were set aside for testing.")]
    if uses:
        texts = {
            "epoch": message("they chose which epoch to keep"),
            "stage": message("they chose whether to keep a stage"),
            "rate": message("they steered the learning rate"),
        }
        parts.append(
            language.say(
                "The validation photos were looked at after every epoch, and {uses}, so this accuracy is flattered.",
                uses=language.listed([language.say(texts[use]) for use in uses]),
            )
        )
    else:
        parts.append(
            language.say("The validation photos were looked at after every epoch, though nothing was chosen by them.")
        )
    parts.append(language.say("Only photos never looked at can tell how the model does on new ones."))
    return " ".join(parts)


def _uses_of_validation(content: RunContent) -> list[str]:
    stages = [planned.stage for planned in content.trained_stages]
    uses = []
    if any(stage.keep == "best" and stage.epochs > 1 for stage in stages):
        uses.append("epoch")
    elif any(stage.keep == "best" for stage in stages[1:]):
        uses.append("stage")
    if any(stage.policy.name == "plateau" for stage in stages):
        uses.append("rate")
    return uses


def _beside_validation(content: RunContent, score: Evaluation, validation: Evaluation) -> str:
    language, uses = content.language, _uses_of_validation(content)
    parts = [
        language.say(
            "On the {photos} the same model reaches {accuracy} (95 % interval {range}).",
            photos=photos_on(language, "val", validation.photos),
            accuracy=language.percent(validation.accuracy),
            range=language.percent_range(validation.interval),
        )
    ]
    if uses:
        first = {
            "epoch": message("these photos chose which epoch to keep"),
            "stage": message("these photos chose whether to keep a stage"),
            "rate": message("these photos steered the learning rate"),
        }
        texts = [language.say(first[uses[0]]), *(language.say("they steered the learning rate") for _ in uses[1:])]
        parts.append(
            language.say("That number is flattered: {uses}. Quote the test accuracy.", uses=language.listed(texts))
        )
    low, high = score.interval[0] - validation.interval[1], score.interval[1] - validation.interval[0]
    if low > 0 or high < 0:
        parts.append(
            language.say(
                "The two intervals do not even touch, so validation and test photos differ in more than chance: "
                "look at how they were split."
            )
        )
    return " ".join(parts)


def _training(content: RunContent) -> tuple[str, ...]:
    language, plan = content.language, content.plan
    sizes = {side: plan.side_size(side) for side in plan.counts}
    sides = []
    if n := sizes.get("train", 0):
        sides.append(language.say_counted("{n} photo to train on", "{n} photos to train on", n))
    if n := sizes.get("val", 0):
        sides.append(language.say_counted("{n} photo for validation", "{n} photos for validation", n))
    if n := sizes.get("test", 0):
        sides.append(language.say_counted("{n} photo for the test", "{n} photos for the test", n))
    train = plan.counts["train"]
    few, many = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    text = language.say_counted(
        "{n} class of photos: {sides}.",
        "{n} classes of photos: {sides}.",
        len(plan.class_names),
        sides=language.listed(sides),
    )
    if train[few] == train[many]:
        sizes_text = language.say_counted(
            "Every class has {n} training photo.", "Every class has {n} training photos.", train[few]
        )
    else:
        sizes_text = language.say_counted(
            "The largest class, {name}, has {n} training photo; the smallest, {smallest}, has {least}.",
            "The largest class, {name}, has {n} training photos; the smallest, {smallest}, has {least}.",
            train[many],
            name=language.quoted(many),
            smallest=language.quoted(few),
            least=language.whole(train[few]),
        )
    return (f"{text} {_backbone(content)} {sizes_text}",)


def _backbone(content: RunContent) -> str:
    plan, language = content.plan, content.language
    if plan.weights.source == "none":
        return language.say(
            "The backbone is {backbone} with random weights, not pretrained ones.", backbone=plan.backbone
        )
    return language.say(
        "The backbone is {backbone} with pretrained weights ({weights}).",
        backbone=plan.backbone,
        weights=wording.plain(plan.weights.name),
    )


def _stage_sections(content: RunContent) -> list[Section]:
    sections = [_stage_section(content, planned) for planned in content.trained_stages]
    # The definition is owed once, where the word is first used.
    for place, planned in enumerate(content.trained_stages):
        found = find_convergence(content.stage_records(planned.stage.name))
        if found.state == "converged" or (found.state == "improving" and not found.rise):
            section = sections[place]
            first = f"{section.paragraphs[0]} {content.language.say(DEFINITION)}"
            sections[place] = Section(section.heading, (first, *section.paragraphs[1:]))
            break
    return sections


def _stage_section(content: RunContent, planned: PlannedStage) -> Section:
    stage, records, language = planned.stage, content.stage_records(planned.stage.name), content.language
    counts = {
        "weights": language.say_counted("{n} weight", "{n} weights", planned.trained_weights),
        "epochs": epochs_text(language, len(records)),
        "time": language.duration(sum(r.seconds for r in records)),
    }
    if stage.train == "head":
        trained = language.say(
            "This stage trained the head on the frozen backbone: {weights}, {epochs}, {time}.", **counts
        )
    else:
        trained = language.say(
            "This stage trained every weight but BatchNorm's: {weights}, {epochs}, {time}.", **counts
        )
    paragraphs = [
        f"{trained} {_converged(records, language)}",
        _handed_on(content, stage, records),
        *([moved] if (moved := moved_text(content, planned)) else []),
    ]
    treatment = describe_treatment(stage, content.plan.counts["train"], language)
    if treatment:
        paragraphs.append(
            language.say(
                "Against unequal classes: {treatment}. Its training loss is that of this treatment; validation is as "
                "without it.",
                treatment=wording.plain(treatment),
            )
        )
    if stage.average:
        paragraphs.append(
            language.say(
                "What was validated and kept are weights {share} of the way from those the stage started from to their "
                "mean over its steps; the training figures are those of the steps themselves.",
                share=language.percent(stage.average),
            )
        )
    if len(records) < stage.epochs:
        paragraphs.insert(
            1,
            language.say_counted(
                "The plan was {n} epoch; the history has {trained}. The stage ended early.",
                "The plan was {n} epochs; the history has {trained}. The stage ended early.",
                stage.epochs,
                trained=len(records),
            ),
        )
    return Section(language.say("Stage {name}", name=language.quoted(stage.name)), tuple(paragraphs))


def _handed_on(content: RunContent, stage: Stage, records: Sequence[EpochRecord]) -> str:
    kept, photos, language = kept_record(records), content.plan.side_size("val"), content.language
    if kept is None:
        best = max(records, key=lambda record: (getattr(record, stage.judged_by), -record.val_loss))
        return language.say(
            "None of its epochs did better on the validation photos than the weights it started from: the best, "
            "epoch {epoch}, had a validation accuracy of {accuracy} and a validation loss of {loss}. So what it handed "
            "on is what it started from.",
            epoch=best.epoch,
            accuracy=language.percent(best.val_accuracy),
            loss=language.nats(best.val_loss),
        )
    share = kept.val_accuracy if math.isfinite(kept.val_accuracy) else 0.0
    interval = wilson_interval(round(share * photos), photos)
    values = {
        "accuracy": language.percent(kept.val_accuracy),
        "range": language.percent_range(interval),
        "photos": photos_text(language, photos),
        "loss": language.nats(kept.val_loss),
    }
    if kept is records[-1]:
        text = language.say(
            "What it handed on is its last epoch with a validation accuracy of {accuracy} (95 % interval {range}, "
            "{photos}) and a validation loss of {loss}.",
            **values,
        )
    elif stage.judged_by == "val_accuracy":
        text = language.say(
            "What it handed on is epoch {epoch}, the best by validation accuracy, with a validation accuracy of "
            "{accuracy} (95 % interval {range}, {photos}) and a validation loss of {loss}.",
            epoch=kept.epoch,
            **values,
        )
    else:
        text = language.say(
            "What it handed on is epoch {epoch}, the best by balanced validation accuracy, with a validation accuracy "
            "of {accuracy} (95 % interval {range}, {photos}) and a validation loss of {loss}.",
            epoch=kept.epoch,
            **values,
        )
    return f"{text} {_gap(stage, kept, interval, language)}"


def _converged(records: Sequence[EpochRecord], language: Language) -> str:
    say, found = language.say, find_convergence(records)
    first, last = records[0], records[-1]
    began = {"began": language.nats(first.val_loss), "first": str(first.epoch)}
    ended = {"ended": language.nats(last.val_loss)}
    if found.state == "unknown":
        return say("No validation loss was a number: training failed, and there is no convergence to speak of.")
    if found.state == "short":
        if len(records) == 1:
            return say("One epoch shows no course, so nothing can be said about convergence.")
        return language.say_counted(
            "{n} epoch is too few to say whether it converged; validation loss went from {began} after epoch {first} "
            "to {ended}.",
            "{n} epochs are too few to say whether it converged; validation loss went from {began} after epoch {first} "
            "to {ended}.",
            len(records),
            **began,
            **ended,
        )
    if found.state == "improving" and found.rise:
        return say(
            "Its lowest validation loss came at epoch {lowest}, too near the end to say whether it converged; "
            "validation loss went from {began} after epoch {first} to {ended}.",
            lowest=found.lowest,
            **began,
            **ended,
        )
    if found.state == "improving":
        return say(
            "It was still improving at the end: validation loss went from {began} after epoch {first} to {ended}, and "
            "more epochs might lower it further.",
            **began,
            **ended,
        )
    if found.epoch == first.epoch:
        text = say(
            "It converged at epoch {epoch}, its first: no later epoch lowered the validation loss of {began} by more "
            "than the tolerance; at the end it was {ended}.",
            epoch=found.epoch,
            began=began["began"],
            **ended,
        )
    else:
        there = next(record for record in records if record.epoch == found.epoch)
        text = say(
            "It converged at epoch {epoch}: validation loss went from {began} after epoch {first} to {there} there, "
            "and was {ended} at the end.",
            epoch=found.epoch,
            there=language.nats(there.val_loss),
            **began,
            **ended,
        )
    if found.rise:
        text += " " + say(
            "From its lowest point at epoch {lowest} the validation loss rose again by {rise}, a sign that more epochs "
            "would not help.",
            lowest=found.lowest,
            rise=language.nats(found.rise),
        )
    return text


def _gap(stage: Stage, kept: EpochRecord, interval: tuple[float, float], language: Language) -> str:
    gap, accuracy = kept.accuracy - kept.val_accuracy, language.percent(kept.accuracy)
    if not math.isfinite(gap):
        return language.say("Its training accuracy is not a number.")
    if interval[0] <= kept.accuracy <= interval[1]:
        return language.say(
            "Training accuracy in that epoch was {accuracy}, a gap too small to be told from chance on this many "
            "validation photos.",
            accuracy=accuracy,
        )
    if gap > 0:
        return language.say(
            "Training accuracy in that epoch was {accuracy}, {gap} higher: the model knows its training photos better "
            "than new ones (overfitting). More photos or stronger augmentation would narrow that gap.",
            accuracy=accuracy,
            gap=language.points(gap),
        )
    reasons = [
        language.say("it is averaged over the epoch while the weights were still getting better"),
        *_hardships(stage, language),
    ]
    return language.say(
        "Training accuracy in that epoch was {accuracy}, {gap} lower. That is usual: {reasons}.",
        accuracy=accuracy,
        gap=language.points(gap),
        reasons=language.listed(reasons),
    )


def _hardships(stage: Stage, language: Language) -> list[str]:
    say, augment = language.say, stage.augment
    changes = [
        name
        for name, used in (
            (say("cropping"), augment.crop != "centre"),
            (say("mirroring"), augment.flip > 0),
            (say("turning"), augment.rotation > 0),
            (
                say("changes of light and colour"),
                max(augment.brightness, augment.contrast, augment.saturation) > 0,
            ),
            (say("noise"), augment.noise >= 1),
        )
        if used
    ]
    reasons = []
    if stage.imbalance == "sampling":
        reasons.append(say("photos of rare classes, often the hardest, come more often than in validation"))
    if changes:
        reasons.append(say("augmentation ({changes}) makes the training photos harder", changes=", ".join(changes)))
    return reasons


def _comparisons(content: RunContent) -> tuple[str, ...]:
    side = content.evaluation.headline.side
    names = [planned.stage.name for planned in content.plan.stages]
    keys = [(name, side) for name in names if (name, side) in content.evaluation.comparisons]
    return tuple(compare_text(content, key) for key in keys)


def _random_split(content: RunContent) -> tuple[str, ...]:
    found, language = content.evaluation.random_split, content.language
    if found is None:
        return ()
    tried = language.say("Tried on the training and validation photos before training.")
    return (f"{describe_random_split(found, language)} {tried}",)


def _classes(content: RunContent) -> tuple[str, ...]:
    score, language = content.evaluation.headline, content.language
    say, test = language.say, score.side == "test"
    present = [c for c in score.classes if c.photos]
    enough = [c for c in present if c.photos >= SMALL_CLASS]
    texts = []
    if all(c.recall == 1 for c in present):
        texts.append(
            say("Every test photo of every class was recognised.")
            if test
            else say("Every validation photo of every class was recognised.")
        )
    elif enough:
        texts.append(_weakest(score, enough, language))
    small = [c for c in present if c.photos < SMALL_CLASS]
    if small and len(small) == len(present):
        texts.append(
            say("No class has {least} test photos or more: too few to judge single classes.", least=SMALL_CLASS)
            if test
            else say(
                "No class has {least} validation photos or more: too few to judge single classes.", least=SMALL_CLASS
            )
        )
    elif small:
        names = _some([f"{language.quoted(c.name)} ({c.photos})" for c in small], language)
        few = {"least": str(SMALL_CLASS), "names": names}
        texts.append(
            say("Fewer than {least} test photos, too few to read a recall from: {names}.", **few)
            if test
            else say("Fewer than {least} validation photos, too few to read a recall from: {names}.", **few)
        )
    absent = [c for c in score.classes if not c.photos]
    if absent:
        names = _some([language.quoted(c.name) for c in absent], language)
        texts.append(
            say("No test photos at all, so nothing is known: {names}.", names=names)
            if test
            else say("No validation photos at all, so nothing is known: {names}.", names=names)
        )
    return tuple(texts)


def _some(names: Sequence[str], language: Language, most: int = 8) -> str:
    if len(names) <= most:
        return language.listed(names)
    return language.listed([*names[:most], language.say("{count} more", count=len(names) - most)])


def _weakest(score: Evaluation, classes: Sequence[ClassScore], language: Language) -> str:
    # Looking at C classes and reading the lowest needs a stricter interval than looking at one (Bonferroni).
    level = 1 - 0.05 / len(classes)
    ordered = sorted(classes, key=lambda c: (c.recall, c.name))
    below = [
        c for c in ordered if wilson_interval(round((c.recall or 0) * c.photos), c.photos, level)[1] < score.accuracy
    ]
    if below:
        text = language.say_counted(
            "Recognised less often than the accuracy of the whole, beyond what chance explains in the weakest of "
            "{n} class: {classes}.",
            "Recognised less often than the accuracy of the whole, beyond what chance explains in the weakest of "
            "{n} classes: {classes}.",
            len(classes),
            classes=_some([_class_text(c, language) for c in below], language, 5),
        )
        if len(below) == 1:
            return f"{text} {language.say('This class needs more or clearer photos first.')}"
        return f"{text} {language.say('These need more or clearer photos first.')}"
    lowest = [c for c in ordered if c.recall is not None and c.recall < 1][:3]
    if not lowest:
        return language.say(
            "Every photo of the classes with at least {least} photos was recognised.", least=SMALL_CLASS
        )
    named = language.listed([_class_text(c, language) for c in lowest])
    if len(lowest) == 1:
        return language.say_counted(
            "Lowest is {classes}. That is not below the accuracy of the whole by more than chance explains when the "
            "lowest of {n} class is picked out, so do not read much into the order.",
            "Lowest is {classes}. That is not below the accuracy of the whole by more than chance explains when the "
            "lowest of {n} classes is picked out, so do not read much into the order.",
            len(classes),
            classes=named,
        )
    return language.say_counted(
        "Lowest are {classes}. That is not below the accuracy of the whole by more than chance explains when the "
        "lowest of {n} class are picked out, so do not read much into the order.",
        "Lowest are {classes}. That is not below the accuracy of the whole by more than chance explains when the "
        "lowest of {n} classes are picked out, so do not read much into the order.",
        len(classes),
        classes=named,
    )


def _class_text(score: ClassScore, language: Language) -> str:
    right = round((score.recall or 0) * score.photos)
    values = {
        "name": language.quoted(score.name),
        "right": str(right),
        "photos": str(score.photos),
        "recall": language.percent(score.recall),
        "range": language.percent_range(wilson_interval(right, score.photos)),
    }
    if not score.taken_for:
        return language.say("{name} with {right} of {photos} ({recall}, 95 % interval {range})", **values)
    times = {1: message("once"), 2: message("twice")}.get(score.taken_for_count)
    return language.say(
        "{name} with {right} of {photos} ({recall}, 95 % interval {range}; most often taken for {other}, {times})",
        **values,
        other=language.quoted(score.taken_for),
        times=language.say(times) if times else language.say_counted("{n} time", "{n} times", score.taken_for_count),
    )


def _calibration(content: RunContent) -> tuple[str, ...]:
    score, language, predictions = content.evaluation.headline, content.language, content.predictions
    gap = language.points(score.calibration_error)
    alone = language.say(
        "Between confidence and accuracy there is a mean gap of {gap} (expected calibration error over 15 bins).",
        gap=gap,
    )
    if predictions is None:
        return (alone,)
    keep = (predictions.targets >= 0) & (predictions.predicted >= 0)
    confidence = predictions.confidence[keep]
    right = predictions.targets[keep] == predictions.predicted[keep]
    if not len(right):
        return (alone,)
    text = _confidence_text(confidence, right, language) + " "
    text += language.say(
        "Between confidence and accuracy there is a mean gap of {gap} (expected calibration error over 15 bins); a "
        "perfectly calibrated model would show about {chance} on as many photos, by chance.",
        gap=gap,
        chance=language.points(expected_chance_gap(confidence)),
    )
    sure = confidence >= 0.9
    if sure.sum() >= SMALL_CLASS:
        hits, total = int(right[sure].sum()), int(sure.sum())
        text += " " + language.say_counted(
            "Of the {n} photo it is at least 90 % sure of, {share} are right (95 % interval {range}).",
            "Of the {n} photos it is at least 90 % sure of, {share} are right (95 % interval {range}).",
            total,
            share=language.percent(hits / total),
            range=language.percent_range(wilson_interval(hits, total)),
        )
    return (text,)


def _confidence_text(confidence: np.ndarray, right: np.ndarray, language: Language) -> str:
    mean, (low, high) = float(confidence.mean()), wilson_interval(int(right.sum()), len(right))
    shares = {"mean": language.percent(mean), "share": language.percent(float(right.mean()))}
    if low <= mean <= high:
        return language.say(
            "On average the model gives its answer {mean} confidence and is right {share} of the time: which agrees "
            "within the interval.",
            **shares,
        )
    gap = language.points(mean - right.mean())
    if mean > high:
        return language.say(
            "On average the model gives its answer {mean} confidence and is right {share} of the time: {gap} too sure "
            "of itself.",
            **shares,
            gap=gap,
        )
    return language.say(
        "On average the model gives its answer {mean} confidence and is right {share} of the time: {gap} too modest.",
        **shares,
        gap=gap,
    )


def _findings(content: RunContent) -> tuple[str, ...]:
    language = content.language
    if not content.findings:
        return (language.say("The check before training found no fault in the photos."),)
    aside = [finding for finding in content.findings if sets_aside(finding)]
    kept = [finding for finding in content.findings if not sets_aside(finding)]
    texts = []
    if aside:
        texts.append(
            language.say_counted(
                "{n} photo was set aside before training and never used; by finding: {faults}.",
                "{n} photos were set aside before training and never used; by finding: {faults}.",
                len({finding.path for finding in aside}),
                faults=_fault_list(aside, language),
            )
        )
    if kept:
        texts.append(language.say("Used all the same, but worth a look: {faults}.", faults=_fault_list(kept, language)))
    return tuple(texts)


def _fault_list(findings: Sequence[Finding], language: Language) -> str:
    """Return each kind of finding in words, with how many there are."""
    counts = Counter(finding.kind for finding in findings)
    kinds = [*[kind for kind in FAULTS if kind in counts], *sorted(set(counts) - set(FAULTS))]
    meanings = {kind: language.say(FAULTS[kind]) if kind in FAULTS else _as_words(kind).lower() for kind in kinds}
    return "; ".join(f"{meaning}: {language.whole(counts[kind])}" for kind, meaning in meanings.items())


def kind_name(kind: str, language: Language = ENGLISH) -> str:
    """Return the kind of a finding as words ("Exact duplicate")."""
    return language.say(KINDS[kind]) if kind in KINDS else _as_words(kind)


def _as_words(kind: str) -> str:
    return wording.plain(kind).replace("_", " ").capitalize()
