"""Whether some classes have far fewer photos than others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from wildtune.language import recorded_counted
from wildtune.photos.catalogue import Photo

# From about here on a classifier gains accuracy by forgetting the small class.
NOTICED_RATIO = 10


def describe_imbalance(photos: Iterable[Photo]) -> str:
    """Return a sentence when the largest class has over NOTICED_RATIO times the photos of the smallest, else ""."""
    counts = Counter(photo.label for photo in photos if photo.label)
    if len(counts) < 2:
        return ""
    largest = max(counts, key=lambda name: (counts[name], name))
    smallest = min(counts, key=lambda name: (counts[name], name))
    ratio = counts[largest] / counts[smallest]
    if ratio <= NOTICED_RATIO:
        return ""
    return recorded_counted(
        "notice",
        "The classes are unequal: '{name}' has {n} photos, '{name_smallest}' {least}, {ratio} times fewer. Look at the "
        "balanced accuracy and the recall of the small classes rather than at the accuracy; stages.N.imbalance makes "
        "training heed them.",
        "The classes are unequal: '{name}' has {n} photos, '{name_smallest}' {least}, {ratio} times fewer. Look at the "
        "balanced accuracy and the recall of the small classes rather than at the accuracy; stages.N.imbalance makes "
        "training heed them.",
        counts[largest],
        name=largest,
        name_smallest=smallest,
        least=counts[smallest],
        ratio=f"{ratio:.0f}",
    )
