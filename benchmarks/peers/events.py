"""What every peer's script shares: its arguments, the split it reads, and the lines it prints about its progress.

A line is one JSON object on standard output; `seconds` counts from the start of the process, imports included.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224


def read_arguments(tasks: tuple[str, ...]) -> argparse.Namespace:
    """Read the command line that `compare.py` gives to each peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--photos", type=Path, required=True, help="folder that the split's paths are relative to")
    parser.add_argument("--split", type=Path, required=True, help="CSV with the columns path, label, split")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors with timm's names of efficientnet_b0")
    parser.add_argument("--head-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning")
    parser.add_argument("--steps", type=int, default=0, help="end an epoch of fine-tuning after so many; 0: whole")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_split(path: Path, photos: Path) -> tuple[dict[str, list[tuple[str, int]]], list[str]]:
    """Return (file, target) of each side's photos, and the class names."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    names = sorted({row["label"] for row in rows})
    sides: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
    for row in rows:
        sides[row["split"]].append((str(photos / row["path"]), names.index(row["label"])))
    return sides, names


def say(event: str, **values: object) -> None:
    """Print one line about what has just ended."""
    started = float(os.environ["BENCHMARK_STARTED"])
    print(json.dumps({"event": event, "seconds": round(time.time() - started, 3), **values}), flush=True)
