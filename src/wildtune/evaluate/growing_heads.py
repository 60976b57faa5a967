"""Linear heads on frozen features, trained on growing shares of the photos and judged on photos they never saw.

All heads of one share are trained at once, as a stack of matrices, by Nesterov's accelerated gradient for strongly
convex functions ("Introductory lectures on convex optimization", 2004, section 2.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wildtune.photos.folds import number_folds
from wildtune.runtime import computing_alone, seed_from

FOLDS = 5
# Shares of the photos, each with how many draws of so many photos are averaged: few photos, more chance, less work.
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
_DRAWS = (5, 3, 2, 1, 1)
# The features' other directions change no answer that could be told from chance, and cost five times as much.
_COMPONENTS = 256
# Inverse weight of the squares of a head's weights, beside the sum of its losses; features have rows of about length 1.
_STRENGTH = 12.8
# After as many, answers no longer change; the gradient is then under 1e-5.
_STEPS = 60
_POWER_STEPS = 20
# Values of one stack of heads' features, 64 MiB.
_MOST_VALUES = 2**24


@dataclass(frozen=True)
class HeldOutErrors:
    """How photos fare with heads that never saw them.

    shares   (S,) of the photos that heads were trained on, 0-1, rising; 1 is all of the other folds
    trained  (S,) float64 mean number of photos that a head was trained on
    wrong    (S, N) float64 share of the heads that took photo i for another class, 0-1
    """

    shares: np.ndarray
    trained: np.ndarray
    wrong: np.ndarray


def measure_errors(features: np.ndarray, targets: np.ndarray, groups: np.ndarray, seed: int) -> HeldOutErrors:
    """Return how each photo fares with heads trained on growing shares of the other folds' photos.

    `features` is (N, D) float32, `targets` (N,) class indices from 0, `groups` (N,) numbers from 0 without gaps; a
    group is never in two folds, nor partly in a share. The shares of one draw hold each other. It computes in one
    thread, so that the number of cores changes nothing. Photos in another order may give other draws.
    """
    folds = number_folds(targets, groups, FOLDS, seed_from(seed, "curve folds"))
    labels = torch.from_numpy(targets)
    wrong, trained = np.zeros((len(SHARES), len(targets))), np.zeros(len(SHARES))
    with computing_alone():
        inputs = _principal_components(features, seed)
        for place, (share, draws) in enumerate(zip(SHARES, _DRAWS, strict=True)):
            sides = [(draw, fold) for draw in range(draws) for fold in range(FOLDS)]
            rows = [
                draw_share(share, folds != fold, targets, groups, seed_from(seed, "curve draw", draw))
                for draw, fold in sides
            ]
            heads = train_heads(inputs, labels, rows)
            for (_, fold), head in zip(sides, heads, strict=True):
                held = np.flatnonzero(folds == fold)
                answers = (inputs[torch.from_numpy(held)] @ head).argmax(dim=1).numpy()
                wrong[place, held] += (answers != targets[held]) / draws
            trained[place] = np.mean([len(some) for some in rows])
    return HeldOutErrors(np.array(SHARES), trained, wrong)


def _principal_components(features: np.ndarray, seed: int) -> Tensor:
    """Return (N, W + 1) float32: features centred, scaled and turned to their W main directions, and a constant.

    No label is looked at. The constant stands for the bias; of the size of the strongest direction it slows nothing
    down, and its weight costs next to nothing.
    """
    values = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    values = values - values.mean(dim=0)
    values = values / values.std(dim=0).clamp_min(1e-6) / values.shape[1] ** 0.5
    width = min(_COMPONENTS, *values.shape)
    if width < values.shape[1]:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_from(seed, "curve components"))
            _, _, directions = torch.pca_lowrank(values, q=width, center=False, niter=2)
        values = values @ directions
    largest = float(values.square().sum(dim=0).max() / len(values)) ** 0.5
    return torch.cat([values, torch.full((len(values), 1), largest or 1.0)], dim=1)


def draw_share(share: float, side: np.ndarray, targets: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of about a share of each class among the photos `side`, bool (N,), in whole groups.

    Groups come in one order of chance, so that a larger share holds the smaller ones; each class has at least one. A
    group counts as of its first photo's class.
    """
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    rows = np.flatnonzero(side)
    rows = rows[np.argsort(order[groups[rows]], kind="stable")]
    kinds, first = np.unique(groups[rows], return_index=True)
    first = np.sort(first)
    sizes = np.diff(np.append(first, len(rows)))
    of_group = targets[rows[first]]
    taken = np.zeros(len(kinds), dtype=bool)
    for target in np.unique(of_group):
        mine = np.flatnonzero(of_group == target)
        before = np.cumsum(sizes[mine]) - sizes[mine]
        taken[mine] = before + sizes[mine] / 2 <= share * sizes[mine].sum()
        taken[mine[0]] = True
    return np.sort(rows[np.repeat(taken, sizes)])


def train_heads(inputs: Tensor, labels: Tensor, rows: Sequence[np.ndarray]) -> list[Tensor]:
    """Return a (W, C) linear head for each list of rows, fitted to these of the (N, W) inputs and (N,) labels.

    Each minimises the mean softmax cross-entropy and the squares of its weights.
    """
    length = max(len(some) for some in rows)
    at_once = max(1, _MOST_VALUES // (length * inputs.shape[1]))
    parts = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    return [head for part in parts for head in _train_stack(inputs, labels, part)]


@torch.no_grad()
def _train_stack(inputs: Tensor, labels: Tensor, rows: Sequence[np.ndarray]) -> Tensor:
    """Return (H, W, C) heads; those with fewer rows are filled up with rows of no weight."""
    length = max(len(some) for some in rows)
    places = torch.from_numpy(np.stack([np.resize(some, length) for some in rows]))
    weights = torch.stack([(torch.arange(length) < len(some)) / len(some) for some in rows])[..., None]
    some = inputs[places]
    weighted = (some * weights).transpose(1, 2).contiguous()
    wanted = torch.nn.functional.one_hot(labels[places], int(labels.max()) + 1).float()
    penalty = torch.tensor([1 / (_STRENGTH * len(part)) for part in rows])[:, None, None]
    # Softmax cross-entropy curves by at most half of the inputs' largest second moment (Böhning 1992), found by the
    # power method; a little more, because that comes from below.
    vector = torch.ones(len(rows), inputs.shape[1], 1)
    for _ in range(_POWER_STEPS):
        vector = weighted @ (some @ vector)
        moment = vector.norm(dim=1, keepdim=True).clamp_min(1e-12)
        vector = vector / moment
    curvature = 0.55 * moment + penalty
    slowness = (penalty / curvature).sqrt()
    momentum = (1 - slowness) / (1 + slowness)
    heads = ahead = torch.zeros(len(rows), inputs.shape[1], wanted.shape[2])
    for _ in range(_STEPS):
        slope = weighted @ (torch.softmax(some @ ahead, dim=2) - wanted) + penalty * ahead
        stepped = ahead - slope / curvature
        ahead = stepped + momentum * (stepped - heads)
        heads = stepped
    return heads
