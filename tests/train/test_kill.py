"""The crash that nothing can catch: `kill -9` in each stage, then `train --resume`, on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shapes import BACKBONE

COMMAND = [sys.executable, "-m", "wildtune.cli", "train"]
OPTIONS = [
    *("--backbone", BACKBONE, "--weights", "none", "--set", "input.size=48"),
    *("--set", "stages.0.epochs=40", "--set", "stages.0.batch_size=2", "--set", "stages.0.views=every_epoch"),
    *("--set", "stages.1.epochs=12", "--set", "stages.1.batch_size=4"),
]


def kill_after(arguments: list[str], metrics: Path, stage: str) -> None:
    """Start the command and kill it as soon as `metrics` has an epoch of the stage."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (metrics.exists() and f'"{stage}"' in metrics.read_text()):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, f"no epoch of {stage} came"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a matter of POSIX systems")
def test_killed_twice_and_resumed_is_as_if_nothing_had_happened(photos: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kill_after([str(photos), *OPTIONS, "--out", str(cut)], cut / "metrics.jsonl", "transfer")
    kill_after(["--resume", str(cut)], cut / "metrics.jsonl", "finetune")
    subprocess.run([*COMMAND, "--resume", str(cut)], check=True, capture_output=True)
    subprocess.run([*COMMAND, str(photos), *OPTIONS, "--out", str(whole)], check=True, capture_output=True)
    for name in ("bundle/model.safetensors", "predictions/test.csv", "evaluation.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 52
