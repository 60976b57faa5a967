"""wildtune and its peers on the same photos, split and weights, in turn: times, rates, memory, and their ratios.

    python benchmarks/peers/compare.py PHOTOS --weights FILE [--rounds 3] [--only keras torch ...]

Makes an environment of its own for each peer the first time (several GB), below --folder. Needs an otherwise idle
machine. `--weights` is a safetensors file with timm's names of `efficientnet_b0`. Each round has a seed of its own,
and with it a split that all share. Results, one line a job, are added to FOLDER/results.jsonl; what was measured
before is not measured again, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TORCH = ["torch", "torchvision", "timm", "safetensors"]
REQUIREMENTS = {
    "keras": ["tensorflow-cpu", "safetensors", "pillow"],
    "torch": TORCH,
    "fastai": ["fastai", *TORCH],
    "lightning": ["lightning", *TORCH],
}
# The report trains 20 + 20 epochs; its steady epochs are alike, so that fewer are run and the rest reckoned.
REPORT_EPOCHS = 20
QUICK = "wildtune quick, nothing cached"
EPOCH_LINE = re.compile(r"^(\S+) (\d+)/\d+ .*val accuracy (\S+)%")


@dataclass(frozen=True)
class Job:
    """One process to be timed: its name, the environment it runs in ("wildtune" or a peer) and its command line."""

    name: str
    peer: str
    command: tuple[str, ...]
    cold: bool = True


def list_jobs(photos: Path, weights: Path, folder: Path, seed: int) -> list[Job]:
    """Return every job of one round, wildtune's between the others'; the first makes the split that all share."""
    wildtune = str(Path(sys.executable).parent / "wildtune")
    ours = ("--backbone", "efficientnet_b0", "--weights", str(weights), "--out", "run")
    seeds = ("--set", f"seed={seed}", "--set", f"split.seed={seed}")
    train = (wildtune, "train", str(photos), *ours, *seeds)
    lab5 = (*train, "--recipe", "lab5", "--set", "input.clip=true", "--set", "stages.0.epochs=3", "--set")
    split = str(folder / f"split-{seed}.csv")
    data = ("--photos", str(photos), "--split", split, "--weights", str(weights), "--seed", str(seed))
    predict = (wildtune, "predict", str(folder / f"run-{seed}"), str(photos), "--out", "predictions.csv")
    return [
        Job(QUICK, "wildtune", (*train, "--recipe", "quick")),
        Job("wildtune quick, again", "wildtune", (*train, "--recipe", "quick"), cold=False),
        Job("keras predict", "keras", ("keras_lab5.py", "predict", *data)),
        Job("wildtune predict", "wildtune", predict, cold=False),
        Job("torch predict", "torch", ("torch_loop.py", "predict", *data)),
        Job("torch compiled", "torch", ("torch_loop.py", "compiled", *data)),
        Job("wildtune default", "wildtune", train),
        Job("keras lab5 (part)", "keras", ("keras_lab5.py", "train", *data, "--head-epochs", "3", "--epochs", "2")),
        Job("wildtune lab5 (part)", "wildtune", (*lab5, "stages.1.epochs=4")),
        Job("torch eager (part)", "torch", ("torch_loop.py", "eager", *data, "--epochs", "1", "--steps", "20")),
        Job("fastai fine_tune (part)", "fastai", ("fastai_fine_tune.py", "train", *data, "--epochs", "1")),
        Job("lightning (part)", "lightning", ("lightning_loop.py", "train", *data, "--epochs", "1")),
    ]


def create_environment(folder: Path, peer: str) -> Path:
    """Return the Python of a peer's environment, made when it is not there yet."""
    place = folder / "environments" / peer
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        print(f"making the environment of {peer}", flush=True)
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)
        (place / "ready").touch()
    return python


def run_job(job: Job, folder: Path) -> dict[str, object]:
    """Run one job in an empty folder; return its seconds, peak memory in GiB, exit status and events."""
    place = folder / "work"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    command = list(job.command)
    if job.peer != "wildtune":
        command = [str(create_environment(folder, job.peer)), str(HERE / command[0]), *command[1:]]
    cache = folder / "cache"
    if job.cold:
        shutil.rmtree(cache, ignore_errors=True)
    started = time.time()
    environment = {**os.environ, "BENCHMARK_STARTED": str(started), "WILDTUNE_CACHE": str(cache)}
    # wildtune tells what it does on standard error, so that its output can be piped.
    errors = subprocess.STDOUT if job.peer == "wildtune" else (place / "stderr").open("w")
    process = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    events = [event for line in process.stdout if (event := read_line(line, time.time() - started))]
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.time() - started
    return {"seconds": seconds, "peak_gib": usage.ru_maxrss / 2**20, "status": status, "events": events}


def read_line(line: str, seconds: float) -> dict[str, object] | None:
    """Return what a line of a peer or of wildtune says of an epoch, or None."""
    if line.startswith("{"):
        return dict(json.loads(line))
    if found := EPOCH_LINE.match(line):
        accuracy = float(found[3]) / 100
        return {
            "event": "epoch",
            "stage": found[1],
            "epoch": int(found[2]),
            "seconds": seconds,
            "val_accuracy": accuracy,
        }
    return None


def summarise(rows: list[dict]) -> str:
    """Return the table of medians with their spread."""
    lines = [f"{'job':34} {'rounds':>6} {'seconds':>24} {'peak GiB':>9}  best val accuracy / images a second"]
    for name in dict.fromkeys(row["job"] for row in rows):
        mine = [row for row in rows if row["job"] == name]
        seconds = [row["seconds"] for row in mine]
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        events = [event for row in mine for event in row["events"]]
        accuracy = max((e["val_accuracy"] for e in events if e.get("val_accuracy")), default=None)
        stages: dict[str, list[float]] = {}
        for event in events:
            if event.get("images_per_s"):
                stages.setdefault(event.get("stage", event["event"]), []).append(event["images_per_s"])
        rates = ", ".join(f"{stage} {statistics.median(values):.1f}" for stage, values in stages.items())
        peak = statistics.median(row["peak_gib"] for row in mine)
        best = f"{accuracy:.2%}" if accuracy else ""
        lines.append(f"{name:34} {len(mine):6} {spread:>24} {peak:9.2f}  {best} {rates}")
    return "\n".join(lines)


def reckon_report(row: dict) -> float | None:
    """Return the seconds that the report's 20 + 20 epochs take, from a run of a few: those after the first repeat."""
    ends: dict[str, list[float]] = {}
    for event in row["events"]:
        if event["event"] == "epoch":
            ends.setdefault(event["stage"], []).append(event["seconds"])
    if any(len(times) < 2 for times in ends.values()):
        return None
    steady = [statistics.median(b - a for a, b in itertools.pairwise(times)) for times in ends.values()]
    left = [REPORT_EPOCHS - len(times) for times in ends.values()]
    return float(row["seconds"] + sum(epochs * each for epochs, each in zip(left, steady, strict=True)))


def seconds_to(row: dict, accuracy: float) -> float | None:
    """Return when a run's validation accuracy first reached what is asked, in seconds from its start."""
    reached = [e["seconds"] for e in row["events"] if (e.get("val_accuracy") or 0) >= accuracy]
    return min(reached, default=None)


def compare_times(rows: list[dict]) -> str:
    """Return the report's recipe reckoned whole, and the time to the accuracy of six plain compiled epochs."""
    lines = []
    for row in rows:
        if "lab5" in row["job"] and (whole := reckon_report(row)):
            lines.append(f"round {row['round']}: {row['job']}: 20 + 20 epochs reckoned {whole:.0f} s")
    for plain in (row for row in rows if row["job"] == "torch compiled"):
        target = plain["events"][-2]["val_accuracy"]
        took = seconds_to(plain, target)
        for row in rows:
            if row["round"] == plain["round"] and row["job"] in (QUICK, "wildtune default"):
                when = seconds_to(row, target)
                said = f"{when:.0f} s, {when / took:.2f} of it" if when else "not reached"
                lines.append(f"round {row['round']}: {target:.2%} by {plain['job']} {took:.0f} s; {row['job']}: {said}")
    return "\n".join(lines)


def measure(job: Job, number: int, folder: Path) -> dict:
    """Run one job of a round, print a line about it and return its row; a failed one ends the comparison."""
    row = {"job": job.name, "round": number, **run_job(job, folder)}
    if row["status"]:
        sys.exit(f"{job.name} failed; see {folder / 'work' / 'stderr'}")
    print(f"round {number}: {job.name}: {row['seconds']:.1f} s, {row['peak_gib']:.2f} GiB", flush=True)
    if job.name == QUICK:
        run = folder / f"run-{number}"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(folder / "work" / "run", run)
        shutil.copy(run / "split.csv", folder / f"split-{number}.csv")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="jobs whose name holds one of these words")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"))
    arguments = parser.parse_args()
    folder, photos, weights = arguments.folder.resolve(), arguments.photos.resolve(), arguments.weights.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for number in range(arguments.rounds):
        for job in list_jobs(photos, weights, folder, number):
            wanted = job.name == QUICK or not arguments.only or any(word in job.name for word in arguments.only)
            if not wanted or any((row["job"], row["round"]) == (job.name, number) for row in rows):
                continue
            rows.append(measure(job, number, folder))
            with results.open("a") as handle:
                handle.write(json.dumps(rows[-1]) + "\n")
    print(summarise(rows))
    print(compare_times(rows))


if __name__ == "__main__":
    main()
