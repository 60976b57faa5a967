"""The page of a cross-validation: one HTML file with its numbers and links to the folds' own reports."""

from __future__ import annotations

from wildtune import wording
from wildtune.evaluate.evaluation import ClassScore
from wildtune.evaluate.folds import FoldMean, FoldsEvaluation
from wildtune.intervals import wilson_interval
from wildtune.language import ENGLISH, Language
from wildtune.pages import create_environment
from wildtune.report.content import photos_of


def render_folds(found: FoldsEvaluation, title: str, language: Language = ENGLISH) -> str:
    """Return the HTML of the page, which lies beside the folders `fold-1` and so on."""
    pooled, say = found.pooled, language.say
    accuracy, balanced, f1 = say("Accuracy"), say("Balanced accuracy"), say("Macro F1")
    return (
        create_environment("report", language)
        .get_template("folds.html.jinja")
        .render(
            heading=language.say_counted(
                "{title}: {n} folds", "{title}: {n} folds", len(found.folds), title=wording.plain(title)
            ),
            photos=photos_of(language, "", pooled.photos),
            pooled=[
                (accuracy, language.percent(pooled.accuracy), language.percent_range(pooled.interval)),
                (
                    balanced,
                    language.percent(pooled.balanced_accuracy),
                    language.percent_range(pooled.balanced_accuracy_interval),
                ),
                (f1, language.score(pooled.macro_f1), language.score_range(pooled.macro_f1_interval)),
            ],
            means=[
                _mean_row(accuracy, found.accuracy, language),
                _mean_row(balanced, found.balanced_accuracy, language),
                _f1_row(f1, found.macro_f1, language),
            ],
            folds=[
                {
                    "number": fold.fold,
                    "trained": language.whole(fold.trained),
                    "photos": language.whole(fold.photos),
                    "accuracy": language.percent(fold.accuracy),
                    "balanced": language.percent(fold.balanced_accuracy),
                    "f1": language.score(fold.macro_f1),
                }
                for fold in found.folds
            ],
            classes=[
                _class_row(entry, language) for entry in sorted(pooled.classes, key=lambda c: (c.recall or 0.0, c.name))
            ],
        )
    )


def _mean_row(name: str, mean: FoldMean, language: Language) -> tuple[str, str, str, str]:
    deviation = language.points(mean.deviation)
    return name, language.percent(mean.mean), language.percent_range(mean.interval), deviation


def _f1_row(name: str, mean: FoldMean, language: Language) -> tuple[str, str, str, str]:
    return name, language.score(mean.mean), language.score_range(mean.interval), language.score(mean.deviation)


def _class_row(entry: ClassScore, language: Language) -> dict[str, str]:
    right = round((entry.recall or 0) * entry.photos)
    return {
        "name": wording.plain(entry.name),
        "photos": language.whole(entry.photos),
        "recall": language.percent(entry.recall),
        "range": language.percent_range(wilson_interval(right, entry.photos)),
        "precision": "" if entry.precision is None else language.percent(entry.precision),
        "f1": language.score(entry.f1),
        "taken_for": wording.plain(entry.taken_for),
        "times": f"{entry.taken_for_count} ×" if entry.taken_for else "",
    }
