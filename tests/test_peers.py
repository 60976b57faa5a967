"""The comparison with other libraries counts right: what is reckoned, what is a ratio, whose memory, what is kept."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The comparison, with the modules beside it, which are no part of the package."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(PEERS))
    import compare

    yield compare
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(PEERS)):
            del sys.modules[name]


def epoch(stage: str, number: int, seconds: float, accuracy: float = 0.5) -> dict[str, Any]:
    return {
        "event": "epoch",
        "stage": stage,
        "epoch": number,
        "seconds": seconds,
        "epoch_s": 30.0,
        "val_accuracy": accuracy,
    }


def row(job: str, seconds: float, events: list[dict[str, Any]] | None = None, **values: Any) -> dict[str, Any]:
    return {"job": job, "round": 1, "seconds": seconds, "peak_gib": 1.0, "photos": 0, "events": events or [], **values}


def lab5(job: str, pace: float) -> dict[str, Any]:
    """Three epochs of the head and two of fine-tuning: the first of each stage builds for 20 s longer."""
    head = [epoch("transfer", n, 20 + pace * n) for n in (1, 2, 3)]
    tuned = [epoch("finetune", n, 40 + 3 * pace + 5 * pace * n) for n in (1, 2)]
    return row(job, 45 + 13 * pace, head + tuned)


def test_the_whole_recipe_repeats_steady_epochs_and_not_the_first(peers: ModuleType) -> None:
    import tables

    seconds, reckoned = tables.reckon_report(lab5("keras lab5", 10.0))
    assert seconds == pytest.approx(45 + 130 + 17 * 10 + 18 * 50)
    assert reckoned


def test_a_recipe_run_whole_is_measured(peers: ModuleType) -> None:
    import tables

    events = [epoch(stage, n, 10.0 * n) for stage in ("transfer", "finetune") for n in range(1, 21)]
    assert tables.reckon_report(row("keras lab5", 500.0, events)) == (500.0, False)


def test_ratios_say_how_many_times_faster_wildtune_is(peers: ModuleType) -> None:
    import tables

    rows = [
        lab5("keras lab5", 10.0),
        lab5("wildtune lab5", 5.0),
        row("keras predict one photo", 10.0, photos=1),
        row("keras predict", 30.0, photos=1001),
        row("wildtune predict one photo", 4.0, photos=1),
        row("wildtune predict", 14.0, photos=1001),
    ]
    made = tables.Comparison(rows, {1: {"train": 1000, "val": 100, "test": 100}})
    assert "| the report's head: keras lab5 | 100.0 | 200.0 (wildtune lab5) | 2.00 |" in made.stages()
    assert "| keras | 10.0 | 2.50 | 50.0 | 2.00 |" in made.predictions()
    assert "| ratio | 1.93 |" in made.report()


def test_a_folder_that_takes_little_longer_than_one_photo_has_no_rate(peers: ModuleType) -> None:
    import tables

    rows = [row("wildtune predict", 14.0, photos=9), row("wildtune predict one photo", 4.0, photos=1)]
    rows += [row("keras predict", 4.1, photos=9), row("keras predict one photo", 4.0, photos=1)]
    made = tables.Comparison(rows, {})
    assert "| keras | 4.0 | 1.00 | too few photos to say |" in made.predictions()


def test_time_to_accuracy_is_to_the_peers_best_and_says_where_it_is_not_reached(peers: ModuleType) -> None:
    import tables

    rows = [
        row("torch, compiled", 300.0, [epoch("finetune", 1, 100.0, 0.7), epoch("finetune", 2, 200.0, 0.9)]),
        row(tables.QUICK, 30.0, [epoch("transfer", 1, 20.0, 0.8), epoch("transfer", 2, 25.0, 0.9)]),
        row(tables.DEFAULT, 90.0, [epoch("transfer", 1, 20.0, 0.8)]),
    ]
    made = tables.Comparison(rows, {})
    assert "| 1 | torch, compiled | 90.0 | 200 | 25, ratio 8.0 | not reached |" in made.times_to_accuracy()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell shares of memory")
def test_memory_is_that_of_a_process_and_all_it_started(peers: ModuleType, tmp_path: Path) -> None:
    import processes

    child = "import time; held = bytearray(b'x') * 80_000_000; time.sleep(2)"
    parent = f"import subprocess, sys; {child.split(';')[1]}; subprocess.run([sys.executable, '-c', {child!r}])"
    timed = processes.run_timed([sys.executable, "-c", parent], tmp_path, dict(os.environ))
    assert timed.status == 0
    assert 160e6 < timed.peak_bytes < 250e6


def test_an_interrupted_comparison_goes_on_and_other_options_measure_again(
    peers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import processes

    ran: list[str] = []

    def run_job(job: Any, pythons: object, folder: Path) -> Any:
        if "wildtune default" in job.name and len(ran) < 10:
            raise KeyboardInterrupt
        ran.append(job.name)
        work = folder / "work" / "run"
        work.mkdir(parents=True, exist_ok=True)
        (work / "split.csv").write_text("path,label,split\na.jpg,bear,train\n")
        (folder / "work" / "predictions.csv").write_text("path\n" + "a\n" * (1 if "one" in job.name else 9))
        return processes.Timed(0, 1.0 + len(ran), 2**30, ())

    monkeypatch.setattr(peers.runtime, "has_fast_bfloat16", lambda device: False)  # or there are more jobs
    monkeypatch.setattr(peers, "run_job", run_job)
    (tmp_path / "photos" / "bear").mkdir(parents=True)
    (tmp_path / "photos" / "bear" / "a.jpg").touch()
    command = ["compare.py", f"{tmp_path}/photos", "--weights", "w", "--rounds", "1", "--only", "keras"]
    command += ["--folder", f"{tmp_path}/bench", "--python", "keras=python"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(KeyboardInterrupt):
        peers.main()
    before = len(ran)
    ran += [""] * 10
    peers.main()
    assert sorted(filter(None, ran)) == sorted(set(filter(None, ran)))
    assert before > 0
    saved = json.loads((tmp_path / "bench" / "round-1" / "wildtune-quick.json").read_text())
    assert saved["settings"]["epochs"] is None
    ran.clear()
    ran += [""] * 10
    monkeypatch.setattr(sys, "argv", [*command, "--epochs", "1"])
    peers.main()
    assert "wildtune quick" in ran
    assert "Predicting from a folder" in capsys.readouterr().out
