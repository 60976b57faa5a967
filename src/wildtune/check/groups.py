"""Which photos must stay together when some are held out to judge the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wildtune.photos.audit import Findings
from wildtune.photos.catalogue import Photo


def create_groups(findings: Findings, photos: Sequence[Photo]) -> list[str]:
    """Return for each photo the name of the group it must stay with: the source's own, joined with near duplicates.

    A wrong label on one of two like photos would otherwise vouch for the other.
    """
    names = {photo.path: f"group {photo.group}" if photo.group else f"photo {photo.path}" for photo in photos}
    parent: dict[str, str] = {name: name for name in names.values()}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for finding in findings.findings:
        if finding.kind == "near_duplicate" and finding.path in names and finding.other_path in names:
            ends = sorted((root(names[finding.path]), root(names[finding.other_path])))
            parent[ends[1]] = ends[0]
    return [root(names[photo.path]) for photo in photos]


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """Return the groups as int64 (N,) numbers from 0, in the order in which they first come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
