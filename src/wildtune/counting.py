"""Counts in sentences, as every room writes them."""

from __future__ import annotations


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
