"""The honest numbers: accuracy with its interval, every class, and whether one model beats another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wildtune import files
from wildtune.check.random_split import RandomSplit
from wildtune.evaluate.averages import average_classes
from wildtune.evaluate.calibration import expected_calibration_error, log_loss
from wildtune.evaluate.trust import TrustScore, score_trust
from wildtune.frozen import Frozen
from wildtune.intervals import Interval, paired_interval, wilson_interval
from wildtune.predict.predictions import Predictions


class ClassScore(Frozen):
    """How one class fares.

    photos     photos labelled with it
    recall     share of them that were recognised, 0-1; None without photos
    precision  share right among the photos taken for it, 0-1; None where none was
    f1         harmonic mean of both, 0-1
    taken_for  the class it is most often mistaken for ("" if never), and how many times
    """

    name: str
    photos: int
    recall: float | None
    precision: float | None
    f1: float
    taken_for: str
    taken_for_count: int


class Mistake(Frozen):
    """A photo whose prediction differs from its label. `confidence` is 0-1."""

    path: str
    label: str
    prediction: str
    confidence: float


class Comparison(Frozen):
    """Two models on the same photos.

    only_first    photos that only the first model gets right
    only_second   photos that only the second gets right
    difference    accuracy of the second less that of the first, -1 to 1, with a 95 % interval (low, high)
    p_value       exact two-sided McNemar test that both are equally often right
    """

    first: str
    second: str
    photos: int
    only_first: int
    only_second: int
    difference: float
    interval: Interval
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance explains, at the 5 % level."""
        return self.p_value < 0.05


class Evaluation(Frozen):
    """One model on one set of labelled photos.

    side                 "val", "test", or "given" for photos of another source
    photos               number of photos with a label and a prediction
    without_prediction   number of photos that could not be read
    accuracy             share right, 0-1, with a 95 % Wilson interval (low, high)
    balanced_accuracy    mean recall over the classes that have photos, 0-1, with its 95 % interval (low, high)
    macro_f1             mean F1 over the classes that have photos, 0-1, with its 95 % interval (low, high)
    log_loss             mean negative log-likelihood of the label, nats
    calibration_error    expected calibration error over 15 equal bins of confidence, 0-1
    confusion            (C, C) counts, rows the label, columns the prediction
    mistakes             every mistake, most confident first
    """

    side: str
    photos: int
    without_prediction: int
    accuracy: float
    interval: Interval
    balanced_accuracy: float
    balanced_accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    log_loss: float
    calibration_error: float
    class_names: tuple[str, ...]
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]


def evaluate(predictions: Predictions, side: str = "test") -> Evaluation:
    """Score predictions whose labels are known; rows without a label or a prediction are left out.

    Raises ValueError when no row can be scored.
    """
    keep = (predictions.targets >= 0) & (predictions.predicted >= 0)
    if not keep.any():
        raise ValueError("no photo has both a label among the model's classes and a prediction")
    targets, predicted = predictions.targets[keep], predictions.predicted[keep]
    probs, right = predictions.probs[keep], targets == predicted
    count = len(predictions.class_names)
    confusion = np.bincount(targets * count + predicted, minlength=count * count).reshape(count, count)
    classes = tuple(_class_score(i, confusion, predictions.class_names) for i in range(count))
    averages = average_classes(confusion)
    return Evaluation(
        side=side,
        photos=len(targets),
        without_prediction=int((predictions.predicted < 0).sum()),
        accuracy=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(right)),
        balanced_accuracy=averages.balanced_accuracy,
        balanced_accuracy_interval=averages.balanced_accuracy_interval,
        macro_f1=averages.macro_f1,
        macro_f1_interval=averages.macro_f1_interval,
        log_loss=log_loss(predictions.logits[keep], targets, predictions.temperature),
        calibration_error=expected_calibration_error(probs.max(axis=1), right),
        class_names=predictions.class_names,
        classes=classes,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        mistakes=_mistakes(predictions, keep),
    )


def compare(first: Predictions, second: Predictions, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Compare two models photo by photo, on the photos that both predict and whose labels are known.

    The test is McNemar's in its exact form; the interval of the difference is by Tango's score method for paired
    shares (Tango 1998). Photos are matched by path. Raises ValueError when none is common.
    """
    rows = {path: i for i, path in enumerate(second.paths)}
    pairs = [(i, rows[path]) for i, path in enumerate(first.paths) if path in rows]
    right = np.array(
        [
            (first.predicted[i] == first.targets[i], second.predicted[j] == second.targets[j])
            for i, j in pairs
            if min(first.targets[i], second.targets[j], first.predicted[i], second.predicted[j]) >= 0
        ]
    )
    if not len(right):
        raise ValueError("the two sets of predictions have no labelled photo in common")
    only_first = int((right[:, 0] & ~right[:, 1]).sum())
    only_second = int((~right[:, 0] & right[:, 1]).sum())
    discordant = only_first + only_second
    # Both tails of a fair coin are alike: twice the smaller one, with its boundary, in whole numbers.
    ways = tail_ways = 1
    for k in range(min(only_first, only_second)):
        ways = ways * (discordant - k) // (k + 1)
        tail_ways += ways
    tail = tail_ways / 2**discordant
    return Comparison(
        first=names[0],
        second=names[1],
        photos=len(right),
        only_first=only_first,
        only_second=only_second,
        difference=(only_second - only_first) / len(right),
        interval=paired_interval(only_first, only_second, len(right)),
        p_value=min(1.0, 2 * tail),
    )


def _class_score(index: int, confusion: np.ndarray, names: tuple[str, ...]) -> ClassScore:
    right, photos, taken = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
    others = confusion[index].copy()
    others[index] = 0
    worst = int(others.argmax())
    return ClassScore(
        name=names[index],
        photos=photos,
        recall=right / photos if photos else None,
        precision=right / taken if taken else None,
        f1=2 * right / (photos + taken) if photos + taken else 0.0,
        taken_for=names[worst] if others[worst] else "",
        taken_for_count=int(others[worst]),
    )


def _mistakes(predictions: Predictions, keep: np.ndarray) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(keep & (predictions.targets != predictions.predicted))
    # Stable and by path among equals, so that the list is the same on every machine.
    order = sorted(wrong, key=lambda i: (-round(float(predictions.confidence[i]), 6), predictions.paths[i]))
    return tuple(
        Mistake(
            path=predictions.paths[i],
            label=predictions.labels[i],
            prediction=predictions.class_names[predictions.predicted[i]],
            confidence=float(predictions.confidence[i]),
        )
        for i in order
    )


@dataclass(frozen=True)
class RunEvaluation:
    """All a run's scores: each side by the final model and by the model before each later stage.

    sides          "val" and, where there are test photos, "test": the final model
    before         the same sides by the model at the end of each earlier stage, keyed (stage, side)
    comparisons    each earlier stage against the final model, per side, keyed (stage, side)
    random_split   what a split that tears groups apart would look like; None where it was not tried
    trust          what the final model's own doubts were worth on the headline side; None in older runs
    """

    sides: dict[str, Evaluation]
    before: dict[tuple[str, str], Evaluation]
    comparisons: dict[tuple[str, str], Comparison]
    random_split: RandomSplit | None = None
    trust: TrustScore | None = None

    @property
    def headline(self) -> Evaluation:
        """The evaluation to quote: on the test photos, or on validation where there are none."""
        return self.sides.get("test", self.sides["val"])


def evaluate_run(final: dict[str, Predictions], before: dict[tuple[str, str], Predictions], last: str) -> RunEvaluation:
    """Score a run: `final` by side, `before` by (stage, side), `last` the name of the last stage."""
    side = "test" if "test" in final else "val"
    return RunEvaluation(
        sides={side: evaluate(p, side) for side, p in final.items()},
        before={key: evaluate(p, key[1]) for key, p in before.items()},
        comparisons={key: compare(p, final[key[1]], (key[0], last)) for key, p in before.items()},
        trust=score_trust(final[side], side),
    )


def save_evaluation(evaluation: RunEvaluation, path: Path) -> None:
    """Write all scores as JSON; the keys of `before` and `comparisons` become "STAGE/SIDE"."""
    table: dict[str, Any] = {"sides": {k: v.model_dump(mode="json") for k, v in evaluation.sides.items()}}
    for name in ("before", "comparisons"):
        values = getattr(evaluation, name)
        table[name] = {"/".join(key): value.model_dump(mode="json") for key, value in values.items()}
    if evaluation.random_split is not None:
        table["random_split"] = evaluation.random_split.model_dump(mode="json")
    if evaluation.trust is not None:
        table["calibration"] = evaluation.trust.model_dump(mode="json")
    files.write_json(path, table)


def load_evaluation(path: Path) -> RunEvaluation:
    """Read what `save_evaluation` wrote. Raises CommandError where that is missing or damaged."""
    table = files.read_json(path)

    def key(text: str) -> tuple[str, str]:
        stage, side = text.split("/")
        return stage, side

    with files.reading(path):
        return RunEvaluation(
            sides={k: Evaluation.model_validate(v) for k, v in table["sides"].items()},
            before={key(k): Evaluation.model_validate(v) for k, v in table["before"].items()},
            comparisons={key(k): Comparison.model_validate(v) for k, v in table["comparisons"].items()},
            random_split=RandomSplit.model_validate(table["random_split"]) if "random_split" in table else None,
            trust=TrustScore.model_validate(table["calibration"]) if "calibration" in table else None,
        )
