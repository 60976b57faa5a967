"""The small backbone that comes with the package, pretrained on generated animals other than the demo's.

`scripts/make_demo_weights.py` made the file; its safetensors header says from what.
"""

from __future__ import annotations

from pathlib import Path

DEMO_BACKBONE = "mobilenetv3_small_050"
"""timm's name of the backbone."""

DEMO_SIZE = 128
"""The side of the square photos that the weights were trained on, in pixels."""


def demo_weights_path() -> Path:
    """Return the path of the embedded weights: safetensors under timm's names, without the classifier.

    Convolutions are float16, BatchNorm's tensors float32. Pixels are expected in [0, 1],
    normalised by timm's default mean and standard deviation for the backbone.
    """
    return Path(__file__).with_name("weights.safetensors")
