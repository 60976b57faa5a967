"""How near `wildtune predict` comes to the rate of its runtime on inputs that lie in memory already.

    python benchmarks/predicting.py RUN PHOTOS [--photos 600] [--rounds 5]

RUN is a run or a bundle, PHOTOS a folder of JPEGs. Each round times the engine alone and then the whole way from files.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from wildtune.photos.sources import list_photos
from wildtune.predict.predictor import load_input, open_predictor

IN_MEMORY = 64


def rate(count: int, work: Callable[[], object]) -> float:
    """Return how many photos a second some work gets through."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=600, dest="count")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    predictor, catalogue = open_predictor(asked.run), list_photos(asked.photos)
    engine = predictor._engine
    chosen = catalogue.photos[:: max(1, len(catalogue.photos) // asked.count)][: asked.count]
    loaded = (load_input(catalogue, photo, predictor.facts.preprocess) for photo in chosen[:IN_MEMORY])
    inputs = [image for image in loaded if isinstance(image, torch.Tensor)]

    def alone() -> float:
        return rate(len(chosen), lambda: engine.run_all(len(chosen), lambda i: inputs[i % len(inputs)]))

    def whole() -> float:
        return rate(len(chosen), lambda: predictor.predict(catalogue, chosen))

    alone(), whole()  # the first are slower
    pairs = [(alone(), whole()) for _ in range(asked.rounds)]
    for name, values in zip(("in memory", "from files"), zip(*pairs, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.1f} photos a second ({min(values):.1f} to {max(values):.1f})")
    shares = [files / memory for memory, files in pairs]
    print(f"share: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")


if __name__ == "__main__":
    main()
