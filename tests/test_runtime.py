"""What is asked of the machine: its kind of processor, and memory given back to it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from wildtune import runtime


def test_processors_of_one_name_are_told_apart_by_what_they_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = set()
    for flags in ("avx2 fma", "avx2 fma avx512f"):
        known = {"model name": "AMD EPYC", "flags": flags}
        monkeypatch.setattr(runtime, "_cpuinfo", known.__getitem__)
        runtime.processor_kind.cache_clear()
        kinds.add(runtime.processor_kind())
    runtime.processor_kind.cache_clear()
    assert len(kinds) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_what_is_free_between_what_is_used_is_given_back() -> None:
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * 4096

    # Blocks too small for pages of their own, every hundredth of which stays, so that no end of the heap is free.
    blocks = [bytearray(4_000) for _ in range(40_000)]
    kept = blocks[::100]
    del blocks
    before = resident()
    runtime.give_back_freed_memory()
    assert before - resident() > 80_000_000
    assert len(kept) == 400
