"""Folders of wildlife photos in, an image classifier you can trust out.

    import wildtune as wt

    run = wt.train("photos", wt.load_recipe("default"), "runs/first")
    predictions = wt.predict("runs/first", "new-photos")

Nothing heavy is imported before a name is used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Bundle": "wildtune.model.bundle",
    "Catalogue": "wildtune.photos.catalogue",
    "Detections": "wildtune.photos.sources",
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
    "compare_runs": "wildtune.evaluate.compare",
    "evaluate": "wildtune.job",
    "load_bundle": "wildtune.model.bundle",
    "load_photos": "wildtune.photos.sources",
    "load_recipe": "wildtune.recipe",
    "predict": "wildtune.predict.predicting",
    "report_again": "wildtune.folds",
    "resume": "wildtune.job",
    "resume_folds": "wildtune.folds",
    "resume_tuning": "wildtune.tuning",
    "split_photos": "wildtune.photos.split",
    "train": "wildtune.job",
    "train_folds": "wildtune.folds",
    "tune": "wildtune.tuning",
    "write_report": "wildtune.report.page",
}

__all__ = sorted([*_PLACES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'wildtune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps `wt.train`, `wt.predict` and `wt.evaluate` the functions they are promised to be.

    Importing a room of the same name would otherwise put the room in the function's place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PLACES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
