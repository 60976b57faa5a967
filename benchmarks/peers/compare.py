"""wildtune and its peers on the same photos, split and weights, in turn: times, rates, memory, and their ratios.

    python benchmarks/peers/compare.py PHOTOS --weights FILE [--rounds 3] [--only keras torch ...]

Makes an environment of its own for each peer the first time (several GB), below --folder. Needs an otherwise idle
machine. `--weights` is a safetensors file with timm's names of `efficientnet_b0`. Results, one line a job, are added
to FOLDER/results.jsonl; what was measured before is not measured again, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
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
EPOCH_LINE = re.compile(r"^(\S+) (\d+)/\d+ .*val accuracy (\S+)%")


@dataclass(frozen=True)
class Job:
    """One process to be timed: its name, the environment it runs in ("wildtune" or a peer) and its command line."""

    name: str
    peer: str
    command: tuple[str, ...]
    cold: bool = True


def list_jobs(photos: Path, weights: Path, split: Path) -> list[Job]:
    """Return every job of one round, wildtune's between the others'."""
    wildtune = str(Path(sys.executable).parent / "wildtune")
    ours = ("--backbone", "efficientnet_b0", "--weights", str(weights), "--out", "run")
    train = (wildtune, "train", str(photos), *ours)
    lab5 = (*train, "--recipe", "lab5", "--set", "input.clip=true", "--set", "stages.0.epochs=3", "--set")
    data = ("--photos", str(photos), "--split", str(split), "--weights", str(weights))
    return [
        Job("wildtune quick, nothing cached", "wildtune", (*train, "--recipe", "quick")),
        Job("wildtune quick, again", "wildtune", (*train, "--recipe", "quick"), cold=False),
        Job("keras lab5 (part)", "keras", ("keras_lab5.py", "train", *data, "--head-epochs", "3", "--epochs", "1")),
        Job("wildtune lab5 (part)", "wildtune", (*lab5, "stages.1.epochs=1")),
        Job("torch compiled", "torch", ("torch_loop.py", "compiled", *data)),
        Job("wildtune default", "wildtune", train),
        Job("torch eager (part)", "torch", ("torch_loop.py", "eager", *data, "--epochs", "1", "--steps", "20")),
        Job("fastai fine_tune (part)", "fastai", ("fastai_fine_tune.py", "train", *data, "--epochs", "1")),
        Job("lightning (part)", "lightning", ("lightning_loop.py", "train", *data, "--epochs", "1")),
        Job("keras predict", "keras", ("keras_lab5.py", "predict", *data)),
        Job("torch predict", "torch", ("torch_loop.py", "predict", *data)),
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
    errors = (place / "stderr").open("w")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="jobs whose name holds one of these words")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"))
    arguments = parser.parse_args()
    folder, photos, weights = arguments.folder.resolve(), arguments.photos.resolve(), arguments.weights.resolve()
    results, split = folder / "results.jsonl", folder / "split.csv"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = list_jobs(photos, weights, split)
    if not split.exists():  # wildtune's first job makes the split that all others read
        run_job(jobs[0], folder)
        shutil.copy(folder / "work" / "run" / "split.csv", split)
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for number in range(arguments.rounds):
        for job in jobs:
            wanted = not arguments.only or any(word in job.name for word in arguments.only)
            if not wanted or any((row["job"], row["round"]) == (job.name, number) for row in rows):
                continue
            row = {"job": job.name, "round": number, **run_job(job, folder)}
            if row["status"]:
                sys.exit(f"{job.name} failed; see {folder / 'work' / 'stderr'}")
            rows.append(row)
            with results.open("a") as handle:
                handle.write(json.dumps(row) + "\n")
            print(f"round {number + 1}: {job.name}: {row['seconds']:.1f} s, {row['peak_gib']:.2f} GiB", flush=True)
    print(summarise(rows))


if __name__ == "__main__":
    main()
