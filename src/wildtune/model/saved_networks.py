"""Networks that OpenVINO has taken over, kept in the cache: that takes seconds, reading one again a fraction."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from wildtune import files, runtime

# The most that are kept; the one that has not been used for longest goes first.
KEPT = 8

# Another number takes every network over anew; raise it when the same weights would give another one.
_VERSION = 1
_NETWORK = "network.xml"


def find_network(identity: str, size: int) -> Path | None:
    """Return the file of a network for square inputs of `size` pixels, None where none is kept.

    `identity` tells its architecture and weights from all others.
    """
    path = _folder(identity, size) / _NETWORK
    if not os.path.exists(path):  # which, unlike Path's, takes a folder of another user's for none
        return None
    with suppress(OSError):  # as in a cache that may only be read
        os.utime(path.parent)
    return path


def keep_network(network: Any, identity: str, size: int) -> None:
    """Keep an OpenVINO model for `find_network`, whole or not at all; where it cannot be written nothing fails."""
    import openvino

    folder = _folder(identity, size)
    try:
        if not (folder / _NETWORK).exists():
            _remove(folder)  # what is left of it would stay
        with files.creating_folder(folder) as temporary:
            openvino.save_model(network, temporary / _NETWORK, compress_to_fp16=False)
        used = sorted((entry.stat().st_mtime, entry) for entry in folder.parent.iterdir())
        for _, entry in used[:-KEPT]:
            _remove(entry)
    except (OSError, RuntimeError):  # as of a full disk
        return


def forget_network(identity: str, size: int) -> None:
    """Throw away a network that turned out to be damaged."""
    _remove(_folder(identity, size))


def _remove(folder: Path) -> None:
    """Remove a folder whole or, where another process has its files open and the system minds, not at all."""
    with suppress(OSError):
        doomed = folder.rename(folder.with_name(f"{folder.name}.{os.getpid()}.part"))
        shutil.rmtree(doomed, ignore_errors=True)


def _folder(identity: str, size: int) -> Path:
    # It was held against torch on such a processor, with these versions.
    packages = runtime.environment()["packages"]
    versions = {name: packages[name] for name in ("openvino", "timm", "torch")}
    key = json.dumps([_VERSION, identity, size, runtime.processor_kind(), versions], sort_keys=True)
    return files.cache_folder("networks") / hashlib.sha256(key.encode()).hexdigest()
