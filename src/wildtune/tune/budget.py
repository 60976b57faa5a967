"""How much a tuning may try, and how much of it each step."""

from __future__ import annotations

import math
import time

# By what share of the time each step has ended; what one does not need is left to the next.
ENDS = {"policies": 0.25, "sweeps": 0.5, "augments": 0.65}


class Budget:
    """Trials of the search and minutes of the whole; either may be unlimited."""

    def __init__(self, trials: int | None, minutes: float | None, spent_s: float = 0.0) -> None:
        """Begin now; `spent_s` are the seconds that an interrupted tuning had taken of `minutes`."""
        self.trials, self.total_s = trials, math.inf if minutes is None else minutes * 60
        self._started, self._spent_s = time.monotonic(), spent_s

    def elapsed_s(self) -> float:
        """Return the seconds taken so far, those before an interruption included."""
        return self._spent_s + time.monotonic() - self._started

    def left_s(self, step: str = "", reserve_s: float = 0.0) -> float:
        """Return the seconds left to a step, or to the whole; `reserve_s` are kept for what comes after it."""
        return ENDS.get(step, 1.0) * self.total_s - reserve_s - self.elapsed_s()
