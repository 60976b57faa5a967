"""Everything a report needs, gathered before a word of it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wildtune.evaluate.evaluation import RunEvaluation
from wildtune.evaluate.learning_curve import LearningCurve
from wildtune.language import ENGLISH, Language
from wildtune.predict.predictions import Predictions
from wildtune.report.heat_maps import HeatMap
from wildtune.train.history import EpochRecord, StageMove
from wildtune.train.plan import Plan, PlannedStage

if TYPE_CHECKING:
    from wildtune.photos.audit import Finding


def _no_thumbnail(path: str) -> bytes | None:
    return None


@dataclass(frozen=True)
class RunContent:
    """One run as the report sees it.

    title            heading of the page
    plan             what was to be done, with the photos' counts
    history          one record an epoch, in the order they were trained
    evaluation       the scores of every side
    findings         faults found in the photos before training
    environment      versions and machine, as in `environment.json`; one level of nesting is shown
    load_thumbnail   gives a small JPEG (or PNG) of a photo by its path, None where there is none
    predictions      the final model's on the headline side; without them there is no reliability diagram
    moves            how far each stage moved its weights
    heat_maps        photos with what spoke for the classes, wrong predictions first
    learning_curve   what more photos would bring; None where it was not tried
    language         that of the page, its charts and its words
    """

    title: str
    plan: Plan
    history: tuple[EpochRecord, ...]
    evaluation: RunEvaluation
    findings: Sequence[Finding] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    load_thumbnail: Callable[[str], bytes | None] = _no_thumbnail
    predictions: Predictions | None = None
    moves: tuple[StageMove, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()
    learning_curve: LearningCurve | None = None
    language: Language = ENGLISH

    @property
    def trained_stages(self) -> tuple[PlannedStage, ...]:
        """The planned stages that have at least one epoch in the history."""
        done = {record.stage for record in self.history}
        return tuple(planned for planned in self.plan.stages if planned.stage.name in done)

    def stage_records(self, stage: str) -> tuple[EpochRecord, ...]:
        """Return the epochs of one stage in their order."""
        return tuple(record for record in self.history if record.stage == stage)


def kept_record(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """Return the epoch whose weights a stage handed on, the last one that became the best; None where none did."""
    return next((record for record in reversed(records) if record.kept), None)


def photos_text(language: Language, n: int) -> str:
    """Return a number of photos, "52 photos"."""
    return language.say_counted("{n} photo", "{n} photos", n)


def epochs_text(language: Language, n: int) -> str:
    """Return a number of epochs, "20 epochs"."""
    return language.say_counted("{n} epoch", "{n} epochs", n)


def photos_of(language: Language, side: str, n: int) -> str:
    """Return a number of photos of a side, "52 test photos", as it stands after "of"."""
    if side == "test":
        return language.say_counted("{n} test photo", "{n} test photos", n, context="of")
    if side == "val":
        return language.say_counted("{n} validation photo", "{n} validation photos", n, context="of")
    return language.say_counted("{n} photo", "{n} photos", n, context="of")


def photos_on(language: Language, side: str, n: int) -> str:
    """Return a number of photos of a side, "52 test photos", as it stands after "on"."""
    if side == "test":
        return language.say_counted("{n} test photo", "{n} test photos", n, context="on")
    if side == "val":
        return language.say_counted("{n} validation photo", "{n} validation photos", n, context="on")
    return language.say_counted("{n} photo", "{n} photos", n, context="on")
