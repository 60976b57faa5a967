"""The languages of a report: whole sentences looked up in gettext catalogues, and numbers, units and lists their way.

A sentence in the code is English, with its values in named braces, and is what catalogues (`locale/*.po`) know it by.
What is recorded in a run stays English whatever its language; `recorded` marks such sentences where they are made,
and `Language.retell` says them again.
"""

from __future__ import annotations

import gettext
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

from wildtune import wording
from wildtune.errors import CommandError

LANGUAGES = {"en": "English", "ru": "Russian"}
_NO_BREAK, _THIN = "\u00a0", "\u202f"  # spaces at which no line breaks
_SUPERSCRIPTS = str.maketrans("-+0123456789", "⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹")
_NUMBER = re.compile(r"[+\-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?(?: %)?")
_FIELD = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def message(text: str) -> str:
    """Mark a sentence that is said elsewhere, such as one of a table, so that it gets into the catalogues."""
    return text


def recorded(group: str, template: str, **values: object) -> str:
    """Return an English sentence that is going to be stored; `group` is what `retell` looks for it under.

    A value that is a name, which no language changes, has a placeholder that begins with "name" or "path"; one
    that begins with "number" begins with a digit, and "number" itself is one word.
    """
    return template.format(**values)


def recorded_counted(group: str, one: str, many: str, n: int, **values: object) -> str:
    """Return an English sentence about `n` things that is going to be stored, as `recorded` does."""
    return (one if n == 1 else many).format(n=n, **values)


@dataclass(frozen=True)
class Language:
    """A language that reports are written in.

    code  "en" or "ru"; `find_language` makes one of what a user asks for
    """

    code: str = "en"

    def say(self, message: str, context: str = "", **values: str | int) -> str:
        """Return a sentence with its values filled in; `context` tells apart what is the same in English alone."""
        return self._ended(self.template(message, context).format(**values))

    def say_counted(self, one: str, many: str, n: int, context: str = "", **values: str | int) -> str:
        """Return a sentence that depends on a count: `one` or `many` in English, more forms elsewhere; {n} is it."""
        if self.code == "en":
            text = one if n == 1 else many
        else:
            book = _translations(self.code)
            text = book.npgettext(context, one, many, n) if context else book.ngettext(one, many, n)
            text = _typeset(text)
        return self._ended(text.format(n=self.whole(n), **values))

    def record(self) -> dict[str, str]:
        """Return what a folder records of the language, as `recorded_language` reads it; nothing of English."""
        return {} if self.code == "en" else {"language": self.code}

    def template(self, message: str, context: str = "") -> str:
        """Return a sentence with its braces still empty; English where the catalogue lacks it."""
        if self.code == "en" or not message:
            return message
        book = _translations(self.code)
        return _typeset(book.pgettext(context, message) if context else book.gettext(message))

    def retell(self, group: str, text: str) -> str:
        """Say again what was recorded in English by a template of the group; what is of none stays as it is."""
        if self.code == "en" or not text:
            return text
        for pattern, one, many in _patterns(self.code, group):
            found = pattern.fullmatch(text)
            if found is None:
                continue
            values = {name: self._retell_value(group, name, value) for name, value in found.groupdict().items()}
            if not many:
                return self.say(one, context=group, **values)
            values.pop("n")
            return self.say_counted(one, many, int(found["n"].replace(",", "")), context=group, **values)
        return text

    def _retell_value(self, group: str, name: str, value: str) -> str:
        if name.startswith(("name", "path")):
            return value
        if _NUMBER.fullmatch(value):
            return self.numeral(value)
        if re.fullmatch(r"“.*”", value, re.DOTALL):
            return self.quoted(value[1:-1])
        if re.fullmatch(r"\d+(\.\d+)? (h|min|s)( \d+ (min|s))?", value):
            return self.units(value)
        if points := re.fullmatch(r"([\d.]+) points?", value):
            return self.points(float(points[1]) / 100)
        for own in (group, "part"):
            if (told := self.retell(own, value)) != value:
                return told
        items = re.split(r", | and ", value)
        told_items = [self.retell("part", item) for item in items]
        return self.listed(told_items) if all(map(str.__ne__, items, told_items)) else value

    def numeral(self, text: str) -> str:
        """Return figures that are written the English way, "1,234.5 %" or "2e-08", as this language has them."""
        if self.code == "en":
            return text
        return _NUMBER.sub(_russian_number, text)

    def percent(self, share: float | None) -> str:
        """Return a share as a percentage with one digit after the point."""
        return self._figure(wording.percent(share))

    def share(self, value: float) -> str:
        """Return a share that may be very small or large as a percentage with two significant digits."""
        text = wording.share(value)
        if text.startswith("under "):
            return self.say("under {value}", value=self.numeral(text.removeprefix("under ")))
        return self._figure(text)

    def percent_range(self, interval: tuple[float, float]) -> str:
        """Return an interval of shares."""
        low, high = (self.numeral(f"{end * 100:.1f}") for end in interval)
        return self.say("{low} to {high} %", low=low, high=high)

    def score(self, value: float) -> str:
        """Return a score in 0-1 that is no share, such as F1."""
        return self.numeral(f"{value:.3f}")

    def score_range(self, interval: tuple[float, float]) -> str:
        """Return an interval of scores in 0-1 that are no shares."""
        low, high = (self.score(end) for end in interval)
        return self.say("{low} to {high}", low=low, high=high)

    def points(self, difference: float) -> str:
        """Return a difference of shares in percentage points, without its sign."""
        number, noun = wording.points(difference).split()
        if noun == "point":
            return self.say("{value} point", value=self.numeral(number))
        return self.say("{value} points", value=self.numeral(number))

    def points_range(self, interval: tuple[float, float]) -> str:
        """Return an interval of differences in points, with signs."""
        low, high = (self.numeral(end) for end in wording.points_range(interval).removesuffix(" points").split(" to "))
        return self.say("{low} to {high} points", low=low, high=high)

    def nats(self, loss: float) -> str:
        """Return a loss with three digits after the point."""
        return self._figure(wording.nats(loss))

    def rate(self, value: float) -> str:
        """Return a learning rate."""
        return self.numeral(wording.rate(value))

    def whole(self, number: int) -> str:
        """Return a count with thousands set apart."""
        return self.numeral(wording.whole(number))

    def duration(self, seconds: float) -> str:
        """Return a time in the two units that matter."""
        return self.units(wording.duration(seconds))

    def units(self, text: str) -> str:
        """Return a time such as "3 min 5 s" with its numbers and units as this language has them."""
        if self.code == "en" or not text[:1].isdigit():
            return self._figure(text)
        names = {"h": self.say("h", context="unit"), "min": self.say("min", context="unit")}
        names["s"] = self.say("s", context="unit")
        return self.numeral(re.sub(r" (h|min|s)\b", lambda m: _NO_BREAK + names[m[1]], text))

    def moment(self, text: str) -> str:
        """Return a time in ISO 8601 as people write it; English keeps it as it is."""
        if self.code == "en":
            return text
        from babel.dates import format_datetime

        try:
            return format_datetime(datetime.fromisoformat(text), "d MMMM y 'г.', HH:mm:ss (xxx)", locale=self.code)
        except ValueError:
            return text

    def quoted(self, name: str) -> str:
        """Return a class or stage name in quotation marks, fit for a sentence."""
        text = wording.quoted(name)
        return text if self.code == "en" else f"«{text[1:-1]}»"

    def listed(self, items: Sequence[str]) -> str:
        """Return items as a phrase, "a, b and c"."""
        if len(items) < 2:
            return "".join(items)
        return self.say("{items} and {last}", items=", ".join(items[:-1]), last=items[-1])

    def _ended(self, text: str) -> str:
        """Return a sentence that ends with one point where its last word is an abbreviation."""
        return text if self.code == "en" else re.sub(r"(?<=\bп\.)\.(?=\s|$)", "", text)

    def _figure(self, text: str) -> str:
        """Return a figure, or the words that stand where there is none."""
        words = {"unknown": message("unknown"), "not a number": message("not a number")}
        return self.say(words[text]) if text in words else self.numeral(text)


ENGLISH = Language()


def find_language(code: str) -> Language:
    """Return the language of a code; raises CommandError for one there is no catalogue of."""
    if code not in LANGUAGES:
        known = ", ".join(f"{name} ({word})" for name, word in LANGUAGES.items())
        raise CommandError(f"There is no language '{code}'. --language can be {known}.")
    return Language(code)


def recorded_language(about: Mapping[str, Any]) -> Language:
    """Return the language that a folder's record names; English where it names none."""
    return find_language(str(about.get("language", "en")))


def _russian_number(found: re.Match[str]) -> str:
    text = found[0]
    percent = text.endswith(" %")
    text = text.removesuffix(" %").replace("-", "−") if "e" not in text else text
    text, _, exponent = text.partition("e")
    whole, point, part = text.partition(".")
    if len(whole.replace(",", "").lstrip("+−")) < 5:  # four digits are read at a glance
        whole = whole.replace(",", "")
    text = whole.replace(",", _THIN) + ("," if point else "") + part
    if exponent:
        power = str(int(exponent)).translate(_SUPERSCRIPTS)
        text = f"10{power}" if text == "1" else f"{text}·10{power}"
    return text + (f"{_NO_BREAK}%" if percent else "")


@cache
def _typeset(template: str) -> str:
    """Keep together what no line may break apart: figures and what they count, endings, dashes and what is before."""
    template = re.sub(r"(?<=[\d}]) (?=%)| (?=—)", _NO_BREAK, template).replace("%-", "%\u2011")
    return re.sub(r"(?<=\{n\}) |(?<=[\d}]) (?=п\.)|(?<=п\.) (?=п\.)|(?<=\d) (?=[а-яё])", _NO_BREAK, template)


@cache
def _catalogue(code: str) -> object:
    from babel.messages.pofile import read_po

    return read_po(io.BytesIO((resources.files("wildtune") / "locale" / f"{code}.po").read_bytes()), locale=code)


@cache
def _translations(code: str) -> gettext.GNUTranslations:
    from babel.messages.mofile import write_mo

    compiled = io.BytesIO()
    write_mo(compiled, _catalogue(code))  # type: ignore[arg-type]
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


@cache
def _patterns(code: str, group: str) -> tuple[tuple[re.Pattern[str], str, str], ...]:
    """Return for each English template of a group its pattern, and it with its plural, those that say most first."""
    found = []
    for entry in _catalogue(code):  # type: ignore[attr-defined]
        if entry.context == group and entry.id:
            one, many = entry.id if isinstance(entry.id, tuple) else (entry.id, "")
            found += [(template, one, many) for template in {one, many} if template]
    found.sort(key=lambda entry: (-len(_FIELD.sub("", entry[0])), entry[0]))
    return tuple((_pattern(template), one, many) for template, one, many in found)


def _pattern(template: str) -> re.Pattern[str]:
    """Return what matches the texts of a template, each value in a group of its name."""
    parts, seen, place = [], set[str](), 0
    for field in _FIELD.finditer(template):
        parts.append(re.escape(template[place : field.start()]))
        name = field[1]
        inner = {"n": r"\d[\d,]*", "number": r"\d\S*"}.get(name, r"\d.*?" if name.startswith("number") else ".+?")
        whole = "" if template.startswith(" %", field.end()) else "(?! %)"  # a percentage is one value
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{inner}){whole}")
        seen.add(name)
        place = field.end()
    return re.compile("".join(parts) + re.escape(template[place:]), re.DOTALL)
