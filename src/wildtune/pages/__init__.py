"""What every page is made with: its templates, its look and its pictures, all within the one HTML file."""

from __future__ import annotations

import base64
import re

import jinja2
from markupsafe import Markup

from wildtune.language import ENGLISH, Language


def create_environment(room: str, language: Language = ENGLISH) -> jinja2.Environment:
    """Return the templates in the folder of a room (`report`), with the shared `style.css` to include.

    In a template `say("sentence {name}", name=value)` is the sentence in the language, which may hold HTML, with its
    values escaped; `language` is that language. Everything that people named is escaped; a name that the template
    does not get raises jinja2.UndefinedError.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("wildtune", room), jinja2.PackageLoader("wildtune", "pages")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figures_kept_whole"] = keep_figures_whole

    def say(message: str, **values: object) -> Markup:
        return Markup(language.template(message)).format(**values)

    environment.globals.update(say=say, language=language)
    return environment


def keep_figures_whole(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=%|points?\b|photos?\b|min\b|s\b|h\b)", "\u00a0", text)


def data_uri(picture: bytes | None) -> str:
    """Return a JPEG or PNG picture as a data: address, "" where there is none or its type is unknown."""
    if not picture:
        return ""
    kinds = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png"}
    kind = next((kind for start, kind in kinds.items() if picture.startswith(start)), "")
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}" if kind else ""
