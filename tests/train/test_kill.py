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
from wildtune import cli

COMMAND = [sys.executable, "-m", "wildtune.cli", "train"]
OPTIONS = [
    *("--backbone", BACKBONE, "--weights", "none", "--set", "input.size=48"),
    *("--set", "stages.0.epochs=10", "--set", "stages.0.batch_size=2", "--set", "stages.0.views=every_epoch"),
    *("--set", "stages.1.epochs=8", "--set", "stages.1.batch_size=4"),
]


def train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the command in this process, which spares the start of another."""
    monkeypatch.setattr(sys, "argv", ["wildtune", "train", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code


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
def test_killed_twice_and_resumed_is_as_if_nothing_had_happened(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_charts: None
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kill_after([str(photos), *OPTIONS, "--out", str(cut)], cut / "metrics.jsonl", "transfer")
    kill_after(["--resume", str(cut)], cut / "metrics.jsonl", "finetune")
    train(monkeypatch, "--resume", str(cut))
    train(monkeypatch, str(photos), *OPTIONS, "--out", str(whole))
    for name in ("bundle/model.safetensors", "predictions/test.csv", "evaluation.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 18
