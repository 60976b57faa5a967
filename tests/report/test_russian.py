"""The report in Russian: no English but names, and charts and words alike."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wildtune.evaluate.learning_curve import LearningCurve
from wildtune.language import Language
from wildtune.photos.audit import Finding
from wildtune.report import RunContent, write_analysis, write_report

Build = Callable[..., RunContent]

# Names of classes, stages, files, programs, columns, settings and units that no language changes.
NAMES = re.findall(
    r"\S+",
    """
    ape bear bison cat chicken cow transfer finetune wolf dog deer default openvino timm torch python adamw wildtune
    analysis findings index review unknown cpu file safetensors photos animals BatchNorm CSV SVG SHA JPEG PNG F1
    bfloat16 seed jpg png csv md stages augment noise input resize size clip float32 Python b0 tf_efficientnet_b0
    """,
)


class Visible(html.parser.HTMLParser):
    """Gathers what people read or hear: text outside styles, and labels."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("style", "code")
        self.said += [value or "" for name, value in attrs if name in ("aria-label", "alt", "title")]

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "code")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.said.append(data)


def english_words(text: str) -> set[str]:
    """Return the Latin words that are no names, without paths, hashes and versions."""
    text = re.sub(r"\S*/\S+|\b[0-9a-f]{32,}\b|[\w.-]+==?[\w.]+", " ", text)
    return {word for word in re.findall(r"[A-Za-z][A-Za-z0-9_]+", text) if word not in NAMES}


@pytest.fixture(scope="module")
def whole(build: Build, foreseen: Build, make_curve: Callable[..., LearningCurve]) -> RunContent:
    """Two stages with a preflight, findings and notices as they are recorded, in Russian."""
    findings = (
        Finding("bear/a.jpg", "unreadable", "error", "set aside: truncated JPEG"),
        Finding("bear/b.jpg", "exact_duplicate", "warning", "set aside: same bytes as bear/c.jpg", "bear/c.jpg"),
        Finding(
            "bear/d.jpg",
            "near_duplicate",
            "warning",
            "kept, on the same side of the split: mirrored and cropped against bear/c.jpg",
            "bear/c.jpg",
        ),
    )
    content = foreseen(build(title="Шесть животных", findings=findings, environment={"python": "3.11.2", "cores": 2}))
    notices = ("12 photos are of 3 bursts, at most 60 s from shot to shot; each stays on one side.",)
    weights = replace(content.plan.weights, notes=("its head for 1000 other classes was dropped",))
    plan = content.plan.model_copy(update={"notices": notices, "weights": weights})
    curve = make_curve(left_out=["wolf"])
    return replace(content, plan=plan, learning_curve=curve, language=Language("ru"))


@pytest.fixture(scope="module")
def page(whole: RunContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(whole, tmp_path_factory.mktemp("russian"))


def test_a_russian_page_has_no_english_but_names(page: Path) -> None:
    reader = Visible()
    reader.feed(page.read_text("utf-8"))
    assert english_words(" ".join(reader.said)) == set()
    assert '<html lang="ru">' in page.read_text("utf-8")


def test_its_files_have_none_either_and_are_those_of_the_english_report(page: Path) -> None:
    assert english_words((page.parent / "analysis.md").read_text("utf-8").replace("\\", "")) == set()
    charts = sorted(page.parent.glob("*.svg"))
    assert {"accuracy.svg", "confusion.svg", "loss-finetune.svg", "reliability.svg"} <= {c.name for c in charts}
    for chart in charts:
        said = re.findall(r">([^<>]+)</text>|aria-label=\"([^\"]+)\"", chart.read_text("utf-8"))
        assert said
        assert english_words(" ".join(part for pair in said for part in pair)) == set(), chart.name


def test_every_verdict_is_russian(build: Build, foreseen: Build, one_epoch: RunContent) -> None:
    fast = replace(one_epoch.history[0], val_loss=float("nan"))
    for content in (
        build(before_wrong=20, after_wrong=5),
        build(before_wrong=5, after_wrong=20),
        build(before_wrong=9, after_wrong=9),
        build(test=0),
        build(history=build().history[:2]),
        build(history=build().history[:12]),
        build(val=3, test=5, findings=()),
        foreseen(build(), reach=0.3, moved=0.1),
        one_epoch,
        replace(one_epoch, history=(fast,)),
    ):
        words = [text for s in write_analysis(replace(content, language=Language("ru"))) for text in s.paragraphs]
        known = "the file ends after 512 bytes"
        assert english_words(" ".join(words).replace(known, "")) == set()


def test_figures_are_russian_on_page_and_charts(page: Path) -> None:
    reader = Visible()
    reader.feed(page.read_text("utf-8"))
    said = " ".join(reader.said)
    assert "87,5" in said
    assert not re.search(r"\d\.\d+\s?%", said), "a percentage with a decimal point"
    ticks = re.findall(r">([\d.,−·⁻⁰-⁹]+)</text>", (page.parent / "loss.svg").read_text("utf-8"))
    assert any("," in tick for tick in ticks)
    assert not any("." in tick for tick in ticks)


def test_why_there_is_no_learning_curve_is_russian(build: Build) -> None:
    for reason in (
        "a curve needs 100 training and validation photos or more; there are 40",
        "a curve needs two classes with 20 photos in 10 groups (single photos or photos that belong together) or more; "
        "there is one",
    ):
        small = build(learning_curve=LearningCurve(photos=40, reason=reason), language=Language("ru"))
        text = " ".join(word for section in write_analysis(small) for word in section.paragraphs)
        assert "Что дали бы новые фотографии, сказать нельзя: для кривой нужн" in text
        assert "curve" not in text
