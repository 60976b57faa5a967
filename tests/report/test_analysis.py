"""Each verdict of the analysis, provoked by numbers made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from wildtune.evaluate.calibration import expected_chance_gap
from wildtune.photos.audit import Finding
from wildtune.report import RunContent, write_analysis
from wildtune.report.analysis import analysis_markdown
from wildtune.report.convergence import find_convergence
from wildtune.report.verdict import smallest_visible_difference
from wildtune.train.history import EpochRecord

Build = Callable[..., RunContent]


def text_of(content: RunContent, heading: str = "") -> str:
    sections = [s for s in write_analysis(content) if s.heading.startswith(heading)]
    return " ".join(paragraph for section in sections for paragraph in section.paragraphs)


def records(losses: Sequence[float], accuracy: float = 0.8, training: float = 0.8) -> list[EpochRecord]:
    return [
        EpochRecord("transfer", i, 0.01, loss, training, loss, accuracy, 1.0, i == len(losses))
        for i, loss in enumerate(losses, start=1)
    ]


def test_headline_is_the_test_accuracy_with_its_interval(build: Build) -> None:
    text = text_of(build(), "Result")
    assert "63 of 72 test photos: an accuracy of 87.5 % (95 % interval 77.9 to 93.3 %)" in text
    assert "these photos chose which epoch to keep" in text
    assert "Always answering one of the most frequent classes would be right 16.7 % of the time." in text


def test_without_test_photos_validation_is_said_to_flatter(build: Build, one_epoch: RunContent) -> None:
    assert "they chose which epoch to keep, so this accuracy is flattered" in text_of(build(test=0), "Result")
    assert "nothing was chosen by them" in text_of(one_epoch, "Result")


def test_helped(build: Build) -> None:
    text = text_of(build(before_wrong=20, after_wrong=5), "Did")
    assert text.startswith("Fine-tuning (stage “finetune”) helped by 20.8 points (95 % interval +")
    assert "right on 15 that “transfer” gets wrong, and wrong on 0 that “transfer” gets right" in text
    assert "exact McNemar test, p < 0.001" in text


def test_harmed(build: Build) -> None:
    assert "harmed by 20.8 points (95 % interval −" in text_of(build(before_wrong=5, after_wrong=20), "Did")


def test_no_measurable_difference_says_what_could_have_been_seen(build: Build) -> None:
    text = text_of(build(before_wrong=9, after_wrong=8), "Did")
    assert "made no measurable difference: accuracy is 1.4 points higher" in text
    assert "With 72 photos, a true difference of about 11.1 points or more would probably have shown" in text


def test_identical_answers(build: Build) -> None:
    text = text_of(build(before_wrong=9, after_wrong=9), "Did")
    assert "give the same answer on every one of 72 test photos" in text
    assert "no measurable difference" in text


def test_right_on_the_same_photos_with_other_answers(build: Build) -> None:
    content = build(before_wrong=9, after_wrong=9)
    key = ("transfer", "test")
    first, *rest = content.evaluation.before[key].mistakes
    content.evaluation.before[key] = content.evaluation.before[key].model_copy(
        update={"mistakes": (first.model_copy(update={"prediction": "another"}), *rest)}
    )
    assert "right and wrong on the same photos" in text_of(content, "Did")


@pytest.mark.parametrize(
    ("losses", "state", "epoch"),
    [
        ([1.0, 0.5, 0.4, 0.4, 0.4, 0.4], "converged", 3),
        ([0.4, 0.4, 0.4, 0.4, 0.4], "converged", 1),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], "improving", 0),
        ([1.0 * 0.996**i for i in range(20)], "improving", 0),
        ([1.0, 0.5, 0.8, 0.9, 1.0, 1.1], "converged", 2),
        ([1.0, 0.5, 0.4], "short", 0),
        ([0.3], "short", 0),
        ([float("nan")] * 5, "unknown", 0),
        ([float("nan"), 0.5, 0.5, 0.5, 0.5], "converged", 2),
    ],
)
def test_convergence(losses: list[float], state: str, epoch: int) -> None:
    found = find_convergence(records(losses))
    assert (found.state, found.epoch) == (state, epoch)


def test_stages_say_when_they_converged_and_define_it_once(build: Build) -> None:
    text = text_of(build(), "Stage")
    assert "It converged at epoch 7: validation loss went from 1.100" in text
    assert "rose again by 0.031" in text
    assert text.count("is said to have converged at the first epoch") == 1


def test_still_improving_and_one_epoch(build: Build, one_epoch: RunContent) -> None:
    content = build(history=tuple(records([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])))
    assert "still improving at the end" in text_of(content, "Stage")
    assert "The plan was 12 epochs; the history has 6." in text_of(content, "Stage")
    assert "One epoch shows no course" in text_of(one_epoch, "Stage")


def test_gap_to_training_accuracy(build: Build) -> None:
    def stage(training: float) -> str:
        return text_of(build(history=tuple(records([0.5], 0.8, training))), "Stage")

    assert "20.0 points higher" in stage(1.0)
    assert "overfitting" in stage(1.0)
    assert "30.0 points lower. That is usual: it is averaged" in stage(0.5)
    assert "too small to be told from chance" in stage(0.82)


def test_weak_class_is_told_from_chance(build: Build) -> None:
    assert "do not read much into the order" in text_of(build(after_wrong=9), "Classes")
    content = build()
    rows = {row for row in range(72) if row % 6 == 2} - {2}
    weak = _with_wrong(content, rows)
    assert "beyond what chance explains in the weakest of 6 classes: “bison” with 1 of 12" in text_of(weak, "Classes")
    assert "most often taken for “cat”, 11 times" in text_of(weak, "Classes")


def test_tiny_classes_are_not_read(one_epoch: RunContent) -> None:
    assert "No class has 10 validation photos or more" in text_of(one_epoch, "Classes")


def test_confidence_is_compared_with_accuracy(build: Build) -> None:
    assert "too modest" in text_of(build(after_wrong=2), "Confidence")
    assert "too sure of itself" in text_of(build(after_wrong=50), "Confidence")


def test_chance_gap_matches_a_simulation() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1.0, 400)
    place = np.minimum((confidence * 15).astype(int), 14)
    gaps = []
    for _ in range(300):
        right = generator.random(400) < confidence
        gaps.append(np.abs(np.bincount(place, confidence, 15) - np.bincount(place, right, 15)).sum() / 400)
    assert expected_chance_gap(confidence) == pytest.approx(np.mean(gaps), rel=0.08)


def test_smallest_visible_difference_is_found_four_times_in_five() -> None:
    from scipy import stats

    photos, changed = 400, 60
    difference = smallest_visible_difference(changed, photos)
    better = changed / photos / 2 + difference / 2
    generator = np.random.default_rng(0)
    draws = generator.multinomial(photos, [better, changed / photos - better, 1 - changed / photos], 800)
    found = [stats.binomtest(int(a), int(a + b)).pvalue < 0.05 for a, b, _ in draws]
    assert 0.7 < np.mean(found) < 0.9


def test_faults_say_what_was_set_aside(build: Build, one_epoch: RunContent) -> None:
    tiny = Finding("a.jpg", "tiny", "warning", "kept")
    text = text_of(build(findings=(*build().findings, tiny)), "Faults")
    assert text.startswith("3 photos were set aside before training and never used")
    assert "Used all the same, but worth a look: with too few pixels" in text
    assert "found no fault" in text_of(one_epoch, "Faults")


def test_markdown_escapes_names(build: Build) -> None:
    content = build(names=("<b>&", "*star* [x](y)", "plain"), before_wrong=4, after_wrong=4)
    text = analysis_markdown("<i>", write_analysis(content))
    assert text.startswith("# \\<i\\>\n\n## Result\n\n")
    assert "“\\*star\\* \\[x\\](y)”" in text
    assert "<b>" not in text


def _with_wrong(content: RunContent, rows: set[int]) -> RunContent:
    from dataclasses import replace

    from wildtune.evaluate.evaluation import RunEvaluation, evaluate

    assert content.predictions is not None
    logits = np.zeros_like(content.predictions.logits)
    for row, target in enumerate(content.predictions.targets):
        logits[row, (target + (row in rows)) % 6] = 3
    predictions = replace(content.predictions, logits=logits)
    sides = {"val": content.evaluation.sides["val"], "test": evaluate(predictions)}
    return replace(content, evaluation=RunEvaluation(sides, {}, {}), predictions=predictions)


def with_course(content: RunContent, photos_right: Sequence[int]) -> RunContent:
    """The run with a second stage whose epochs get so many of the 54 validation photos right; 40 before it."""
    first = replace(content.history[0], val_accuracy=40 / 54, val_loss=0.8, kept=True)
    second = [
        EpochRecord("finetune", i, 2e-8, 0.8, 0.7, 0.8, right / 54, 1.0, True)
        for i, right in enumerate(photos_right, start=1)
    ]
    return replace(content, history=(first, *second))


def test_each_warning_stands_beside_what_the_run_shows(build: Build, foreseen: Build) -> None:
    text = text_of(foreseen(with_course(build(), [40, 41, 39])), "Foreseen")
    assert "2 warnings came of it" in text
    assert "stages.1.augment.noise=0.05 does nothing" in text
    assert "0 % of the pixel values changed by more than half a level, and the features by 1.1e-06" in text
    assert "where two photos of one class differ by 0.35 and two of different classes by 0.42." in text
    assert "Stage “finetune” cannot move its weights: adamw at 0.0005 over 9 steps can go at most 0.010 %" in text
    assert "Stage “finetune” moved the weights by 0.00011 % of their size. Its curve is flat" in text
    assert "was 74.1 % before it and 72.2 % after its last epoch" in text
    assert "2 photos of 54 apart, no measurable difference (at least 6 would be needed" in text


def test_a_curve_is_flat_only_while_no_test_could_tell(build: Build, foreseen: Build) -> None:
    assert "Its curve is flat" in text_of(foreseen(with_course(build(), [40, 45])), "Foreseen")
    text = text_of(foreseen(with_course(build(), [40, 46])), "Foreseen")
    assert "flat" not in text
    assert "the highest and lowest point are 6 photos of 54 apart." in text


def test_a_stage_tells_its_way_its_limit_and_its_expected_time(build: Build, foreseen: Build) -> None:
    text = text_of(foreseen(build()), "Stage “finetune”")
    assert "left the weights 0.00011 % of their size away from where they were, where its learning rates could" in text
    assert "have moved them by 0.010 %. The 49 BatchNorm layers did not change by a bit." in text
    assert "Roughly expected: 4 min." in text
    assert "BatchNorm layers" not in text_of(build(), "Stage “finetune”")


def test_without_a_preflight_nothing_was_foreseen(build: Build, foreseen: Build) -> None:
    assert text_of(build(), "Foreseen") == ""
    assert "1 warning came of it" in text_of(foreseen(build(), reach=0.3, moved=0.1), "Foreseen")
