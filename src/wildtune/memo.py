"""What was worked out before, by all that decides it: answers about photos that need not be asked for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from typing import Any

from wildtune import files

# Seconds to wait for another process that writes; after that the answers are only not remembered.
_PATIENCE_S = 5.0
_AT_ONCE = 500


class Memo:
    """Answers of one kind by key, in an SQLite file of the cache folder.

    An answer is a plain value that JSON holds. A file that is damaged, locked or cannot be written makes nothing
    fail: what it does not give is worked out again.
    """

    def __init__(self, kind: str) -> None:
        """Open the answers of one kind; a kind's name changes when the same key would get another answer."""
        self._path = files.cache_folder("memo") / f"{kind}.sqlite"

    def load(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the answers known to these keys."""
        wanted = list(dict.fromkeys(keys))
        known: dict[str, Any] = {}
        try:
            if not self._path.exists():
                return known
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE_S)) as connection:
                for start in range(0, len(wanted), _AT_ONCE):
                    some = wanted[start : start + _AT_ONCE]
                    marks = ",".join("?" * len(some))
                    rows = connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some)
                    known |= {key: json.loads(answer) for key, answer in rows}
        except (sqlite3.Error, OSError, ValueError):
            return {}
        return known

    def save(self, answers: Mapping[str, Any]) -> None:
        """Remember answers, all of them or none."""
        if not answers:
            return
        rows = [(key, json.dumps(answer)) for key, answer in answers.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE_S)) as connection, connection:
                connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
                connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        except (sqlite3.OperationalError, OSError):  # locked, or a place that cannot be written to
            return
        except sqlite3.DatabaseError:  # damaged: begun anew next time
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def remember(
    kind: str, question: object, work_out: Callable[[], Any], is_lasting: Callable[[], bool] = lambda: True
) -> Any:
    """Return the answer to a question, worked out only when it is not known yet.

    `question` is everything the answer depends on, as values that JSON holds; so is the answer. `is_lasting` is asked
    after it was worked out, and says whether it will be the same next time.
    """
    key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    memo = Memo(kind)
    known = memo.load([key])
    if key not in known:
        known[key] = work_out()
        if is_lasting():
            memo.save(known)
    return known[key]
