"""The page of a cross-validation: one HTML file with its numbers and links to the folds' own reports."""

from __future__ import annotations

from wildtune import wording
from wildtune.evaluate.evaluation import ClassScore
from wildtune.evaluate.folds import FoldMean, FoldsEvaluation
from wildtune.intervals import wilson_interval
from wildtune.pages import create_environment


def render_folds(found: FoldsEvaluation, title: str) -> str:
    """Return the HTML of the page, which lies beside the folders `fold-1` and so on."""
    pooled = found.pooled
    means = (("Accuracy", found.accuracy), ("Balanced accuracy", found.balanced_accuracy))
    return (
        create_environment("report")
        .get_template("folds.html.jinja")
        .render(
            title=wording.plain(title),
            count=len(found.folds),
            photos=wording.counted(pooled.photos, "photo"),
            pooled=[
                ("Accuracy", wording.percent(pooled.accuracy), wording.percent_range(pooled.interval)),
                (
                    "Balanced accuracy",
                    wording.percent(pooled.balanced_accuracy),
                    wording.percent_range(pooled.balanced_accuracy_interval),
                ),
                ("Macro F1", f"{pooled.macro_f1:.3f}", wording.score_range(pooled.macro_f1_interval)),
            ],
            means=[*(_mean_row(name, mean) for name, mean in means), _f1_row(found.macro_f1)],
            folds=[
                {
                    "number": fold.fold,
                    "trained": wording.whole(fold.trained),
                    "photos": wording.whole(fold.photos),
                    "accuracy": wording.percent(fold.accuracy),
                    "balanced": wording.percent(fold.balanced_accuracy),
                    "f1": f"{fold.macro_f1:.3f}",
                }
                for fold in found.folds
            ],
            classes=[_class_row(entry) for entry in sorted(pooled.classes, key=lambda c: (c.recall or 0.0, c.name))],
        )
    )


def _mean_row(name: str, mean: FoldMean) -> tuple[str, str, str, str]:
    return name, wording.percent(mean.mean), wording.percent_range(mean.interval), wording.points(mean.deviation)


def _f1_row(mean: FoldMean) -> tuple[str, str, str, str]:
    return "Macro F1", f"{mean.mean:.3f}", wording.score_range(mean.interval), f"{mean.deviation:.3f}"


def _class_row(entry: ClassScore) -> dict[str, str]:
    right = round((entry.recall or 0) * entry.photos)
    return {
        "name": wording.plain(entry.name),
        "photos": wording.whole(entry.photos),
        "recall": wording.percent(entry.recall),
        "range": wording.percent_range(wilson_interval(right, entry.photos)),
        "precision": "" if entry.precision is None else wording.percent(entry.precision),
        "f1": f"{entry.f1:.3f}",
        "taken_for": wording.plain(entry.taken_for),
        "times": f"{entry.taken_for_count} ×" if entry.taken_for else "",
    }
