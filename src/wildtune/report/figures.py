"""The charts of a report, each returned as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from wildtune.evaluate.evaluation import Evaluation
from wildtune.evaluate.learning_curve import LearningCurve
from wildtune.evaluate.trust import CurvePoint
from wildtune.intervals import wilson_interval
from wildtune.language import ENGLISH, Language
from wildtune.predict.predictions import Predictions
from wildtune.report.canvas import (
    CELL_DARK,
    CELL_LIGHT,
    GRID,
    INK,
    MUTED,
    TRAINING,
    VALIDATION,
    axes_of,
    draw,
    label,
)
from wildtune.report.content import kept_record, photos_text
from wildtune.train.history import EpochRecord

CURVE_SIZE = (5.2, 3.3)
_CELLS = LinearSegmentedColormap.from_list("cells", ["#e4eff2", "#8fbccb", "#3f8aa4", "#145066"])
_WRONG_CELLS = LinearSegmentedColormap.from_list("wrong", ["#f9e9d7", "#e9b67d", "#cd7f2c", "#8f4f0c"])


def accuracy_figure(
    name: str, records: Sequence[EpochRecord], title: str, photos: int, language: Language = ENGLISH
) -> str:
    """Draw training and validation accuracy over the epochs of one stage or several.

    `photos` is the number of validation photos: the shaded band is the 95 % interval it leaves.
    """

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, title, language.say("epoch"), language.say("accuracy"))
        for start, stage in _by_stage(records):
            epochs = [start + r.epoch for r in stage]
            band = [_accuracy_interval(r.val_accuracy, photos) for r in stage]
            axes.fill_between(
                epochs, [b[0] for b in band], [b[1] for b in band], color=VALIDATION, alpha=0.13, linewidth=0
            )
            if len(stage) == 1:  # A band of no width would not be seen.
                axes.vlines(epochs, *band[0], color=VALIDATION, alpha=0.25, linewidth=7)
        _paint_lines(axes, records, ("accuracy", "val_accuracy"), language)
        low, high = axes.get_ylim()
        # Never zoom in so far that a wiggle of a point looks like a cliff.
        spare = max(0.10 - (high - low), 0) / 2
        high = min(high + spare, 1.005)
        axes.set_ylim(max(min(low - spare, high - 0.10), -0.01), high)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))

    last = records[-1]
    words = language.say_counted(
        "Accuracy over {n} epoch; at the end training {training}, validation {validation}.",
        "Accuracy over {n} epochs; at the end training {training}, validation {validation}.",
        len(records),
        training=language.percent(last.accuracy),
        validation=language.percent(last.val_accuracy),
    )
    return draw(name, words, CURVE_SIZE, paint, language)


def loss_figure(name: str, records: Sequence[EpochRecord], title: str, language: Language = ENGLISH) -> str:
    """Draw training and validation loss over the epochs of one stage or several."""

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, title, language.say("epoch"), language.say("loss (nats)"))
        _paint_lines(axes, records, ("loss", "val_loss"), language, at_top=True)
        low, high = axes.get_ylim()
        spare = max(0.2 * high - (high - low), 0) / 2
        axes.set_ylim(max(low - spare, 0), high + spare)

    last = records[-1]
    words = language.say_counted(
        "Loss over {n} epoch; at the end training {training}, validation {validation}.",
        "Loss over {n} epochs; at the end training {training}, validation {validation}.",
        len(records),
        training=language.nats(last.loss),
        validation=language.nats(last.val_loss),
    )
    return draw(name, words, CURVE_SIZE, paint, language)


def learning_rate_figure(name: str, records: Sequence[EpochRecord], language: Language = ENGLISH) -> str:
    """Draw the learning rate at the start of each epoch, on a logarithmic scale where it spans a lot."""
    rates = [r.lr for r in records if r.lr > 0]
    wide = bool(rates) and max(rates) / min(rates) > 30

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, language.say("Learning rate"), language.say("epoch"), language.say("rate"))
        for start, stage in _by_stage(records):
            values = [r.lr if r.lr > 0 or not wide else math.nan for r in stage]
            axes.plot([start + r.epoch for r in stage], values, color=INK, marker="o", markersize=3, linewidth=1.6)
        if wide:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(bottom=0, top=max(rates, default=1) * 1.08)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        _mark_stages(axes, records, language, at_top=True)

    words = language.say_counted("Learning rate over {n} epoch.", "Learning rate over {n} epochs.", len(records))
    return draw(name, words, CURVE_SIZE, paint, language)


def confusion_figure(name: str, score: Evaluation, title: str, language: Language = ENGLISH) -> str:
    """Draw the confusion matrix: colour is the share of the row, the number the count of photos."""
    counts = np.array(score.confusion)
    size = len(counts)
    names = [label(n, 22 if size <= 30 else 16) for n in score.class_names]
    cell = float(np.interp(size, [2, 8, 22, 40, 60], [0.75, 0.55, 0.38, 0.27, 0.22]))
    margin = 0.5 + 0.085 * max(len(n) for n in names) * _font(size) / 10
    side = size * cell + margin

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, title, language.say("prediction"), language.say("label"))
        axes.grid(False)
        _paint_cells(axes, counts)
        ticks = np.arange(size) + 0.5
        axes.set_xticks(ticks, names, rotation=90 if size > 4 else 0, fontsize=_font(size), color=INK)
        axes.set_yticks(ticks, names, fontsize=_font(size), color=INK)
        axes.tick_params(length=0)
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set_visible(True)

    words = language.say_counted(
        "Confusion matrix of {n} class, {photos}.",
        "Confusion matrix of {n} classes, {photos}.",
        size,
        photos=photos_text(language, score.photos),
    )
    return draw(name, words, (max(side, 3.6), max(side, 3.0) + 0.4), paint, language)


def recall_figure(name: str, score: Evaluation, title: str, language: Language = ENGLISH) -> str:
    """Draw each class's recall with its 95 % Wilson interval, lowest first, beside the accuracy of the whole."""
    classes = sorted((c for c in score.classes if c.photos), key=lambda c: (-(c.recall or 0), c.photos, c.name))
    rows = np.arange(len(classes))
    spans = np.array([wilson_interval(round((c.recall or 0) * c.photos), c.photos) for c in classes])
    values = np.array([c.recall or 0.0 for c in classes])
    names = [f"{label(c.name)}  ({c.photos})" for c in classes]
    width = max(5.2, 3.9 + 0.085 * max(len(name) for name in names))

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, title, language.say("recall: share of the class's photos recognised"), "")
        axes.axvline(
            score.accuracy,
            color=TRAINING,
            linewidth=1.2,
            linestyle=(0, (4, 3)),
            label=language.say("accuracy of the whole"),
        )
        interval = language.say("95 % interval")
        axes.hlines(rows, spans[:, 0], spans[:, 1], color=VALIDATION, alpha=0.45, linewidth=3.5, label=interval)
        axes.plot(values, rows, "o", color=VALIDATION, markersize=5.5, clip_on=False, label=language.say("recall"))
        axes.set_yticks(rows, names, color=INK, fontsize=9)
        axes.set_ylim(-0.8, len(classes) - 0.2)
        axes.set_xlim(0, 1)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        _legend(axes)

    words = language.say_counted(
        "Recall of {n} class with 95 % intervals.", "Recall of {n} classes with 95 % intervals.", len(classes)
    )
    return draw(name, words, (width, 1.4 + 0.22 * len(classes)), paint, language)


def review_figure(name: str, curve: Sequence[CurvePoint], title: str, language: Language = ENGLISH) -> str:
    """Draw how accurate the other answers are when the least sure are looked at first."""
    shares, accuracy = [p.reviewed for p in curve], [p.accuracy for p in curve]

    def paint(figure: Figure) -> None:
        across, up = language.say("share reviewed, the least sure first"), language.say("accuracy of the others")
        axes = axes_of(figure, title, across, up)
        low, high = [p.interval[0] for p in curve], [p.interval[1] for p in curve]
        axes.fill_between(shares, low, high, color=VALIDATION, alpha=0.13, linewidth=0)
        axes.plot(shares, accuracy, "o-", color=VALIDATION, markersize=4, linewidth=1.6)
        axes.set_ylim(max(min(low) - 0.02, -0.01), 1.005)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))

    words = language.say(
        "Accuracy from {first} with none reviewed to {last} with {share} reviewed",
        first=language.percent(accuracy[0]),
        last=language.percent(accuracy[-1]),
        share=language.percent(shares[-1]),
    )
    return draw(name, words, CURVE_SIZE, paint, language)


def learning_curve_figure(name: str, curve: LearningCurve, language: Language) -> str:
    """Draw the accuracy by the number of photos: measured with its 95 % intervals, and the fitted curve beyond it."""
    say = language.say
    sizes = [f.factor * curve.photos for f in curve.band]
    measured = [point.share * curve.photos for point in curve.measured]

    def paint(figure: Figure) -> None:
        axes = axes_of(
            figure,
            say("Accuracy by the number of photos"),
            say("training and validation photos"),
            say("accuracy"),
        )
        low, high = [f.interval[0] for f in curve.band], [f.interval[1] for f in curve.band]
        axes.fill_between(sizes, low, high, color=VALIDATION, alpha=0.13, linewidth=0)
        axes.plot(sizes, [f.value for f in curve.band], color=VALIDATION, linewidth=1.6, label=say("fit and forecast"))
        axes.vlines(
            measured,
            [point.interval[0] for point in curve.measured],
            [point.interval[1] for point in curve.measured],
            color=TRAINING,
            alpha=0.45,
            linewidth=2.5,
        )
        axes.plot(
            measured, [p.accuracy for p in curve.measured], "o", color=TRAINING, markersize=5, label=say("measured")
        )
        axes.axvline(curve.photos, color=MUTED, linewidth=1.1, linestyle=(0, (1, 2)), label=say("today"))
        _size_axis(axes, language, [measured[0], *(f * curve.photos for f in (0.25, 0.5, 1, 2, 4))])
        axes.set_ylim(max(min(*low, *(point.interval[0] for point in curve.measured)) - 0.02, -0.01), 1.005)
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))  # whole percentages
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        _legend(axes)

    now, twice = curve.measured[-1], curve.forecasts[1]
    words = say(
        "Accuracy {first} with an eighth of the photos, {now} with all, {twice} expected with twice as many.",
        first=language.percent(curve.measured[0].accuracy),
        now=language.percent(now.accuracy),
        twice=language.percent(twice.value),
    )
    return draw(name, words, CURVE_SIZE, paint, language)


def gaining_figure(name: str, curve: LearningCurve, language: Language) -> str:
    """Draw the measured and forecast recall of the six classes that would gain most, side by side."""
    ordered = curve.by_gain[:6]
    rows = math.ceil(len(ordered) / 3)
    places = [curve.classes.index(known) for known in ordered]
    lowest = min(
        *(point.recalls[place] for point in curve.measured for place in places),
        *(forecast.interval[0] for known in ordered for forecast in known.forecasts),
    )

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, 3, sharey=True, squeeze=False)
        for axes in grid.flat[len(ordered) :]:
            axes.set_visible(False)
        for axes, known, place in zip(grid.flat, ordered, places, strict=False):
            axes.set_title(label(known.name, 16), fontsize=9.5)
            sizes = [point.share * known.photos for point in curve.measured]
            axes.plot(sizes, [p.recalls[place] for p in curve.measured], "o", color=TRAINING, markersize=3.5)
            ahead = [f.factor * known.photos for f in known.forecasts]
            spans = [f.interval for f in known.forecasts]
            axes.vlines(ahead, [s[0] for s in spans], [s[1] for s in spans], color=VALIDATION, alpha=0.45, linewidth=3)
            axes.plot(ahead, [f.value for f in known.forecasts], "o-", color=VALIDATION, markersize=4, linewidth=1.4)
            axes.axvline(known.photos, color=MUTED, linewidth=1.1, linestyle=(0, (1, 2)))
            _size_axis(axes, language, [f * known.photos for f in (0.25, 1, 4)])
            axes.set_ylim(max(lowest - 0.03, -0.02), 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        figure.supxlabel(language.say("photos of the class"), fontsize=10, color=MUTED)
        figure.supylabel(language.say("recall"), fontsize=10, color=MUTED)

    words = language.say_counted(
        "Recall by the number of photos of {n} class.", "Recall by the number of photos of {n} classes.", len(ordered)
    )
    return draw(name, words, (5.2, 1.0 + 1.55 * rows), paint, language)


def _size_axis(axes: Axes, language: Language, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: language.whole(round(value))))
    axes.grid(False, axis="x")
    axes.tick_params(length=3)


def reliability_figure(
    name: str, predictions: Predictions, title: str, bins: int = 15, language: Language = ENGLISH
) -> str:
    """Draw how often answers of each confidence are right, and how many answers have it."""
    keep = (predictions.targets >= 0) & (predictions.predicted >= 0)
    confidence = predictions.confidence[keep]
    right = predictions.targets[keep] == predictions.predicted[keep]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    totals = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    filled = np.flatnonzero(totals)
    means = np.array([confidence[place == b].mean() for b in filled])
    spans = np.array([wilson_interval(int(hits[b]), int(totals[b])) for b in filled])

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        above.set_title(title, pad=22)
        above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=language.say("perfect"))
        above.vlines(
            means,
            spans[:, 0],
            spans[:, 1],
            color=VALIDATION,
            alpha=0.45,
            linewidth=3.5,
            label=language.say("95 % interval"),
        )
        above.plot(
            means,
            hits[filled] / totals[filled],
            "o",
            color=VALIDATION,
            markersize=5.5,
            clip_on=False,
            label=language.say("accuracy"),
        )
        above.set_ylim(-0.02, 1.02)
        above.set_ylabel(language.say("share right"))
        _legend(above)
        below.bar((filled + 0.5) / bins, totals[filled], width=0.8 / bins, color=MUTED, alpha=0.6)
        below.set_ylabel(language.say("photos"))
        below.set_xlabel(language.say("confidence of the answer"))
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.set_xlim(0, 1)
        for axes in (above, below):
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            axes.tick_params(length=3)
        above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))

    words = language.say_counted(
        "Reliability of the confidence on {n} photo.", "Reliability of the confidence on {n} photos.", len(confidence)
    )
    return draw(name, words, (5.2, 4.4), paint, language)


def _by_stage(records: Sequence[EpochRecord]) -> list[tuple[int, list[EpochRecord]]]:
    """Group records by stage, each with the number of epochs before it."""
    stages: dict[str, list[EpochRecord]] = {}
    for record in records:
        stages.setdefault(record.stage, []).append(record)
    start, groups = 0, []
    for stage in stages.values():
        groups.append((start, stage))
        start += stage[-1].epoch
    return groups


def _accuracy_interval(accuracy: float, photos: int) -> tuple[float, float]:
    if not math.isfinite(accuracy):
        return math.nan, math.nan
    return wilson_interval(round(accuracy * photos), photos)


def _paint_lines(
    axes: Axes, records: Sequence[EpochRecord], columns: tuple[str, str], language: Language, at_top: bool = False
) -> None:
    (training, validation), say = columns, language.say
    groups = _by_stage(records)
    dots = 3.5 if len(records) <= 60 else 0
    for number, (start, stage) in enumerate(groups):
        epochs = [start + r.epoch for r in stage]
        kept = kept_record(stage)
        # Only the first stage names its lines: one entry each in the legend.
        first = number == 0
        axes.plot(
            epochs,
            [getattr(r, training) for r in stage],
            color=TRAINING,
            linestyle=(0, (5, 2)),
            linewidth=1.5,
            marker="s",
            markersize=max(dots - 0.5, 3 if len(stage) == 1 else 0),
            label=say("training") if first else None,
        )
        axes.plot(
            epochs,
            [getattr(r, validation) for r in stage],
            color=VALIDATION,
            linewidth=1.9,
            marker="o",
            markersize=max(dots, 4 if len(stage) == 1 else 0),
            label=say("validation") if first else None,
        )
        if kept is not None:
            axes.plot(
                [start + kept.epoch],
                [getattr(kept, validation)],
                "o",
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=1.4,
                markersize=10,
                label=(say("kept (epoch {epoch})", epoch=kept.epoch) if len(groups) == 1 else say("kept epoch"))
                if first
                else None,
            )
    _legend(axes)
    _mark_stages(axes, records, language, at_top)


def _mark_stages(axes: Axes, records: Sequence[EpochRecord], language: Language, at_top: bool) -> None:
    """Give the epochs whole numbers and, where there are several stages, borders and names.

    The names stand where curves seldom are: at the top of falling ones, at the bottom of rising ones.
    """
    groups = _by_stage(records)
    last = groups[-1][0] + groups[-1][1][-1].epoch
    axes.set_xlim(0.5 if last <= 3 else 1 - 0.03 * last, last + (0.5 if last <= 3 else 0.03 * last))
    axes.xaxis.set_major_locator(
        FixedLocator(list(range(1, last + 1))) if last <= 10 else MaxNLocator(8, integer=True, min_n_ticks=1)
    )
    axes.grid(False, axis="x")
    if len(groups) < 2:
        return
    axes.set_xlabel(language.say("epoch, counted over all stages"))
    for start, stage in groups:
        if start:
            axes.axvline(start + 0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        middle = start + (stage[-1].epoch + 1) / 2
        axes.text(
            middle,
            0.975 if at_top else 0.015,
            label(stage[0].stage, 14),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top" if at_top else "bottom",
            fontsize=8.5,
            color=MUTED,
        )


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=3,
        borderaxespad=0.2,
        handlelength=1.7,
        columnspacing=1.3,
        labelcolor=INK,
    )


def _font(classes: int) -> float:
    return float(np.interp(classes, [8, 22, 40, 60], [9.5, 9, 7.5, 6.5]))


def _paint_cells(axes: Axes, counts: np.ndarray) -> None:
    """Paint the cells that hold photos: right answers blue, wrong ones orange, darker for a larger share of the row."""
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    spots = [(int(row), int(column)) for row, column in np.argwhere(counts)]
    # Few of a row can be wrong and still matter: errors are coloured on a steeper scale.
    colours = [_CELLS(shares[s]) if s[0] == s[1] else _WRONG_CELLS(shares[s] ** 0.5) for s in spots]
    boxes = [Rectangle((column, row), 1, 1) for row, column in spots]
    axes.add_collection(PatchCollection(boxes, facecolors=colours, linewidths=0))
    lines = np.arange(1, size)
    axes.hlines(lines, 0, size, color=GRID, linewidth=0.5)
    axes.vlines(lines, 0, size, color=GRID, linewidth=0.5)
    for (row, column), colour in zip(spots, colours, strict=True):
        luminance = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
        count = int(counts[row, column])
        axes.text(
            column + 0.5,
            row + 0.5,
            str(count),
            ha="center",
            va="center",
            fontsize=_font(size) * (1 if count < 100 else 0.8 if count < 1000 else 0.6),
            color=CELL_DARK if luminance > 0.5 else CELL_LIGHT,
        )
