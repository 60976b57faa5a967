"""What the report says of more photos: numbers, what cannot be said, and nothing where nothing was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wildtune.evaluate.learning_curve import LearningCurve, Needed
from wildtune.report import RunContent, write_report
from wildtune.report.more_photos import more_photos_rows, more_photos_texts, needed_text

Build = Callable[..., RunContent]
Curve = Callable[..., LearningCurve]


def test_the_section_says_what_more_photos_bring_with_intervals(make_curve: Curve) -> None:
    text = " ".join(more_photos_texts(make_curve(left_out=["wolf"])))
    for words in (
        "learn four fifths of the 240 training and validation photos name 85.0 % of the other fifth rightly "
        "(95 % interval 80.0 to 89.0 %)",
        "with half as many photos it is 78.0 %",
        "twice as many photos like these, 89.0 % would be expected (95 % interval 86.0 to 91.0 %)",
        "“bear”, from 80.0 % with 80 photos to 90.0 % (95 % interval 87.0 to 92.0 %) and “cat”",
        "probably reached already by 1 of 3 classes; 1 more would",
        "fine-tuning usually lies above it",
        "Too few photos for a curve of their own: “wolf”.",
    ):
        assert words in text
    assert [row["name"] for row in more_photos_rows(make_curve())] == ["bear", "cat", "deer"]


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (Needed(factor=0.7, low=0.2, high=3.0), "probably enough"),
        (Needed(factor=2.0, low=1.5, high=3.33), "about 160 (120 to 270)"),
        (Needed(factor=2.0, low=0.9, high=3.0), "about 160 (80 to 240)"),
        (Needed(factor=3.0, low=1.5, high=None), "about 240 (120 to over 800)"),
        (Needed(factor=6.0, low=1.5, high=None), "more than 320; how many cannot be said"),
        (Needed(factor=None, low=3.0, high=None), "more than 800"),
        (Needed(factor=None, low=0.8, high=None), "cannot be said"),
        (Needed(factor=2.0, low=0.8, high=None), "cannot be said"),
    ],
)
def test_what_a_class_needs_is_said_only_as_far_as_it_is_known(needed: Needed, words: str) -> None:
    assert needed_text(needed, 80) == words


def test_the_page_shows_the_curve_its_table_and_names_escaped(build: Build, make_curve: Curve, tmp_path: Path) -> None:
    page = write_report(build(learning_curve=make_curve(("<b>&", "рысь", "$x_1$"))), tmp_path).read_text("utf-8")
    assert '<section id="more-photos">' in page
    assert 'href="#more-photos"' in page
    assert "about 250 (130 to over 800)" in page
    assert "<b>&" not in page
    assert {"learning-curve.svg", "gaining-classes.svg"} <= {path.name for path in tmp_path.iterdir()}
    assert "How many more photos?" in (tmp_path / "analysis.md").read_text("utf-8")


def test_a_set_too_small_says_why_and_a_run_without_a_curve_nothing(build: Build, tmp_path: Path) -> None:
    small = LearningCurve(photos=40, reason="a curve needs 100 photos or more; there are 40")
    page = write_report(build(learning_curve=small), tmp_path / "small").read_text("utf-8")
    assert "What more photos would bring cannot be said: a curve needs" in page.replace("&nbsp;", " ")
    assert 'id="more-photos"' not in page
    assert "more photos would bring" not in write_report(build(), tmp_path / "none").read_text("utf-8")
