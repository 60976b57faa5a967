"""From what was tried to the recipe that is handed back, with a reason for each value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from wildtune.language import recorded, recorded_counted
from wildtune.recipe import Recipe, Stage
from wildtune.tune.heads import RangeTest
from wildtune.tune.ledger import Ledger, Outcome, outcome_of
from wildtune.tune.result import Trial
from wildtune.tune.search import Comparison, Searcher, simplify
from wildtune.tune.spaces import NONE, TUNED, Settings, key_of
from wildtune.wording import nats, percent, rate

STEPS = ("origin", "range", "policies", "sweeps", "search", "compare", "confirm")


@dataclass(frozen=True)
class Choice:
    """What came of comparing the best few settings with the start's.

    compared  how many could be compared before time ran out
    winner    what is left of the best once values that are not needed were put back; None where none was better
    needed    for each value that stays changed, the winner without that change, against it; None where that is the
              start itself, or time had run out
    put_back  the values whose change gained no more than its standard error
    """

    compared: int
    winner: Comparison | None = None
    needed: Mapping[str, Comparison | None] = field(default_factory=dict)
    put_back: frozenset[str] = frozenset()


def choose(searcher: Searcher) -> Choice:
    """Look for settings that are better than the start's, as near to these as can be."""
    compared = [searcher.compare(settings, searcher.start) for settings in searcher.finalists()]
    known = [found for found in compared if found is not None]
    better = [found for found in known if found.better]
    if not better:
        return Choice(len(known))
    best = min(better, key=lambda found: found.difference)
    winner, needed = simplify(searcher, best)
    put_back = frozenset(name for name in TUNED if best.settings[name] != winner.settings[name])
    return Choice(len(known), winner, needed, put_back)


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


def explain(searcher: Searcher, found: RangeTest, policies: Mapping[str, Outcome], choice: Choice) -> dict[str, str]:
    """Return why each tuned value of the stage is what it is, by its key in the stage's table."""
    keys = {name: {"policy": "policy.name", "augment": "augment.crop"}.get(name, name) for name in TUNED}
    reasons = {key: _explain_value(searcher, choice, name) for name, key in keys.items()}
    return {**reasons, **_rate_reasons(searcher, found, policies, choice, reasons)}


def _explain_value(searcher: Searcher, choice: Choice, name: str) -> str:
    start, winner = searcher.start, choice.winner
    if winner is None or winner.settings[name] == start[name]:
        return _why_kept(searcher, choice, name)
    without = choice.needed.get(name)
    if without is not None:
        beaten = recorded(
            "tuning",
            "against {number_loss}, {accuracy} with {value}",
            number_loss=nats(without.loss),
            accuracy=percent(without.accuracy),
            value=_value(name, start),
        )
    else:
        beaten = _against_start(searcher.origin, searcher.compare(start, winner.settings), _value(name, start))
    return recorded(
        "tuning",
        "validation loss {loss}, {accuracy} {beaten}",
        loss=nats(winner.loss),
        accuracy=percent(winner.accuracy),
        beaten=beaten,
    )


def _why_kept(searcher: Searcher, choice: Choice, name: str) -> str:
    origin = searcher.origin
    if name in choice.put_back:
        return recorded(
            "tuning", "{origin}: put back, because the change gained no more than its standard error", origin=origin
        )
    if choice.winner is not None:
        return recorded("tuning", "{origin}: the settings that did best have it too", origin=origin)
    if not choice.compared:
        return recorded("tuning", "{origin}: time ran out before anything could be compared with it", origin=origin)
    if choice.compared == 1:
        return recorded_counted(
            "tuning",
            "{origin}: the best of {n:,} trial of policies and search did not beat it by more than its standard error",
            "{origin}: the best of {n:,} trials of policies and search did not beat it by more than its standard error",
            len(searcher.tried()),
            origin=origin,
        )
    return recorded_counted(
        "tuning",
        "{origin}: none of the best {count} of {n:,} trial of policies and search beat it by more than its standard "
        "error",
        "{origin}: none of the best {count} of {n:,} trials of policies and search beat it by more than its standard "
        "error",
        len(searcher.tried()),
        origin=origin,
        count=choice.compared,
    )


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
    choice: Choice,
    reasons: Mapping[str, str],
) -> dict[str, str]:
    """Say of the rate where it lies within the range test, and of the policy how the others did."""
    start = searcher.start
    settings = choice.winner.settings if choice.winner else start
    ranked = best_policies(policies)
    tested = {"low": rate(found.low), "high": rate(found.high)}
    said = {"lr": recorded("tuning", "{reason}; range test {low} to {high}", reason=reasons["lr"], **tested)}
    own = policies.get(key_of(start))
    alike = sorted(
        (outcome["loss"], key) for key, outcome in policies.items() if f'"policy": "{start["policy"]}"' in key
    )
    if settings["lr"] == start["lr"] and "lr" not in choice.put_back and own and len(alike) > 1:
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
    places = {name: (lr, loss) for name, lr, loss, _, _ in ranked}
    kept = settings["policy"] == start["policy"] and "policy" not in choice.put_back
    if kept and start["policy"] in places and len(places) > 1:
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
