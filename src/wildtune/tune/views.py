"""Feature views of the photos that a tuning may look at, from the same cache that a training finds them in."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch
from torch import Tensor

from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.model.preprocess import Preprocess
from wildtune.progress import Reporter
from wildtune.recipe import Augment, Stage
from wildtune.runtime import Precision
from wildtune.train.batches import Side, view_key

_PROBE_PHOTOS = 24


class Views:
    """Features of one side's photos, plain or augmented."""

    def __init__(
        self,
        side: Side,
        cache: FeatureCache,
        preprocess: Preprocess,
        stage: Stage,
        seed: int,
        reporter: Reporter,
        precision: Precision,
    ) -> None:
        """Views are random by the seed and the stage's name, as in training, which so finds them again.

        `precision` is that of the backbone on augmented views.
        """
        self._side, self._cache, self._preprocess, self._precision = side, cache, preprocess, precision
        self._stage, self._seed, self._reporter = stage, seed, reporter

    def of_stage(self, stage: Stage) -> Views:
        """Return views of the same photos for another stage."""
        return Views(self._side, self._cache, self._preprocess, stage, self._seed, self._reporter, self._precision)

    def plain(self) -> Tensor:
        """Return the (N, D) float32 features without augmentation."""
        view = functools.partial(self._side.plain_input, preprocess=self._preprocess)
        with self._reporter.bar("features of the photos") as tell:
            return self._cache.load(self._side.photos, view, PLAIN_VIEW, tell)

    def augmented(self, augment: Augment, count: int, rows: np.ndarray, title: str) -> Tensor:
        """Return (count, M, D) float32 features of `count` augmented views of the photos `rows` (M,)."""
        photos = [self._side.photos[row] for row in rows]
        stage = self._stage.model_copy(update={"augment": augment})
        views = []
        for number in range(count):
            key = view_key(stage, self._seed, number)
            make = functools.partial(self._make, stage, rows, number)
            with self._reporter.bar(f"{title}: features of view {number + 1} of {count}") as tell:
                views.append(self._cache.load(photos, make, key, tell, self._precision))
        return torch.stack(views)

    def rate(self) -> float:
        """Measure how many augmented views a second this machine makes."""
        rows = np.arange(min(_PROBE_PHOTOS, len(self._side)))
        stage = self._stage.model_copy(update={"augment": Augment(crop="random_resized", flip=0.5)})
        make = functools.partial(self._make, stage, rows, 0)
        engine = self._cache.engine(self._precision)
        engine.run_all(1, make)  # starts the engine
        started = time.perf_counter()
        engine.run_all(len(rows), make)
        return len(rows) / max(time.perf_counter() - started, 1e-6)

    def _make(self, stage: Stage, rows: np.ndarray, number: int, index: int) -> Tensor:
        return self._side.augmented_input(int(rows[index]), self._preprocess, stage, self._seed, number)
