"""Which places of a photo raised or lowered the logit of a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

# Squares along each side that a photo is covered by in turn where a network has no map of features.
OCCLUSION_GRID = 7


def explain_logits(model: nn.Module, image: Tensor, classes: Sequence[int]) -> np.ndarray:
    """Share the logits of some classes out among the places of a photo.

    `model` is a classifier made by `create_classifier`, in inference mode; `image` its (3, H, W) float32 input;
    `classes` K indices of logits. Returns (K, h, w) float32 in logits, one value a place, above 0 where it spoke for
    the class. The grid h x w covers the whole input.

    Where the network ends in a map of features, each place gets the sum over the channels of its activation times the
    logit's gradient: Grad-CAM (Selvaraju et al. 2017) without averaging the gradient and with negative values kept.
    For a linear head on averaged features this is the class activation map (Zhou et al. 2016), and the map's sum and
    the head's bias are the logit exactly. Where something else stands between map and head (ConvNeXt's LayerNorm) it
    is a first approximation. A network of tokens is explained by occlusion (Zeiler and Fergus 2014): what the logit
    loses when a square is covered with the mean colour, which costs 50 passes a photo.
    """
    image = image.to(next(model.parameters()).device)
    with torch.no_grad():
        features = model.forward_features(image[None])  # type: ignore[operator]
    channels = channel_axis(model, features)
    if channels is None:
        return _occlude(model, image, list(classes))
    features = features.detach().requires_grad_()
    with torch.enable_grad():
        logits = model.forward_head(features)[0]  # type: ignore[operator]
        maps = [
            (torch.autograd.grad(logits[index], features, retain_graph=True)[0] * features.detach()).sum(channels)[0]
            for index in classes
        ]
    return torch.stack(maps).float().cpu().numpy()


def explains_fast(model: nn.Module, size: int) -> bool:
    """Say whether one pass explains a photo of `size` pixels a side: whether the network ends in a map of features."""
    parameter = next(model.parameters())
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, 3, size, size, device=parameter.device))  # type: ignore[operator]
    return channel_axis(model, features) is not None


def channel_axis(model: nn.Module, features: Tensor) -> int | None:
    """Return the axis of the channels in a (1, C, h, w) or (1, h, w, C) map of features, None for other features."""
    if features.ndim != 4:
        return None
    return next((axis for axis in (1, 3) if features.shape[axis] == model.num_features), None)


def _occlude(model: nn.Module, image: Tensor, classes: list[int]) -> np.ndarray:
    """Return the (K, OCCLUSION_GRID, OCCLUSION_GRID) losses of logits when each square of an image is covered."""
    rows, columns = (torch.linspace(0, side, OCCLUSION_GRID + 1).round().int().tolist() for side in image.shape[-2:])
    losses = torch.zeros(len(classes), OCCLUSION_GRID, OCCLUSION_GRID)
    with torch.no_grad():
        whole = model(image[None])[0, classes]
        for row in range(OCCLUSION_GRID):
            covered = image.repeat(OCCLUSION_GRID, 1, 1, 1)  # a row of squares at a time bounds the memory
            for column in range(OCCLUSION_GRID):
                part = slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1])
                covered[column, :, *part] = 0  # the mean colour
            losses[:, row] = (whole - model(covered)[:, classes]).T.cpu()
    return losses.float().numpy()
