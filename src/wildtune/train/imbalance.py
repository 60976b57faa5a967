"""Unequal classes: rare ones drawn more often, or counted more, or the loss told how rare they are.

sampling          balanced batches: of two photos the one of the rarer class is drawn more often
class_weights     each photo's loss counts by how rare its class is
logit_adjustment  the loss expects each class as often as it is there (Menon et al., "Long-tail learning via logit
                  adjustment", ICLR 2021), so that what is learned does not lean to common classes

All three act on training alone: the network that comes out is used as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildtune.language import ENGLISH, Language
from wildtune.recipe import Stage
from wildtune.runtime import seed_from


def class_weights(counts: Sequence[int], strength: float = 1.0) -> np.ndarray:
    """Return the (C,) float64 weight of each class's photos, whose mean over all photos is 1.

    `counts` are the C classes' training photos. At strength 1 the weight is n / (K n_k) for n photos in K classes that
    have any, so that each class counts the same; at s it is in proportion to n_k ** -s. A class without photos gets 0.
    """
    photos = np.asarray(counts, dtype=np.float64)
    weights = np.where(photos > 0, np.maximum(photos, 1) ** -strength, 0.0)
    return weights * photos.sum() / (weights * photos).sum()


def logit_offsets(counts: Sequence[int], strength: float = 1.0) -> np.ndarray:
    """Return the (C,) float64 numbers that the loss adds to the logits: `strength` times the logarithm of the share.

    A class without training photos counts as if it had one, since the logarithm of nothing would be no number.
    """
    photos = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return strength * np.log(photos / photos.sum())


@dataclass(frozen=True)
class StageLoss:
    """The loss of a stage.

    smoothing  share of the target spread over all classes
    weights    (C,) float32 factor on the loss of each class's photos, None for none
    offsets    (C,) float32 added to the logits, None for none
    """

    smoothing: float = 0.0
    weights: Tensor | None = None
    offsets: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over the photos of their losses, nats; `logits` (B, C), `targets` (B,) int64.

        A weight multiplies all of a photo's loss, the smoothed part included. The sum is to be divided by the number
        of photos, not by that of their weights: then the parts of a batch add up to the batch, and the mean over an
        epoch is the mean over the photos.
        """
        if self.offsets is not None:
            logits = logits + self.offsets.to(logits.device)
        if self.weights is None:
            return cross_entropy(logits, targets, label_smoothing=self.smoothing, reduction="sum")
        losses = cross_entropy(logits, targets, label_smoothing=self.smoothing, reduction="none")
        return losses @ self.weights.to(logits.device)[targets]


def create_loss(stage: Stage, counts: Sequence[int]) -> StageLoss:
    """Return the loss of a stage on classes with these numbers of training photos."""
    strength = stage.imbalance_strength
    if stage.imbalance == "class_weights":
        return StageLoss(stage.label_smoothing, weights=torch.from_numpy(class_weights(counts, strength)).float())
    if stage.imbalance == "logit_adjustment":
        return StageLoss(stage.label_smoothing, offsets=torch.from_numpy(logit_offsets(counts, strength)).float())
    return StageLoss(stage.label_smoothing)


def expected_draws(stage: Stage, targets: Tensor) -> np.ndarray | None:
    """Return how often each photo is drawn in an epoch on average, (N,) float64 with the sum N; None: each once."""
    if stage.imbalance != "sampling":
        return None
    classes = targets.numpy()
    return class_weights(np.bincount(classes).tolist(), stage.imbalance_strength)[classes]


def draw_photos(expected: np.ndarray, targets: np.ndarray, *seed: object) -> np.ndarray:
    """Return the (N,) int64 photos of an epoch in random order, drawn as often as `expected` says on average.

    Drawn systematically: each photo, and each class as a whole, comes as often as expected but for less than one. So
    an epoch has as many photos as always, and no photo comes a third time before its class's others have come twice.
    """
    rng = np.random.default_rng(seed_from(*seed))
    order = rng.permutation(len(expected))
    order = order[np.argsort(targets[order], kind="stable")]
    places = np.cumsum(expected[order])
    drawn = np.searchsorted(places, rng.random() + np.arange(len(expected)), side="right")
    # The sum of N numbers may end a rounding error below N.
    return rng.permutation(order[np.minimum(drawn, len(expected) - 1)])


def number_repeats(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each photo of each batch how often it came before in the epoch, int64 in the batches' shapes."""
    photos = np.concatenate(batches) if batches else np.empty(0, dtype=np.int64)
    order = np.argsort(photos, kind="stable")
    ordered = photos[order]
    repeats = np.empty_like(order)
    repeats[order] = np.arange(len(photos)) - np.searchsorted(ordered, ordered)
    return np.split(repeats, np.cumsum([len(batch) for batch in batches])[:-1])


def describe_treatment(stage: Stage, counts: dict[str, int], language: Language = ENGLISH) -> str:
    """Say in some words what a stage does about unequal classes, "" where nothing."""
    present = {name: count for name, count in counts.items() if count}
    if stage.imbalance == "none" or not present:
        return ""
    rare, common = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    weights = dict(zip(present, class_weights(list(present.values()), stage.imbalance_strength), strict=True))
    values = {
        "rare": rare,
        "rare_weight": language.numeral(f"{weights[rare]:.3g}"),
        "common": common,
        "common_weight": language.numeral(f"{weights[common]:.3g}"),
    }
    if stage.imbalance == "sampling":
        return language.say(
            "balanced sampling: each photo comes so often in an epoch on average: {rare_weight} for '{rare}', "
            "{common_weight} for '{common}'",
            **values,
        )
    if stage.imbalance == "class_weights":
        return language.say("class weights: {rare_weight} for '{rare}', {common_weight} for '{common}'", **values)
    return language.say(
        "logit adjustment, tau {tau}, by the classes' shares of the training photos",
        tau=language.numeral(f"{stage.imbalance_strength:g}"),
    )
