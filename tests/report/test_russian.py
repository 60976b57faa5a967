"""The report in Russian: no English but names, and charts and words alike."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wildtune.language import Language
from wildtune.photos.audit import Finding
from wildtune.report import RunContent, write_report

Build = Callable[..., RunContent]

# Names of classes, stages, files, programs, columns, settings and units that no language changes.
NAMES = {
    *"ape bear bison cat chicken cow".split(),
    *"transfer finetune wolf dog deer default tf efficientnet openvino timm torch python adamw".split(),
    *"wildtune analysis findings index review unknown cpu file safetensors photos animals train_val".split(),
    *"BatchNorm CSV SVG SHA JPEG PNG F1 bfloat16 seed jpg png csv md stages augment noise input resize size clip".split(),
    *"float32 fact split group_by folder lr".split(),
}


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
def contents(build: Build, foreseen: Build, one_epoch: RunContent) -> list[RunContent]:
    findings = (
        Finding("bear/a.jpg", "unreadable", "error", "set aside: truncated JPEG"),
        Finding("bear/b.jpg", "exact_duplicate", "warning", "set aside: same bytes as bear/c.jpg", "bear/c.jpg"),
        Finding("bear/d.jpg", "near_duplicate", "warning",
                "kept, on the same side of the split: mirrored and cropped against bear/c.jpg", "bear/c.jpg"),
    )  # fmt: skip
    notes = {"weights": build().plan.weights.model_copy(update={"notes": ()})} if False else {}
    common = {"title": "Шесть животных", "findings": findings, "environment": {"python": "3.11.2"}}
    plain = build(**common)
    plan = plain.plan.model_copy(
        update={"notices": ("12 photos are of 3 bursts, at most 60 s from shot to shot; each stays on one side.",)}
        | notes
    )
    weights = replace(plan.weights, notes=("its head for 1000 other classes was dropped",))
    plan = plan.model_copy(update={"weights": weights})
    whole = replace(plain, plan=plan)
    others = (
        foreseen(whole),
        replace(whole, evaluation=build(before_wrong=20, after_wrong=5).evaluation),
        replace(whole, evaluation=build(before_wrong=9, after_wrong=9).evaluation),
        replace(one_epoch, title="Взгляд", environment={}, plan=one_epoch.plan.model_copy(update={"notices": (), "weights": weights})),
    )  # fmt: skip
    return [replace(content, language=Language("ru")) for content in (whole, *others)]


def test_a_russian_report_has_no_english_but_names(contents: list[RunContent], tmp_path: Path) -> None:
    for number, content in enumerate(contents):
        page = write_report(content, tmp_path / str(number))
        reader = Visible()
        reader.feed(page.read_text("utf-8"))
        said = " ".join(reader.said)
        assert english_words(said) == set()
        assert '<html lang="ru">' in page.read_text("utf-8")
        assert english_words((page.parent / "analysis.md").read_text("utf-8").replace("\\", "")) == set()
        for chart in page.parent.glob("*.svg"):
            text = " ".join(re.findall(r">([^<>]+)<|aria-label=\"([^\"]+)\"", chart.read_text("utf-8"))[0])
            assert english_words(text) == set(), chart.name


def test_figures_are_russian_on_page_and_charts(contents: list[RunContent], tmp_path: Path) -> None:
    page = write_report(contents[0], tmp_path)
    reader = Visible()
    reader.feed(page.read_text("utf-8"))
    said = " ".join(reader.said)
    assert "87,5" in said
    assert not re.search(r"\d\.\d+\s?%", said), "a percentage with a decimal point"
    ticks = re.findall(r">([\d.,−·⁻⁰-⁹]+)</text>", (tmp_path / "loss.svg").read_text("utf-8"))
    assert any("," in tick for tick in ticks)
    assert not any("." in tick for tick in ticks)


def test_the_charts_and_files_are_those_of_the_english_report(contents: list[RunContent], tmp_path: Path) -> None:
    russian, english = tmp_path / "ru", tmp_path / "en"
    write_report(contents[0], russian)
    write_report(replace(contents[0], language=Language()), english)
    assert {path.name for path in russian.iterdir()} == {path.name for path in english.iterdir()}
