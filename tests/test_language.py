"""The languages of reports: catalogues without gaps, numbers their way, and recorded sentences told again."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import string
from pathlib import Path
from types import ModuleType

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

import wildtune.job
from shapes import BACKBONE, small_recipe
from wildtune.errors import CommandError
from wildtune.language import ENGLISH, LANGUAGES, Language, find_language, recorded, recorded_counted
from wildtune.progress import Reporter
from wildtune.recipe import load_recipe

RUSSIAN = Language("ru")
RECORDED = ("notice", "effect", "finding", "weights", "tuning", "trial", "learning curve", "part")


def load_script() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "update_messages.py"
    spec = importlib.util.spec_from_file_location("update_messages", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT = load_script()
CODES = sorted(set(LANGUAGES) - {"en"})


def read(code: str) -> tuple[bytes, Catalog]:
    content = (SCRIPT.SOURCE / "locale" / f"{code}.po").read_bytes()
    return content, read_po(io.BytesIO(content), locale=code)


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("code", CODES)
def test_a_catalogue_has_every_sentence_and_no_other(code: str) -> None:
    content, catalogue = read(code)
    assert SCRIPT.find_gaps(catalogue) == []
    SCRIPT.update(catalogue, SCRIPT.gather_messages())
    assert SCRIPT.find_gaps(catalogue) == [], "python scripts/update_messages.py adds them, to be translated"
    assert SCRIPT.catalogue_bytes(catalogue) == content, "python scripts/update_messages.py brings it up to date"


@pytest.mark.parametrize("code", CODES)
def test_translations_have_the_values_of_their_sentences(code: str) -> None:
    for entry in read(code)[1]:
        if entry.id:
            many = entry.id[1] if isinstance(entry.id, tuple) else entry.id
            texts = entry.string if isinstance(entry.string, tuple) else (entry.string,)
            assert all(fields(text) == fields(many) for text in texts), entry.id
            assert not any("..." in text or "  " in text or '"' in text.replace("`", "") for text in texts), entry.id


def test_the_script_finds_new_sentences_and_gaps(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(
        'def f(language):\n    reporter.say("to people")\n    language.say("A {name}.", context="c", name="x")\n'
        '    language.say_counted("{n} cat", "{n} cats", 3)\n    return recorded("group", "It is {value}.", value=1)\n'
    )
    (tmp_path / "new.html.jinja").write_text('<p>{{ say("Hello {name}", name=name) }}</p>')
    found = [(message.one, message.many, message.context) for message in SCRIPT.gather_messages(tmp_path)]
    assert found == [
        ("A {name}.", "", "c"), ("{n} cat", "{n} cats", ""), ("It is {value}.", "", "group"), ("Hello {name}", "", ""),
    ]  # fmt: skip
    catalogue = Catalog(locale="ru")
    SCRIPT.update(catalogue, SCRIPT.gather_messages(tmp_path))
    assert SCRIPT.find_gaps(catalogue) == ["A {name}.", "{n} cat", "It is {value}.", "Hello {name}"]
    (tmp_path / "wrong.py").write_text('language.say(f"glued {x}")\n')
    with pytest.raises(SystemExit, match="not put together"):
        SCRIPT.gather_messages(tmp_path)


def test_numbers_are_written_the_languages_way() -> None:
    assert RUSSIAN.percent(0.9417) == "94,2\u00a0%"
    assert RUSSIAN.whole(4029331) == "4\u202f029\u202f331"
    assert RUSSIAN.whole(4029) == "4029"
    assert RUSSIAN.rate(2e-8) == "2·10⁻⁸"
    assert RUSSIAN.duration(125) == "2\u00a0мин 5\u00a0с"
    assert RUSSIAN.points_range((-0.004, 0.031)) == "от −0,4 до +3,1\u00a0п.\u00a0п."
    assert RUSSIAN.percent_range((0.9, 0.958)) == "90,0–95,8\u00a0%"
    assert RUSSIAN.listed(["a", "b", "c"]) == "a, b и c"
    assert RUSSIAN.quoted("рысь") == "«рысь»"
    assert RUSSIAN.moment("2026-11-28T16:29:11+0300").startswith("28 ноября 2026 г., 16:29:11")
    assert RUSSIAN.percent(None) == "неизвестно"
    assert (ENGLISH.percent(0.9417), ENGLISH.rate(2e-8), ENGLISH.duration(125)) == ("94.2 %", "2e-08", "2 min 5 s")


@pytest.mark.parametrize(
    ("count", "phrase"),
    [(1, "1 эпоха"), (2, "2 эпохи"), (5, "5 эпох"), (11, "11 эпох"), (21, "21 эпоха"), (112, "112 эпох")],
)
def test_a_count_decides_the_form(count: int, phrase: str) -> None:
    assert RUSSIAN.say_counted("{n} epoch", "{n} epochs", count) == phrase.replace(" ", "\u00a0")


def test_an_abbreviation_ends_a_sentence_with_one_point() -> None:
    assert RUSSIAN.say("Roughly expected: {time}.", time=RUSSIAN.points(0.012)).endswith("1,2\u00a0п.\u00a0п.")


@pytest.mark.parametrize("group", RECORDED)
def test_every_recorded_sentence_is_told_again_with_its_values(group: str) -> None:
    entries = [entry for entry in read("ru")[1] if entry.context == group]
    assert entries
    for entry in entries:
        one, many = entry.id if isinstance(entry.id, tuple) else (entry.id, "")
        values = {
            name: f"7{i}Ж" if name.startswith("number") else f"Ж{i}" for i, name in enumerate(sorted(fields(one)))
        }
        values.pop("n", None)
        english = recorded_counted(group, one, many, 1234, **values) if many else recorded(group, one, **values)
        told = RUSSIAN.retell(group, english)
        assert told != english or not re.search("[A-Za-z]", english)
        assert all(value in told for value in values.values()), told
        assert not many or "1234" in told
        expected = (
            RUSSIAN.say_counted(one, many, 1234, context=group, **values)
            if many
            else RUSSIAN.say(one, context=group, **values)
        )
        assert told == expected, "a longer template swallows it"


def test_a_range_has_its_unit_at_both_ends() -> None:
    told = RUSSIAN.retell("part", "1.33 times as wide as high to 1.5 times as wide as high")
    assert told.count("1,33") == told.count("1,5") == 1
    assert "1,33 – 1,5" not in told


def test_what_no_template_matches_stays_as_it_is() -> None:
    assert RUSSIAN.retell("notice", "An old sentence of another version.") == "An old sentence of another version."
    assert ENGLISH.retell("part", "mirrored") == "mirrored"


def test_values_within_recorded_sentences_are_told_again_but_names_are_not() -> None:
    said = "kept, on the same side of the split: mirrored and cropped against mirrored/1.5 and 2.jpg"
    assert RUSSIAN.retell("finding", said).endswith("отражена и обрезана по сравнению с mirrored/1.5 and 2.jpg")
    said = "validation loss 0.123, 94.2 % against the start's 0.140, 93.0 % with no augmentation; range test 0.1 to 1"
    told = RUSSIAN.retell("tuning", said)
    assert not re.search("[A-Za-z]", told)
    assert "0,123, 94,2\u00a0%" in told


def test_an_unknown_language_is_refused_with_the_choices(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no language 'de'.* en \(English\), ru \(Russian\)"):
        find_language("de")
    with pytest.raises(CommandError, match="no language"):
        wildtune.job.train(photos, small_recipe(), tmp_path / "run", language="de")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("blank_charts")
def test_a_run_keeps_its_language_and_its_report_can_be_written_in_another(photos: Path, tmp_path: Path) -> None:
    """Takes a training of one epoch: nothing less shows that resuming and reporting again find the language."""
    run, quiet = tmp_path / "run", Reporter()
    changes = ("input.size=48", "stages.0.epochs=1", "stages.0.batch_size=8")
    recipe = load_recipe("quick", changes, backbone=BACKBONE, weights="none")
    wildtune.job.train(photos, recipe, run, reporter=quiet, language="ru")
    page, words = run / "report" / "index.html", run / "report" / "analysis.md"
    first = words.read_text("utf-8")
    assert '<html lang="ru">' in page.read_text("utf-8")
    assert "## Результат" in first
    assert json.loads((run / "environment.json").read_text("utf-8"))["language"] == "ru"
    page.unlink()
    wildtune.job.resume(run, reporter=quiet)
    assert '<html lang="ru">' in page.read_text("utf-8")
    assert words.read_text("utf-8") == first
    wildtune.job.report_again(run, "en", reporter=quiet)
    assert "## Result" in words.read_text("utf-8")
    assert "language" not in json.loads((run / "environment.json").read_text("utf-8"))
    pictures = page.read_text("utf-8").count("data:image/jpeg")
    assert pictures > 0
    wildtune.job.report_again(run, "ru", reporter=quiet)
    assert words.read_text("utf-8") == first
    assert page.read_text("utf-8").count("data:image/jpeg") == pictures
