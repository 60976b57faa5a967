"""How every room writes numbers, counts and names, in sentences, tables and charts alike."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from decimal import Decimal


def plain(text: str) -> str:
    """Return `text` fit for any file: control characters and halves of surrogate pairs become "?"."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return "".join("?" if unicodedata.category(c) == "Cc" or c in "\ufffe\uffff" else c for c in valid)


def shorten(text: str, length: int) -> str:
    """Return `text` with its middle left out where it has more than `length` characters.

    >>> shorten("a very long name of a class", 12)
    'a very…class'
    """
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return text[: length - 1 - tail].rstrip() + "…" + text[len(text) - tail :].lstrip()


def percent(share: float | None) -> str:
    """Return a share as a percentage with one digit after the point.

    >>> percent(0.9417), percent(None)
    ('94.2 %', 'unknown')
    """
    if share is None or not math.isfinite(share):
        return "unknown"
    return f"{share * 100:.1f} %"


def share(value: float) -> str:
    """Return a share that may be very small or large as a percentage with two significant digits.

    >>> share(0.000104), share(0.0), share(0.283), share(1.0), share(24.0)
    ('0.010 %', '0 %', '28 %', '100 %', '2,400 %')
    """
    percentage = value * 100
    if not math.isfinite(percentage):
        return "unknown"
    if percentage == 0 or abs(percentage) >= 10:
        return f"{percentage:,.0f} %"
    if abs(percentage) < 1e-6:
        return "under 0.000001 %"
    return f"{Decimal(f'{percentage:.1e}'):f} %"


def percent_range(interval: tuple[float, float]) -> str:
    """Return an interval of shares.

    >>> percent_range((0.9, 0.958))
    '90.0 to 95.8 %'
    """
    low, high = interval
    return f"{low * 100:.1f} to {high * 100:.1f} %"


def score_range(interval: tuple[float, float]) -> str:
    """Return an interval of scores in 0-1 that are no shares, such as F1.

    >>> score_range((0.9, 0.958))
    '0.900 to 0.958'
    """
    low, high = interval
    return f"{low:.3f} to {high:.3f}"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, without its sign.

    >>> points(-0.012)
    '1.2 points'
    """
    text = f"{abs(difference) * 100:.1f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def points_range(interval: tuple[float, float]) -> str:
    """Return an interval of differences in points, with signs.

    >>> points_range((-0.004, 0.031))
    '−0.4 to +3.1 points'
    """
    low, high = (_signed(end * 100) for end in interval)
    return f"{low} to {high} points"


def nats(loss: float) -> str:
    """Return a loss with three digits after the point."""
    return f"{loss:.3f}" if math.isfinite(loss) else "not a number"


def listed(items: Sequence[str]) -> str:
    """Return items as a phrase.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def duration(seconds: float) -> str:
    """Return a time in the two units that matter.

    >>> duration(3.26), duration(75), duration(7260)
    ('3.3 s', '1 min 15 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def rate(value: float) -> str:
    """Return a learning rate.

    >>> rate(0.01), rate(2e-8)
    ('0.01', '2e-08')
    """
    return f"{value:.3g}"


def quoted(name: str) -> str:
    """Return a class or stage name in quotation marks, fit for a sentence."""
    return f"“{shorten(plain(name), 60)}”"


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}"
    if text == "0.0":
        return text
    return ("−" if value < 0 else "+") + text


def whole(number: int) -> str:
    """Return a count with thousands set apart.

    >>> whole(4029331)
    '4,029,331'
    """
    return f"{number:,}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun.

    >>> counted(1, "photo"), counted(1200, "photo"), counted(2, "class", "classes")
    ('1 photo', '1,200 photos', '2 classes')
    """
    return f"{whole(number)} {noun if number == 1 else plural or noun + 's'}"
