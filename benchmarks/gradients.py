"""What `wildtune.model.gradients`, kept memory and bfloat16 gain: compiled training steps, in turn, and their ratios.

python benchmarks/gradients.py [BACKBONE] [--bfloat16] [--return-memory]

Each kind is compared with torch's own gradients in float32, round by round. `--bfloat16` adds steps in bfloat16, which
take minutes each on a CPU that has no products of it. `--return-memory` leaves freed memory to the system, as torch
does; it is the process's for good, so run the command with it and without.
"""

from __future__ import annotations

import argparse
import statistics

from steps import create_step, time_in_turn

from wildtune import runtime

CLASSES, STEPS = 20, 4
FLOAT32 = {
    "torch's gradients, parts of 8": {"part": 8, "fast": False},
    "wildtune's, parts of 8": {"part": 8},
}
BFLOAT16 = {
    "torch's, bfloat16, parts of 16": {"part": 16, "fast": False, "bfloat16": True},
    "wildtune's, bfloat16, parts of 16": {"part": 16, "bfloat16": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="efficientnet_b0")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--return-memory", action="store_true")
    options = parser.parse_args()
    runtime.set_threads(runtime.compute_threads())
    if not options.return_memory:
        runtime.keep_freed_memory()
    kinds = FLOAT32 | BFLOAT16 if options.bfloat16 else FLOAT32
    rates = time_in_turn({name: create_step(options.backbone, CLASSES, **kind) for name, kind in kinds.items()}, STEPS)
    base = next(iter(rates.values()))
    print(f"{options.backbone}, freed memory {'returned' if options.return_memory else 'kept'}: photos a second")
    for name, found in rates.items():
        ratios = [mine / plain for mine, plain in zip(found, base, strict=True)]
        spread = f"({min(found):.1f} to {max(found):.1f})"
        print(f"{name:34} {statistics.median(found):5.1f} {spread:16} {statistics.median(ratios):.2f} times")


if __name__ == "__main__":
    main()
