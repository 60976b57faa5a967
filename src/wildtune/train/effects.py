"""What each setting of input and augmentation does to a few training photos, in pixels and in features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from wildtune import runtime
from wildtune.language import recorded
from wildtune.memo import remember
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.model.preprocess import Preprocess, create_input, decode_stored, normalise
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.decode import quiet_warnings
from wildtune.photos.store import prepared_pixels
from wildtune.photos.threads import map_in_threads
from wildtune.recipe import Augment
from wildtune.runtime import seed_from
from wildtune.train.augment import create_view
from wildtune.train.plan import Effect, Plan

# Rounding to 8 bits changes a value by up to this much: what changes less is no larger than a photo's own rounding.
HALF_LEVEL = 0.5

_PHOTOS = 24
# Another number measures anew; raise it when the same photos and settings would give other figures.
_VERSION = 1


class Sample:
    """Some of the training photos, two or more of a class where there are as many, decoded when first asked for."""

    def __init__(self, photos: Iterable[Photo], catalogue: Catalogue, plan: Plan) -> None:
        """Choose the photos, by their content alone."""
        self.photos = choose_photos(photos)
        self.labels = [photo.label for photo in self.photos]
        self._catalogue, self._plan = catalogue, plan

    @cached_property
    def pixels(self) -> list[Any]:
        """The decoded (H, W, 3) uint8 photos. Raises PhotosError where one is no longer what it was."""
        pre = self._plan.preprocess
        with quiet_warnings():
            prepared = map_in_threads(
                lambda photo: prepared_pixels(self._catalogue, photo, lambda data, box: decode_stored(data, pre, box)),
                self.photos,
                self._plan.threads,
            )
            return list(prepared)

    @cached_property
    def plain(self) -> Tensor:
        """The (N, 3, size, size) inputs as photos are classified, without augmentation."""
        return self.inputs(self._plan.preprocess)

    def inputs(self, pre: Preprocess, photos: int | None = None) -> Tensor:
        """Return the (N, 3, size, size) inputs without augmentation by a preprocessing, `photos` of them at most."""
        count = min(photos or len(self.photos), len(self.photos))
        return self._stack(range(count), lambda i: create_input(self.pixels[i], pre))

    def views(self, augment: Augment) -> Tensor:
        """Return one augmented (3, size, size) view of each photo, stacked."""
        pre, seed = self._plan.preprocess, self._plan.seed
        seeds = [seed_from(seed, "preflight", photo.sha256) for photo in self.photos]
        return self._stack(range(len(seeds)), lambda i: create_view(self.pixels[i], pre, augment, seeds[i]))

    def features(self, views: Tensor, cache: FeatureCache) -> Tensor:
        """Return the backbone's (N, D) features of such a stack; those of photos without augmentation are cached."""
        if views is self.plain:
            return cache.load(self.photos, views.__getitem__, PLAIN_VIEW)
        return cache.engine().run_all(len(views), views.__getitem__)

    def _stack(self, items: Iterable[int], make: Any) -> Tensor:
        _ = self.pixels  # once, before threads ask for it
        return torch.stack(list(map_in_threads(make, items, self._plan.threads, runtime.compute_alone)))


def choose_photos(photos: Iterable[Photo], count: int = _PHOTOS) -> list[Photo]:
    """Return up to `count` photos, two of a class and then two of the next one, whatever their names and order."""
    classes: dict[str, list[Photo]] = {}
    for photo in sorted(photos, key=lambda photo: photo.sha256):
        classes.setdefault(photo.label, []).append(photo)
    chosen: list[Photo] = []
    for start in range(0, max((len(some) for some in classes.values()), default=0), 2):
        chosen += [photo for some in classes.values() for photo in some[start : start + 2]]
    return chosen[:count]


def measure_effects(plan: Plan, sample: Sample, cache: FeatureCache) -> tuple[Effect, ...]:
    """Return the effect of every setting that is not neutral, each by itself.

    A setting of `[input]` is taken out of the input as it is; an augmentation is the only one of its view, so that
    what others draw at random does not change with it. Settings that several stages share are measured once. With
    random weights features mean nothing and are left out.
    """
    pre = plan.preprocess
    effects = []
    for name, neutral in (("contrast", 1.0), ("brightness", 0.0)):
        value = getattr(pre, name)
        if value != neutral:
            without = pre.model_copy(update={name: neutral})
            figures = _remember(plan, sample, cache, {"without": without.model_dump(mode="json")})
            effects.append(Effect(setting=f"input.{name}", value=f"{value:g}", **figures))
    shared: dict[tuple[str, str], list[str]] = {}
    alone: dict[tuple[str, str], tuple[Augment, float]] = {}
    for planned in plan.stages:
        for name, value, augment, chance in list_augmentations(planned.stage.augment):
            shared.setdefault((name, value), []).append(planned.stage.name)
            alone[name, value] = augment, chance
    for (name, value), stages in shared.items():
        augment, chance = alone[name, value]
        figures = _remember(plan, sample, cache, {"augment": augment.model_dump(mode="json"), "seed": plan.seed})
        effects.append(
            Effect(setting=f"augment.{name}", value=value, stages=tuple(stages), chance=chance, **figures),
        )
    return tuple(effects)


def measure_outside(plan: Plan, sample: Sample) -> float:
    """Return the share of pixel values (0-1) of photos as they are classified that lie outside 0-255.

    By more than half a grey level, so that no rounding counts.
    """
    pre = plan.preprocess
    if pre.clip or (pre.contrast == 1 and not pre.brightness):
        return 0.0

    def measure() -> float:
        low, high = (normalise(torch.full((3, 1, 1), level), pre) for level in (-HALF_LEVEL, 255 + HALF_LEVEL))
        return float(((sample.plain < low) | (sample.plain > high)).double().mean())

    question = {"version": _VERSION, "preprocess": pre.model_dump(mode="json"), "photos": _contents(sample)}
    return float(remember("outside", question, measure))


def list_augmentations(augment: Augment) -> list[tuple[str, str, Augment, float]]:
    """Return each augmentation that is not neutral: its name, its value as text, it alone, and its chance.

    A mirrored view is measured as such, and its chance given; all others happen to every view.
    """
    found = []
    if augment.crop != "centre":
        alone = Augment(crop=augment.crop, crop_scale=augment.crop_scale, crop_ratio=augment.crop_ratio)
        low, high = augment.crop_scale
        crop: str = augment.crop
        if crop == "random_resized":
            crop = recorded(
                "effect", "random_resized of {low} to {high} of the photo", low=f"{low:g}", high=f"{high:g}"
            )
        found.append(("crop", crop, alone, 1.0))
    for name in ("flip", "rotation", "brightness", "contrast", "saturation", "noise"):
        value = getattr(augment, name)
        if value:
            flips = name == "flip"
            alone = Augment.model_validate({name: 1.0 if flips else value})
            found.append((name, f"{value:g}", alone, value if flips else 1.0))
    return found


def _contents(sample: Sample) -> list[tuple[str, str]]:
    return [(photo.sha256, photo.label) for photo in sample.photos]


def _remember(plan: Plan, sample: Sample, cache: FeatureCache, change: dict[str, object]) -> dict[str, Any]:
    """Return the figures of one change, by all that decides them."""
    knows_photos = plan.weights.source != "none"

    def measure() -> dict[str, Any]:
        if "augment" in change:
            with_it, without = sample.views(Augment.model_validate(change["augment"])), sample.plain
        else:
            with_it, without = sample.plain, sample.inputs(Preprocess.model_validate(change["without"]))
        figures = compare_pixels(with_it, without, plan.preprocess)
        if knows_photos:
            features = sample.features(with_it, cache), sample.features(without, cache)
            figures |= compare_features(*features, sample.labels)
        return figures

    question = {
        "version": _VERSION,
        "change": change,
        "preprocess": plan.preprocess.model_dump(mode="json"),
        "photos": _contents(sample),
        "backbone": [plan.backbone, plan.weights.sha256, plan.engine, plan.device, plan.threads] if knows_photos else 0,
        "versions": runtime.environment()["packages"],
    }
    return dict(remember("effects", question, measure))


def compare_pixels(with_it: Tensor, without: Tensor, pre: Preprocess) -> dict[str, Any]:
    """Return how two stacks of (N, 3, H, W) model inputs differ, in grey levels of 0-255."""
    scale = torch.tensor(pre.std, dtype=torch.float64).view(3, 1, 1) * 255
    change = (with_it - without).abs() * scale
    return {
        "pixel_change": float(change.mean()),
        "changed_share": float((change > HALF_LEVEL).double().mean()),
    }


def compare_features(with_it: Tensor, without: Tensor, labels: Sequence[str]) -> dict[str, Any]:
    """Return how far (N, D) features move, beside how far those of different photos are from each other.

    The distance is 1 - cosine, which leaves their size out; that comes by itself. Features that are not numbers give
    no figures.
    """
    if not (with_it.isfinite().all() and without.isfinite().all()):
        return {}
    a, b = (torch.nn.functional.normalize(f.double(), dim=1) for f in (with_it, without))
    distance = 1 - b @ b.T
    same = torch.tensor([[x == y for y in labels] for x in labels])
    upper = torch.ones_like(same).triu(1)
    figures: dict[str, Any] = {"feature_change": max(0.0, float((1 - (a * b).sum(dim=1)).mean()))}
    for name, pairs in (("same_class", same & upper), ("other_class", ~same & upper)):
        if pairs.any():
            figures[name] = max(0.0, float(distance[pairs].mean()))
    size = float(without.double().square().mean().sqrt())
    if size:
        figures["feature_growth"] = float(with_it.double().square().mean().sqrt()) / size
    return figures
