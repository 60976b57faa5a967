"""The frozen backbone as a transformation of data: photos become feature views, computed once and cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wildtune import files
from wildtune.model.backbone import FeatureExtractor, state_sha256
from wildtune.model.engine import Engine, create_engine
from wildtune.model.preprocess import Preprocess
from wildtune.photos.catalogue import Photo

# Another number makes every feature anew; raise it when the same photo, view and weights would give other ones.
_VERSION = 1

View = Callable[[int], Tensor]


class FeatureCache:
    """Feature views of photos, by content, preprocessing, augmentation and weights; computed when first asked for."""

    def __init__(
        self,
        model: nn.Module,
        backbone: str,
        preprocess: Preprocess,
        engine: str,
        threads: int,
        device: str,
        versions: dict[str, str],
    ) -> None:
        """Use the model's backbone as it is now; `versions` of the runtimes are part of the cache's key."""
        self._create_engine = lambda: create_engine(FeatureExtractor(model), preprocess.size, engine, threads, device)
        self._key = {
            "version": _VERSION,
            "backbone": backbone,
            "weights": state_sha256(model),
            "preprocess": preprocess.model_dump(mode="json"),
            "engine": engine,
            "device": device,
            "threads": threads,
            "versions": versions,
        }

    @cached_property
    def _engine(self) -> Engine:
        return self._create_engine()

    def load(
        self,
        photos: Sequence[Photo],
        view: View,
        view_key: dict[str, object],
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Return the (N, D) float32 features of one view of each photo.

        `view(i)` makes the (3, size, size) input of photo i; `view_key` says what it does to photos, as plain
        values. The cache is keyed by content, so the same photos from another source are found again.
        """
        path = self._path(photos, view_key)
        try:
            return load_file(path)["features"]
        except (SafetensorError, FileNotFoundError, KeyError):
            features = self._engine.run_all(len(photos), view, progress)
            files.write_bytes(path, save({"features": features}))
            return features

    def _path(self, photos: Sequence[Photo], view_key: dict[str, object]) -> Path:
        parts = {**self._key, "view": view_key, "photos": [photo.sha256 for photo in photos]}
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return files.cache_folder("features") / f"{digest}.safetensors"
