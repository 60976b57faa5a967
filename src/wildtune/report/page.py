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
from wildtune.pages import create_environment, data_uri
from wildtune.report import figures
from wildtune.report.analysis import (
    Section,
    analysis_markdown,
    kind_name,
    write_analysis,
)
from wildtune.report.canvas import inline
from wildtune.report.content import SIDE_NAMES, RunContent, kept_record
from wildtune.report.foreseen import effect_rows, reach_rows
from wildtune.report.heat_maps import scale_stops
from wildtune.report.more_photos import more_photos_rows
from wildtune.report.verdict import compare_text
from wildtune.train.cautions import batchnorm_text

MOST_MISTAKES = 24
MOST_PAIRS = 10
MOST_EXAMPLES = 8
MOST_LETTERS = 48


def write_report(content: RunContent, folder: Path) -> Path:
    """Write `index.html`, `analysis.md` and every chart as SVG into `folder`; return the path of the page.

    Each file is replaced whole, and the same content gives the same bytes.
    """
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
    history, photos = content.history, content.plan.side_size("val")
    stages = [planned.stage.name for planned in content.trained_stages]
    if history:
        suffix = ", all stages" if len(stages) > 1 else ""
        charts["accuracy"] = figures.accuracy_figure("accuracy", history, f"Accuracy{suffix}", photos)
        charts["loss"] = figures.loss_figure("loss", history, f"Loss{suffix}")
        charts["learning-rate"] = figures.learning_rate_figure("learning-rate", history)
    for stage in stages:
        if len(stages) == 1:  # the whole history is the stage's
            charts |= {f"{what}-{stage}": charts[what] for what in ("accuracy", "loss")}
            continue
        records = content.stage_records(stage)
        title = wording.shorten(stage, 24)
        name = f"accuracy-{stage}"
        charts[name] = figures.accuracy_figure(name, records, f"Accuracy, {title}", photos)
        charts[f"loss-{stage}"] = figures.loss_figure(f"loss-{stage}", records, f"Loss, {title}")
    score = content.evaluation.headline
    side = SIDE_NAMES[score.side]
    charts["confusion"] = figures.confusion_figure("confusion", score, f"Confusion, {side} photos")
    charts["classes"] = figures.recall_figure("classes", score, f"Recall by class, {side} photos")
    if content.predictions is not None and (content.predictions.predicted >= 0).any():
        charts["reliability"] = figures.reliability_figure(
            "reliability", content.predictions, f"Reliability, {side} photos"
        )
    if content.learning_curve is not None and content.learning_curve.measured:
        charts["learning-curve"] = figures.learning_curve_figure("learning-curve", content.learning_curve)
        charts["gaining-classes"] = figures.gaining_figure("gaining-classes", content.learning_curve)
    if content.evaluation.trust is not None:
        charts["review"] = figures.review_figure("review", content.evaluation.trust.curve, f"Review, {side} photos")
    return charts


def render_page(content: RunContent, charts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the HTML of the page; everything that people named is escaped by the template."""
    environment = create_environment("report")
    environment.filters["brief"] = lambda name: wording.shorten(name, MOST_LETTERS)
    score = content.evaluation.headline
    return environment.get_template("page.html.jinja").render(
        title=wording.plain(content.title),
        score=score,
        side=SIDE_NAMES[score.side],
        headline=_headline(content),
        sections=sections,
        charts={name: Markup(inline(svg)) for name, svg in charts.items()},
        stages=_stage_rows(content),
        comparisons=_comparison_texts(content),
        effects=effect_rows(content),
        reaches=reach_rows(content),
        preflight=_preflight_lines(content),
        classes=_class_rows(content),
        more_photos=more_photos_rows(content.learning_curve),
        pairs=_confused_pairs(score),
        mistakes=_mistake_cards(content),
        mistakes_left=max(len(score.mistakes) - MOST_MISTAKES, 0),
        heat_maps=_heat_map_groups(content),
        heat_scale=scale_stops(),
        faults=_fault_groups(content),
        faults_total=len(content.findings),
        notices=[wording.plain(notice) for notice in content.plan.notices],
        facts=_facts(content),
        environment=_environment_rows(content.environment),
    )


def _headline(content: RunContent) -> dict[str, Any]:
    score, plan = content.evaluation.headline, content.plan
    low, high = score.interval
    seconds = sum(record.seconds for record in content.history)
    common = max(c.photos for c in score.classes) / score.photos
    return {
        "accuracy": wording.percent(score.accuracy),
        "range": wording.percent_range(score.interval),
        "right": wording.whole(round(score.accuracy * score.photos)),
        "photos": wording.counted(score.photos, f"{SIDE_NAMES[score.side]} photo"),
        "left": f"{low * 100:.2f}",
        "width": f"{(high - low) * 100:.2f}",
        "point": f"{score.accuracy * 100:.2f}",
        "common": f"{common * 100:.2f}",
        "common_text": wording.percent(common),
        "tiles": [
            (wording.whole(len(plan.class_names)), "classes"),
            (wording.whole(plan.side_size("train")), "training photos"),
            (
                wording.percent(score.balanced_accuracy),
                f"balanced accuracy, the mean recall of the classes "
                f"({wording.percent_range(score.balanced_accuracy_interval)})",
            ),
            (f"{score.macro_f1:.3f}", f"macro F1 ({wording.score_range(score.macro_f1_interval)})"),
            (wording.duration(seconds), "training time"),
        ],
    }


def _preflight_lines(content: RunContent) -> list[str]:
    """Return the preflight's sentences that no table of the page has."""
    preflight = content.plan.preflight
    if preflight is None:
        return []
    photos = wording.counted(preflight.photos, "training photo")
    outside = wording.share(preflight.outside_share)
    return [
        f"Each setting by itself, on {photos}: the mean change of a pixel in grey levels of 255 (under half a level is "
        "no more than rounding), the share of values that change by over half a level, and how far features move "
        "(1 - cosine), beside how far two photos of the same class or of other classes are apart. Of each stage how "
        "far one step at the highest rate and all steps can move its weights, as shares of the weights' size, and how "
        "far they moved.",
        f"Pixel values outside 0-255 in photos as they are classified: {outside}. "
        f"{batchnorm_text(preflight.batchnorm_layers)}",
    ]


def _stage_rows(content: RunContent) -> list[dict[str, str]]:
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
                "train": "head" if stage.train == "head" else "all but BatchNorm",
                "weights": wording.whole(planned.trained_weights),
                "epochs": f"{kept.epoch if kept else 'none'} of {len(records)}",
                "rate": wording.rate(stage.lr),
                "time": wording.duration(sum(record.seconds for record in records)),
                "val": _accuracy_text(sides["val"]),
                "test": _accuracy_text(sides["test"]),
                **_average_texts(sides[content.evaluation.headline.side]),
            }
        )
    return rows


def _accuracy_text(score: Evaluation | None) -> str:
    if score is None:
        return ""
    return f"{wording.percent(score.accuracy)} ({wording.percent_range(score.interval)})"


def _average_texts(score: Evaluation | None) -> dict[str, str]:
    if score is None:
        return {"balanced": "", "f1": ""}
    return {
        "balanced": f"{wording.percent(score.balanced_accuracy)} "
        f"({wording.percent_range(score.balanced_accuracy_interval)})",
        "f1": f"{score.macro_f1:.3f} ({wording.score_range(score.macro_f1_interval)})",
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
    return [_class_row(entry, train.get(entry.name, 0)) for entry in score.classes]


def _class_row(entry: ClassScore, train: int) -> dict[str, Any]:
    low, high = wilson_interval(round((entry.recall or 0) * entry.photos), entry.photos)
    return {
        "name": wording.plain(entry.name),
        "train": wording.whole(train),
        "photos": wording.whole(entry.photos),
        "recall": "" if entry.recall is None else wording.percent(entry.recall),
        "range": "" if entry.recall is None else wording.percent_range((low, high)),
        "precision": "" if entry.precision is None else wording.percent(entry.precision),
        "f1": f"{entry.f1:.3f}" if entry.photos else "",
        "taken_for": wording.plain(entry.taken_for),
        "times": f"{entry.taken_for_count} ×" if entry.taken_for else "",
    }


def _confused_pairs(score: Evaluation) -> list[dict[str, str]]:
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
            "count": f"{number} of {wording.whole(sum(score.confusion[row]))}",
        }
        for number, row, column in ordered
    ]


def _mistake_cards(content: RunContent) -> list[dict[str, str]]:
    return [
        {
            "label": wording.plain(mistake.label),
            "prediction": wording.plain(mistake.prediction),
            "confidence": f"{mistake.confidence * 100:.0f} %",
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
            "confidence": f"{shown.confidence * 100:.0f} %",
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
    counts = Counter(finding.kind for finding in content.findings)
    groups = []
    for kind in sorted(counts, key=lambda k: (-counts[k], k)):
        found = [finding for finding in content.findings if finding.kind == kind]
        groups.append(
            {
                "name": kind_name(kind),
                "count": wording.whole(counts[kind]),
                "severity": wording.listed(sorted({wording.plain(finding.severity) for finding in found})),
                "examples": [
                    {
                        "path": wording.plain(finding.path),
                        "detail": wording.plain(finding.detail),
                        "other": wording.plain(finding.other_path),
                    }
                    for finding in found[:MOST_EXAMPLES]
                ],
                "left": max(len(found) - MOST_EXAMPLES, 0),
            }
        )
    return groups


def _facts(content: RunContent) -> list[tuple[str, str]]:
    plan, pre = content.plan, content.plan.preprocess
    fit = {
        "squash": f"squashed to {pre.resize} × {pre.resize} pixels",
        "crop": f"shorter side to {pre.resize} pixels",
        "pad": f"whole photo within {pre.resize} × {pre.resize} pixels on the mean colour",
    }[pre.fit]
    steps = [
        fit,
        f"the middle {pre.size} × {pre.size} cut out" if pre.resize > pre.size or pre.fit == "crop" else "",
    ]
    steps += [f"contrast × {pre.contrast:g}" if pre.contrast != 1 else ""]
    steps += [f"brightness {pre.brightness:+g} of 255" if pre.brightness else ""]
    steps += ["smoothed while shrinking" if pre.antialias else "not smoothed while shrinking"]
    rows = [
        ("Recipe", plan.recipe_name),
        ("Photos", plan.photos),
        ("Photos' key", plan.data_key),
        ("Split", ", ".join(f"{wording.whole(plan.side_size(side))} {side}" for side in plan.counts)),
        ("Backbone", plan.backbone),
        (
            "Weights",
            {"none": "random"}.get(plan.weights.source, f"{plan.weights.name} ({plan.weights.source})"),
        ),
        ("Weights' SHA-256", plan.weights.sha256),
        ("Notes on the weights", "; ".join(plan.weights.notes)),
        ("Input", ", ".join(step for step in steps if step)),
        ("Seed", str(plan.seed)),
        ("Device", f"{plan.device}, {wording.counted(plan.threads, 'thread')}"),
        ("Frozen backbone run by", plan.engine),
    ]
    for planned in content.trained_stages:
        seconds = [record.seconds for record in content.stage_records(planned.stage.name)]
        rows.append(
            (
                f"Time of {planned.stage.name}",
                f"{wording.duration(sum(seconds))} for {wording.counted(len(seconds), 'epoch')} of "
                f"{wording.counted(planned.steps_per_epoch, 'step')}"
                f"{'' if planned.precision == 'float32' else f', computed in {planned.precision}'}",
            )
        )
    return [(name, wording.plain(value)) for name, value in rows if value]


def _environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            rows.append((key, ", ".join(f"{name} {inner}" for name, inner in value.items())))
        elif isinstance(value, list | tuple):
            rows.append((key, ", ".join(str(item) for item in value)))
        elif value not in (None, ""):
            rows.append((key, str(value)))
    return [(wording.plain(str(key)).replace("_", " "), wording.plain(text)) for key, text in rows]
