"""Intervals of shares and of their differences, by the published methods that every room quotes."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]


def wilson_interval(right: float, total: float, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share (Wilson 1927), both ends in 0-1; (0, 1) without photos.

    Photos that depend on one another count as fewer, so that neither number need be whole.
    """
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, weight = (right + z * z / 2) / (total + z * z), z / (total + z * z)
    half = weight * math.sqrt(right * (total - right) / total + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_upper_bound(wrong: int, total: int, certainty: float) -> float:
    """Return the one-sided upper bound of a share (Clopper and Pearson 1934), 0-1; 1 without photos.

    It is the share at which so few of `total` would be seen in 1 - `certainty` of cases.
    """
    if wrong >= total:
        return 1.0
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(wrong + 1)]
    low, high = wrong / total, 1.0
    for _ in range(50):
        share = (low + high) / 2
        ways = (log + k * math.log(share) + (total - k) * math.log1p(-share) for k, log in enumerate(logs))
        low, high = (share, high) if math.fsum(map(math.exp, ways)) > 1 - certainty else (low, share)
    return high


def paired_interval(right: np.ndarray) -> Interval:
    """Return the 95 % interval of the second share less the first, Newcombe's method 10 (Newcombe 1998).

    `right` is (N, 2) bool: whether each photo is right by the first and by the second model.
    """
    total = len(right)
    both = int(right.all(axis=1).sum())
    second, first = int(right[:, 1].sum()), int(right[:, 0].sum())
    neither = total - first - second + both
    low2, high2 = wilson_interval(second, total)
    low1, high1 = wilson_interval(first, total)
    p1, p2 = first / total, second / total
    product = first * (total - first) * second * (total - second)
    # Newcombe's phi with his continuity correction for a positive association.
    cross: float = both * neither - (second - both) * (first - both)
    if cross > 0:
        cross = max(cross - total / 2, 0)
    phi = cross / product**0.5 if product else 0.0
    down = (p2 - low2) ** 2 - 2 * phi * (p2 - low2) * (high1 - p1) + (high1 - p1) ** 2
    up = (high2 - p2) ** 2 - 2 * phi * (high2 - p2) * (p1 - low1) + (p1 - low1) ** 2
    difference = p2 - p1
    return float(difference - max(down, 0) ** 0.5), float(difference + max(up, 0) ** 0.5)


def clustered_interval(values: np.ndarray, clusters: np.ndarray) -> Interval:
    """Return the 95 % interval of a mean whose values depend on one another within clusters.

    `values` is (N,), `clusters` (N,) numbers from 0. The variance is that between the clusters' sums (Liang and Zeger
    1986), with Student's t for one less than the number of clusters; of one cluster nothing can be said.
    """
    mean, error, count = clustered_error(values, clusters)
    if count < 2:
        return -math.inf, math.inf
    half = error * student_quantile(count - 1)
    return mean - half, mean + half


def clustered_wilson_interval(right: np.ndarray, clusters: np.ndarray) -> Interval:
    """Return Wilson's interval of a share of (N,) bool, for as many photos as the clusters leave (design effect)."""
    share, error, count = clustered_error(right.astype(float), clusters)
    alone = share * (1 - share) / len(right)
    effect = max(1.0, error**2 / alone) if alone > 0 and count > 1 else len(right) / count
    return wilson_interval(share * len(right) / effect, len(right) / effect)


def student_quantile(freedom: int, level: float = 0.95) -> float:
    """Return what a t-distributed number exceeds on either side in 1 - `level` of cases together."""
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, freedom))


def clustered_error(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, int]:
    """Return the mean of (N,) values, its standard error and the number of clusters; `clusters` as above."""
    mean = float(values.mean())
    sums = np.bincount(clusters, values - mean)
    sizes = np.bincount(clusters)
    count = int((sizes > 0).sum())
    spread = float((sums**2).sum()) * count / max(1, count - 1)
    return mean, math.sqrt(spread) / len(values), count
