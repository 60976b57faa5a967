"""Answers that are remembered: found again, and no harm done where they cannot be."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from wildtune import files
from wildtune.memo import Memo, remember


def test_an_answer_is_worked_out_once_for_one_question() -> None:
    asked: list[int] = []

    def work_out(number: int) -> dict[str, object]:
        asked.append(number)
        return {"number": number, "shares": [0.1, float("nan")]}

    first = remember("test", {"b": [1], "a": "ü"}, lambda: work_out(1))
    again = remember("test", {"a": "ü", "b": [1]}, lambda: work_out(2))
    assert asked == [1]
    assert again["number"] == first["number"] == 1
    assert again["shares"][0] == 0.1
    assert math.isnan(again["shares"][1])
    assert remember("test", {"a": "ü", "b": [2]}, lambda: work_out(3))["number"] == 3
    assert remember("other", {"a": "ü", "b": [1]}, lambda: work_out(4))["number"] == 4


def test_many_keys_at_once() -> None:
    answers = {f"key {number}": number for number in range(1234)}
    Memo("many").save(answers)
    assert Memo("many").load(["no such key", *answers, "key 7"]) == answers


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_damaged_file_is_no_answer(content: bytes) -> None:
    Memo("damaged").save({"key": 1})
    (path,) = files.cache_folder("memo").glob("damaged*")
    path.write_bytes(content)
    assert Memo("damaged").load(["key"]) == {}
    assert remember("damaged", "question", lambda: 5) == 5
    Memo("damaged").save({"key": 2})  # and is begun anew
    assert Memo("damaged").load(["key"]) == {"key": 2}


def test_a_foreign_table_is_no_answer() -> None:
    folder = files.cache_folder("memo")
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "foreign.sqlite")
    connection.execute("CREATE TABLE answers (other TEXT)")
    connection.close()
    assert remember("foreign", "question", lambda: 5) == 5


def test_a_cache_that_cannot_be_written_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WILDTUNE_CACHE", str(tmp_path / "file"))
    assert remember("test", "question", lambda: 5) == 5


def test_what_will_not_last_is_not_remembered() -> None:
    assert remember("passing", "question", lambda: 1, lambda: False) == 1
    assert remember("passing", "question", lambda: 2) == 2
    assert remember("passing", "question", lambda: 3) == 2
