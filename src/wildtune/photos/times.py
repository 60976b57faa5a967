"""Times as photos and lists of photos write them."""

from __future__ import annotations

from datetime import datetime

_EXIF_TIME = "%Y:%m:%d %H:%M:%S"


def iso_time(text: str) -> str | None:
    """Return a time in ISO 8601, with the UTC offset it has; None for what is neither that nor a time of EXIF."""
    time = read_time(text)
    if time is None:
        try:
            time = datetime.strptime(text, _EXIF_TIME)
        except ValueError:
            return None
    return time.isoformat(timespec="seconds")


def read_time(text: str) -> datetime | None:
    """Return the time of an ISO 8601 text, with the UTC offset it has; None where there is none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
