"""wildtune and its peers on the same photos, split and weights, in turn: times, rates, memory, and their ratios.

    python benchmarks/peers/compare.py PHOTOS --weights FILE
    python benchmarks/peers/compare.py PHOTOS --weights FILE --rounds 1 --head-epochs 2 --epochs 2 --per-class 30

Run it with the Python that has wildtune, on a machine with nothing else to do. It makes an environment of its own for
each peer the first time (20 GB in all), below --folder. PHOTOS are class folders; FILE is a safetensors file with
timm's names of `efficientnet_b0`. Each round has a seed of its own, and with it a split that all share.

What each part measured is saved below --folder; what was measured before with the same options is not measured again,
so that an interrupted comparison goes on. The tables are printed at the end, in Markdown, and saved as `tables.md`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from events import list_photos
from processes import Timed, run_timed
from tables import QUICK, print_tables

from wildtune import runtime

HERE = Path(__file__).resolve().parent
PEERS = ("keras", "torch", "fastai", "lightning")
# Those built on torch get the same one that wildtune runs on.
TORCH = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "torchvision", "timm")]
REQUIREMENTS = {
    "keras": ["tensorflow", "safetensors", "pillow"],
    "torch": [*TORCH, "safetensors", "pillow"],
    "fastai": ["fastai", *TORCH, "safetensors"],
    "lightning": ["lightning", *TORCH, "safetensors", "pillow"],
}
# For those built on torch, as wildtune has it: glibc keeps freed memory for the next step, as PyTorch's tuning guide
# advises (by other allocators), and large tensors lie in huge pages.
MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_ARENA_MAX": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
REPORT_EPOCHS = 20
EPOCH_LINE = re.compile(r"^(\S+) (\d+)/\d+ .*val accuracy (\S+)%")


@dataclass(frozen=True)
class Settings:
    """What the numbers depend on; a part measured under others is measured again."""

    photos: str
    weights: str
    head_epochs: int
    report_epochs: int
    epochs: int | None
    per_class: int | None


@dataclass(frozen=True)
class Job:
    """One process to be timed: its name, the environment it runs in ("wildtune" or a peer) and its command line."""

    name: str
    peer: str
    command: tuple[str, ...]
    cold: bool = True


def list_jobs(settings: Settings, photos: Path, place: Path, seed: int) -> list[Job]:
    """Return every job of one round, wildtune's between the others'; the first makes the split that all share."""
    program = str(Path(sys.executable).parent / "wildtune")
    weights = ("--weights", settings.weights)
    seeds = ("--set", f"seed={seed}", "--set", f"split.seed={seed}")
    train = (program, "train", str(photos), "--backbone", "efficientnet_b0", *weights, *seeds, "--out", "run")
    data = ("--photos", str(photos), "--split", str(place / "split.csv"), *weights, "--seed", str(seed))

    def epochs(otherwise: int) -> tuple[str, str]:
        return "--epochs", str(settings.epochs or otherwise)

    head = str(settings.head_epochs)
    report = ("--head-epochs", head, "--epochs", str(settings.report_epochs))
    lab5 = ("--recipe", "lab5", "--set", "input.clip=true", "--set", f"stages.0.epochs={head}")
    default = ("--set", f"stages.1.epochs={settings.epochs}") if settings.epochs else ()
    # wildtune compiles where that pays, as in the whole report it does: of fewer epochs it cannot be reckoned.
    ours = max(settings.report_epochs, 4)
    jobs = [
        Job(QUICK, "wildtune", (*train, "--recipe", "quick")),
        Job("wildtune quick, again", "wildtune", (*train, "--recipe", "quick"), cold=False),
        *list_predictions(program, photos, place, data),
        Job("torch, compiled", "torch", ("torch_loop.py", "compiled", *data, *epochs(6))),
        Job("wildtune default", "wildtune", (*train, *default)),
        Job("lightning, compiled", "lightning", ("lightning_loop.py", "train", *data, *epochs(6))),
        Job("fastai fine_tune", "fastai", ("fastai_fine_tune.py", "train", *data, *epochs(4))),
        Job("torch, eager", "torch", ("torch_loop.py", "eager", *data, "--epochs", "1")),
        Job("keras lab5", "keras", ("keras_lab5.py", "train", *data, *report)),
        Job("wildtune lab5", "wildtune", (*train, *lab5, "--set", f"stages.1.epochs={ours}")),
    ]
    return jobs


def list_predictions(program: str, photos: Path, place: Path, data: tuple[str, ...]) -> list[Job]:
    """Return the jobs that predict every photo of the folder, and those that predict one, which is the start-up."""
    scripts = {
        "keras": ("keras_lab5.py",),
        "torch": ("torch_loop.py",),
        "fastai": ("fastai_fine_tune.py",),
        "lightning": ("lightning_loop.py",),
    }
    lower = runtime.has_fast_bfloat16("cpu")
    if lower:
        scripts["keras bfloat16"] = (*scripts["keras"], "--bfloat16")
        scripts["torch bfloat16"] = (*scripts["torch"], "--bfloat16")
    one = list_photos(photos)[0]
    jobs = []
    for what, target in (("predict one photo", one), ("predict", str(photos))):
        ours = (program, "predict", str(place / "run"), target, "--out", "predictions.csv")
        jobs.append(Job(f"wildtune {what}", "wildtune", ours))
        # The network that OpenVINO took over is kept, as it is after a training too.
        jobs.append(Job(f"wildtune again {what}", "wildtune", ours, cold=False))
        if lower:
            jobs.append(Job(f"wildtune bfloat16 {what}", "wildtune", (*ours, "--precision", "bfloat16"), cold=False))
        for name, (script, *more) in scripts.items():
            # Where an option is given twice, the later counts.
            command = (script, "predict", *data, "--photos", target, *more)
            jobs.append(Job(f"{name} {what}", name.split()[0], command))
    return jobs


def create_environment(folder: Path, peer: str) -> Path:
    """Return the Python of a peer's environment, made when it is not there yet."""
    place = folder / "environments" / peer
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        print(f"making the environment of {peer}: {' '.join(REQUIREMENTS[peer])}", flush=True)
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)
        (place / "ready").touch()
    return python


def run_job(job: Job, pythons: dict[str, Path], folder: Path) -> Timed:
    """Run one job in an empty folder; a cold one finds no cache of wildtune's or of torch's compiler."""
    work, cache = folder / "work", folder / "cache"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if job.cold:
        shutil.rmtree(cache, ignore_errors=True)
    environment = {**os.environ, "WILDTUNE_CACHE": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    if job.peer == "wildtune":
        return run_timed(job.command, work, environment)
    environment = {k: v for k, v in environment.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    script, *arguments = job.command
    command = (str(pythons[job.peer]), str(HERE / script), *arguments)
    return run_timed(command, work, environment | (MEMORY if job.peer != "keras" else {}))


def read_events(lines: tuple[tuple[float, str], ...], run: Path) -> list[dict]:
    """Return what the lines of a peer or of wildtune say of its epochs and predictions."""
    events: list[dict] = []
    for seconds, line in lines:
        if line.startswith('{"event"'):
            events.append(json.loads(line))
        elif found := EPOCH_LINE.match(line):
            right = float(found[3]) / 100
            event = {"stage": found[1], "epoch": int(found[2]), "seconds": seconds, "val_accuracy": right}
            events.append({"event": "epoch", **event})
    if (run / "metrics.jsonl").exists():
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        took = {(record["stage"], record["epoch"]): record["seconds"] for record in records}
        for event in events:
            event["epoch_s"] = took[event["stage"], event["epoch"]]
    return events


def measure(job: Job, pythons: dict[str, Path], folder: Path, place: Path) -> dict:
    """Run one job, print a line about it and return what is saved of it; a failed one ends the comparison."""
    timed = run_job(job, pythons, folder)
    if timed.status:
        log = folder / "work" / "output.log"
        sys.exit(f"{job.name} ended with {timed.status}: {log} says why. The same command goes on from here.")
    if job.name == QUICK:
        shutil.rmtree(place / "run", ignore_errors=True)
        shutil.copytree(folder / "work" / "run", place / "run")
        shutil.copy(place / "run" / "split.csv", place / "split.csv")
    events = read_events(timed.lines, folder / "work" / "run")
    print(f"{place.name}: {job.name}: {timed.seconds:.1f} s, {timed.peak_bytes / 2**30:.2f} GiB", flush=True)
    row = {
        "job": job.name,
        "photos": count_predictions(folder / "work"),
        "seconds": round(timed.seconds, 3),
        "peak_gib": round(timed.peak_bytes / 2**30, 3),
    }
    return {**row, "measured": time.strftime("%Y-%m-%d %H:%M:%S"), "events": events}


def count_predictions(work: Path) -> int:
    """Return how many photos a job predicted."""
    table = work / "predictions.csv"
    if not table.exists():
        return 0
    with open(table, encoding="utf-8", newline="") as handle:
        return sum(1 for _ in csv.DictReader(handle))


def copy_photos(photos: Path, per_class: int, target: Path) -> Path:
    """Return a folder with so many photos of each class, taken evenly from the first to the last."""
    shutil.rmtree(target, ignore_errors=True)
    for source in sorted(path for path in photos.iterdir() if path.is_dir()):
        files = list_photos(source)
        for k in range(min(per_class, len(files))):
            file = Path(files[k * len(files) // min(per_class, len(files))])
            copy = target / source.name / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return target


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=PEERS, metavar="PEER", help=" ".join(PEERS))
    parser.add_argument("--head-epochs", type=int, default=3, help="of the report's recipe (default 3)")
    parser.add_argument("--epochs", type=int, help="of fine-tuning, for all (default: 6 torch, 4 wildtune, 2 report)")
    parser.add_argument("--whole", action="store_true", help="the report's recipe whole: 20 + 20 epochs")
    parser.add_argument("--per-class", type=int, metavar="N", help="take only so many photos of each class")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"))
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="PEER=PYTHON", help="use this Python, which has what the peer needs"
    )
    return parser.parse_args()


def choose_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the options ask for."""
    head, report = arguments.head_epochs, arguments.epochs or 2
    if arguments.whole:
        head = report = REPORT_EPOCHS
    photos, weights = str(arguments.photos.resolve()), str(arguments.weights.resolve())
    return Settings(photos, weights, head, report, arguments.epochs, arguments.per_class)


def main() -> None:
    arguments = read_arguments()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    photos = arguments.photos.resolve()
    settings = choose_settings(arguments)
    if settings.per_class:
        photos = copy_photos(photos, settings.per_class, folder / "photos")
    given = dict(word.split("=", 1) for word in arguments.python)
    pythons = {
        peer: Path(given[peer]) if peer in given else create_environment(folder, peer) for peer in arguments.only
    }
    rows = []
    for number in range(arguments.rounds):
        place = folder / f"round-{number + 1}"
        place.mkdir(exist_ok=True)
        warm = False
        for job in list_jobs(settings, photos, place, number):
            if job.peer not in ("wildtune", *arguments.only):
                continue
            saved = place / f"{re.sub('[^a-z0-9]+', '-', job.name)}.json"
            row = json.loads(saved.read_text()) if saved.exists() else {}
            known = row.get("settings") == asdict(settings)
            if not known:
                if not (job.cold or warm):  # what comes before it was measured earlier, and has left nothing behind
                    run_job(replace(job, cold=True), pythons, folder)
                row = {**measure(job, pythons, folder, place), "round": number + 1, "settings": asdict(settings)}
                saved.write_text(json.dumps(row, indent=1))
            warm = not known
            rows.append(row)
    text = print_tables(rows, folder)
    (folder / "tables.md").write_text(text)
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n\n{text}")


if __name__ == "__main__":
    main()
