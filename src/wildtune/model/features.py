"""The frozen backbone as a transformation of data: photos become feature views, computed once and cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wildtune import files
from wildtune.model.backbone import FeatureExtractor, state_sha256
from wildtune.model.engine import Engine, create_engine, network_identity
from wildtune.model.preprocess import Preprocess
from wildtune.photos.catalogue import Photo
from wildtune.progress import ProgressCallback
from wildtune.runtime import Precision

# Another number makes every feature anew; raise it when the same photo, view and weights would give other ones.
_VERSION = 4

# What the cache knows a photo without augmentation by.
PLAIN_VIEW: dict[str, object] = {"augment": None}

View = Callable[[int], Tensor]


class FeatureCache:
    """Feature views of photos, by content, preprocessing, augmentation and weights; computed when first asked for.

    All that decides a view but the photo names a folder. In it each file holds the photos' SHA-256 and features that
    one call computed; the next call computes only the photos that no file has.
    """

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
        weights = state_sha256(model)
        identity = network_identity(backbone, weights)
        self._create_engine = lambda precision: create_engine(
            FeatureExtractor(model.to(device)), preprocess.size, engine, threads, device, identity, precision
        )
        self._engines: dict[Precision, Engine] = {}
        self._key = {
            "version": _VERSION,
            "backbone": backbone,
            "weights": weights,
            "preprocess": preprocess.model_dump(mode="json"),
            "engine": engine,
            "device": device,
            "threads": threads,
            "versions": versions,
        }

    def engine(self, precision: Precision = "float32") -> Engine:
        """Return what runs the backbone, made when it is first asked for."""
        if precision not in self._engines:
            self._engines[precision] = self._create_engine(precision)
        return self._engines[precision]

    def let_go(self) -> None:
        """Let go of what runs the backbone, whose memory others need; it is made anew when it is asked for."""
        self._engines.clear()

    def count_missing(
        self, photos: Sequence[Photo], view_key: dict[str, object], precision: Precision = "float32"
    ) -> int:
        """Return how many of the photos' views are not known yet and would have to be computed."""
        wanted = {photo.sha256 for photo in photos}
        for _, contents in _read_contents(self._folder(view_key, precision)):
            wanted -= set(contents)
        return len(wanted)

    def load(
        self,
        photos: Sequence[Photo],
        view: View,
        view_key: dict[str, object],
        progress: ProgressCallback | None = None,
        precision: Precision = "float32",
    ) -> Tensor:
        """Return the (N, D) float32 features of one view of each photo, computed in `precision`.

        `view(i)` makes the (3, size, size) input of photo i; `view_key` says what it does to photos, as plain
        values. The cache is keyed by content, so the same photos from another source are found again.
        """
        folder = self._folder(view_key, precision)
        contents = [photo.sha256 for photo in photos]
        known = _read_folder(folder, set(contents))
        missing = list({content: i for i, content in enumerate(contents) if content not in known}.values())
        if missing:
            fresh = self.engine(precision).run_all(len(missing), lambda i: view(missing[i]), progress)
            _write_file(folder, [contents[i] for i in missing], fresh)
            known |= {contents[i]: features for i, features in zip(missing, fresh, strict=True)}
        return torch.stack([known[content] for content in contents])

    def _folder(self, view_key: dict[str, object], precision: Precision) -> Path:
        key = {**self._key, "view": view_key}
        if precision != "float32":
            key["precision"] = precision
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return files.cache_folder("features") / digest


def _read_folder(folder: Path, wanted: set[str]) -> dict[str, Tensor]:
    """Return the (D,) features of the wanted photos that a folder has, by SHA-256; damaged files count for nothing."""
    known: dict[str, Tensor] = {}
    for path, contents in _read_contents(folder):
        if wanted.isdisjoint(contents):
            continue
        try:
            with safe_open(path, framework="pt") as handle:
                features = handle.get_tensor("features")
            known |= {c: row for c, row in zip(contents, features, strict=True) if c in wanted}
        except (SafetensorError, OSError, ValueError):
            continue
    return known


def _read_contents(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file of a folder with the SHA-256 of the photos it has, leaving out damaged ones."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as handle:
                contents = json.loads(handle.metadata()["photos"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
        yield path, contents


def _write_file(folder: Path, contents: list[str], features: Tensor) -> None:
    name = hashlib.sha256("".join(contents).encode()).hexdigest()
    header = {"photos": json.dumps(contents)}
    files.write_bytes(folder / f"{name}.safetensors", save({"features": features.contiguous()}, metadata=header))
