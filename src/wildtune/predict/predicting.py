"""Predicting new photos: from a bundle and a source to Predictions. It imports little, so that one photo is quick."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from wildtune import files
from wildtune.errors import CommandError
from wildtune.model.bundle import BundleFacts
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.sources import Detections, list_photos
from wildtune.predict.predictions import Predictions
from wildtune.predict.predictor import open_predictor
from wildtune.progress import Reporter
from wildtune.runtime import Precision


def predict(
    run: str | Path,
    photos: str | Path,
    coverage: float | None = None,
    precision: Precision = "float32",
    *,
    reporter: Reporter | None = None,
    detections: Detections | None = None,
) -> Predictions:
    """Predict all photos of a folder, a file or another source with a run's (or a bundle's own) classifier.

    With `detections` each animal's crop is predicted. A photo that cannot be read gets its reason instead of a
    prediction. `coverage` is that of the prediction sets to show, 0.9 by default; raises CommandError where the
    classifier has none such. In the precision "bfloat16" some processors are faster, and probabilities differ a
    little from those that were evaluated; raises CommandError on others.
    """
    reporter = reporter or Reporter()
    predictor = open_predictor(files.user_path(run), precision)
    facts = predictor.facts
    if coverage is not None:
        if facts.calibration is None:
            raise CommandError(f"{run} has no prediction sets: it was made before there were any. Train it anew.")
        facts = dataclasses.replace(facts, calibration=facts.calibration.with_coverage(coverage))
    say_what_it_knows(facts, detections, reporter)
    catalogue = list_photos(photos, detections=detections)
    say_notices(catalogue, reporter)
    with reporter.bar("predicting") as tell:
        in_order = tuple(sorted(catalogue.photos, key=lambda photo: photo.path))
        predictions = predictor.predict(catalogue, in_order, tell)
    known = tuple(label if label in facts.class_names else "" for label in predictions.labels)
    return dataclasses.replace(predictions, labels=known, calibration=facts.calibration)


def say_notices(catalogue: Catalogue, reporter: Reporter) -> None:
    """Say what a source's reader has noticed."""
    for notice in catalogue.notices:
        reporter.say(f"note: {notice}")


def say_what_it_knows(bundle: BundleFacts, detections: Detections | None, reporter: Reporter) -> None:
    """Say so where a classifier of crops is given whole photos, or one of whole photos crops."""
    crops = bundle.provenance.get("detections")
    if crops and detections is None:
        reporter.say(
            "note: the classifier was trained on crops of animals and is given whole photos: --detections FILE crops "
            f"them (threshold {crops['threshold']:g}, margin {crops['margin']:g} in training)"
        )
    elif detections is not None and not crops:
        reporter.say("note: the classifier was trained on whole photos and is given crops: its scores may be lower")
