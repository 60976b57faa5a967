"""How much a split that tears groups apart would flatter: the same heads, with folds that keep groups and without.

Near copies, bursts and other photos of one group on both sides of a split are questions with the answer given away. By
how much that changes the accuracy depends on the photos, so it is measured on theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wildtune import files
from wildtune.check.groups import number_groups
from wildtune.check.label_suspects import LabelRanking, fold_numbers, held_out_probabilities, judges
from wildtune.frozen import Frozen
from wildtune.intervals import Interval, clustered_interval, clustered_wilson_interval
from wildtune.language import ENGLISH, Language
from wildtune.memo import remember
from wildtune.photos.catalogue import Photo

# Another number measures anew; raise it when the same features and groups would give other numbers.
_VERSION = 1


class RandomSplit(Frozen):
    """What cross-validated heads on frozen features get right with groups kept whole, and with photos dealt at random.

    photos      photos that were judged both ways
    tied        of these, photos that belong to a group of two or more
    parted      of these, photos for which the random folds' head had learned another of their group
    grouped     accuracy with groups kept whole, 0-1, with its 95 % interval (low, high)
    random      accuracy with each photo dealt by itself, 0-1, with its 95 % interval
    difference  random less grouped, -1 to 1, paired by photo, with its 95 % interval
    tied_grouped, tied_random  both accuracies on the tied photos alone, 0-1

    All intervals allow for photos of one group faring alike.
    """

    photos: int
    tied: int
    parted: int
    grouped: float
    grouped_interval: Interval
    random: float
    random_interval: Interval
    difference: float
    difference_interval: Interval
    tied_grouped: float
    tied_random: float

    @property
    def measurable(self) -> bool:
        """Whether the difference is more than its interval leaves to chance."""
        low, high = self.difference_interval
        return low > 0 or high < 0


def measure_random_split(
    photos: Sequence[Photo],
    features: np.ndarray,
    groups: Sequence[str],
    seed: int = 0,
    answers: Mapping[str, str] | None = None,
) -> RandomSplit | None:
    """Return how heads fare with these groups kept whole and with none; None where no group has two photos.

    `features` is (N, D), row i of photo i without augmentation; photos with the same entry in `groups` (length N)
    belong together. `answers` are, by path, the classes that heads with the same groups and seed gave, where they are
    known (`known_answers`). The same input gives the same numbers, which are remembered.
    """
    numbers = number_groups(groups)
    labels = [photo.label for photo in photos]
    if not len(numbers) or np.bincount(numbers).max() < 2 or len(set(labels)) < 2:
        return None
    question = {
        "features": files.sha256_array(features),
        "labels": labels,
        "groups": numbers.tolist(),
        "seed": seed,
        "libraries": judges(),
    }

    def measure() -> dict[str, object] | None:
        found = _measure(photos, features, groups, seed, answers)
        return found.model_dump(mode="json") if found else None

    answer = remember(f"random-split-{_VERSION}", question, measure)
    return RandomSplit.model_validate(answer) if answer else None


def known_answers(ranking: LabelRanking) -> dict[str, str]:
    """Return by path the class that the ranking's heads gave each photo they could judge."""
    return {row.path: row.suggestion for row in ranking.rows if row.rank}


def _measure(
    photos: Sequence[Photo],
    features: np.ndarray,
    groups: Sequence[str],
    seed: int,
    answers: Mapping[str, str] | None,
) -> RandomSplit | None:
    class_names = sorted({photo.label for photo in photos})
    targets = np.searchsorted(class_names, [photo.label for photo in photos])
    alone = [str(i) for i in range(len(photos))]
    if answers is None:
        grouped = _answers(features, targets, groups, seed)
    else:
        index = {name: k for k, name in enumerate(class_names)}
        grouped = np.array([index.get(answers.get(photo.path, ""), -1) for photo in photos])
    random = _answers(features, targets, alone, seed)
    judged = (grouped >= 0) & (random >= 0)
    if not judged.any():
        return None
    numbers = number_groups(groups)
    tied = judged & (np.bincount(numbers)[numbers] > 1)
    if not tied.any():
        return None
    folds = fold_numbers(targets, alone, seed)
    # A photo has a mate in another fold unless its whole group fell into its own.
    with_it = np.unique(np.stack([numbers, folds]), axis=1, return_counts=True)
    in_fold = {
        (int(group), int(fold)): int(count) for (group, fold), count in zip(with_it[0].T, with_it[1], strict=True)
    }
    sizes = np.bincount(numbers)
    parted = np.array([in_fold[int(g), int(f)] < sizes[g] for g, f in zip(numbers, folds, strict=True)])
    right = np.stack([grouped == targets, random == targets])
    clusters = numbers[judged]
    change = right[1, judged].astype(float) - right[0, judged]
    return RandomSplit(
        photos=int(judged.sum()),
        tied=int(tied.sum()),
        parted=int((parted & judged).sum()),
        grouped=float(right[0, judged].mean()),
        grouped_interval=clustered_wilson_interval(right[0, judged], clusters),
        random=float(right[1, judged].mean()),
        random_interval=clustered_wilson_interval(right[1, judged], clusters),
        difference=float(change.mean()),
        difference_interval=clustered_interval(change, clusters),
        tied_grouped=float(right[0, tied].mean()),
        tied_random=float(right[1, tied].mean()),
    )


def _answers(features: np.ndarray, targets: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray:
    """Return the (N,) class that heads which never saw a photo give it, -1 where they cannot judge."""
    probs = held_out_probabilities(features, targets, groups, seed)
    unjudged = np.isnan(probs).any(axis=1)
    return np.where(unjudged, -1, np.nan_to_num(probs, nan=-1.0).argmax(axis=1))


def describe_random_split(found: RandomSplit, language: Language = ENGLISH) -> str:
    """Say in some sentences whether a random split would flatter, by how much and why."""
    say = language.say
    reached = {
        "grouped": language.percent(found.grouped),
        "grouped_range": language.percent_range(found.grouped_interval),
        "random": language.percent(found.random),
        "random_range": language.percent_range(found.random_interval),
        "difference_range": language.points_range(found.difference_interval),
    }
    points = language.points(found.difference)
    if not found.measurable:
        verdict = say(
            "A split at random, without regard to groups, would make no measurable difference: cross-validated heads "
            "on frozen features reach {grouped} ({grouped_range}) with groups kept whole, {random} ({random_range}) "
            "with photos dealt at random (95 % interval of the difference {difference_range}).",
            **reached,
        )
    elif found.difference > 0:
        verdict = say(
            "A split at random, without regard to groups, would flatter by {points}: cross-validated heads "
            "on frozen features reach {grouped} ({grouped_range}) with groups kept whole, {random} ({random_range}) "
            "with photos dealt at random (95 % interval of the difference {difference_range}).",
            points=points,
            **reached,
        )
    else:
        verdict = say(
            "A split at random, without regard to groups, would look worse by {points}: cross-validated heads "
            "on frozen features reach {grouped} ({grouped_range}) with groups kept whole, {random} ({random_range}) "
            "with photos dealt at random (95 % interval of the difference {difference_range}).",
            points=points,
            **reached,
        )
    why = language.say_counted(
        "{n} photo of {photos} belong with others (near copies, bursts, cameras or groups you gave); dealt at random, "
        "{parted} were named by a head that had learned another of their group. On the {tied} alone it is "
        "{tied_grouped} against {tied_random}.",
        "{n} photos of {photos} belong with others (near copies, bursts, cameras or groups you gave); dealt at random, "
        "{parted} were named by a head that had learned another of their group. On the {tied} alone it is "
        "{tied_grouped} against {tied_random}.",
        found.tied,
        photos=language.whole(found.photos),
        parted=language.whole(found.parted),
        tied=language.whole(found.tied),
        tied_grouped=language.percent(found.tied_grouped),
        tied_random=language.percent(found.tied_random),
    )
    return f"{verdict} {why}"
