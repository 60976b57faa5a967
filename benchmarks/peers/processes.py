"""A timed process: its lines, when they came, its seconds, and the peak memory of it and all that it started."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.25
# Adding up what several processes share makes the system walk through all their pages, for a tenth of a second with
# 2 GiB, on a core that what is measured needs: it gets this share of the time at most.
MOST_OF_TIME = 0.02


@dataclass(frozen=True)
class Timed:
    """What a process did: exit status, seconds from start to end, peak memory in bytes, lines with their seconds."""

    status: int
    seconds: float
    peak_bytes: int
    lines: tuple[tuple[float, str], ...]


def run_timed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Timed:
    """Run a command in a folder; output and errors are read together, and kept in `output.log` there."""
    started = time.time()
    process = subprocess.Popen(
        list(command),
        cwd=folder,
        env={**environment, "BENCHMARK_STARTED": str(started)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    watch = MemoryWatch(process.pid)
    watch.start()
    lines = []
    assert process.stdout is not None
    with open(folder / "output.log", "w", encoding="utf-8") as log:
        for line in process.stdout:
            lines.append((time.time() - started, line.rstrip("\n")))
            log.write(line)
            log.flush()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.time() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.stop()
    # The system's own peak counts what this process held when it started the other: only where nothing was sampled.
    peak = watch.peak_bytes or usage.ru_maxrss * 1024
    return Timed(process.returncode, seconds, peak, tuple(lines))


class MemoryWatch(threading.Thread):
    """Samples what a process and all below it hold in memory; pages that several share count once.

    While it is alone its own record of its peak is read, which costs nothing.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_bytes, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        pause = SAMPLE_S
        while not self.ended.wait(pause):
            started = time.perf_counter()
            family = list_family(self.pid)
            held = sum(map(held_bytes, family)) if len(family) > 1 else 0
            self.peak_bytes = max(self.peak_bytes, held, own_peak(self.pid))
            pause = max(SAMPLE_S, (time.perf_counter() - started) / MOST_OF_TIME)

    def stop(self) -> None:
        self.ended.set()
        self.join()


def list_family(pid: int) -> list[int]:
    """Return a process and all its descendants, as Linux lists them; the process alone elsewhere."""
    family, waiting = [], [pid]
    while waiting:
        family.append(waiting.pop())
        for children in Path(f"/proc/{family[-1]}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except OSError:
                continue  # it has ended
    return family


def held_bytes(pid: int) -> int:
    """Return a process's proportional share of memory; 0 where it has ended or the system does not say."""
    return read_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def own_peak(pid: int) -> int:
    """Return the most that a process by itself has held so far; 0 where it has ended or the system does not say."""
    return read_bytes(Path(f"/proc/{pid}/status"), "VmHWM:")


def read_bytes(table: Path, name: str) -> int:
    """Return the bytes behind a name in one of the system's tables, which count in KiB."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
