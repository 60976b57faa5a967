"""Drawing without side effects: matplotlib figures with the report's look, turned into small, stable SVG text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, Formatter, NullFormatter

from wildtune import wording
from wildtune.language import ENGLISH, Language

INK = "#22302d"
MUTED = "#66736f"
GRID = "#dfe4e1"
TRAINING = "#c4741a"
VALIDATION = "#1f6f8b"
# Cells of a matrix keep their colours in the dark too, so the text on them has its own.
CELL_DARK, CELL_LIGHT = "#10201c", "#fefefe"

# The page swaps these for the variables of its light and dark palettes.
THEME = {INK: "--ink", MUTED: "--muted", GRID: "--grid", TRAINING: "--training", VALIDATION: "--validation"}

_FONTS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
# Newer stubs of matplotlib want each key as a literal type.
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    # Measured with the font that matplotlib carries, wider than the page's own: nothing can overflow.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


class _Localised(Formatter):
    """The numbers of an axis as another formatter has them, in the figures of a language."""

    def __init__(self, formatter: Formatter, language: Language) -> None:
        self._formatter, self._language = formatter, language

    def set_axis(self, axis: Any) -> None:
        super().set_axis(axis)
        self._formatter.set_axis(axis)

    def set_locs(self, locs: Any) -> None:
        self.locs = locs
        self._formatter.set_locs(locs)

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self._language.numeral(self._formatter(x, pos).replace("−", "-"))

    def get_offset(self) -> str:
        return self._language.numeral(self._formatter.get_offset())


def draw(
    name: str,
    description: str,
    size: tuple[float, float],
    paint: Callable[[Figure], None],
    language: Language = ENGLISH,
) -> str:
    """Return one figure as SVG text, the numbers on its axes in a language.

    `name` keeps the ids of several figures on one page apart; `description` is what a screen reader says;
    `size` is width and height in inches of 72 points; `paint` draws on the empty figure. The same input gives
    the same bytes, and matplotlib's global settings stay as they are.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Names in scripts that the measuring font lacks are still written as text and drawn by the reader.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        paint(figure)
        if language != ENGLISH:
            _localise(figure, language)
        # Laid out here and written by its canvas, it is drawn once; `savefig` would draw it twice for that.
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
        figure.set_layout_engine("none")
        written = io.StringIO()
        canvas.print_svg(written, metadata={"Date": None})
    return _finish(written.getvalue(), name, description)


def _localise(figure: Figure, language: Language) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if not isinstance(formatter, FixedFormatter | NullFormatter):  # names stay as they are
                axis.set_major_formatter(_Localised(formatter, language))


def axes_of(figure: Figure, title: str, x_label: str, y_label: str) -> Axes:
    """Return one pair of axes over the whole figure with the report's titles."""
    axes = figure.add_subplot()
    axes.set_title(title, pad=22)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.tick_params(length=3)
    return axes


def label(name: str, length: int = 22) -> str:
    """Return a class name fit for the side of a chart."""
    return wording.shorten(wording.plain(name), length)


def inline(svg: str) -> str:
    """Return SVG text for the inside of an HTML page: without namespaces, in the colours of the page's palette."""
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return text


def _finish(svg: str, name: str, description: str) -> str:
    """Drop what no reader needs, make ids unique among figures and let the reader's own fonts draw the text."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', lambda m: f"{m[1]}{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", _FONTS).replace("font-family: DejaVu Sans", f"font-family: {_FONTS}")
    # A style sheet inside a figure would reach into the whole page; its one rule fits on the root.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"\d+\.\d{3,}", _two_digits, tag[0]), svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg.strip())
    words = quoteattr(wording.plain(description))
    style = "stroke-linejoin: round; stroke-linecap: butt"
    return svg.replace("<svg ", f'<svg role="img" aria-label={words} style="{style}" ', 1) + "\n"


def _two_digits(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
