"""Intervals of shares and of their differences, by the published methods that every room quotes."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def paired_interval(only_first: float, only_second: float, total: float, level: float = 0.95) -> Interval:
    """Return the interval of the second share less the first, by Tango's score method (Tango 1998); (-1, 1) of nothing.

    `only_first` and `only_second` are how many of `total` photos only the one and only the other gets right. It holds
    the truth as often as it says also where few photos are told apart by the two; there Newcombe's method 10 (1998)
    is too wide, and the normal approximation too narrow (Fagerland, Lydersen and Laake 2014). The ends are where the
    score test of the difference has a p-value of 1 - `level`. Photos that depend on one another count as fewer, so
    that no number need be whole.
    """
    if total <= 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    observed = (only_second - only_first) / total

    def statistic(difference: float) -> float:
        # The likeliest share of photos that only the first gets right, if this were the true difference.
        half = only_first + only_second - (2 * total + only_first - only_second) * difference
        root = half * half + 8 * total * only_first * difference * (1 - difference)
        share = (math.sqrt(max(root, 0.0)) + half) / (4 * total)
        variance = total * (2 * share + difference * (1 - difference))
        gap = only_second - only_first - total * difference
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap) if gap else 0.0

    def kept(difference: float) -> bool:
        return abs(statistic(difference)) <= z

    return last_kept(observed, -1.0, kept), last_kept(observed, 1.0, kept)


def last_kept(inside: float, outside: float, kept: Callable[[float], bool]) -> float:
    """Return the last number from `inside` to `outside`, which may be the smaller one, that a test keeps.

    It keeps `inside`, and nothing beyond the first number that it does not.
    """
    if kept(outside):
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return inside


def clustered_wilson_interval(right: np.ndarray, clusters: np.ndarray, weights: np.ndarray | None = None) -> Interval:
    """Return Wilson's interval of a share of (N,) bool, for as many photos as clusters and weights leave.

    `clusters` is as in `clustered_interval`; `weights` is (N,) with a mean of 1, by default all the same. The number of
    photos is divided by the design effect, how many times larger the variance is than that of as many photos of equal
    weight that do not depend on one another (Rao and Scott 1992); by no less than the two alone make it, so that shares
    near 0 or 1, which show little variance, are not called certain.
    """
    total = len(right)
    even, tied, count = clustered_error(right.astype(float), clusters)
    plain = even * (1 - even) / total
    effect = max(1.0, tied**2 / plain) if plain > 0 and count > 1 else total / count
    share = even
    if weights is not None:
        share = float((weights * right).mean())
        effect *= float((weights**2).mean())
        alone = share * (1 - share) / total
        if alone > 0 and count > 1:
            effect = max(effect, clustered_error(weights * (right - share), clusters)[1] ** 2 / alone)
    return wilson_interval(share * total / effect, total / effect)


def clustered_paired_interval(change: np.ndarray, clusters: np.ndarray, weights: np.ndarray) -> Interval:
    """Return Tango's interval of a weighted difference of shares, for as many photos as weights and clusters leave.

    `change` is (N,): 1 where only the second gets the photo right, -1 where only the first does, else 0; `weights` is
    (N,) with a mean of 1. The design effect is that of `clustered_wilson_interval`.
    """
    total = len(change)
    first, second = float((weights * (change < 0)).mean()), float((weights * (change > 0)).mean())
    difference = second - first
    alone = (first + second - difference**2) / total
    _, error, count = clustered_error(weights * (change - difference), clusters)
    effect = float((weights**2).mean()) * total / count
    if alone > 0 and count > 1:
        effect = max(1.0, error**2 / alone)
    return paired_interval(first * total / effect, second * total / effect, total / effect)


def skewed_interval(values: np.ndarray, clusters: np.ndarray) -> Interval:
    """Return the 95 % interval of the mean of skewed values, by Hall's cubic transformation (Hall 1992).

    `values` and `clusters` are as in `clustered_interval`, whose interval is symmetric and therefore misses the truth
    too often where few large values decide, as in a log loss: the mean is low whenever none of them was drawn.
    """
    mean, error, count = clustered_error(values, clusters)
    sums = np.bincount(clusters, values - mean)
    if count < 2 or error == 0:
        return (mean, mean) if count > 1 else (-math.inf, math.inf)
    lean = float((sums**3).mean() / (sums**2).mean() ** 1.5) / math.sqrt(count)
    quantile = student_quantile(count - 1)

    def untransformed(value: float) -> float:
        if abs(lean) < 1e-6:
            return value
        return float(3 * (np.cbrt(1 + lean * (value - lean / 6)) - 1) / lean)

    return mean - error * untransformed(quantile), mean - error * untransformed(-quantile)


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
