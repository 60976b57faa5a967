"""The page of a tuning: its charts, its trials with their cost, and what it hands back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from wildtune import files, wording
from wildtune.language import ENGLISH, Language, message
from wildtune.pages import create_environment
from wildtune.recipe import Stage
from wildtune.report.canvas import INK, MUTED, TRAINING, VALIDATION, axes_of, draw, inline
from wildtune.tune.origin import head_number
from wildtune.tune.result import Sweep, Trial, Tuning

_SIZE = (5.2, 3.3)
_SMALL = (3.4, 2.7)
_COLUMNS = ("step", "number", "state", "loss", "error", "accuracy", "seconds", "what", "reason")
_WHAT_AXES = {
    "crop_scale": message("least share of the area that a crop keeps"),
    "flip": message("chance of mirroring"),
    "rotation": message("largest turn, of a full turn"),
    "brightness": message("largest relative change"),
    "contrast": message("largest relative change"),
    "saturation": message("largest relative change"),
    "noise": message("standard deviation, of 255"),
}
_STATES = {"stopped early": message("stopped early"), "failed": message("failed")}


def write_tuning(tuning: Tuning, folder: Path, language: Language = ENGLISH) -> Path:
    """Write `index.html`, every chart as SVG and `trials.csv` into `folder`; return the path of the page."""
    charts = create_tuning_charts(tuning, language)
    for name, svg in charts.items():
        files.write_text(folder / f"{name}.svg", svg)
    rows = ([_cell(getattr(trial, column)) for column in _COLUMNS] for trial in tuning.trials)
    files.write_text(folder / "trials.csv", files.csv_text(_COLUMNS, rows))
    page = folder / "index.html"
    files.write_text(page, _render(tuning, charts, language))
    return page


def create_tuning_charts(tuning: Tuning, language: Language = ENGLISH) -> dict[str, str]:
    """Return every chart as SVG text, by the name of its file without `.svg`."""
    charts = {"range-test": _range_figure(tuning, language)}
    if tuning.policies:  # none where all of them diverged
        charts["policies"] = _policies_figure(tuning, language)
    charts |= {f"sweep-{sweep.name}": _sweep_figure(sweep, language) for sweep in tuning.sweeps}
    searched = [trial for trial in tuning.trials if trial.step == "search"]
    if any(trial.loss is not None for trial in searched):
        charts["search"] = _search_figure(tuning, searched, language)
    return charts


def _range_figure(tuning: Tuning, language: Language) -> str:
    found = tuning.range_test

    def paint(figure: Figure) -> None:
        title, across = language.say("Learning-rate range test"), language.say("learning rate")
        axes = axes_of(figure, title, across, language.say("loss (nats)"))
        axes.axvspan(found["low"], found["high"], color=VALIDATION, alpha=0.13, linewidth=0)
        axes.plot(found["rates"], found["losses"], color=INK, linewidth=1.6)
        axes.axvline(_start_stage(tuning).lr, color=TRAINING, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    words = language.say(
        "Loss by learning rate; sensible from {low} to {high}.",
        low=language.numeral(f"{found['low']:.2g}"),
        high=language.numeral(f"{found['high']:.2g}"),
    )
    return draw("range-test", words, _SIZE, paint, language)


def _policies_figure(tuning: Tuning, language: Language) -> str:
    rows = tuning.policies[::-1]

    def paint(figure: Figure) -> None:
        across = language.say("validation loss (nats), with standard error")
        axes = axes_of(figure, language.say("Policies at their best rates"), across, "")
        places = np.arange(len(rows))
        own = _start_stage(tuning).policy.name
        colours = [TRAINING if name == own else VALIDATION for name, *_ in rows]
        axes.hlines(
            places, [r[2] - r[3] for r in rows], [r[2] + r[3] for r in rows], colors=colours, linewidth=3.5, alpha=0.5
        )
        axes.scatter([r[2] for r in rows], places, color=colours, zorder=3)
        axes.set_yticks(places, [f"{name}, {language.rate(lr)}" for name, lr, *_ in rows], color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)

    best = tuning.policies[0]
    words = language.say_counted(
        "Validation loss of {n} policies; the lowest is {policy}'s at {rate}.",
        "Validation loss of {n} policies; the lowest is {policy}'s at {rate}.",
        len(rows),
        policy=best[0],
        rate=language.rate(best[1]),
    )
    return draw("policies", words, _SIZE, paint, language)


def _sweep_figure(sweep: Sweep, language: Language) -> str:
    def paint(figure: Figure) -> None:
        across = language.say(_WHAT_AXES.get(sweep.name, message("strength")))
        axes = axes_of(figure, sweep.name, across, language.say("change of loss (nats)"))
        axes.axhline(0, color=MUTED, linewidth=1.0)
        axes.errorbar(
            sweep.strengths, sweep.differences, sweep.errors, color=VALIDATION, marker="o", markersize=4, capsize=3
        )
        axes.xaxis.set_major_locator(MaxNLocator(5))

    best = min(range(len(sweep.strengths)), key=lambda i: sweep.differences[i])
    words = language.say(
        "{setting}: best at {strength}, change of loss {change}.",
        setting=sweep.name,
        strength=language.numeral(f"{sweep.strengths[best]:g}"),
        change=language.numeral(f"{sweep.differences[best]:+.3f}"),
    )
    return draw(f"sweep-{sweep.name}", words, _SMALL, paint, language)


def _search_figure(tuning: Tuning, searched: list[Trial], language: Language) -> str:
    say = language.say
    done = [(t.number + 1, t.loss) for t in searched if t.loss is not None]
    before = next((t.loss for t in tuning.trials if t.step == "policies" and t.loss is not None), None)

    def paint(figure: Figure) -> None:
        axes = axes_of(figure, say("Search of all values together"), say("trial"), say("validation loss (nats)"))
        numbers, losses = zip(*done, strict=True)
        axes.scatter(numbers, losses, color=VALIDATION, s=14, alpha=0.6, linewidth=0, label=say("tried in full"))
        best = np.minimum.accumulate(losses)
        axes.step(numbers, best, color=INK, where="post", linewidth=1.6, label=say("best so far"))
        low, high = min(losses), float(np.quantile(losses, 0.9))
        if before is not None:
            axes.axhline(before, color=TRAINING, linewidth=1.2, linestyle=(0, (4, 3)), label=say("the start"))
            low, high = min(low, before), max(high, before)
        spare = max(0.08 * (high - low), 1e-3)
        axes.set_ylim(low - spare, high + spare)  # a few very bad ones would flatten all the others
        stopped = [t.number + 1 for t in searched if t.loss is None]
        axes.plot(
            stopped, [low - 0.7 * spare] * len(stopped), "|", color=MUTED, markersize=5, label=say("stopped early")
        )
        axes.legend(loc="upper right", ncols=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3f}"))

    words = language.say_counted(
        "Validation loss of {n} trials; the lowest is {lowest}.",
        "Validation loss of {n} trials; the lowest is {lowest}.",
        len(searched),
        lowest=language.nats(min(loss for _, loss in done)),
    )
    return draw("search", words, _SIZE, paint, language)


def _render(tuning: Tuning, charts: dict[str, str], language: Language) -> str:
    drawn = {name: Markup(inline(svg)) for name, svg in charts.items()}
    stage, before = tuning.recipe.stages[tuning.stage], _start_stage(tuning)
    values = []
    for key, reason in tuning.reasons.items():
        first, _, second = key.partition(".")
        new, old = (_value_of(s, first, second, language) for s in (stage, before))
        why = language.retell("tuning", reason)
        values.append({"key": key, "old": old, "new": new, "changed": new != old, "reason": why})
    steps: dict[str, list[Trial]] = {}
    for trial in tuning.trials:
        steps.setdefault(trial.step, []).append(trial)
    return (
        create_environment("report", language)
        .get_template("tuning.html.jinja")
        .render(
            title=language.say("{backbone}, stage {stage}", backbone=tuning.start.backbone, stage=stage.name),
            start=wording.plain(tuning.start.name),
            said=[language.retell("tuning", sentence) for sentence in tuning.said],
            values=values,
            main=[drawn[name] for name in ("range-test", "policies", "search") if name in drawn],
            sweeps=[svg for name, svg in drawn.items() if name.startswith("sweep-")],
            costs=[
                (
                    _step_name(step, language),
                    len(some),
                    language.duration(sum(t.seconds for t in some) / len(some)),
                    language.duration(sum(t.seconds for t in some)),
                )
                for step, some in steps.items()
            ],
            total=(len(tuning.trials), language.duration(tuning.seconds)),
            trials=[_row(trial, language) for trial in tuning.trials],
        )
    )


def _start_stage(tuning: Tuning) -> Stage:
    """Return the start's stage that trains a head, whose number the recipe handed back need not share."""
    number = head_number(tuning.start)
    assert number is not None, "a tuning begins from a recipe with a head's stage"
    return tuning.start.stages[number]


def _value_of(stage: object, first: str, second: str, language: Language) -> str:
    value = getattr(stage, first)
    if first == "augment":
        changed = {k: v for k, v in value.model_dump().items() if v != getattr(type(value)(), k)}
        shown = ", ".join(f"{k} {_shown(v, language)}" for k, v in changed.items())
        return shown or language.say("none", context="augmentation")
    value = getattr(value, second) if second else value
    return language.numeral(f"{value:g}") if isinstance(value, float) else str(value)


def _shown(value: object, language: Language) -> str:
    return language.numeral(str(value)) if isinstance(value, int | float) else str(value)


def _step_name(step: str, language: Language) -> str:
    """Return a step of the search in words; English has its key."""
    names = {
        "origin": message("origin"),
        "range": message("range"),
        "policies": message("policies"),
        "sweeps": message("sweeps"),
        "search": message("search"),
        "compare": message("compare"),
        "confirm": message("confirm"),
    }
    return language.say(names[step]) if step in names else step


def _row(trial: Trial, language: Language) -> dict[str, str]:
    what, reason = language.retell("trial", trial.what), language.retell("trial", trial.reason)
    state = language.say(_STATES[trial.state]) if trial.state in _STATES else trial.state
    return {
        "step": _step_name(trial.step, language),
        "number": str(trial.number),
        "what": f"{what}: {reason}" if reason else what,
        "loss": state if trial.loss is None else language.nats(trial.loss),
        "error": "" if trial.error is None else language.nats(trial.error),
        "accuracy": "" if trial.accuracy is None else language.percent(trial.accuracy),
        "seconds": language.duration(trial.seconds),
    }


def _cell(value: object) -> object:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
