"""The machine a run happens on: device, threads, seeds and the versions of everything that matters."""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, get_args

from wildtune import files

# What a network's arithmetic is done in.
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

# What compiles networks, and gradients of our own, for a CPU.
COMPILER = "g++"

PACKAGES = (
    "wildtune",
    "torch",
    "torchvision",
    "timm",
    "openvino",
    "numpy",
    "pillow",
    "scikit-learn",
    "scipy",
    "cleanlab",
)


def seed_from(*parts: object) -> int:
    """Return a number in [0, 2**63) that depends on all parts and nothing else.

    Every random choice in training draws from a generator seeded so, by (seed, stage, epoch, photo or step).
    Nothing is carried from one step to the next, which is what makes a resumed run equal an uninterrupted one.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def compute_threads() -> int:
    """Return how many CPU threads to compute with: OMP_NUM_THREADS, or the processors this process may run on."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def detect_device() -> str:
    """Return "cuda" where torch sees an NVIDIA GPU that works, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def can_compile() -> bool:
    """Say whether torch.compile can work here: on the CPU it needs a C++ compiler."""
    return platform.system() == "Linux" and shutil.which(COMPILER) is not None


def has_fast_bfloat16(device: str) -> bool:
    """Say whether a device multiplies matrices of bfloat16 much faster than of float32.

    GPUs since 2020 do, and CPUs with tile registers (AMX) or with products of bfloat16 in vectors of 512 bits
    (AVX512_BF16: Zen 4 and later). `benchmarks/gradients.py` measures it; docs/performance.md has what it gains.
    """
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch before 2.10 cannot tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def keep_freed_memory() -> None:
    """Keep freed memory for what is allocated next, rather than give it back to the system; on Linux's glibc only.

    A training step's large blocks would otherwise be new pages each time, which the system has to fill with zeros: a
    fifth of a step's time. What is free already goes first: it is in pieces of other sizes, beside which the blocks
    would come to lie.
    """
    give_back_freed_memory()
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # malloc.h: no blocks from mmap, the heap's top never trimmed, one heap for all threads.
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-8, 1)):
        libc.mallopt(option, value)


def give_back_freed_memory() -> None:
    """Give all memory that is free back to the system, also where it is kept; on Linux's glibc only."""
    if platform.libc_ver()[0] == "glibc":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def keep_compiled() -> None:
    """Have torch keep what it compiles among wildtune's caches, unless TORCHINDUCTOR_CACHE_DIR names another folder.

    Its own choice is the system's folder for temporary files, which many systems empty when they start. What is
    compiled is for one kind of processor, and torch does not look for which: each has a folder of its own. torch
    settles the folder while it is imported, so call this before. Where nothing can be written, torch's choice stays.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = files.cache_folder("compiled") / processor_kind()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def seed_device(device: str, seed: int) -> None:
    """Seed what torch draws at random on a device; `torch.manual_seed` would look for GPUs each time, for 1.5 ms."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)


def set_threads(threads: int) -> None:
    """Use this many CPU threads for torch; more than there are cores halves the speed on small machines."""
    import torch

    torch.set_num_threads(threads)


def compute_alone() -> None:
    """Make torch use one thread in the calling thread, which works beside others that compute."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def computing_alone() -> Iterator[None]:
    """Do so for a while: a second thread would wait for its next task by spinning, and slow down the others."""
    import torch

    threads = torch.get_num_threads()
    compute_alone()
    try:
        yield
    finally:
        set_threads(threads)


def environment() -> dict[str, Any]:
    """Return what a run records of the machine: platform, processor count and package versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor_name(),
        "cores": compute_threads(),
        "packages": versions,
    }


@functools.cache
def processor_kind() -> str:
    """Return 16 hexadecimal digits for this kind of processor: its architecture, its name and what it can do.

    The name alone can be that of several generations: virtual machines call four of them "AMD EPYC".
    """
    about = (platform.machine(), _processor_name(), _cpuinfo("flags") or _cpuinfo("Features"))
    return hashlib.sha256(" ".join(about).encode()).hexdigest()[:16]


def _processor_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """Return what Linux says of the first processor, "" where it says nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            for line in handle:
                if line.startswith(key):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
