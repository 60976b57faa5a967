"""The page and its charts: whole, self-contained, escaped and the same every time."""

from __future__ import annotations

import html.parser
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from wildtune.report import RunContent, write_report

Build = Callable[..., RunContent]
NASTY = ("<b>&", "🦊 fox", "рысь", "$x_1$", "a" * 120, "quo\"te's", "line\x0bfeed", "\udce9half")


class Reader(html.parser.HTMLParser):
    """Collects what a browser would fetch, the ids, the tags and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("src", "href", "srcset", "xlink:href"):
                self.fetched.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: Path) -> tuple[str, Reader]:
    text = page.read_text("utf-8")
    reader = Reader()
    reader.feed(text)
    return text, reader


@pytest.fixture(scope="module")
def two_stages(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(build(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def nasty(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = build(names=NASTY, before_wrong=12, after_wrong=15, title="<script>alert(1)</script>")
    return write_report(content, tmp_path_factory.mktemp("nasty"))


def test_every_promised_file_is_there(two_stages: Path) -> None:
    names = {path.name for path in two_stages.parent.iterdir()}
    charts = {"accuracy", "loss", "learning-rate", "confusion", "classes", "reliability"}
    charts |= {f"{what}-{stage}" for what in ("accuracy", "loss") for stage in ("transfer", "finetune")}
    assert names == {"index.html", "analysis.md", *(f"{chart}.svg" for chart in charts)}


def test_charts_are_small_valid_svg_without_references_outside(two_stages: Path) -> None:
    for path in two_stages.parent.glob("*.svg"):
        text = path.read_text("utf-8")
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert set(re.findall(r"https?://[^\"]*", text)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert len(text) < 40_000


@pytest.mark.parametrize("name", ["two_stages", "nasty"])
def test_page_needs_nothing_beside_it(name: str, request: pytest.FixtureRequest) -> None:
    text, reader = read(request.getfixturevalue(name))
    assert all(address.startswith(("data:", "#")) for address in reader.fetched)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert reader.tags["script"] == 0
    assert max(reader.ids.values()) == 1
    assert {address[1:] for address in reader.fetched if address.startswith("#")} <= set(reader.ids)


def test_names_are_escaped_and_shown(nasty: Path) -> None:
    text, reader = read(nasty)
    assert reader.tags["b"] == reader.tags["img"] + text.count('<span class="none">')
    assert "<b>&/" not in text
    assert "<script>" not in text
    for name in ("<b>&", "🦊 fox", "рысь", "$x_1$", "quo\"te's", "line?feed", "?half", "<script>alert(1)</script>"):
        assert name in reader.text
    for path in nasty.parent.glob("*.svg"):
        ElementTree.parse(path)
    assert "$x_1$" in (nasty.parent / "confusion.svg").read_text("utf-8")


def test_page_shows_mistakes_faults_and_making(two_stages: Path) -> None:
    text, reader = read(two_stages)
    assert text.count("data:image/jpeg;base64,") + reader.text.count("no picture") == 9
    for words in ("87.5", "wolf/<i>.jpg", "also labelled dog", "5f" * 32, "ab" * 32, "torch 2.13.0", "default"):
        assert words in reader.text


def test_one_epoch_without_test_side_or_findings(one_epoch: RunContent, tmp_path: Path) -> None:
    text, reader = read(write_report(one_epoch, tmp_path))
    assert "of 18 validation photos" in reader.text
    assert "The check before training found none." in reader.text
    assert not (tmp_path / "reliability.svg").exists()
    assert "Test accuracy" not in text


def test_same_content_gives_the_same_bytes(build: Build, two_stages: Path, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    write_report(build(), tmp_path)
    assert dict(matplotlib.rcParams) == before
    for path in two_stages.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_many_classes_and_no_mistake(build: Build, tmp_path: Path) -> None:
    names = tuple(f"species {i}" for i in range(22))
    _, reader = read(write_report(build(names=names, before_wrong=0, after_wrong=0, history=()), tmp_path))
    assert "every test photo was named rightly" in reader.text
    assert "There is no history of the training." in reader.text
    assert "Every test photo of every class was recognised." in reader.text


def test_the_page_has_what_each_setting_does_where_it_was_measured(
    build: Build, foreseen: Build, two_stages: Path, tmp_path: Path
) -> None:
    text, page = read(write_report(foreseen(build()), tmp_path))
    assert page.ids["preflight"] == 1
    assert "#preflight" in page.fetched
    row = re.search(r"<tr><th scope=\"row\">augment\.noise</th>.*?</tr>", text, re.DOTALL)
    assert row
    assert re.findall(r">([^<>]+)<", row[0]) == [
        "augment.noise", "0.05", "finetune", "0.04", "0 %", "1.1e-06", "0.35", "0.42",
    ]  # fmt: skip
    row = re.search(r"<tr><th scope=\"row\">finetune</th><td class=\"n\">9e-06.*?</tr>", text, re.DOTALL)
    assert row
    assert "0.010 %" in row[0]
    assert "0.00011 %" in row[0]
    assert read(two_stages)[1].ids["preflight"] == 0
