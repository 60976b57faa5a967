"""One predictor: validation at the end of training, `evaluate`, `predict` and every export are held to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import linear

from wildtune import runtime
from wildtune.errors import CommandError
from wildtune.model.backbone import FeatureExtractor, head_of, state_sha256
from wildtune.model.bundle import Bundle, BundleFacts, load_bundle, load_facts, load_weights
from wildtune.model.engine import Engine, choose_engine, create_engine, find_engine, has_openvino, network_identity
from wildtune.model.preprocess import Preprocess, create_input, decode_stored
from wildtune.photos.catalogue import Catalogue, Photo, photo_sha256
from wildtune.photos.decode import DecodeError
from wildtune.predict.predictions import Predictions
from wildtune.progress import ProgressCallback
from wildtune.runtime import PRECISIONS, Precision

Head = tuple[Tensor, Tensor | None]


class Predictor:
    """A bundle ready to predict on this machine: an engine runs the backbone, and the head is applied to its features.

    The head is computed in float64, so that a photo's logits do not depend on the photos beside it.
    """

    def __init__(self, facts: BundleFacts, create_engine: Callable[[], Engine], head: Head) -> None:
        """Predict as a bundle of these facts does, with the (C, D) weight and (C,) bias of its head.

        The backbone's engine is made when it is first needed.
        """
        self.facts = facts
        self._create_engine = create_engine
        weight, bias = head
        self._head = weight.detach().cpu().double(), None if bias is None else bias.detach().cpu().double()

    @cached_property
    def _engine(self) -> Engine:
        return self._create_engine()

    def predict(
        self, catalogue: Catalogue, photos: Sequence[Photo] | None = None, progress: ProgressCallback | None = None
    ) -> Predictions:
        """Predict photos of a catalogue (all by default), in their order; unreadable ones get their reason.

        Memory is bounded whatever the number of photos: a few are decoded ahead of the network.
        """
        chosen = catalogue.photos if photos is None else photos
        logits = np.full((len(chosen), len(self.facts.class_names)), np.nan, dtype=np.float32)
        errors = [""] * len(chosen)

        def load(row: int) -> Tensor | None:
            loaded = load_input(catalogue, chosen[row], self.facts.preprocess)
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
            class_names=self.facts.class_names,
            calibration=self.facts.calibration,
        )


def create_predictor(
    bundle: Bundle,
    engine: str = "",
    threads: int = 0,
    device: str = "",
    keep: bool = True,
    precision: Precision = "float32",
) -> Predictor:
    """Make a bundle ready to predict, by default with all that this machine has.

    `engine` is "openvino" or "torch" as in `create_engine`; `keep` keeps what OpenVINO takes over for
    `open_predictor`. Raises CommandError for a precision in which this machine is no faster.
    """
    threads, device = threads or runtime.compute_threads(), device or runtime.detect_device()
    runtime.set_threads(threads)
    kind, size, head = engine or choose_engine(bundle.model, device), bundle.preprocess.size, head_of(bundle.model)
    _require_fast(precision, kind, device)

    def create() -> Engine:
        kept = keep and kind == "openvino"
        identity = network_identity(bundle.backbone, state_sha256(bundle.model)) if kept else ""
        extractor = FeatureExtractor(bundle.model.to(device))
        return create_engine(extractor, size, kind, threads, device, identity, precision)

    return Predictor(bundle, create, (head.weight, head.bias))


def open_predictor(run: Path, precision: Precision = "float32") -> Predictor:
    """Make the bundle of a run folder, or a bundle's folder, ready to predict with all that this machine has.

    A backbone that OpenVINO took over before is run without making the network, which is most of the time that
    predicting one photo takes. Raises CommandError as `load_bundle` and `create_predictor` do.
    """
    facts = load_facts(run)
    if has_openvino() and runtime.detect_device() == "cpu" and (weights := load_weights(run)):
        sha256, weight, bias = weights
        threads = runtime.compute_threads()
        runtime.set_threads(threads)
        _require_fast(precision, "openvino", "cpu")
        engine = find_engine(network_identity(facts.backbone, sha256), facts.preprocess.size, threads, precision)
        if engine is not None and len(weight) == len(facts.class_names):
            return Predictor(facts, lambda: engine, (weight, bias))
    return create_predictor(load_bundle(run), precision=precision)


def _require_fast(precision: Precision, engine: str, device: str) -> None:
    """Raise CommandError for a precision that is none, or that would gain nothing here."""
    if precision not in PRECISIONS:
        raise CommandError(f"precision must be {' or '.join(PRECISIONS)}. Got {precision!r}.")
    if precision == "float32":
        return
    if device != "cpu":
        reason = "predicting on a GPU is in float32"
    elif engine != "openvino":
        reason = "this network is run by torch, as all of less than a million weights are, and all without OpenVINO"
    elif not runtime.has_fast_bfloat16(device):
        reason = "torch finds no products of it on this processor (AMX or AVX512_BF16; torch before 2.10 finds none)"
    else:
        return
    raise CommandError(f"Nothing would be gained by {precision} here: {reason}. Leave the precision out.")


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
