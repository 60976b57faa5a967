"""The page of a tuning: its charts, its trials with their cost, and what it hands back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from wildtune import files, wording
from wildtune.pages import create_environment
from wildtune.recipe import Stage
from wildtune.report.canvas import INK, MUTED, TRAINING, VALIDATION, axes_of, draw, inline
from wildtune.tune.origin import head_number
from wildtune.tune.result import Sweep, Trial, Tuning

_SIZE = (5.2, 3.3)
_SMALL = (3.4, 2.7)
_COLUMNS = ("step", "number", "state", "loss", "error", "accuracy", "seconds", "what", "reason")
_WHAT_AXES = {
    "crop_scale": "least share of the area that a crop keeps",
    "flip": "chance of mirroring",
    "rotation": "largest turn, of a full turn",
    "brightness": "largest relative change",
    "contrast": "largest relative change",
    "saturation": "largest relative change",
    "noise": "standard deviation, of 255",
}


def write_tuning(tuning: Tuning, folder: Path) -> Path:
    """Write `index.html`, every chart as SVG and `trials.csv` into `folder`; return the path of the page."""
    charts = create_tuning_charts(tuning)
    for name, svg in charts.items():
        files.write_text(folder / f"{name}.svg", svg)
    rows = ([_cell(getattr(trial, column)) for column in _COLUMNS] for trial in tuning.trials)
    files.write_text(folder / "trials.csv", files.csv_text(_COLUMNS, rows))
    page = folder / "index.html"
    files.write_text(page, _render(tuning, charts))
    return page


def create_tuning_charts(tuning: Tuning) -> dict[str, str]:
    """Return every chart as SVG text, by the name of its file without `.svg`."""
    charts = {"range-test": _range_figure(tuning)}
    if tuning.policies:  # none where all of them diverged
        charts["policies"] = _policies_figure(tuning)
    charts |= {f"sweep-{sweep.name}": _sweep_figure(sweep) for sweep in tuning.sweeps}
    searched = [trial for trial in tuning.trials if trial.step == "search"]
    if any(trial.loss is not None for trial in searched):
        charts["search"] = _search_figure(tuning, searched)
    return charts


def _range_figure(tuning: Tuning) -> str:
    found = tuning.range_test

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, "Learning-rate range test", "learning rate", "loss (nats)")
        axes.axvspan(found["low"], found["high"], color=VALIDATION, alpha=0.13, linewidth=0)
        axes.plot(found["rates"], found["losses"], color=INK, linewidth=1.6)
        axes.axvline(_start_stage(tuning).lr, color=TRAINING, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    words = f"Loss by learning rate; sensible from {found['low']:.2g} to {found['high']:.2g}."
    return draw("range-test", words, _SIZE, paint)


def _policies_figure(tuning: Tuning) -> str:
    rows = tuning.policies[::-1]

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, "Policies at their best rates", "validation loss (nats), with standard error", "")
        places = np.arange(len(rows))
        own = _start_stage(tuning).policy.name
        colours = [TRAINING if name == own else VALIDATION for name, *_ in rows]
        axes.hlines(
            places, [r[2] - r[3] for r in rows], [r[2] + r[3] for r in rows], colors=colours, linewidth=3.5, alpha=0.5
        )
        axes.scatter([r[2] for r in rows], places, color=colours, zorder=3)
        axes.set_yticks(places, [f"{name}, {wording.rate(lr)}" for name, lr, *_ in rows], color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)

    best = tuning.policies[0]
    words = f"Validation loss of {len(rows)} policies; the lowest is {best[0]}'s at {wording.rate(best[1])}."
    return draw("policies", words, _SIZE, paint)


def _sweep_figure(sweep: Sweep) -> str:
    def paint(figure: Figure) -> None:
        axes = axes_of(figure, sweep.name, _WHAT_AXES.get(sweep.name, "strength"), "change of loss (nats)")
        axes.axhline(0, color=MUTED, linewidth=1.0)
        axes.errorbar(
            sweep.strengths, sweep.differences, sweep.errors, color=VALIDATION, marker="o", markersize=4, capsize=3
        )
        axes.xaxis.set_major_locator(MaxNLocator(5))

    best = min(range(len(sweep.strengths)), key=lambda i: sweep.differences[i])
    words = f"{sweep.name}: best at {sweep.strengths[best]:g}, change of loss {sweep.differences[best]:+.3f}."
    return draw(f"sweep-{sweep.name}", words, _SMALL, paint)


def _search_figure(tuning: Tuning, searched: list[Trial]) -> str:
    done = [(t.number + 1, t.loss) for t in searched if t.loss is not None]
    before = next((t.loss for t in tuning.trials if t.step == "policies" and t.loss is not None), None)

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, "Search of all values together", "trial", "validation loss (nats)")
        numbers, losses = zip(*done, strict=True)
        axes.scatter(numbers, losses, color=VALIDATION, s=14, alpha=0.6, linewidth=0, label="tried in full")
        axes.step(numbers, np.minimum.accumulate(losses), color=INK, where="post", linewidth=1.6, label="best so far")
        low, high = min(losses), float(np.quantile(losses, 0.9))
        if before is not None:
            axes.axhline(before, color=TRAINING, linewidth=1.2, linestyle=(0, (4, 3)), label="the start")
            low, high = min(low, before), max(high, before)
        spare = max(0.08 * (high - low), 1e-3)
        axes.set_ylim(low - spare, high + spare)  # a few very bad ones would flatten all the others
        stopped = [t.number + 1 for t in searched if t.loss is None]
        axes.plot(stopped, [low - 0.7 * spare] * len(stopped), "|", color=MUTED, markersize=5, label="stopped early")
        axes.legend(loc="upper right", ncols=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3f}"))

    words = f"Validation loss of {len(searched)} trials; the lowest is {min(loss for _, loss in done):.3f}."
    return draw("search", words, _SIZE, paint)


def _render(tuning: Tuning, charts: dict[str, str]) -> str:
    drawn = {name: Markup(inline(svg)) for name, svg in charts.items()}
    stage, before = tuning.recipe.stages[tuning.stage], _start_stage(tuning)
    values = []
    for key, reason in tuning.reasons.items():
        first, _, second = key.partition(".")
        new, old = (_value_of(s, first, second) for s in (stage, before))
        values.append({"key": key, "old": old, "new": new, "changed": new != old, "reason": reason})
    steps: dict[str, list[Trial]] = {}
    for trial in tuning.trials:
        steps.setdefault(trial.step, []).append(trial)
    return (
        create_environment("report")
        .get_template("tuning.html.jinja")
        .render(
            title=f"{tuning.start.backbone}, stage {stage.name}",
            start=wording.plain(tuning.start.name),
            said=tuning.said,
            values=values,
            main=[drawn[name] for name in ("range-test", "policies", "search") if name in drawn],
            sweeps=[svg for name, svg in drawn.items() if name.startswith("sweep-")],
            costs=[
                (
                    step,
                    len(some),
                    wording.duration(sum(t.seconds for t in some) / len(some)),
                    wording.duration(sum(t.seconds for t in some)),
                )
                for step, some in steps.items()
            ],
            total=(len(tuning.trials), wording.duration(tuning.seconds)),
            trials=[_row(trial) for trial in tuning.trials],
        )
    )


def _start_stage(tuning: Tuning) -> Stage:
    """Return the start's stage that trains a head, whose number the recipe handed back need not share."""
    number = head_number(tuning.start)
    assert number is not None, "a tuning begins from a recipe with a head's stage"
    return tuning.start.stages[number]


def _value_of(stage: object, first: str, second: str) -> str:
    value = getattr(stage, first)
    if first == "augment":
        changed = {k: v for k, v in value.model_dump().items() if v != getattr(type(value)(), k)}
        return ", ".join(f"{k} {v}" for k, v in changed.items()) or "none"
    value = getattr(value, second) if second else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(trial: Trial) -> dict[str, str]:
    return {
        "step": trial.step,
        "number": str(trial.number),
        "what": f"{trial.what}: {trial.reason}" if trial.reason else trial.what,
        "loss": trial.state if trial.loss is None else wording.nats(trial.loss),
        "error": "" if trial.error is None else wording.nats(trial.error),
        "accuracy": "" if trial.accuracy is None else wording.percent(trial.accuracy),
        "seconds": wording.duration(trial.seconds),
    }


def _cell(value: object) -> object:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
