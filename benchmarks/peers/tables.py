"""The tables of a comparison, from what was saved of each job: medians, from the least to the most, ratios in a round.

A ratio is the peer's time by wildtune's, or wildtune's rate by the peer's: above 1 wildtune is the faster. It is taken
within a round, because a machine's speed drifts between rounds.
"""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Iterable
from pathlib import Path

QUICK = "wildtune quick"
DEFAULT = "wildtune default"
# What each peer's stage is held against: the same recipe where wildtune has it, else its own fine-tuning.
STAGES = (
    ("the report's head", "transfer", ("keras lab5",), "wildtune lab5"),
    ("the report's fine-tuning", "finetune", ("keras lab5",), "wildtune lab5"),
    (
        "fine-tuning",
        "finetune",
        ("torch, compiled", "torch, eager", "lightning, compiled", "fastai fine_tune", "keras lab5"),
        DEFAULT,
    ),
)
REPORT = ("keras lab5", "wildtune lab5")
REPORT_EPOCHS = {"transfer": 20, "finetune": 20}
PREDICTORS = (
    "wildtune again",
    "wildtune bfloat16",
    "keras",
    "keras bfloat16",
    "torch",
    "torch bfloat16",
    "fastai",
    "lightning",
)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Return the median, and from the least to the most where there are several."""
    values = list(values)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    rows = [heads, ("---",) * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def epochs_of(row: dict, stage: str) -> list[dict]:
    """Return the epochs of a stage, in order."""
    return [e for e in row["events"] if e["event"] == "epoch" and e["stage"] == stage]


def epoch_seconds(row: dict, stage: str) -> tuple[float, bool] | None:
    """Return how long an epoch takes, validation included, and whether it is a steady one.

    Steady epochs are those after a stage's first, which may build a graph or compile; from line to line, so that what
    is done between two epochs counts. Where there was one epoch only, it is that one. None where there was none.
    """
    epochs = epochs_of(row, stage)
    if len(epochs) > 1:
        return statistics.median(b["seconds"] - a["seconds"] for a, b in itertools.pairwise(epochs)), True
    return (epochs[0]["epoch_s"], "eager" in row["job"]) if epochs else None


def reckon_report(row: dict) -> tuple[float, bool] | None:
    """Return the seconds of the report's 20 + 20 epochs, and whether they are reckoned from fewer, by steady ones."""
    missing = 0.0
    for stage, whole in REPORT_EPOCHS.items():
        each, left = epoch_seconds(row, stage), whole - len(epochs_of(row, stage))
        if each is None:
            return None
        missing += left * each[0]
    return row["seconds"] + missing, missing > 0


def seconds_to(row: dict, accuracy: float) -> float | None:
    """Return when a job's validation accuracy first reached what is asked, in seconds from its start."""
    return min((e["seconds"] for e in row["events"] if e.get("val_accuracy", 0.0) >= accuracy - 1e-6), default=None)


def best_accuracy(row: dict) -> float | None:
    """Return the highest validation accuracy of any epoch."""
    return max((e["val_accuracy"] for e in row["events"] if "val_accuracy" in e), default=None)


def count_photos(rows: list[dict], folder: Path) -> dict[int, dict[str, int]]:
    """Return how many photos each round has on each side of its split."""
    counts = {}
    for number in {row["round"] for row in rows}:
        with open(folder / f"round-{number}" / "split.csv", encoding="utf-8", newline="") as handle:
            sides = [line["split"] for line in csv.DictReader(handle)]
        counts[number] = {side: sides.count(side) for side in ("train", "val", "test")}
    return counts


class Comparison:
    """The rows of a comparison by job and round."""

    def __init__(self, rows: list[dict], counts: dict[int, dict[str, int]]) -> None:
        self.rows, self.counts = rows, counts
        self.by_job: dict[str, dict[int, dict]] = {}
        for row in rows:
            self.by_job.setdefault(row["job"], {})[row["round"]] = row

    def rounds_of(self, *jobs: str) -> list[int]:
        """Return the rounds in which all of these jobs were measured."""
        return sorted(set.intersection(*(set(self.by_job.get(job, {})) for job in jobs)))

    def commands(self) -> str:
        """Return the table of whole commands."""
        lines = []
        for job, rounds in self.by_job.items():
            mine = list(rounds.values())
            right = [100 * best for row in mine if (best := best_accuracy(row)) is not None]
            peak = spread((row["peak_gib"] for row in mine), 2)
            lines.append((job, spread(row["seconds"] for row in mine), peak, spread(right) if right else ""))
        return table(("Command, start to end", "Seconds", "Peak memory, GiB", "Best validation accuracy, %"), lines)

    def stages(self) -> str:
        """Return the table of photos a second while training, whole epochs with their validation."""
        lines = []
        for what, stage, peers, ours in STAGES:
            for peer in peers:
                rates, ratios, steady = [], [], True
                for number in self.rounds_of(peer, ours):
                    theirs = epoch_seconds(self.by_job[peer][number], stage)
                    mine = epoch_seconds(self.by_job[ours][number], stage)
                    if theirs and mine:
                        photos, steady = self.counts[number]["train"], steady and theirs[1] and mine[1]
                        rates.append((photos / theirs[0], photos / mine[0]))
                        ratios.append(theirs[0] / mine[0])
                if rates:
                    theirs_s, mine_s = (spread(each) for each in zip(*rates, strict=True))
                    mark = "" if steady else " (with the first epoch's building)"
                    lines.append((f"{what}: {peer}{mark}", theirs_s, f"{mine_s} ({ours})", spread(ratios, 2)))
        return table(("Photos a second while training", "Peer", "wildtune", "Ratio"), lines)

    def predictions(self) -> str:
        """Return the table of start-up (one photo) and of photos a second beyond it."""
        lines = []
        names = [name for name in PREDICTORS if self.rounds_of(f"{name} predict", f"{name} predict one photo")]
        for name in ("wildtune", *names):
            rounds = self.rounds_of(f"{name} predict", f"{name} predict one photo", "wildtune predict one photo")
            start = [self.by_job[f"{name} predict one photo"][number]["seconds"] for number in rounds]
            ours = [self.by_job["wildtune predict one photo"][number]["seconds"] for number in rounds]
            start_ratio = spread((a / b for a, b in zip(start, ours, strict=True)), 2)
            rates = [(self.rate(name, number), self.rate("wildtune", number)) for number in rounds]
            said = "too few photos to say", ""
            if all(theirs > 0 and mine > 0 for theirs, mine in rates):
                said = spread(theirs for theirs, _ in rates), spread((mine / theirs for theirs, mine in rates), 2)
            lines.append((name, spread(start), start_ratio, *said))
        heads = (
            "Predicting from a folder",
            "One photo, start to end, s",
            "Ratio",
            "Photos a second beyond it",
            "Ratio",
        )
        return table(heads, lines)

    def rate(self, name: str, number: int) -> float:
        """Return how many photos more a second a tool predicts, from its times for the folder and for one photo.

        0 where the folder took not even half as long again as one photo: chance then decides the difference.
        """
        whole, one = (self.by_job[f"{name} {what}"][number] for what in ("predict", "predict one photo"))
        beyond = whole["seconds"] - one["seconds"]
        return (whole["photos"] - 1) / beyond if beyond > one["seconds"] / 2 else 0.0

    def report(self) -> str:
        """Return the table of the report's whole recipe."""
        lines, whole = [], {}
        for job in REPORT:
            found = {n: reckoned for n in self.rounds_of(*REPORT) if (reckoned := reckon_report(self.by_job[job][n]))}
            whole[job] = {number: seconds for number, (seconds, _) in found.items()}
            if found:
                how = "reckoned" if any(reckoned for _, reckoned in found.values()) else "measured"
                lines.append((job, spread(whole[job].values(), 0), how))
        if all(whole.values()):
            ratios = [seconds / whole[REPORT[1]][number] for number, seconds in whole[REPORT[0]].items()]
            lines.append(("ratio", spread(ratios, 2), ""))
        return table(("The report's 20 + 20 epochs", "Seconds", "How"), lines)

    def times_to_accuracy(self) -> str:
        """Return the table of when each peer was at its best on validation, and when wildtune was as good."""
        lines = []
        for job, rounds in self.by_job.items():
            if job.startswith("wildtune") or best_accuracy(next(iter(rounds.values()))) is None:
                continue
            for number, row in rounds.items():
                best = best_accuracy(row)
                took = seconds_to(row, best)
                said = []
                for ours in (QUICK, DEFAULT):
                    other = self.by_job.get(ours, {}).get(number)
                    when = seconds_to(other, best) if other else None
                    said.append(f"{when:.0f}, ratio {took / when:.1f}" if when else "not reached")
                lines.append((str(number), job, f"{100 * best:.1f}", f"{took:.0f}", *said))
        heads = ("Round", "Peer", "Its best validation accuracy, %", "Reached after, s", QUICK + ", s", DEFAULT + ", s")
        return table(heads, lines)


def print_tables(rows: list[dict], folder: Path) -> str:
    """Return all tables of the rows of one comparison."""
    counts = count_photos(rows, folder)
    made = Comparison(rows, counts)
    sides = "; ".join(f"round {n}: " + ", ".join(f"{c} {s}" for s, c in counts[n].items()) for n in sorted(counts))
    parts = [made.commands(), made.stages(), made.predictions(), made.report(), made.times_to_accuracy()]
    parts = [part for part in parts if part.count("\n") > 1]
    return f"Photos: {sides}.\n\n" + "\n\n".join(parts) + "\n"
