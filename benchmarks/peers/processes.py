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
    """Samples what a process and all below it hold in memory; pages that several share count once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_bytes, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, sum(map(held_bytes, list_family(self.pid))))

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
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
