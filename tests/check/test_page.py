"""The page of a check: whole, self-contained, escaped, within its limits, and what it downloads can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from photo_files import encode, noise, write

from wildtune.check import page
from wildtune.check.label_suspects import LabelRanking, RankedLabel, load_ranking
from wildtune.check.page import CheckContent, render_check, write_check
from wildtune.check.steps import add_findings, add_suspects
from wildtune.photos.audit import Finding, Findings, audit
from wildtune.photos.sources import load_photos

NASTY = "</script><b>&,'\u2028"


@pytest.fixture
def content(tmp_path: Path) -> CheckContent:
    for i in range(6):
        write(tmp_path / "p" / "bear" / f"{i}.jpg", encode(noise(i)))
        write(tmp_path / "p" / "cat" / f"{NASTY.replace('/', '')}{i}.jpg", encode(noise(i + 10)))
    write(tmp_path / "p" / "bear" / "copy.jpg", encode(noise(1)))
    write(tmp_path / "p" / "cat" / "conflict.jpg", encode(noise(2)))
    write(tmp_path / "p" / "cat" / "broken.jpg", b"")
    findings = audit(load_photos(tmp_path / "p"))
    photos = list(findings.usable)
    rows = [
        RankedLabel(p.path, p.label, "cat" if p.label == "bear" else "bear", 0.9, 0.05, i, i <= 3)
        for i, p in enumerate(photos, start=1)
    ]
    ranking = LabelRanking(tuple(rows), 0.9, 3)
    findings = add_suspects(add_findings(findings, [Finding("", "confound", "warning", "the whole set: x")]), ranking)
    return CheckContent(findings, ranking, ("a notice with <b>",))


def data_of(text: str) -> dict:  # type: ignore[type-arg]
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return dict(json.loads(found))


def test_the_page_and_its_tables_are_written(content: CheckContent, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "p").rglob("*.jpg")}
    path = write_check(content, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["check.html", "findings.csv", "label_ranking.csv"]
    first = path.read_bytes()
    write_check(content, tmp_path / "out")
    assert path.read_bytes() == first
    assert {path: path.read_bytes() for path in (tmp_path / "p").rglob("*.jpg")} == before
    assert len(load_ranking(tmp_path / "out" / "label_ranking.csv")) == len(content.findings.usable)


def test_nothing_is_fetched_and_names_are_escaped(content: CheckContent) -> None:
    text = render_check(content)
    for address in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert address.startswith(("data:", "#")), address
    assert "http" not in re.sub(r"data:image/[^\"]*", "", text)
    assert "<b>&amp;" not in text.replace("&lt;b&gt;", "")
    assert text.count("</script>") == 2
    assert "a notice with &lt;b&gt;" in text
    assert 'lang="en"' in text
    assert 'name="viewport"' in text


def test_every_kind_is_there_with_its_count_and_photos(content: CheckContent) -> None:
    text = render_check(content)
    kinds = {finding.kind for finding in content.findings.findings}
    assert kinds == {"label_conflict", "exact_duplicate", "unreadable", "label_suspect", "confound"}
    for kind in kinds:
        assert f'id="{kind.replace("_", "-")}"' in text
    order = [text.index(f'<section id="{k}"') for k in ("label-conflict", "label-suspect", "confound", "unreadable")]
    assert order == sorted(order)
    data = data_of(text)
    shown = {photo["path"] for photo in data["photos"]}
    assert shown == {p for f in content.findings.findings for p in (f.path, f.other_path) if p}
    assert data["classes"] == ["bear", "cat"]
    suspects = {row.path: row.suggestion for row in content.ranking.suspects}  # type: ignore[union-attr]
    assert {data["photos"][int(i)]["path"]: name for i, name in data["suggestions"].items()} == suspects
    numbers = [int(n) for n in re.findall(r'<figure data-photo="(\d+)"', text)]
    assert set(numbers) == set(range(len(shown)))
    # One conflict is two findings and one card with both copies.
    conflict = text.split('id="label-conflict"')[1].split("</section>")[0]
    assert (conflict.count("<li "), conflict.count("<figure")) == (1, 2)
    assert text.count("<img ") == text.count("data:image/jpeg")
    assert "the whole set" not in text


def test_limits_are_kept_and_said(content: CheckContent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_PICTURES", 4)
    monkeypatch.setattr(page, "MOST_BARE", 1)
    many = Findings(
        content.findings.catalogue,
        tuple(Finding(p.path, "tiny", "warning", "kept: small") for p in content.findings.catalogue.photos),
    )
    text = render_check(CheckContent(many))
    assert text.count("<img ") + text.count("no picture</span>") == 4
    left = len(many.findings) - 5
    assert f"{left} more are left out here" in text
    assert f"{left + 1} findings have no picture here" in text


def test_pictures_are_shared_out_among_kinds() -> None:
    assert page._share_out({"a": 500, "b": 3, "c": 90}, 100) == {"b": 3, "c": 48, "a": 49}
    assert page._share_out({}, 10) == {}


def test_a_clean_set_has_nothing_to_decide(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jpg", encode(noise(1)))
    write(tmp_path / "b" / "2.jpg", encode(noise(2)))
    text = render_check(CheckContent(audit(load_photos(tmp_path))))
    assert "Nothing to mend was found." in text
    assert "<script" not in text
