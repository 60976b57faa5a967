"""Gather every sentence that a report can say, and bring the catalogues of `src/wildtune/locale` up to date.

    python scripts/update_messages.py          write new sentences into every catalogue, keep what is translated
    python scripts/update_messages.py --check  write nothing; exit with 1 where a catalogue is behind or has gaps

Sentences are the first arguments of `say`, `say_counted` and `message`, and what `recorded` and `recorded_counted`
store, in the source; in templates those of `say` and `say_counted`. They must be written out, not put together.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jinja2
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from jinja2.ext import extract_from_ast

SOURCE = Path(__file__).parents[1] / "src" / "wildtune"
COUNTED = {"say_counted", "recorded_counted"}
SPEAKERS = {"say", "message", "recorded", *COUNTED}


class Message(NamedTuple):
    """A sentence: in English for one and, where it depends on a count, for many; its context; and the file it is in."""

    one: str
    many: str
    context: str
    file: str


def gather_messages(source: Path = SOURCE) -> list[Message]:
    """Return every sentence of the package, in the order of files and lines."""
    found: list[Message] = []
    for path in sorted(source.rglob("*.py")):
        found += _in_python(path)
    for path in sorted(source.rglob("*.jinja")):
        found += _in_template(path)
    return found


def _in_python(path: Path) -> Iterator[Message]:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        name = _speaker(call.func, path.name == "language.py")
        if name not in SPEAKERS:
            continue
        texts = [argument.value if isinstance(argument, ast.Constant) else None for argument in call.args]
        context = ""
        for keyword in call.keywords:
            if keyword.arg == "context" and isinstance(keyword.value, ast.Constant):
                context = str(keyword.value.value)
        if name.startswith("recorded"):
            context, *texts = [str(texts[0]), *texts[1:]]
        if any(isinstance(argument, ast.JoinedStr | ast.BinOp) for argument in call.args):
            raise SystemExit(f"{path}:{call.lineno}: a sentence must be one text with named braces, not put together")
        if texts and isinstance(texts[0], str):
            yield Message(texts[0], str(texts[1]) if name in COUNTED else "", context, _name(path))


def _speaker(function: ast.expr, in_language: bool) -> str:
    """Return the name of a called function, "" where it speaks of something else: `reporter.say` prints to people."""
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return function.attr if name == "language" or (in_language and name == "self") else ""


def _in_template(path: Path) -> Iterator[Message]:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    tree = environment.parse(path.read_text("utf-8"))
    for _, name, texts in extract_from_ast(tree, gettext_functions=("say", "say_counted"), babel_style=False):
        said = [text for text in (texts if isinstance(texts, tuple) else (texts,)) if text]
        if said:
            yield Message(said[0], said[1] if name in COUNTED else "", "", _name(path))


def _name(path: Path) -> str:
    return path.relative_to(SOURCE.parents[1]).as_posix() if path.is_relative_to(SOURCE) else path.name


def update(catalogue: Catalog, messages: list[Message]) -> None:
    """Give a catalogue these sentences in their order, keep the translations it has, drop those of no sentence."""
    template = Catalog()
    for message in messages:
        identity = (message.one, message.many) if message.many else message.one
        template.add(identity, locations=[(message.file, 0)], context=message.context or None)
    catalogue.update(template, no_fuzzy_matching=True, update_header_comment=False)
    catalogue.obsolete.clear()


def find_gaps(catalogue: Catalog) -> list[str]:
    """Return the sentences without a whole translation, in English."""
    gaps = []
    for entry in catalogue:
        texts = entry.string if isinstance(entry.string, tuple | list) else (entry.string,)
        forms = catalogue.num_plurals if isinstance(entry.id, tuple) else 1
        if entry.id and (entry.fuzzy or len(texts) != forms or not all(texts)):
            gaps.append(entry.id[0] if isinstance(entry.id, tuple) else entry.id)
    return gaps


def catalogue_bytes(catalogue: Catalog) -> bytes:
    """Return a catalogue as a .po file, the same each time."""
    written = io.BytesIO()
    write_po(written, catalogue, width=120, include_lineno=False, omit_header=False)
    lines = written.getvalue().decode().splitlines(keepends=True)
    dates = ('"POT-Creation-Date', '"PO-Revision-Date', '"Project-Id', '"Report-Msgid', '"Last-Tr', '"Language-Team',
             '"Generated-By')  # fmt: skip
    return "".join(line for line in lines if not line.startswith(dates)).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    messages, behind = gather_messages(), False
    for path in sorted((SOURCE / "locale").glob("*.po")):
        before = path.read_bytes()
        catalogue = read_po(io.BytesIO(before), locale=path.stem)
        update(catalogue, messages)
        after, gaps = catalogue_bytes(catalogue), find_gaps(catalogue)
        behind |= bool(gaps) or after != before
        if not check and after != before:
            path.write_bytes(after)
        print(f"{path.name}: {len(catalogue)} sentences, {len(gaps)} without a translation")
        for gap in gaps:
            print(f"  {gap}")
    return 1 if check and behind else 0


if __name__ == "__main__":
    sys.exit(main())
