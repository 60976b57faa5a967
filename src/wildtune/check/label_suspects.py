"""Probable label errors: photos that heads trained on the other photos take for another class.

The method is confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset
labels", JAIR 70, 2021) as cleanlab has it: class probabilities from models that never saw the photo, a score from
0 to 1 for how well the label fits them, and an estimate of how many labels are wrong.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.check.groups import number_groups
from wildtune.language import recorded
from wildtune.memo import remember
from wildtune.photos.audit import Finding
from wildtune.photos.catalogue import Photo
from wildtune.photos.folds import number_folds
from wildtune.runtime import seed_from
from wildtune.wording import counted, percent

FOLDS = 5
# A head that learnt a class from fewer photos cannot say that another photo is none of it.
LEAST_OTHERS = 3
# Of the way from guessing to certainty; heads below this disagree with too many right labels to accuse single ones.
LEAST_SKILL = 0.5
# On features scaled to rows of length 1, so that it means the same for any backbone. Weak heads are unsure, strong ones
# repeat wrong labels; at this one the estimate came nearest to the errors planted (benchmarks/label_errors.py).
_STRENGTH = 12.8
_STEPS = 300
# Another number ranks anew; raise it when the same labels and features would be ranked differently.
_VERSION = 1

HEADS, MODEL = "heads", "model"


@dataclass(frozen=True, slots=True)
class RankedLabel:
    """How well one photo's label fits what models that never saw the photo say.

    path         the photo's, as in the catalogue
    label        the label it has
    suggestion   the most probable class of all
    probability  of the suggestion, 0-1
    score        of the label, 0-1: the lower, the likelier it is wrong; NaN where the label could not be judged
    rank         1 for the likeliest error; 0 where the label could not be judged
    suspect      whether it is among those that are reported
    judge        "heads" (cross-validated on frozen features) or "model" (the run's final model, on test photos)
    """

    path: str
    label: str
    suggestion: str
    probability: float
    score: float
    rank: int
    suspect: bool
    judge: str = HEADS


_COLUMNS = tuple(field.name for field in fields(RankedLabel))


@dataclass(frozen=True)
class LabelRanking:
    """Every photo by how likely its label is wrong, likeliest first, those that could not be judged last.

    agreement   share of the judged photos for which the most probable class is the label, 0-1
    estimate    how many labels are wrong by cleanlab's estimate, photos
    reason      why no photo is called a suspect although the estimate may be above 0; "" where there is none
    """

    rows: tuple[RankedLabel, ...]
    agreement: float
    estimate: int
    reason: str = ""

    @property
    def suspects(self) -> tuple[RankedLabel, ...]:
        """The photos to look at, likeliest error first."""
        return tuple(row for row in self.rows if row.suspect)


def rank_labels(photos: Sequence[Photo], features: np.ndarray, groups: Sequence[str], seed: int = 0) -> LabelRanking:
    """Rank labelled photos by how likely their labels are wrong, by heads on frozen features.

    `features` is (N, D) float, row i of photo i without augmentation; photos with the same entry in `groups`
    (length N) are never on both sides of a fold. The same input gives the same ranking, which is remembered.
    """
    question = {
        "features": files.sha256_array(features),
        "photos": [(photo.path, photo.label) for photo in photos],
        "groups": number_groups(groups).tolist(),
        "seed": seed,
        "libraries": judges(),
    }
    answer = remember(f"labels-{_VERSION}", question, lambda: asdict(_rank_labels(photos, features, groups, seed)))
    return LabelRanking(**{**answer, "rows": tuple(RankedLabel(**row) for row in answer["rows"])})


def _rank_labels(photos: Sequence[Photo], features: np.ndarray, groups: Sequence[str], seed: int) -> LabelRanking:
    class_names = sorted({photo.label for photo in photos})
    index = {name: number for number, name in enumerate(class_names)}
    targets = np.array([index[photo.label] for photo in photos], dtype=np.int64)
    probs = held_out_probabilities(features, targets, groups, seed)
    return rank_predictions([photo.path for photo in photos], [photo.label for photo in photos], probs, class_names)


def held_out_probabilities(
    features: np.ndarray, targets: np.ndarray, groups: Sequence[str], seed: int = 0
) -> np.ndarray:
    """Return (N, C) float64 class probabilities of each photo by a linear head that was fitted without it.

    `features` is (N, D), `targets` (N,) class indices. Stratified folds, groups whole. A row is NaN where the head
    learnt fewer than LEAST_OTHERS photos of the photo's label, so that nothing can be said of it.
    """
    from sklearn.linear_model import LogisticRegression

    probs = np.full((len(targets), int(targets.max(initial=0)) + 1), np.nan)
    if not len(targets):
        return probs
    centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float32)
    scaled = centred / np.maximum(centred.std(axis=0), 1e-6) / np.float32(np.sqrt(max(1, features.shape[1])))
    folds = fold_numbers(targets, groups, seed)
    for fold in range(int(folds.max()) + 1):
        fitted, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        known, counts = np.unique(targets[fitted], return_counts=True)
        if len(known) < 2:
            continue
        head = LogisticRegression(C=_STRENGTH, max_iter=_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a head stopped short of its optimum ranks just as well
            head.fit(scaled[fitted], targets[fitted])
        enough = np.isin(targets[held], known[counts >= LEAST_OTHERS])
        judged = held[enough]
        if len(judged):
            probs[judged] = 0.0
            probs[np.ix_(judged, known)] = head.predict_proba(scaled[judged])
    return probs


def rank_predictions(
    paths: Sequence[str], labels: Sequence[str], probs: np.ndarray, class_names: Sequence[str], judge: str = HEADS
) -> LabelRanking:
    """Rank labelled photos by out-of-sample probabilities (N, C), columns in the order of `class_names`.

    A row of NaN is a photo that could not be judged.
    """
    index = {name: number for number, name in enumerate(class_names)}
    targets = np.array([index[label] for label in labels], dtype=np.int64)
    judged = np.flatnonzero(~np.isnan(probs).any(axis=1))
    scores = np.full(len(targets), np.nan)
    estimate, agreement, reason = 0, float("nan"), "no class has enough photos to judge labels by"
    if len(np.unique(targets[judged])) > 1:
        given, found = targets[judged], probs[judged]
        scores[judged], estimate = _confident_learning(given, found)
        agreement, reason = float((found.argmax(axis=1) == given).mean()), ""
        if _skill(given, found) < LEAST_SKILL:
            reason = "the features tell these classes apart too poorly to doubt single labels"
    rows = []
    for rank, i in enumerate(np.lexsort((np.arange(len(targets)), np.nan_to_num(scores, nan=2.0))), start=1):
        if np.isnan(scores[i]):
            rows.append(RankedLabel(paths[i], labels[i], "", float("nan"), float("nan"), 0, False, judge))
            continue
        best = int(probs[i].argmax())
        suspect = bool(not reason and rank <= estimate and best != targets[i])
        score, probability = float(scores[i]), float(probs[i, best])
        rows.append(RankedLabel(paths[i], labels[i], class_names[best], probability, score, rank, suspect, judge))
    return LabelRanking(tuple(rows), agreement, estimate, reason)


def suspect_findings(ranking: LabelRanking, of_test: bool = False) -> tuple[Finding, ...]:
    """Return a warning for each suspect of a ranking, in its order; `of_test` says that these are test photos."""
    found = []
    for row in ranking.suspects:
        values = {
            "name": row.label,
            "name_other": row.suggestion,
            "probability": f"{row.probability:.2f}",
            "rank": row.rank,
            "labels": len(ranking.rows),
        }
        if row.judge == HEADS:
            detail = recorded(
                "finding",
                "kept: labelled '{name}', but heads that never saw this photo take it for '{name_other}' (probability "
                "{probability}); number {rank} of {labels} by how likely the label is wrong",
                **values,
            )
        else:
            detail = recorded(
                "finding",
                "kept: labelled '{name}', but the final model takes it for '{name_other}' (probability "
                "{probability}); number {rank} of {labels} by how likely the label is wrong",
                **values,
            )
        if of_test:
            detail = recorded(
                "finding",
                "{doubt}. A test photo: mending only labels that the model doubts makes the test look better than it "
                "is",
                doubt=detail,
            )
        found.append(Finding(row.path, "label_suspect", "warning", detail))
    return tuple(found)


def describe_ranking(ranking: LabelRanking) -> str:
    """Say in one sentence what the ranking found."""
    if ranking.reason:
        return f"label errors were not looked for: {ranking.reason}"
    judged = sum(row.rank > 0 for row in ranking.rows)
    doubtful = counted(len(ranking.suspects), "label is", "labels are")
    left = len(ranking.rows) - judged
    unjudged = f"; {counted(left, 'photo')} of classes too small to judge" if left else ""
    return (
        f"label errors: heads that never saw the photo agree with {percent(ranking.agreement)} of "
        f"{counted(judged, 'label')}; {doubtful} doubtful{unjudged}"
    )


def save_ranking(rankings: Iterable[LabelRanking], path: Path) -> None:
    """Write every row of the rankings to a CSV file, with the columns of `RankedLabel`; "" for what is unknown."""
    rows = (_cells(row) for ranking in rankings for row in ranking.rows)
    files.write_text(path, files.csv_text(_COLUMNS, rows))


def load_ranking(path: Path) -> tuple[RankedLabel, ...]:
    """Read the rows that `save_ranking` wrote; raises PhotosError when the columns are others."""
    return tuple(
        RankedLabel(
            row["path"],
            row["label"],
            row["suggestion"],
            float(row["probability"] or "nan"),
            float(row["score"] or "nan"),
            int(row["rank"] or 0),
            row["suspect"] == "yes",
            row["judge"],
        )
        for row in files.read_csv(path, _COLUMNS)
    )


def _cells(row: RankedLabel) -> Iterable[object]:
    values = asdict(row)
    for name in ("probability", "score"):
        values[name] = "" if np.isnan(values[name]) else f"{values[name]:.6f}"
    values["rank"] = row.rank or ""
    values["suspect"] = "yes" if row.suspect else "no"
    return values.values()


def fold_numbers(targets: np.ndarray, groups: Sequence[str], seed: int = 0) -> np.ndarray:
    """Return the fold that holds each photo out when heads are cross-validated, int64 (N,) from 0, groups whole."""
    numbers = number_groups(groups)
    return number_folds(targets, numbers, FOLDS, seed_from(seed, "label folds"))


def _confident_learning(targets: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, int]:
    """Return cleanlab's (N,) label scores and its estimate of the number of wrong labels, which are remembered."""

    def ask() -> tuple[list[float], int]:
        from cleanlab.count import num_label_issues
        from cleanlab.rank import get_label_quality_scores

        # cleanlab finds its plain count too low for few classes, and says to take the calibrated one there.
        method = "off_diagonal" if len(np.unique(targets)) >= 4 else "off_diagonal_calibrated"
        scores = get_label_quality_scores(targets, probs, method="self_confidence")
        return scores.tolist(), int(num_label_issues(targets, probs, estimation_method=method))

    question = [files.sha256_array(targets), files.sha256_array(probs), judges()]
    scores, estimate = remember(f"confident-learning-{_VERSION}", question, ask)
    return np.array(scores), estimate


def judges() -> list[str]:
    """Return the versions of the libraries that a ranking rests on."""
    return [importlib.metadata.version(name) for name in ("scikit-learn", "cleanlab")]


def _skill(targets: np.ndarray, probs: np.ndarray) -> float:
    """Return how far the mean recall of the classes lies between guessing (0) and certainty (1)."""
    right = probs.argmax(axis=1) == targets
    known = np.unique(targets)
    recall = float(np.mean([right[targets == k].mean() for k in known]))
    return (recall - 1 / len(known)) / (1 - 1 / len(known))
