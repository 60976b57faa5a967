"""What every peer's script shares: its arguments, its photos, the lines it prints and the predictions it writes.

A line is one JSON object on standard output; `seconds` counts from when the command was started, imports included.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224
# Photos are kept a little larger than what is cut from them.
KEPT = 288
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read_arguments(tasks: tuple[str, ...]) -> argparse.Namespace:
    """Read the command line that `compare.py` gives to each peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--photos", type=Path, required=True, help="their folder; to predict, a folder or one photo")
    parser.add_argument("--split", type=Path, required=True, help="CSV with the columns path, label, split")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors with timm's names of efficientnet_b0")
    parser.add_argument("--head-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16 where the library can")
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


def list_photos(place: Path) -> list[str]:
    """Return the photo itself, or every photo of a folder of any depth, in order."""
    if place.is_file():
        return [str(place)]
    return sorted(str(path) for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)


def load_photo(path: str, size: int) -> Image.Image:
    """Return the photo in RGB, decoded no larger than `size` px needs; resizing is left to the caller."""
    photo = Image.open(path)
    photo.draft("RGB", (size, size))  # libjpeg decodes at a half or a quarter, which takes less time
    return photo.convert("RGBA").convert("RGB") if photo.mode in ("P", "RGBA") else photo.convert("RGB")


def load_resized(paths: Iterable[str], size: int = KEPT) -> list[np.ndarray]:
    """Return every photo squashed to uint8 (size, size, 3): decoded once, by two threads, and kept in memory."""

    def load(path: str) -> np.ndarray:
        return np.asarray(load_photo(path, size).resize((size, size), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(2) as threads:  # Pillow lets other threads run while it decodes
        return list(threads.map(load, paths))


def say(event: str, **values: object) -> None:
    """Print one line about what has just ended."""
    started = float(os.environ["BENCHMARK_STARTED"])
    print(json.dumps({"event": event, "seconds": round(time.time() - started, 3), **values}), flush=True)


def save_predictions(paths: list[str], probs: np.ndarray, names: list[str]) -> None:
    """Write a row for each photo: its path, its class and the probabilities (N, classes)."""
    with open("predictions.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["path", "prediction", *names])
        for path, row in zip(paths, probs, strict=True):
            writer.writerow([path, names[int(row.argmax())], *(f"{value:.6f}" for value in row)])
    say("predicted", photos=len(paths))
