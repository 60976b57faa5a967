"""Folders of wildlife photos in, an image classifier you can trust out.

    import wildtune as wt

    run = wt.train("photos", wt.load_recipe("default"), "runs/first")
    predictions = wt.predict("runs/first", "new-photos")

Nothing heavy is imported before a name is used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Bundle": "wildtune.model.bundle",
    "Catalogue": "wildtune.photos.catalogue",
    "Evaluation": "wildtune.evaluate.evaluation",
    "Findings": "wildtune.photos.audit",
    "Photo": "wildtune.photos.catalogue",
    "Plan": "wildtune.train.plan",
    "Predictions": "wildtune.predict.predictions",
    "Recipe": "wildtune.recipe",
    "Split": "wildtune.photos.split",
    "audit": "wildtune.photos.audit",
    "check": "wildtune.job",
    "compare": "wildtune.evaluate.evaluation",
    "evaluate": "wildtune.job",
    "load_bundle": "wildtune.model.bundle",
    "load_photos": "wildtune.photos.sources",
    "load_recipe": "wildtune.recipe",
    "predict": "wildtune.job",
    "resume": "wildtune.job",
    "split_photos": "wildtune.photos.split",
    "train": "wildtune.job",
    "write_report": "wildtune.report.page",
}

__all__ = sorted([*_PLACES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'wildtune' has no attribute '{name}'")
