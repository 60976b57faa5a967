"""Work on many photos in a few threads, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items for each thread that may be done before their turn


def map_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    start_thread: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Yield `function(item)` for each item in order; the first exception of one is raised in its turn.

    `start_thread` is called once in each thread, before its first item.

    Only a few results wait at any time, so that large ones do not pile up and an interrupt ends it soon.
    """
    with ThreadPoolExecutor(threads, initializer=start_thread) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
