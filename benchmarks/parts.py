"""What training a batch in parts gains: compiled steps of 32 photos in parts of several sizes, in turn.

python benchmarks/parts.py BACKBONE PART [PART ...]

In bfloat16 where wildtune would train so, else in float32. Give one size alone to see its peak memory: the peak is
that of the whole process.
"""

from __future__ import annotations

import resource
import statistics
import sys

from steps import create_step, time_in_turn

from wildtune import runtime

CLASSES, STEPS = 22, 2


def main() -> None:
    runtime.set_threads(runtime.compute_threads())
    runtime.keep_freed_memory()
    bfloat16 = runtime.has_fast_bfloat16("cpu")
    backbone, parts = sys.argv[1], sys.argv[2:]
    rates = time_in_turn({part: create_step(backbone, CLASSES, int(part), bfloat16=bfloat16) for part in parts}, STEPS)
    for part, found in rates.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{backbone}, parts of {part}: {statistics.median(found):.1f} photos a second ({spread})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
