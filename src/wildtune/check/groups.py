"""Which photos must stay together when some are held out to judge the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import Photo
from wildtune.photos.disjoint_sets import DisjointSets
from wildtune.photos.groups import group_photos


def create_groups(findings: Findings, photos: Sequence[Photo]) -> list[str]:
    """Return for each photo a name, the same for those that must stay together, as a split by default has them.

    A wrong label on one of two like photos would otherwise vouch for the other.
    """
    names = [""] * len(photos)
    for number, group in enumerate(group_photos(photos, findings.near_groups, findings.facts, "auto")[0]):
        for i in group.photos:
            names[i] = str(number)
    return names


def unite_groups(*groupings: Sequence[str]) -> list[str]:
    """Return the name of each photo's group where photos that any of the groupings (each of length N) ties are tied.

    In a grouping "" is a photo by itself.
    """
    sets = DisjointSets(len(groupings[0]))
    for grouping in groupings:
        first: dict[str, int] = {}
        for i, name in enumerate(grouping):
            if name:
                sets.unite(first.setdefault(name, i), i)
    return [str(sets.root(i)) for i in range(len(groupings[0]))]


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """Return the groups as int64 (N,) numbers from 0, in the order in which they first come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
