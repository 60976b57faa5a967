"""Small photos and containers made by hand for the tests."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import google_crc32c
import numpy as np
from PIL import Image


def noise(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    """uint8 (H, W, 3): smooth colour fields, so that lossy formats keep them nearly."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray | Image.Image, format_name: str = "JPEG", **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, format_name, **options)
    return out.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def example(**features: object) -> bytes:
    """A serialized tf.train.Example made by hand; `__` in a name stands for `/`."""
    entries = b""
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], bytes):
            feature = _field(1, b"".join(_field(1, v) for v in values))
        elif isinstance(values[0], float):
            feature = _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            feature = _field(3, _field(1, b"".join(_varint(v) for v in values)))
        entries += _field(1, _field(1, name.replace("__", "/").encode()) + _field(2, feature))
    return _field(1, entries)


def _masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def shard(*records: bytes) -> bytes:
    out = b""
    for data in records:
        length = struct.pack("<Q", len(data))
        out += length + _masked(length) + data + _masked(data)
    return out


def scene(seed: int, height: int = 160, width: int = 240) -> np.ndarray:
    """uint8 (H, W, 3): shapes of every size over one another, with detail as photos have it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32, 64):
        small = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        layers = [Image.fromarray(small[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(layer) for layer in layers], axis=2) / np.sqrt(cells)
    low, high = np.percentile(total, [1, 99])
    return np.clip((total - low) / (high - low) * 235 + 10, 0, 255).astype(np.uint8)
