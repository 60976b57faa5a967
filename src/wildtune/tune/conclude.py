"""From what was tried to the recipe that is handed back, with a reason for each value."""

from __future__ import annotations

import json
from collections.abc import Mapping

from wildtune.language import recorded, recorded_counted
from wildtune.recipe import Recipe, Stage
from wildtune.tune.heads import RangeTest
from wildtune.tune.ledger import Ledger, Outcome, outcome_of
from wildtune.tune.result import Trial
from wildtune.tune.search import Comparison, Searcher, simplify
from wildtune.tune.spaces import NONE, TUNED, Settings, key_of
from wildtune.wording import nats, percent, rate

STEPS = ("origin", "range", "policies", "sweeps", "search", "compare", "confirm")


def choose(searcher: Searcher) -> tuple[Comparison | None, dict[str, Comparison | None]]:
    """Return the settings that are better than the start's, as near to these as can be; None where there are none."""
    compared = [searcher.compare(settings, searcher.start) for settings in searcher.finalists()]
    better = [found for found in compared if found is not None and found.better]
    if not better:
        return None, {}
    return simplify(searcher, min(better, key=lambda found: found.difference))


def with_stage(recipe: Recipe, number: int, stage: Stage) -> Recipe:
    """Return a recipe with one stage replaced, called "tuned"."""
    stages = (*recipe.stages[:number], stage, *recipe.stages[number + 1 :])
    return recipe.model_copy(update={"stages": stages, "name": "tuned"})


def best_policies(policies: Mapping[str, Outcome]) -> list[tuple[str, float, float, float, float]]:
    """Return (name, rate, loss, error, accuracy) of each policy at its best rate, the best first."""
    best: dict[str, tuple[float, str, float, float, float]] = {}
    for key, found in policies.items():
        if "failed" in found:
            continue
        (settings,) = json.loads(key)
        row = (found["loss"], settings["policy"], settings["lr"], found["error"], found["accuracy"])
        if settings["policy"] not in best or row < best[settings["policy"]]:
            best[settings["policy"]] = row
    return [(name, lr, loss, error, accuracy) for loss, name, lr, error, accuracy in sorted(best.values())]


def explain(
    searcher: Searcher,
    found: RangeTest,
    policies: Mapping[str, Outcome],
    winner: Comparison | None,
    needed: Mapping[str, Comparison | None],
) -> dict[str, str]:
    """Return why each tuned value of the stage is what it is, by its key in the stage's table."""
    start = searcher.start
    settings = winner.settings if winner else start
    trials = len(searcher.ledger.finished("search"))
    reasons: dict[str, str] = {}
    for name in TUNED:
        key = {"policy": "policy.name", "augment": "augment.crop"}.get(name, name)
        if winner and settings[name] != start[name]:
            without = needed.get(name)
            if without is not None:
                beaten = recorded(
                    "tuning",
                    "against {number_loss}, {accuracy} with {value}",
                    number_loss=nats(without.loss),
                    accuracy=percent(without.accuracy),
                    value=_value(name, start),
                )
            else:
                own = searcher.compare(start, winner.settings)
                beaten = _against_start(searcher.origin, own, _value(name, start))
            reasons[key] = recorded(
                "tuning",
                "validation loss {loss}, {accuracy} {beaten}",
                loss=nats(winner.loss),
                accuracy=percent(winner.accuracy),
                beaten=beaten,
            )
        else:
            reasons[key] = recorded_counted(
                "tuning",
                "{origin}: nothing in {n:,} trial beat it by more than its standard error",
                "{origin}: nothing in {n:,} trials beat it by more than its standard error",
                trials,
                origin=searcher.origin,
            )
    return {**reasons, **_rate_reasons(searcher, found, policies, settings, reasons)}


def _against_start(origin: str, own: Comparison | None, value: str) -> str:
    if own is None:
        return recorded("tuning", "against {origin} with {value}", origin=origin, value=value)
    return recorded(
        "tuning",
        "against {origin} {number_loss}, {accuracy} with {value}",
        origin=origin,
        number_loss=nats(own.loss),
        accuracy=percent(own.accuracy),
        value=value,
    )


def _rate_reasons(
    searcher: Searcher,
    found: RangeTest,
    policies: Mapping[str, Outcome],
    settings: Settings,
    reasons: Mapping[str, str],
) -> dict[str, str]:
    """Say of the rate where it lies within the range test, and of the policy how the others did."""
    start = searcher.start
    ranked = best_policies(policies)
    tested = {"low": rate(found.low), "high": rate(found.high)}
    said = {"lr": recorded("tuning", "{reason}; range test {low} to {high}", reason=reasons["lr"], **tested)}
    own = policies.get(key_of(start))
    alike = sorted(
        (outcome["loss"], key) for key, outcome in policies.items() if f'"policy": "{start["policy"]}"' in key
    )
    if settings["lr"] == start["lr"] and own and alike:
        said["lr"] = recorded_counted(
            "tuning",
            "{origin}: validation loss {loss}, the best of {n} rates {best}; range test {low} to {high}",
            "{origin}: validation loss {loss}, the best of {n} rates {best}; range test {low} to {high}",
            len(alike),
            origin=searcher.origin,
            loss=nats(own["loss"]),
            best=nats(alike[0][0]),
            **tested,
        )
    if settings["policy"] == start["policy"] and len(ranked) > 1:
        places = {name: (lr, loss) for name, lr, loss, _, _ in ranked}
        other = next(name for name, *_ in ranked if name != start["policy"])
        lr, loss = places[start["policy"]]
        said["policy.name"] = recorded(
            "tuning",
            "{origin}: validation loss {loss} at its best rate {rate}, the best other, {name}, {other_loss} at "
            "{other_rate}",
            origin=searcher.origin,
            loss=nats(loss),
            rate=rate(lr),
            name=other,
            other_loss=nats(places[other][1]),
            other_rate=rate(places[other][0]),
        )
    return said


def gather_trials(ledger: Ledger) -> tuple[Trial, ...]:
    """Return everything that was tried, in the order of the steps."""
    trials = []
    for step in STEPS:
        number = 0
        for trial in ledger.finished(step):
            if "copied" in trial.user_attrs:
                continue
            said = outcome_of(trial)
            failed = said.get("failed", "")
            full = trial.value is not None and "loss" in said and not failed
            trials.append(
                Trial(
                    step,
                    number,
                    said.get("what", ""),
                    said["loss"] if full else None,
                    said.get("error") if full else None,
                    said.get("accuracy") if full else None,
                    said.get("seconds", 0.0),
                    "done" if full else "failed" if failed else "stopped early",
                    failed,
                )
            )
            number += 1
    return tuple(trials)


def _value(name: str, settings: Settings) -> str:
    if name == "augment":
        return (
            recorded("part", "no augmentation") if settings[name] == NONE else recorded("part", "its own augmentation")
        )
    return f"{settings[name]:g}" if isinstance(settings[name], float) else str(settings[name])
