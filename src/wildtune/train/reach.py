"""How far a stage can move its weights: the learning rates of all its steps against the size of the weights."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildtune.model.backbone import head_of
from wildtune.model.freeze import set_trainable
from wildtune.recipe import Stage
from wildtune.train.optimizer import MOMENTUM, create_optimizer, size_of
from wildtune.train.plan import PlannedStage, Reach
from wildtune.train.schedule import lr_factor

# Storing weights in bfloat16 changes them by this share of their size (root mean square), and networks keep their
# accuracy so (Kalamkar et al. 2019): weights that can go a thousandth at most go less far than that.
BFLOAT16 = 1.7e-3
LEAST_REACH = 1e-3

# Above this epsilon Adam's step depends on the gradient's size, as it is then no longer small beside it.
_SMALL_EPSILON = 1e-6
_FACTORS_AN_EPOCH = 100


def needs_gradient(stage: Stage) -> bool:
    """Say whether the length of a stage's steps depends on the gradient's size."""
    return stage.optimizer == "sgd" or stage.epsilon > _SMALL_EPSILON


def measure_reach(model: nn.Module, planned: PlannedStage, gradients: dict[str, float] | None = None) -> Reach:
    """Return how far the stage's rates can move the weights that the model has now.

    A step of Adam or AdamW moves a weight by at most about the rate (Kingma and Ba 2015, section 2.1), so that all
    steps in one direction move it by the rates' sum. SGD has no such limit: `gradients`, the root mean square of each
    trained tensor's gradient by name, then gives the length of a step, ten times as long with momentum 0.9 while the
    gradient stays the same. `plateau` is taken not to drop. Rates that differ between tensors (`relative_lr`,
    `layer_decay`) are those of the stage's own optimiser; with `average` only that share of the way is kept.
    """
    stage = planned.stage
    set_trainable(model, head_of(model), stage.train)
    names = {id(weight): name for name, weight in model.named_parameters()}
    total, peak = sum_rates(stage, planned.steps_per_epoch)
    kept = stage.average or 1.0
    count = stuck = squares = moves = slopes = 0.0
    for group in create_optimizer(model, stage).param_groups:
        for weight in group["params"]:
            gradient = (gradients or {}).get(names[id(weight)], 0.0)
            step = group.get("lr_scale", 1.0) * _step_size(stage, gradient)
            furthest = kept * total * step
            stuck += weight.numel() * (furthest < LEAST_REACH * size_of(weight))
            count, squares = count + weight.numel(), squares + float(weight.detach().double().square().sum())
            moves += weight.numel() * step**2
            slopes += weight.numel() * gradient**2
    rms = max(math.sqrt(squares / count), 1e-12)
    step = math.sqrt(moves / count) / rms
    return Reach(
        stage=stage.name,
        steps=planned.steps_per_epoch * stage.epochs,
        lr_sum=total,
        weights_rms=rms,
        reach=kept * total * step,
        largest_step=peak * step,
        stuck_share=stuck / count,
        gradient_rms=math.sqrt(slopes / count) if gradients else None,
    )


def sum_rates(stage: Stage, steps: int) -> tuple[float, float]:
    """Return the sum and the highest of a stage's learning rates over all its steps, `steps` an epoch.

    Of long epochs a hundred evenly spaced steps stand for all.
    """
    places = range(steps) if steps <= _FACTORS_AN_EPOCH else [i * steps // 100 for i in range(_FACTORS_AN_EPOCH)]
    factors = [lr_factor(stage.policy, epoch, i, steps, stage.epochs) for epoch in range(stage.epochs) for i in places]
    return stage.lr * sum(factors) * steps / len(places), stage.lr * max(factors)


def measure_gradients(model: nn.Module, inputs: Tensor, targets: Tensor, stage: Stage) -> dict[str, float]:
    """Return the root mean square of the loss's gradient for each tensor that the stage trains, by name.

    `inputs` are (B, 3, H, W) images, or (B, D) features for a stage that trains the head. The head is untrained, which
    makes the gradient larger than it will be. The model is left in inference mode without gradients.
    """
    set_trainable(model, head_of(model), stage.train)
    model.eval()
    run = head_of(model) if stage.train == "head" else model
    cross_entropy(run(inputs).float(), targets, label_smoothing=stage.label_smoothing).backward()
    found = {
        name: float(weight.grad.double().square().mean().sqrt())
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return found


def _step_size(stage: Stage, gradient: float) -> float:
    """Return how far a step moves a weight, at most or about, as a multiple of its learning rate."""
    if stage.optimizer == "sgd":
        return gradient / (1 - MOMENTUM)
    return gradient / (gradient + stage.epsilon) if needs_gradient(stage) else 1.0
