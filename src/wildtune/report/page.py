"""The page of a run: one HTML file that needs nothing beside it, and the same charts and words as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wildtune import files, wording
from wildtune.evaluate.evaluation import ClassScore, Evaluation
from wildtune.intervals import wilson_interval
from wildtune.language import Language
from wildtune.model.preprocess import Preprocess
from wildtune.pages import create_environment, data_uri
from wildtune.photos.audit import Finding
from wildtune.report import figures
from wildtune.report.analysis import (
    Section,
    analysis_markdown,
    kind_name,
    write_analysis,
)
from wildtune.report.canvas import inline
from wildtune.report.content import RunContent, epochs_text, kept_record, photos_of
from wildtune.report.foreseen import effect_rows, reach_rows
from wildtune.report.heat_maps import scale_stops
from wildtune.report.more_photos import more_photos_rows
from wildtune.report.verdict import compare_text
from wildtune.train.cautions import batchnorm_text
from wildtune.train.plan import Plan, PlannedStage

MOST_MISTAKES = 24
MOST_PAIRS = 10
MOST_EXAMPLES = 8
MOST_LETTERS = 48


def write_report(content: RunContent, folder: str | Path) -> Path:
    """Write `index.html`, `analysis.md` and every chart as SVG into `folder`; return the path of the page.

    Each file is replaced whole, and the same content gives the same bytes.
    """
    folder = files.user_path(folder)
    sections = write_analysis(content)
    charts = create_charts(content)
    for name, svg in charts.items():
        files.write_text(folder / f"{name}.svg", svg)
    files.write_text(folder / "analysis.md", analysis_markdown(content.title, sections))
    page = folder / "index.html"
    files.write_text(page, render_page(content, charts, sections))
    return page


def create_charts(content: RunContent) -> dict[str, str]:
    """Return every chart of the report as SVG text, by the name of its file without `.svg`."""
    charts: dict[str, str] = {}
    history, photos, language = content.history, content.plan.side_size("val"), content.language
    say, test = language.say, content.evaluation.headline.side == "test"
    stages = [planned.stage.name for planned in content.trained_stages]
    if history:
        several = len(stages) > 1
        title = say("Accuracy, all stages") if several else say("Accuracy")
        charts["accuracy"] = figures.accuracy_figure("accuracy", history, title, photos, language)
        title = say("Loss, all stages") if several else say("Loss")
        charts["loss"] = figures.loss_figure("loss", history, title, language)
        charts["learning-rate"] = figures.learning_rate_figure("learning-rate", history, language)
    for stage in stages:
        if len(stages) == 1:  # the whole history is the stage's
            charts |= {f"{what}-{stage}": charts[what] for what in ("accuracy", "loss")}
            continue
        records = content.stage_records(stage)
        short = wording.shorten(stage, 24)
        name, title = f"accuracy-{stage}", say("Accuracy, {stage}", stage=short)
        charts[name] = figures.accuracy_figure(name, records, title, photos, language)
        name, title = f"loss-{stage}", say("Loss, {stage}", stage=short)
        charts[name] = figures.loss_figure(name, records, title, language)
    score = content.evaluation.headline
    title = say("Confusion, test photos") if test else say("Confusion, validation photos")
    charts["confusion"] = figures.confusion_figure("confusion", score, title, language)
    title = say("Recall by class, test photos") if test else say("Recall by class, validation photos")
    charts["classes"] = figures.recall_figure("classes", score, title, language)
    if content.predictions is not None and (content.predictions.predicted >= 0).any():
        title = say("Reliability, test photos") if test else say("Reliability, validation photos")
        charts["reliability"] = figures.reliability_figure("reliability", content.predictions, title, language=language)
    if content.learning_curve is not None and content.learning_curve.measured:
        charts["learning-curve"] = figures.learning_curve_figure("learning-curve", content.learning_curve, language)
        charts["gaining-classes"] = figures.gaining_figure("gaining-classes", content.learning_curve, language)
    if content.evaluation.trust is not None:
        title = say("Review, test photos") if test else say("Review, validation photos")
        charts["review"] = figures.review_figure("review", content.evaluation.trust.curve, title, language)
    return charts


def render_page(content: RunContent, charts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the HTML of the page; everything that people named is escaped by the template."""
    environment = create_environment("report", content.language)
    environment.filters["brief"] = lambda name: wording.shorten(name, MOST_LETTERS)
    score = content.evaluation.headline
    return environment.get_template("page.html.jinja").render(
        title=wording.plain(content.title),
        score=score,
        headline=_headline(content),
        sections=sections,
        charts={name: Markup(inline(svg)) for name, svg in charts.items()},
        stages=_stage_rows(content),
        comparisons=_comparison_texts(content),
        effects=effect_rows(content),
        reaches=reach_rows(content),
        preflight=_preflight_lines(content),
        classes=_class_rows(content),
        more_photos=more_photos_rows(content.learning_curve, content.language),
        pairs=_confused_pairs(score, content.language),
        mistakes=_mistake_cards(content),
        mistakes_left=max(len(score.mistakes) - MOST_MISTAKES, 0),
        heat_maps=_heat_map_groups(content),
        heat_scale=scale_stops(),
        faults=_fault_groups(content),
        faults_total=len(content.findings),
        notices=[content.language.retell("notice", wording.plain(notice)) for notice in content.plan.notices],
        facts=_facts(content),
        environment=_environment_rows(content),
    )


def _headline(content: RunContent) -> dict[str, Any]:
    score, plan, language = content.evaluation.headline, content.plan, content.language
    say = language.say
    low, high = score.interval
    seconds = sum(record.seconds for record in content.history)
    common = max(c.photos for c in score.classes) / score.photos
    balanced, f1 = score.balanced_accuracy_interval, score.macro_f1_interval
    train = plan.side_size("train")
    return {
        "accuracy": language.percent(score.accuracy),
        "number": language.numeral(f"{score.accuracy * 100:.1f}"),
        "range": language.percent_range(score.interval),
        "right": language.whole(round(score.accuracy * score.photos)),
        "photos": photos_of(language, score.side, score.photos),
        "left": f"{low * 100:.2f}",
        "width": f"{(high - low) * 100:.2f}",
        "point": f"{score.accuracy * 100:.2f}",
        "common": f"{common * 100:.2f}",
        "common_text": language.percent(common),
        "tiles": [
            (language.whole(len(plan.class_names)), language.say_counted("classes", "classes", len(plan.class_names))),
            (language.whole(train), language.say_counted("training photos", "training photos", train)),
            (
                language.percent(score.balanced_accuracy),
                say(
                    "balanced accuracy, the mean recall of the classes ({range})",
                    range=language.percent_range(balanced),
                ),
            ),
            (language.score(score.macro_f1), say("macro F1 ({range})", range=language.score_range(f1))),
            (language.duration(seconds), say("training time")),
        ],
    }


def _preflight_lines(content: RunContent) -> list[str]:
    """Return the preflight's sentences that no table of the page has."""
    preflight, language = content.plan.preflight, content.language
    if preflight is None:
        return []
    outside = language.say(
        "Pixel values outside 0-255 in photos as they are classified: {share}.",
        share=language.share(preflight.outside_share),
    )
    return [
        language.say_counted(
            "Each setting by itself, on {n} training photo: the mean change of a pixel in grey levels of 255 (under "
            "half a level is no more than rounding), the share of values that change by over half a level, and how far "
            "features move (1 - cosine), beside how far two photos of the same class or of other classes are apart. Of "
            "each stage how far one step at the highest rate and all steps can move its weights, as shares of the "
            "weights' size, and how far they moved.",
            "Each setting by itself, on {n} training photos: the mean change of a pixel in grey levels of 255 (under "
            "half a level is no more than rounding), the share of values that change by over half a level, and how far "
            "features move (1 - cosine), beside how far two photos of the same class or of other classes are apart. Of "
            "each stage how far one step at the highest rate and all steps can move its weights, as shares of the "
            "weights' size, and how far they moved.",
            preflight.photos,
        ),
        f"{outside} {batchnorm_text(preflight.batchnorm_layers, language)}",
    ]


def _stage_rows(content: RunContent) -> list[dict[str, str]]:
    language = content.language
    rows = []
    last = content.trained_stages[-1].stage.name if content.trained_stages else ""
    for planned in content.trained_stages:
        stage = planned.stage
        records = content.stage_records(stage.name)
        kept = kept_record(records)
        sides = {
            side: content.evaluation.sides.get(side)
            if stage.name == last
            else content.evaluation.before.get((stage.name, side))
            for side in ("val", "test")
        }
        rows.append(
            {
                "name": stage.name,
                "train": language.say("head") if stage.train == "head" else language.say("all but BatchNorm"),
                "weights": language.whole(planned.trained_weights),
                "epochs": language.say("{epoch} of {epochs}", epoch=kept.epoch, epochs=len(records))
                if kept
                else language.say("none of {epochs}", epochs=len(records)),
                "rate": language.rate(stage.lr),
                "time": language.duration(sum(record.seconds for record in records)),
                "val": _accuracy_text(sides["val"], language),
                "test": _accuracy_text(sides["test"], language),
                **_average_texts(sides[content.evaluation.headline.side], language),
            }
        )
    return rows


def _accuracy_text(score: Evaluation | None, language: Language) -> str:
    if score is None:
        return ""
    return f"{language.percent(score.accuracy)} ({language.percent_range(score.interval)})"


def _average_texts(score: Evaluation | None, language: Language) -> dict[str, str]:
    if score is None:
        return {"balanced": "", "f1": ""}
    return {
        "balanced": f"{language.percent(score.balanced_accuracy)} "
        f"({language.percent_range(score.balanced_accuracy_interval)})",
        "f1": f"{language.score(score.macro_f1)} ({language.score_range(score.macro_f1_interval)})",
    }


def _comparison_texts(content: RunContent) -> list[str]:
    names = [planned.stage.name for planned in content.plan.stages]
    keys = sorted(
        content.evaluation.comparisons,
        key=lambda key: (key[1] != "test", names.index(key[0]) if key[0] in names else len(names)),
    )
    return [compare_text(content, key) for key in keys]


def _class_rows(content: RunContent) -> list[dict[str, Any]]:
    score, train = content.evaluation.headline, content.plan.counts.get("train", {})
    return [_class_row(entry, train.get(entry.name, 0), content.language) for entry in score.classes]


def _class_row(entry: ClassScore, train: int, language: Language) -> dict[str, Any]:
    low, high = wilson_interval(round((entry.recall or 0) * entry.photos), entry.photos)
    return {
        "name": wording.plain(entry.name),
        "train": language.whole(train),
        "photos": language.whole(entry.photos),
        "recall": "" if entry.recall is None else language.percent(entry.recall),
        "range": "" if entry.recall is None else language.percent_range((low, high)),
        "precision": "" if entry.precision is None else language.percent(entry.precision),
        "f1": language.score(entry.f1) if entry.photos else "",
        "taken_for": wording.plain(entry.taken_for),
        "times": f"{entry.taken_for_count} ×" if entry.taken_for else "",
    }


def _confused_pairs(score: Evaluation, language: Language) -> list[dict[str, str]]:
    counts = [
        (number, row, column)
        for row, line in enumerate(score.confusion)
        for column, number in enumerate(line)
        if number and row != column
    ]
    ordered = sorted(counts, key=lambda entry: (-entry[0], entry[1], entry[2]))[:MOST_PAIRS]
    return [
        {
            "label": wording.plain(score.class_names[row]),
            "prediction": wording.plain(score.class_names[column]),
            "count": language.say(
                "{count} of {photos}", count=number, photos=language.whole(sum(score.confusion[row]))
            ),
        }
        for number, row, column in ordered
    ]


def _mistake_cards(content: RunContent) -> list[dict[str, str]]:
    return [
        {
            "label": wording.plain(mistake.label),
            "prediction": wording.plain(mistake.prediction),
            "confidence": content.language.numeral(f"{mistake.confidence * 100:.0f} %"),
            "path": wording.plain(mistake.path),
            "picture": data_uri(content.load_thumbnail(mistake.path)),
        }
        for mistake in content.evaluation.headline.mistakes[:MOST_MISTAKES]
    ]


def _heat_map_groups(content: RunContent) -> list[list[dict[str, Any]]]:
    """Return the cards of the wrong predictions and those of the right ones, leaving out a group that is empty."""
    cards = [
        {
            "label": wording.plain(shown.label),
            "prediction": wording.plain(shown.prediction),
            "confidence": content.language.numeral(f"{shown.confidence * 100:.0f} %"),
            "path": wording.plain(shown.path),
            "photo": data_uri(shown.photo),
            "for_prediction": data_uri(shown.for_prediction),
            "for_label": data_uri(shown.for_label),
            "right": shown.label == shown.prediction,
        }
        for shown in content.heat_maps
    ]
    groups = [[card for card in cards if card["right"] == right] for right in (False, True)]
    return [group for group in groups if group]


def _fault_groups(content: RunContent) -> list[dict[str, Any]]:
    counts, language = Counter(finding.kind for finding in content.findings), content.language
    groups = []
    for kind in sorted(counts, key=lambda k: (-counts[k], k)):
        found = [finding for finding in content.findings if finding.kind == kind]
        groups.append(
            {
                "name": kind_name(kind, language),
                "count": language.whole(counts[kind]),
                "severity": language.listed(_severities(found, language)),
                "examples": [
                    {
                        "path": wording.plain(finding.path),
                        "detail": language.retell("finding", wording.plain(finding.detail)),
                        "other": wording.plain(finding.other_path),
                    }
                    for finding in found[:MOST_EXAMPLES]
                ],
                "left": max(len(found) - MOST_EXAMPLES, 0),
            }
        )
    return groups


def _severities(findings: Sequence[Finding], language: Language) -> list[str]:
    words = {
        "error": language.say("error", context="severity"),
        "warning": language.say("warning", context="severity"),
        "note": language.say("note", context="severity"),
    }
    return [words.get(name, wording.plain(name)) for name in sorted({finding.severity for finding in findings})]


def _input_text(pre: Preprocess, language: Language) -> str:
    """Say what is done to a photo before the network gets it."""
    say = language.say
    fit = {
        "squash": say("squashed to {side} × {side} pixels", side=pre.resize),
        "crop": say("shorter side to {side} pixels", side=pre.resize),
        "pad": say("whole photo within {side} × {side} pixels on the mean colour", side=pre.resize),
    }
    steps = [fit[pre.fit]]
    if pre.resize > pre.size or pre.fit == "crop":
        steps.append(say("the middle {side} × {side} cut out", side=pre.size))
    if pre.contrast != 1:
        steps.append(say("contrast × {factor}", factor=language.numeral(f"{pre.contrast:g}")))
    if pre.brightness:
        steps.append(say("brightness {change} of 255", change=language.numeral(f"{pre.brightness:+g}")))
    steps.append(say("smoothed while shrinking") if pre.antialias else say("not smoothed while shrinking"))
    return ", ".join(steps)


def _split_text(plan: Plan, language: Language) -> str:
    sizes = {side: language.whole(plan.side_size(side)) for side in plan.counts}
    texts = {
        "train": language.say("{count} train", count=sizes.get("train", "")),
        "val": language.say("{count} val", count=sizes.get("val", "")),
        "test": language.say("{count} test", count=sizes.get("test", "")),
    }
    return ", ".join(texts[side] for side in sizes)


def _facts(content: RunContent) -> list[tuple[str, str]]:
    plan, language = content.plan, content.language
    say, weights = language.say, plan.weights
    source = {"file": say("file"), "timm": "timm"}
    notes = [language.retell("weights", note) for note in weights.notes]
    threads = language.say_counted("{device}, {n} thread", "{device}, {n} threads", plan.threads, device=plan.device)
    rows = [
        (say("Recipe"), plan.recipe_name),
        (say("Photos", context="fact"), plan.photos),
        (say("Photos' key"), plan.data_key),
        (say("Split"), _split_text(plan, language)),
        (say("Backbone"), plan.backbone),
        (
            say("Weights", context="fact"),
            say("random")
            if weights.source == "none"
            else f"{weights.name} ({source.get(weights.source, weights.source)})",
        ),
        (say("Weights' SHA-256"), weights.sha256),
        (say("Notes on the weights"), "; ".join(notes)),
        (say("Input"), _input_text(plan.preprocess, language)),
        (say("Seed"), str(plan.seed)),
        (say("Device"), threads),
        (say("Frozen backbone run by"), plan.engine),
    ]
    rows += [_time_fact(content, planned) for planned in content.trained_stages]
    return [(name, wording.plain(value)) for name, value in rows if value]


def _time_fact(content: RunContent, planned: PlannedStage) -> tuple[str, str]:
    language = content.language
    seconds = [record.seconds for record in content.stage_records(planned.stage.name)]
    values = {
        "time": language.duration(sum(seconds)),
        "epochs": epochs_text(language, len(seconds)),
        "steps": language.say_counted("{n} step", "{n} steps", planned.steps_per_epoch, context="of"),
    }
    name = language.say("Time of {stage}", stage=planned.stage.name)
    if planned.precision == "float32" or planned.stage.train == "head":  # whose steps are float32 in any case
        return name, language.say("{time} for {epochs} of {steps}", **values)
    return name, language.say(
        "{time} for {epochs} of {steps}, computed in {precision}", **values, precision=planned.precision
    )


def _environment_rows(content: RunContent) -> list[tuple[str, str]]:
    language = content.language
    rows: list[tuple[str, str]] = []
    names = {
        "photos": language.say("Photos", context="fact"),
        "started": language.say("Started"),
        "platform": language.say("Platform"),
        "processor": language.say("Processor"),
        "cores": language.say("Cores"),
        "packages": language.say("Packages"),
        "detections": language.say("Detections"),
    }
    for key, value in content.environment.items():
        name = names.get(key, wording.plain(str(key)).replace("_", " ").capitalize())
        if key == "started":
            rows.append((name, language.moment(str(value))))
        elif isinstance(value, Mapping):
            rows.append((name, ", ".join(f"{inner_name} {inner}" for inner_name, inner in value.items())))
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif value not in (None, "") and key != "language":
            rows.append((name, str(value)))
    return [(name, wording.plain(text)) for name, text in rows]
