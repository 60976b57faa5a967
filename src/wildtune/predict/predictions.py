"""The door behind the model: what it says about each photo, and the CSV file that holds it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.model.calibration import Calibration, set_members


@dataclass(frozen=True)
class Predictions:
    """What one model says about some photos, in the order they were given.

    paths         N names of photos
    labels        N class names the photos were given by people, "" where unknown
    errors        N reasons why there is no prediction, "" where there is one
    logits        (N, C) float32, NaN in the rows without a prediction
    class_names   C names, in the order of the logits
    calibration   the model's, None where it has none
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    errors: tuple[str, ...]
    logits: np.ndarray
    class_names: tuple[str, ...]
    calibration: Calibration | None = None

    @property
    def temperature(self) -> float:
        """What the logits are divided by before they become probabilities; 1 without a calibration."""
        return self.calibration.temperature if self.calibration else 1.0

    @cached_property
    def probs(self) -> np.ndarray:
        """Softmax of the logits over the temperature, (N, C) float64 in 0-1, NaN in the rows without a prediction."""
        shifted = self.logits.astype(np.float64) / self.temperature
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True, initial=-np.inf))
        return shifted / shifted.sum(axis=1, keepdims=True)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Index of the likeliest class, (N,) int64, -1 in the rows without a prediction."""
        known = ~np.isnan(self.logits).any(axis=1)
        return np.where(known, np.nan_to_num(self.logits, nan=-np.inf).argmax(axis=1), -1)

    @cached_property
    def targets(self) -> np.ndarray:
        """Index of each photo's label, (N,) int64, -1 where it is unknown or not one of the classes."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return np.array([index.get(label, -1) for label in self.labels], dtype=np.int64)

    @cached_property
    def confidence(self) -> np.ndarray:
        """Highest probability of each row, (N,) float64 in 0-1, NaN in the rows without a prediction."""
        return self.probs.max(axis=1, initial=-np.inf)

    @property
    def review(self) -> np.ndarray:
        """Whether a person should look at each answer, (N,) bool; nowhere without a calibration."""
        if self.calibration is None:
            return np.zeros(len(self), dtype=bool)
        return (self.predicted >= 0) & (self.confidence < self.calibration.review.least_confidence)

    @property
    def unknown(self) -> np.ndarray:
        """Whether each photo seems to show none of the classes, (N,) bool; nowhere without a calibration."""
        if self.calibration is None:
            return np.zeros(len(self), dtype=bool)
        return (self.predicted >= 0) & (self.confidence < self.calibration.unknown.least_confidence)

    def __len__(self) -> int:
        """Return the number of photos, with or without a prediction."""
        return len(self.paths)


def predictions_csv(predictions: Predictions) -> str:
    """Return the promised CSV: path, label, prediction, confidence, error, p_CLASS for each class, and three more.

    `prediction_set` has the classes that hold the right one as often as the calibration's first rule promises,
    likeliest first; `review` and `unknown` are "yes" or "no". All three are empty without a calibration.
    """
    columns = ["path", "label", "prediction", "confidence", "error", *(f"p_{name}" for name in predictions.class_names)]
    columns += ["prediction_set", "review", "unknown"]
    return files.csv_text(columns, _rows(predictions))


def _rows(predictions: Predictions) -> Iterator[list[str]]:
    rule = predictions.calibration.sets[0] if predictions.calibration else None
    review, unknown = predictions.review, predictions.unknown
    for row, path in enumerate(predictions.paths):
        answer, trust = ["", "", *[""] * len(predictions.class_names)], ["", "", ""]
        if predictions.predicted[row] >= 0:
            probs = predictions.probs[row]
            name = predictions.class_names[predictions.predicted[row]]
            answer = [name, *(f"{p:.6f}" for p in (predictions.confidence[row], *probs))]
            if rule is not None:
                members = np.flatnonzero(set_members(probs[None], rule)[0])
                members = members[np.argsort(-probs[members], kind="stable")]
                named = "|".join(predictions.class_names[i] for i in members)
                trust = [named, "yes" if review[row] else "no", "yes" if unknown[row] else "no"]
        yield [path, predictions.labels[row], *answer[:2], predictions.errors[row], *answer[2:], *trust]


def save_predictions(predictions: Predictions, path: Path) -> None:
    """Write the predictions to a CSV file."""
    files.write_text(path, predictions_csv(predictions))


def load_predictions(path: Path) -> Predictions:
    """Read a CSV file of predictions; the logits are the logarithms of its probabilities, which are calibrated already.

    Raises PhotosError where the file is not one written by wildtune, or damaged.
    """
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        columns = reader.fieldnames or []
        rows = list(reader)
    class_names = tuple(column.removeprefix("p_") for column in columns if column.startswith("p_"))
    missing = [name for name in ("path", "label", "error") if name not in columns]
    if missing or not class_names:
        raise PhotosError(
            f"{path} is not a file of predictions: expected columns path, label, prediction, confidence, error and "
            f"p_CLASS for each class. Found {', '.join(columns) or 'no columns'}."
        )
    logits = np.full((len(rows), len(class_names)), np.nan, dtype=np.float32)
    for number, row in enumerate(rows):
        if not row["error"]:
            try:
                probs = np.array([float(row[f"p_{name}"]) for name in class_names])
            except (TypeError, ValueError) as error:
                raise PhotosError(f"{path} is damaged at {row['path']}: {error}.") from error
            logits[number] = np.log(np.maximum(probs, 1e-7))
    return Predictions(
        paths=tuple(row["path"] for row in rows),
        labels=tuple(row["label"] for row in rows),
        errors=tuple(row["error"] for row in rows),
        logits=logits,
        class_names=class_names,
    )
