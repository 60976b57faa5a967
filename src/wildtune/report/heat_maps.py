"""Photos with what spoke for a class laid over them: the surest mistakes, and the surest and least sure right ones."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image

from wildtune import runtime
from wildtune.evaluate.explain import explain_logits, explains_fast
from wildtune.model.bundle import Bundle
from wildtune.model.preprocess import centre_crop, create_input, decode_stored, fit_photo, load_pixels
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.decode import DecodeError
from wildtune.photos.threads import map_in_threads
from wildtune.predict.predictions import Predictions
from wildtune.progress import ProgressCallback

MOST_WRONG, MOST_RIGHT = 12, 6
# Where a photo takes 50 passes through the network instead of one.
MOST_WRONG_SLOW, MOST_RIGHT_SLOW = 4, 2

_MOST_AT_ONCE = 4  # bounds the memory

_SIDE = 200  # pixels of a picture on the page
_COLOURS = colormaps["viridis"]  # perceptually uniform, legible for colour-blind people and in grey
_COLOURS(0.0)  # makes its table, which threads would otherwise make at once
_OPACITY = 0.6


@dataclass(frozen=True)
class HeatMap:
    """One photo, explained.

    confidence   of the prediction, 0-1
    photo        JPEG of the photo as the model is given it, before contrast and brightness are changed
    for_prediction, for_label   JPEGs of the same with what spoke for the class over it, both on one scale of colours;
                                None where the label is the prediction
    """

    path: str
    label: str
    prediction: str
    confidence: float
    photo: bytes
    for_prediction: bytes
    for_label: bytes | None = None


def create_heat_maps(
    bundle: Bundle,
    catalogue: Catalogue,
    photos: Mapping[str, Photo],
    predictions: Predictions,
    progress: ProgressCallback | None = None,
) -> tuple[HeatMap, ...]:
    """Explain a bounded number of predictions, wrong ones first; `photos` by path, those missing are left out.

    A photo that can no longer be read is left out too. As many photos as there are threads, four at most, are worked
    on at once, because two threads gain little on a photo's small layers; further threads are shared among them.
    """
    rows = [row for row in _choose(predictions, bundle) if predictions.paths[row] in photos]
    bundle.model.eval()

    def make(row: int) -> HeatMap | None:
        try:
            return _explain(bundle, catalogue, photos[predictions.paths[row]], predictions, row)
        except (DecodeError, OSError):
            return None

    made = []
    threads = runtime.compute_threads()
    at_once = min(_MOST_AT_ONCE, threads)
    share = functools.partial(runtime.set_threads, threads // at_once)
    for done, heat_map in enumerate(map_in_threads(make, rows, at_once, share), start=1):
        if heat_map is not None:
            made.append(heat_map)
        if progress is not None:
            progress(done, len(rows))
    return tuple(made)


def _choose(predictions: Predictions, bundle: Bundle) -> list[int]:
    """Return the rows of the surest mistakes, then of the least sure and the surest right answers."""
    known = (predictions.targets >= 0) & (predictions.predicted >= 0)
    right = known & (predictions.targets == predictions.predicted)
    ordered = np.argsort(-np.nan_to_num(predictions.confidence), kind="stable")
    wrongs, rights = ([int(row) for row in ordered if wanted[row]] for wanted in (known & ~right, right))
    fast = explains_fast(bundle.model, bundle.preprocess.size)
    most_wrong, most_right = (MOST_WRONG, MOST_RIGHT) if fast else (MOST_WRONG_SLOW, MOST_RIGHT_SLOW)
    half = most_right // 2
    shown = rights if len(rights) <= most_right else rights[-half:] + rights[:half]
    return wrongs[:most_wrong] + sorted(shown, key=lambda row: float(predictions.confidence[row]))


def _explain(bundle: Bundle, catalogue: Catalogue, photo: Photo, predictions: Predictions, row: int) -> HeatMap:
    pre = bundle.preprocess
    pixels = decode_stored(catalogue.read_bytes(photo), pre, photo.box)
    classes = list(dict.fromkeys((int(predictions.predicted[row]), int(predictions.targets[row]))))
    maps = explain_logits(bundle.model, create_input(pixels, pre), classes)
    plain = pre.model_copy(update={"contrast": 1.0, "brightness": 0.0})
    seen = centre_crop(fit_photo(load_pixels(pixels), plain), pre.size)
    picture = Image.fromarray(seen.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()).resize((_SIDE, _SIDE))
    drawn = [_jpeg(lay_over(picture, values, float(maps.max()))) for values in maps]
    return HeatMap(
        path=predictions.paths[row],
        label=predictions.labels[row],
        prediction=bundle.class_names[classes[0]],
        confidence=float(predictions.confidence[row]),
        photo=_jpeg(picture),
        for_prediction=drawn[0],
        for_label=drawn[1] if len(drawn) > 1 else None,
    )


def lay_over(picture: Image.Image, values: np.ndarray, highest: float) -> Image.Image:
    """Lay an (h, w) map over a picture in grey: dark violet at 0 and below, yellow at `highest` and above."""
    shares = np.clip(values / highest, 0, 1) if highest > 0 else np.zeros_like(values)
    smooth = Image.fromarray(shares.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    colours = Image.fromarray((_COLOURS(np.asarray(smooth))[..., :3] * 255).round().astype(np.uint8))
    return Image.blend(picture.convert("L").convert("RGB"), colours, _OPACITY)


def scale_stops() -> list[str]:
    """Return the colours of the maps from 0 to the highest value as CSS colours."""
    return ["#" + "".join(f"{round(255 * c):02x}" for c in _COLOURS(share)[:3]) for share in np.linspace(0, 1, 9)]


def _jpeg(picture: Image.Image) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=75)
    return encoded.getvalue()
