"""An evaluation in a few lines for a terminal."""

from __future__ import annotations

from wildtune.evaluate.evaluation import Evaluation
from wildtune.wording import counted


def describe_scores(evaluation: Evaluation) -> list[str]:
    """Return accuracy, balanced accuracy and macro F1 with their 95 % intervals, a line each."""
    (low, high), f1 = evaluation.balanced_accuracy_interval, evaluation.macro_f1_interval
    return [
        f"accuracy           {evaluation.accuracy:.1%}  "
        f"(95 % interval {evaluation.interval[0]:.1%} to {evaluation.interval[1]:.1%})",
        f"balanced accuracy  {evaluation.balanced_accuracy:.1%}  (95 % interval {low:.1%} to {high:.1%})",
        f"macro F1           {evaluation.macro_f1:.3f}  (95 % interval {f1[0]:.3f} to {f1[1]:.3f})",
    ]


def describe_evaluation(evaluation: Evaluation) -> str:
    """Return the scores and a line for each class, weakest first."""
    lines = [
        f"{evaluation.side}: {counted(evaluation.photos, 'photo')}",
        *describe_scores(evaluation),
        f"log loss           {evaluation.log_loss:.4f}",
        f"calibration error  {evaluation.calibration_error:.3f}",
        "",
        f"{'class':24} photos  recall  precision  taken for",
    ]
    scored = [c for c in evaluation.classes if c.recall is not None]
    for score in sorted(scored, key=lambda c: (c.recall or 0.0, c.name)):
        precision = "-" if score.precision is None else f"{score.precision:.1%}"
        taken = f"{score.taken_for} ({score.taken_for_count})" if score.taken_for else "-"
        lines.append(f"{score.name:24} {score.photos:6}  {score.recall:6.1%}  {precision:>9}  {taken}")
    if evaluation.without_prediction:
        lines.append(
            f"{counted(evaluation.without_prediction, 'photo')} without a prediction, because they could not be read"
        )
    return "\n".join(lines)
