"""How long work shows itself: a bar with the time left on a terminal, plain lines elsewhere and in the log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import rich.console
import rich.progress

# Seconds between two plain lines about the same piece of work.
LINE_EVERY_S = 20.0

# Told (done, total) as work on many photos goes on, as often as it likes.
ProgressCallback = Callable[[int, int], None]


class Reporter:
    """Says what is going on, to a person and to the run's log."""

    def __init__(self, console: rich.console.Console | None = None) -> None:
        """Write to `console`, by default the standard error stream."""
        self.console = console or rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
        self._log: TextIO | None = None

    def log_to(self, path: Path) -> None:
        """Also append every line, with its time, to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._log:
            self._log.close()
        self._log = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed with the process

    def say(self, text: str) -> None:
        """Print one line (or more) and log it."""
        self.console.print(text, markup=False)
        self._write(text)

    @contextmanager
    def bar(self, title: str, unit: str = "photos") -> Iterator[ProgressCallback]:
        """Yield a function of (done, total) to be called as the work goes on, as often as it likes."""
        started = last = time.monotonic()
        if not self.console.is_terminal:

            def tell(done: int, total: int) -> None:
                nonlocal last
                now = time.monotonic()
                if now - last >= LINE_EVERY_S and 0 < done < total:
                    last = now
                    left = (now - started) * (total - done) / done
                    self.say(f"{title}: {done} of {total} {unit}, {format_seconds(left)} left")

            yield tell
            return
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn(unit),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def _write(self, text: str) -> None:
        if self._log:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            for line in text.splitlines():
                self._log.write(f"{now} {line}\n")


def format_seconds(seconds: float) -> str:
    """Return a duration for people: "45 s", "3 min 20 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
