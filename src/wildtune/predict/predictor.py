"""One predictor: validation at the end of training, `evaluate`, `predict` and every export are held to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor
from torch.nn.functional import linear

from wildtune import runtime
from wildtune.model.backbone import FeatureExtractor, head_of
from wildtune.model.bundle import Bundle
from wildtune.model.engine import Engine, choose_engine, create_engine
from wildtune.model.preprocess import Preprocess, create_input, decode_stored
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.decode import DecodeError
from wildtune.photos.sources import Detections
from wildtune.predict.predictions import Predictions
from wildtune.progress import ProgressCallback, Reporter


class Predictor:
    """A bundle ready to predict on this machine: an engine runs the backbone, and the head is applied to its features.

    The head is computed in float64, so that a photo's logits do not depend on the photos beside it.
    """

    def __init__(self, bundle: Bundle, engine: str = "openvino", threads: int = 1, device: str = "cpu") -> None:
        """Predict with `engine`, "openvino" or "torch" as in `create_engine`; it is made when first needed."""
        self.bundle = bundle
        self._create_engine = lambda: create_engine(
            FeatureExtractor(bundle.model.to(device)), bundle.preprocess.size, engine, threads, device
        )

    @cached_property
    def _engine(self) -> Engine:
        return self._create_engine()

    @cached_property
    def _head(self) -> tuple[Tensor, Tensor | None]:
        head = head_of(self.bundle.model)
        weight, bias = (None if part is None else part.detach().cpu().double() for part in (head.weight, head.bias))
        return weight, bias

    def predict(
        self, catalogue: Catalogue, photos: Sequence[Photo] | None = None, progress: ProgressCallback | None = None
    ) -> Predictions:
        """Predict photos of a catalogue (all by default), in their order; unreadable ones get their reason.

        Memory is bounded whatever the number of photos: a few are decoded ahead of the network.
        """
        chosen = catalogue.photos if photos is None else photos
        logits = np.full((len(chosen), len(self.bundle.class_names)), np.nan, dtype=np.float32)
        errors = [""] * len(chosen)

        def load(row: int) -> Tensor | None:
            loaded = load_input(catalogue, chosen[row], self.bundle.preprocess)
            if isinstance(loaded, Tensor):
                return loaded
            errors[row] = loaded
            return None

        for rows, features in self._engine.stream(len(chosen), load, progress):
            logits[rows] = self._apply_head(features)
        return self._predictions(chosen, tuple(errors), logits)

    def predict_features(self, photos: Sequence[Photo], features: Tensor) -> Predictions:
        """Predict photos whose (N, D) float32 features the backbone has given before."""
        return self._predictions(photos, ("",) * len(photos), self._apply_head(features))

    def _apply_head(self, features: Tensor) -> np.ndarray:
        return linear(features.double(), *self._head).float().numpy()

    def _predictions(self, photos: Sequence[Photo], errors: tuple[str, ...], logits: np.ndarray) -> Predictions:
        return Predictions(
            paths=tuple(photo.path for photo in photos),
            labels=tuple(photo.label for photo in photos),
            errors=errors,
            logits=logits,
            class_names=self.bundle.class_names,
            calibration=self.bundle.calibration,
        )


def create_predictor(bundle: Bundle) -> Predictor:
    """Make a bundle ready to predict with all that this machine has."""
    threads = runtime.compute_threads()
    runtime.set_threads(threads)
    device = runtime.detect_device()
    return Predictor(bundle, choose_engine(bundle.model, device), threads, device)


def say_what_it_knows(bundle: Bundle, detections: Detections | None, reporter: Reporter) -> None:
    """Say so where a classifier of crops is given whole photos, or one of whole photos crops."""
    crops = bundle.provenance.get("detections")
    if crops and detections is None:
        reporter.say(
            "note: the classifier was trained on crops of animals and is given whole photos: --detections FILE crops "
            f"them (threshold {crops['threshold']:g}, margin {crops['margin']:g} in training)"
        )
    elif detections is not None and not crops:
        reporter.say("note: the classifier was trained on whole photos and is given crops: its scores may be lower")


def load_input(catalogue: Catalogue, photo: Photo, preprocess: Preprocess) -> Tensor | str:
    """Read, decode and preprocess one photo into (3, size, size) float32, or return why that cannot be done."""
    if photo.error:
        return photo.error
    try:
        data = catalogue.read_bytes(photo)
        if photo.sha256 and photo_sha256(data, photo.box) != photo.sha256:
            return "it has changed since the photos were listed"
        return create_input(decode_stored(data, preprocess, photo.box), preprocess)
    except DecodeError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
