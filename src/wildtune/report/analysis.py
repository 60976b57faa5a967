"""What the numbers of a run mean, in plain sentences that follow from the numbers alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wildtune import wording
from wildtune.check.random_split import describe_random_split
from wildtune.evaluate.calibration import expected_chance_gap
from wildtune.evaluate.evaluation import ClassScore, Evaluation
from wildtune.intervals import wilson_interval
from wildtune.photos.audit import Finding, sets_aside
from wildtune.recipe import Stage
from wildtune.report.content import SIDE_NAMES, RunContent, kept_record
from wildtune.report.convergence import DEFINITION, find_convergence
from wildtune.report.foreseen import foreseen_paragraphs, moved_text
from wildtune.report.more_photos import more_photos_texts
from wildtune.report.trust import trust_texts
from wildtune.report.verdict import compare_text
from wildtune.train.history import EpochRecord
from wildtune.train.imbalance import describe_treatment
from wildtune.train.plan import PlannedStage
from wildtune.wording import counted, listed, nats, percent, percent_range, points, quoted

SMALL_CLASS = 10

FAULTS = {
    "unreadable": "unreadable, so that nothing can be learned",
    "misnamed": "of another file type than the name says",
    "tiny": "with too few pixels to show an animal well",
    "blank": "blank, a single even colour",
    "exact_duplicate": "surplus copies of another photo, the same bytes or pixels (on both sides of the split they "
    "would flatter the accuracy)",
    "near_duplicate": "that are another photo rescaled, cropped, mirrored or with other light (all on its side of the "
    "split)",
    "label_conflict": "under two different labels, of which at most one is right",
    "label_suspect": "that do not look like their label to a model that never saw them",
    "confound": "marks of the files, such as their format, that give classes away beside the animal",
}


@dataclass(frozen=True)
class Section:
    """A heading and the paragraphs below it, as plain text."""

    heading: str
    paragraphs: tuple[str, ...]


def write_analysis(content: RunContent) -> tuple[Section, ...]:
    """Return the analysis of a run: the same numbers always give the same words."""
    sections = [
        Section("Result", _result(content)),
        Section("What was trained", _training(content)),
        Section("Foreseen before training", foreseen_paragraphs(content)),
        *_stage_sections(content),
        Section("Did the later stages help?", _comparisons(content)),
        Section("Would a random split look better?", _random_split(content)),
        Section("Classes", _classes(content.evaluation.headline)),
        Section("How many more photos?", more_photos_texts(content.learning_curve)),
        Section("Confidence", _calibration(content)),
        Section("Which answers to trust", trust_texts(content.evaluation.trust)),
        Section("Faults in the photos", _findings(content)),
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
    score = content.evaluation.headline
    side = SIDE_NAMES[score.side]
    texts = [
        f"The model names the right class for {wording.whole(_right(score))} of "
        f"{counted(score.photos, side + ' photo')}: an accuracy of {percent(score.accuracy)} "
        f"(95 % interval {percent_range(score.interval)}). "
        f"Averaged over the classes, each counting the same, it is {percent(score.balanced_accuracy)} (balanced "
        f"accuracy, {percent_range(score.balanced_accuracy_interval)}). " + _baseline(score)
    ]
    validation = content.evaluation.sides.get("val")
    if score.side == "val":
        use = _use_of_validation(content)
        texts.append(
            "No photos were set aside for testing. The validation photos were looked at after every epoch"
            + (f", and {use}, so this accuracy is flattered. " if use else ", though nothing was chosen by them. ")
            + "Only photos never looked at can tell how the model does on new ones."
        )
    else:
        texts.append("The test photos were looked at once, after all training; nothing was chosen by them.")
        if validation is not None:
            texts.append(_beside_validation(content, score, validation))
    if score.without_prediction:
        left_out = counted(score.without_prediction, "photo")
        texts.append(f"Left out of these numbers: {left_out} without a prediction.")
    return tuple(texts)


def _baseline(score: Evaluation) -> str:
    most = max(c.photos for c in score.classes)
    common = [c.name for c in score.classes if c.photos == most]
    name = "one of the most frequent classes"
    if len(common) == 1:
        name = f"{quoted(common[0])}, the most frequent class,"
    return f"Always answering {name} would be right {percent(most / score.photos)} of the time."


def _use_of_validation(content: RunContent) -> str:
    stages = [planned.stage for planned in content.trained_stages]
    uses = []
    if any(stage.keep == "best" and stage.epochs > 1 for stage in stages):
        uses.append("they chose which epoch to keep")
    elif any(stage.keep == "best" for stage in stages[1:]):
        uses.append("they chose whether to keep a stage")
    if any(stage.policy.name == "plateau" for stage in stages):
        uses.append("they steered the learning rate")
    return listed(uses)


def _beside_validation(content: RunContent, score: Evaluation, validation: Evaluation) -> str:
    text = (
        f"On the {counted(validation.photos, 'validation photo')} the same model reaches "
        f"{percent(validation.accuracy)} (95 % interval {percent_range(validation.interval)})."
    )
    use = _use_of_validation(content)
    if use:
        use = use.replace("they", "these photos", 1)
        text += f" That number is flattered: {use}. Quote the test accuracy."
    low, high = score.interval[0] - validation.interval[1], score.interval[1] - validation.interval[0]
    if low > 0 or high < 0:
        text += (
            " The two intervals do not even touch, so validation and test photos differ in more than chance: "
            "look at how they were split."
        )
    return text


def _training(content: RunContent) -> tuple[str, ...]:
    plan = content.plan
    sides = [
        f"{counted(plan.side_size(side), 'photo')} {use}"
        for side, use in (("train", "to train on"), ("val", "for validation"), ("test", "for the test"))
        if side in plan.counts and plan.side_size(side)
    ]
    train = plan.counts["train"]
    few, many = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    text = (
        f"{counted(len(plan.class_names), 'class', 'classes')} of photos: {listed(sides)}. "
        f"The backbone is {plan.backbone} {_weights(content)}."
    )
    if train[few] == train[many]:
        text += f" Every class has {counted(train[few], 'training photo')}."
    else:
        text += (
            f" The largest class, {quoted(many)}, has {counted(train[many], 'training photo')}; "
            f"the smallest, {quoted(few)}, has {wording.whole(train[few])}."
        )
    return (text,)


def _weights(content: RunContent) -> str:
    weights = content.plan.weights
    if weights.source == "none":
        return "with random weights, not pretrained ones"
    return f"with pretrained weights ({wording.plain(weights.name)})"


def _stage_sections(content: RunContent) -> list[Section]:
    sections = [_stage_section(content, planned) for planned in content.trained_stages]
    # The definition is owed once, where the word is first used.
    for place, section in enumerate(sections):
        if "converged at epoch" in section.paragraphs[0] or "improving" in section.paragraphs[0]:
            first = f"{section.paragraphs[0]} {DEFINITION}"
            sections[place] = Section(section.heading, (first, *section.paragraphs[1:]))
            break
    return sections


def _stage_section(content: RunContent, planned: PlannedStage) -> Section:
    stage, records = planned.stage, content.stage_records(planned.stage.name)
    what = "the head on the frozen backbone" if stage.train == "head" else "every weight but BatchNorm's"
    paragraphs = [
        f"This stage trained {what}: {counted(planned.trained_weights, 'weight')}, "
        f"{counted(len(records), 'epoch')}, {wording.duration(sum(r.seconds for r in records))}. "
        + _converged(records),
        _handed_on(content, stage, records),
        *([moved] if (moved := moved_text(content, planned)) else []),
    ]
    treatment = describe_treatment(stage, content.plan.counts["train"])
    if treatment:
        paragraphs.append(
            f"Against unequal classes: {wording.plain(treatment)}. Its training loss is that of this treatment; "
            "validation is as without it."
        )
    if stage.average:
        paragraphs.append(
            f"What was validated and kept are weights {percent(stage.average)} of the way from those the stage started "
            "from to their mean over its steps; the training figures are those of the steps themselves."
        )
    if len(records) < stage.epochs:
        paragraphs.insert(
            1,
            f"The plan was {counted(stage.epochs, 'epoch')}; the history has {len(records)}. The stage ended early.",
        )
    return Section(f"Stage {quoted(stage.name)}", tuple(paragraphs))


def _handed_on(content: RunContent, stage: Stage, records: Sequence[EpochRecord]) -> str:
    kept, photos = kept_record(records), content.plan.side_size("val")
    if kept is None:
        best = max(records, key=lambda record: (getattr(record, stage.judged_by), -record.val_loss))
        return (
            "None of its epochs did better on the validation photos than the weights it started from: the best, "
            f"epoch {best.epoch}, had a validation accuracy of {percent(best.val_accuracy)} and a validation loss of "
            f"{nats(best.val_loss)}. So what it handed on is what it started from."
        )
    share = kept.val_accuracy if math.isfinite(kept.val_accuracy) else 0.0
    interval = wilson_interval(round(share * photos), photos)
    judge = {"val_accuracy": "validation accuracy", "val_balanced_accuracy": "balanced validation accuracy"}
    best_epoch = f"epoch {kept.epoch}, the best by {judge[stage.judged_by]},"
    which = "its last epoch" if kept is records[-1] else best_epoch
    return (
        f"What it handed on is {which} with a validation accuracy of {percent(kept.val_accuracy)} "
        f"(95 % interval {percent_range(interval)}, {counted(photos, 'photo')}) and a validation loss of "
        f"{nats(kept.val_loss)}. " + _gap(stage, kept, interval)
    )


def _converged(records: Sequence[EpochRecord]) -> str:
    found = find_convergence(records)
    first, last = records[0], records[-1]
    began = f"validation loss went from {nats(first.val_loss)} after epoch {first.epoch}"
    moved = f"{began} to {nats(last.val_loss)}"
    if found.state == "unknown":
        return "No validation loss was a number: training failed, and there is no convergence to speak of."
    if found.state == "short":
        if len(records) == 1:
            return "One epoch shows no course, so nothing can be said about convergence."
        return f"{len(records)} epochs are too few to say whether it converged; {moved}."
    if found.state == "improving" and found.rise:
        return (
            f"Its lowest validation loss came at epoch {found.lowest}, too near the end to say whether "
            f"it converged; {moved}."
        )
    if found.state == "improving":
        text = f"It was still improving at the end: {moved}, and more epochs might lower it further."
    elif found.epoch == first.epoch:
        text = (
            f"It converged at epoch {found.epoch}, its first: no later epoch lowered the validation loss of "
            f"{nats(first.val_loss)} by more than the tolerance; at the end it was {nats(last.val_loss)}."
        )
    else:
        there = next(record for record in records if record.epoch == found.epoch)
        text = (
            f"It converged at epoch {found.epoch}: {began} to {nats(there.val_loss)} there, "
            f"and was {nats(last.val_loss)} at the end."
        )
    if found.rise:
        text += (
            f" From its lowest point at epoch {found.lowest} the validation loss rose again by "
            f"{nats(found.rise)}, a sign that more epochs would not help."
        )
    return text


def _gap(stage: Stage, kept: EpochRecord, interval: tuple[float, float]) -> str:
    gap = kept.accuracy - kept.val_accuracy
    if not math.isfinite(gap):
        return "Its training accuracy is not a number."
    lead = f"Training accuracy in that epoch was {percent(kept.accuracy)}"
    if interval[0] <= kept.accuracy <= interval[1]:
        return f"{lead}, a gap too small to be told from chance on this many validation photos."
    if gap > 0:
        return (
            f"{lead}, {points(gap)} higher: the model knows its training photos better than new ones "
            "(overfitting). More photos or stronger augmentation would narrow that gap."
        )
    reasons = [
        "it is averaged over the epoch while the weights were still getting better",
        *_hardships(stage),
    ]
    return f"{lead}, {points(gap)} lower. That is usual: {listed(reasons)}."


def _hardships(stage: Stage) -> list[str]:
    augment = stage.augment
    changes = [
        name
        for name, used in (
            ("cropping", augment.crop != "centre"),
            ("mirroring", augment.flip > 0),
            ("turning", augment.rotation > 0),
            (
                "changes of light and colour",
                max(augment.brightness, augment.contrast, augment.saturation) > 0,
            ),
            ("noise", augment.noise >= 1),
        )
        if used
    ]
    reasons = []
    if stage.imbalance == "sampling":
        reasons.append("photos of rare classes, often the hardest, come more often than in validation")
    if changes:
        reasons.append(f"augmentation ({', '.join(changes)}) makes the training photos harder")
    return reasons


def _comparisons(content: RunContent) -> tuple[str, ...]:
    side = content.evaluation.headline.side
    names = [planned.stage.name for planned in content.plan.stages]
    keys = [(name, side) for name in names if (name, side) in content.evaluation.comparisons]
    return tuple(compare_text(content, key) for key in keys)


def _random_split(content: RunContent) -> tuple[str, ...]:
    found = content.evaluation.random_split
    if found is None:
        return ()
    return (f"{describe_random_split(found)} Tried on the training and validation photos before training.",)


def _classes(score: Evaluation) -> tuple[str, ...]:
    present = [c for c in score.classes if c.photos]
    enough = [c for c in present if c.photos >= SMALL_CLASS]
    side = SIDE_NAMES[score.side]
    texts = []
    if all(c.recall == 1 for c in present):
        texts.append(f"Every {side} photo of every class was recognised.")
    elif enough:
        texts.append(_weakest(score, enough))
    small = [c for c in present if c.photos < SMALL_CLASS]
    if small and len(small) == len(present):
        texts.append(f"No class has {SMALL_CLASS} {side} photos or more: too few to judge single classes.")
    elif small:
        names = _some([f"{quoted(c.name)} ({c.photos})" for c in small])
        texts.append(f"Fewer than {SMALL_CLASS} {side} photos, too few to read a recall from: {names}.")
    absent = [c for c in score.classes if not c.photos]
    if absent:
        names = _some([quoted(c.name) for c in absent])
        texts.append(f"No {side} photos at all, so nothing is known: {names}.")
    return tuple(texts)


def _some(names: Sequence[str], most: int = 8) -> str:
    if len(names) <= most:
        return listed(names)
    return listed([*names[:most], f"{len(names) - most} more"])


def _weakest(score: Evaluation, classes: Sequence[ClassScore]) -> str:
    # Looking at C classes and reading the lowest needs a stricter interval than looking at one (Bonferroni).
    level = 1 - 0.05 / len(classes)
    ordered = sorted(classes, key=lambda c: (c.recall, c.name))
    below = [
        c for c in ordered if wilson_interval(round((c.recall or 0) * c.photos), c.photos, level)[1] < score.accuracy
    ]
    if below:
        rest = _some([_class_text(c) for c in below], 5)
        one = len(below) == 1
        return (
            "Recognised less often than the accuracy of the whole, beyond what chance explains in the weakest "
            f"of {counted(len(classes), 'class', 'classes')}: {rest}. "
            f"{'This class needs' if one else 'These need'} more or clearer photos first."
        )
    lowest = [c for c in ordered if c.recall is not None and c.recall < 1][:3]
    if not lowest:
        return f"Every photo of the classes with at least {SMALL_CLASS} photos was recognised."
    verb = "is" if len(lowest) == 1 else "are"
    return (
        f"Lowest {verb} {listed([_class_text(c) for c in lowest])}. That is not below the accuracy of the whole by "
        f"more than chance explains when the lowest of {counted(len(classes), 'class', 'classes')} {verb} picked "
        "out, so do not read much into the order."
    )


def _class_text(score: ClassScore) -> str:
    right = round((score.recall or 0) * score.photos)
    text = (
        f"{quoted(score.name)} with {right} of {score.photos} ({percent(score.recall)}, 95 % interval "
        f"{percent_range(wilson_interval(right, score.photos))}"
    )
    if score.taken_for:
        times = {1: "once", 2: "twice"}.get(score.taken_for_count, f"{score.taken_for_count} times")
        text += f"; most often taken for {quoted(score.taken_for)}, {times}"
    return text + ")"


def _calibration(content: RunContent) -> tuple[str, ...]:
    score = content.evaluation.headline
    error = (
        f"Between confidence and accuracy there is a mean gap of {points(score.calibration_error)} (expected "
        "calibration error over 15 bins)"
    )
    predictions = content.predictions
    if predictions is None:
        return (f"{error}.",)
    keep = (predictions.targets >= 0) & (predictions.predicted >= 0)
    confidence = predictions.confidence[keep]
    right = predictions.targets[keep] == predictions.predicted[keep]
    if not len(right):
        return (f"{error}.",)
    mean, (low, high) = float(confidence.mean()), wilson_interval(int(right.sum()), len(right))
    if low <= mean <= high:
        verdict = "which agrees within the interval"
    elif mean > high:
        verdict = f"{points(mean - right.mean())} too sure of itself"
    else:
        verdict = f"{points(mean - right.mean())} too modest"
    text = (
        f"On average the model gives its answer {percent(mean)} confidence and is right "
        f"{percent(right.mean())} of the time: {verdict}. {error}; "
        "a perfectly calibrated model would show about "
        f"{points(expected_chance_gap(confidence))} on as many photos, by chance."
    )
    sure = confidence >= 0.9
    if sure.sum() >= SMALL_CLASS:
        hits, total = int(right[sure].sum()), int(sure.sum())
        text += (
            f" Of the {counted(total, 'photo')} it is at least 90 % sure of, {percent(hits / total)} are "
            f"right (95 % interval {percent_range(wilson_interval(hits, total))})."
        )
    return (text,)


def _findings(content: RunContent) -> tuple[str, ...]:
    if not content.findings:
        return ("The check before training found no fault in the photos.",)
    aside = [finding for finding in content.findings if sets_aside(finding)]
    kept = [finding for finding in content.findings if not sets_aside(finding)]
    texts = []
    if aside:
        photos = len({finding.path for finding in aside})
        verb = "was" if photos == 1 else "were"
        texts.append(
            f"{counted(photos, 'photo')} {verb} set aside before training and never used; by finding: "
            f"{_fault_list(aside)}."
        )
    if kept:
        texts.append(f"Used all the same, but worth a look: {_fault_list(kept)}.")
    return tuple(texts)


def _fault_list(findings: Sequence[Finding]) -> str:
    """Return each kind of finding in words, with how many there are."""
    counts = Counter(finding.kind for finding in findings)
    kinds = [*[kind for kind in FAULTS if kind in counts], *sorted(set(counts) - set(FAULTS))]
    meanings = {kind: FAULTS.get(kind, kind_name(kind).lower()) for kind in kinds}
    return "; ".join(f"{meaning}: {wording.whole(counts[kind])}" for kind, meaning in meanings.items())


def kind_name(kind: str) -> str:
    """Return the kind of a finding as words ("Exact duplicate")."""
    return wording.plain(kind).replace("_", " ").capitalize()
