"""Power laws of errors over the number of photos, one for each class, with what is not known about them.

The error of a class at x times its photos is b (f + (1 - f) x^-c): b now, of which a share f stays whatever is added,
and an exponent c. Errors of classifiers fall so over a wide range (Cortes et al., "Learning curves: asymptotic values
and rate of convergence", NIPS 1993; Figueroa et al., "Predicting sample size required for classification performance",
2012; Hestness et al., "Deep learning scaling is predictable, empirically", 2017).

Curves are drawn from what is left possible: the photos are drawn anew by group (Rubin, "The Bayesian bootstrap", 1981)
and so are the expectations that classes are drawn towards, and each time the likeliest curve is found, which makes
draws from the posterior (Papandreou and Yuille, "Perturb-and-MAP random fields", 2011; exact for normal models).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wildtune.runtime import seed_from

DRAWS = 400
# What is expected before a photo is seen. Exponents of 0.07 to 0.35 were found for networks trained from nothing
# (Hestness 2017); heads on good features gain faster. The classes' own differ from the common one by a factor of 1.4.
_EXPONENT, _EXPONENT_SPREAD = 0.5, 0.6
_CLASS_SPREAD = 0.35
# How far the classes' log errors lie apart, as if five more classes than there are had shown it.
_LEVEL_SPREAD, _LEVEL_CLASSES = 0.8, 5
# Shares of today's error that may stay for ever, as likely as each other before a photo is seen.
_FLOORS = np.linspace(0.0, 0.6, 13)
# Relative error of a power law as such: what no curve through few sizes can know.
_MISFIT = 0.04
# Photos that each class borrows from all others, so that drawing anew calls none certain.
_BORROWED = 1.0
_ROUNDS = 25
_LOWEST, _HIGHEST = 1e-5, 0.98


@dataclass(frozen=True)
class PowerLaws:
    """Draws of the curves: the common one and that of each class.

    error, exponent              (B,) of all photos together; the error is today's, 0-1
    floor                        (B,) share of today's error that stays
    class_error, class_exponent  (B, K)
    """

    error: np.ndarray
    exponent: np.ndarray
    floor: np.ndarray
    class_error: np.ndarray
    class_exponent: np.ndarray

    def errors(self, factor: float) -> np.ndarray:
        """Return (B,) errors, 0-1, of all photos together with `factor` times as many photos."""
        return np.minimum(self.error * _fall(factor, self.exponent, self.floor), 1.0)

    def class_errors(self, factor: float) -> np.ndarray:
        """Return (B, K) errors of the classes, 0-1, with `factor` times as many photos."""
        return np.minimum(self.class_error * _fall(factor, self.class_exponent, self.floor[:, None]), 1.0)

    def factors(self, error: float) -> np.ndarray:
        """Return (B, K): with how many times as many photos each class comes down to an error; inf where never."""
        floor = self.floor[:, None]
        left = np.maximum((error / self.class_error - floor) / (1 - floor), 0)
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(left ** (-1 / self.class_exponent))


def _fall(factor: float | np.ndarray, exponent: np.ndarray, floor: np.ndarray) -> np.ndarray:
    return np.asarray(floor + (1 - floor) * factor**-exponent)


def fit_power_laws(
    shares: np.ndarray, wrong: np.ndarray, targets: np.ndarray, groups: np.ndarray, seed: int, draws: int = DRAWS
) -> PowerLaws:
    """Return curves that these errors leave possible.

    `shares` is (S,), the last of them 1; `wrong` (S, N) how often each photo was named wrongly at each, 0-1; `targets`
    (N,) class indices from 0, each of which has photos; `groups` (N,) numbers from 0, of photos that fare alike.
    Classes are drawn towards the common curve, the more the fewer photos they have. The same input gives the same
    draws.
    """
    rng = np.random.default_rng(seed_from(seed, "power laws"))
    count = int(groups.max()) + 1
    weights = np.concatenate([np.ones((1, count)), rng.dirichlet(np.ones(count), draws) * count])[:, groups]
    classes = np.eye(int(targets.max()) + 1)[targets]
    errors = np.einsum("bn,sn,nk->bsk", weights, wrong, classes, optimize=True)
    totals = weights @ classes
    effect = _design_effect(wrong[-1], targets, groups)
    borrowed = _BORROWED * effect * rng.exponential(size=totals.shape)
    errors += borrowed[:, None] * (errors.sum(axis=2) / totals.sum(axis=1, keepdims=True))[..., None]
    totals += borrowed
    # Half an error more, drawn as chance would have it (Jeffreys' prior): a set without any error is not perfect, and
    # how far from it is not known. An error counts for as many as a group's photos fare alike.
    half = effect * np.concatenate([[0.5], rng.gamma(0.5, size=draws)])[:, None]
    common = np.log((errors.sum(axis=2) + half) / (totals.sum(axis=1, keepdims=True) + effect))
    spread = np.cov(common[1:].T) + _MISFIT**2 * np.eye(len(shares))
    floor = rng.choice(_FLOORS, draws, p=_weigh_floors(shares, common[0], spread))
    expected = np.log(_EXPONENT) + _EXPONENT_SPREAD * rng.normal(size=draws)
    noise = rng.normal(0, _MISFIT, (draws, len(shares)))
    error, exponent, _ = _fit_common(shares, common[1:] + noise, np.linalg.inv(spread), floor, expected)
    found, exponents = _fit_classes(shares, errors[1:] / effect, totals[1:] / effect, floor, error, exponent, rng)
    return PowerLaws(np.exp(error), np.exp(exponent), floor, np.exp(found), np.exp(exponents))


def _weigh_floors(shares: np.ndarray, common: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return how likely each floor is, by how well a curve with it fits the (S,) log errors."""
    many = np.repeat(common[None], len(_FLOORS), axis=0)
    start = np.full(len(_FLOORS), np.log(_EXPONENT))
    cost = _fit_common(shares, many, np.linalg.inv(spread), _FLOORS, start)[2]
    likely = np.exp(-(cost - cost.min()) / 2)
    return np.asarray(likely / likely.sum())


def _fit_common(
    shares: np.ndarray, logs: np.ndarray, precision: np.ndarray, floor: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit (B, S) log errors by generalised least squares; return log error, log exponent and cost, each (B,)."""
    error, exponent = logs[:, -1].copy(), expected.copy()
    x, low = shares[None], floor[:, None]
    prior = 1 / _EXPONENT_SPREAD**2
    cost = np.zeros(len(logs))
    for _ in range(_ROUNDS):
        power = np.exp(exponent)[:, None]
        fall = _fall(x, power, low)
        slopes = np.stack([np.ones_like(fall), -(1 - low) * x**-power * np.log(x) * power / fall], axis=2)
        residual = logs - error[:, None] - np.log(fall)
        pull = np.einsum("bsp,st,bt->bp", slopes, precision, residual)
        pull[:, 1] += prior * (expected - exponent)
        matrix = np.einsum("bsp,st,btq->bpq", slopes, precision, slopes)
        matrix[:, 1, 1] += prior
        step = np.linalg.solve(matrix, pull[..., None])[..., 0]
        error, exponent = error + step[:, 0], exponent + np.clip(step[:, 1], -0.5, 0.5)
        cost = np.einsum("bs,st,bt->b", residual, precision, residual) + prior * (expected - exponent) ** 2
    return error, exponent, cost


def _fit_classes(
    shares: np.ndarray,
    errors: np.ndarray,
    totals: np.ndarray,
    floor: np.ndarray,
    error: np.ndarray,
    exponent: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each class's log error and log exponent, (B, K), drawn to the common ones (B,).

    `errors` (B, S, K) and `totals` (B, K) count photos that do not depend on one another.
    """
    draws, classes = totals.shape
    width = _level_spread(errors[:, -1], totals)
    # A mean of logarithms lies below the logarithm of the mean.
    level = error[:, None] - width**2 / 2 + width * rng.normal(size=(draws, classes))
    bend = exponent[:, None] + _CLASS_SPREAD * rng.normal(size=(draws, classes))
    found, bent = level.copy(), bend.copy()
    x, low = shares[None, :, None], floor[:, None, None]
    # The same photos are judged at every size, and count once.
    weight, photos = 1 / len(shares), totals[:, None]
    for _ in range(_ROUNDS):
        power = np.exp(bent)[:, None]
        fall = _fall(x, power, low)
        chance = np.clip(np.exp(found)[:, None] * fall, _LOWEST, _HIGHEST)
        steep = -(1 - low) * x**-power * np.log(x) * power / fall
        # Of the binomial likelihood, in the logarithm of the error.
        pull = weight * (errors - photos * chance) / (1 - chance)
        firm = weight * photos * chance / (1 - chance)
        first = pull.sum(axis=1) + (level - found) / width**2
        second = (pull * steep).sum(axis=1) + (bend - bent) / _CLASS_SPREAD**2
        aa = firm.sum(axis=1) + 1 / width**2
        ab = (firm * steep).sum(axis=1)
        bb = (firm * steep**2).sum(axis=1) + 1 / _CLASS_SPREAD**2
        scale = aa * bb - ab**2
        found = found + np.clip((bb * first - ab * second) / scale, -0.5, 0.5)
        bent = bent + np.clip((aa * second - ab * first) / scale, -0.3, 0.3)
    return found, bent


def _design_effect(wrong: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> float:
    """Return for how many photos one counts, because photos of a group fare alike (Kish 1965); 1 or more."""
    residual = wrong - (np.bincount(targets, wrong) / np.bincount(targets))[targets]
    alone = float(residual @ residual)
    if alone == 0:  # nothing shows how alike they fare: each group counts once
        return len(wrong) / len(np.unique(groups))
    return max(1.0, float((np.bincount(groups, residual) ** 2).sum()) / alone)


def _level_spread(errors: np.ndarray, totals: np.ndarray) -> float:
    """Return how far the classes' log errors lie apart beyond chance, from (B, K) errors and photos."""
    logs = np.log((errors + 0.5) / (totals + 1)).mean(axis=0)
    chance = float((1 / (errors.mean(axis=0) + 0.5)).mean())
    others = len(logs) - 1
    seen = max(float(logs.var(ddof=1)) - chance, 0.0) if others else 0.0
    return float(np.sqrt((_LEVEL_CLASSES * _LEVEL_SPREAD**2 + others * seen) / (_LEVEL_CLASSES + others)))
