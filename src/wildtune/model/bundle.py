"""The bundle: a trained classifier that knows its classes and its preprocessing, as files that others read too.

bundle/config.json         timm's description of the model: plain timm opens the folder as `local-dir:`
bundle/model.safetensors   the weights by timm's names
bundle/bundle.json         the exact preprocessing, the calibration and where the bundle comes from
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wildtune import files
from wildtune.errors import CommandError
from wildtune.model.backbone import create_classifier, head_of, head_prefix, tensors_sha256
from wildtune.model.calibration import Calibration
from wildtune.model.preprocess import Preprocess

FORMAT = 1

_ABOUT = "bundle.json"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class BundleFacts:
    """What a trained classifier says of itself.

    backbone      timm's name of the architecture
    class_names   C names in the order of the logits
    preprocess    from a decoded photo to the input
    provenance    where it comes from: recipe, weights' sha256, photos' key, versions
    calibration   how sure its answers are; None in a bundle made before there was any
    """

    backbone: str
    class_names: tuple[str, ...]
    preprocess: Preprocess
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None


@dataclass(frozen=True, kw_only=True)
class Bundle(BundleFacts):
    """A trained classifier.

    model   (B, 3, size, size) normalised float32 -> (B, C) logits
    """

    model: nn.Module


def save_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the three files of a bundle; each is replaced whole, `bundle.json` last."""
    files.write_bytes(folder / _WEIGHTS, save(plain_state(bundle.model), metadata={"format": "pt"}))
    files.write_json(folder / "config.json", _timm_config(bundle))
    about = {
        "format": FORMAT,
        "backbone": bundle.backbone,
        "class_names": bundle.class_names,
        "preprocess": bundle.preprocess.model_dump(mode="json"),
        "calibration": bundle.calibration.model_dump(mode="json") if bundle.calibration else None,
        "head": head_prefix(bundle.model),
        "provenance": bundle.provenance,
    }
    files.write_json(folder / _ABOUT, about)


def load_bundle(run: str | Path) -> Bundle:
    """Open a bundle, or the bundle of a run folder. Raises CommandError when there is none or it is damaged."""
    folder = bundle_folder(files.user_path(run))
    facts = load_facts(folder)
    model = create_classifier(facts.backbone, len(facts.class_names), facts.preprocess.size)
    try:
        model.load_state_dict(load_file(folder / _WEIGHTS))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CommandError(
            f"{folder / _WEIGHTS} is missing or damaged: {error}\nBring back the file that wildtune wrote there."
        ) from error
    return Bundle(**vars(facts), model=model)


def load_facts(folder: Path) -> BundleFacts:
    """Return what a bundle, or that of a run folder, says of itself. Raises CommandError as `load_bundle` does."""
    folder = bundle_folder(folder)
    about = _read_about(folder)
    with files.reading(folder / _ABOUT):
        return BundleFacts(
            backbone=about["backbone"],
            class_names=tuple(about["class_names"]),
            preprocess=Preprocess.model_validate(about["preprocess"]),
            provenance=about["provenance"],
            calibration=Calibration.model_validate(about["calibration"]) if about.get("calibration") else None,
        )


def load_weights(folder: Path) -> tuple[str, Tensor, Tensor | None] | None:
    """Read a bundle's weights without making its network.

    Returns the SHA-256 of the backbone's, as `state_sha256` gives it, and the (C, D) weight and (C,) bias of the head;
    None where the bundle does not name its head, as older ones do not, or the file is not as it should be.
    """
    folder = bundle_folder(folder)
    head = _read_about(folder).get("head")
    if not head:
        return None
    try:
        tensors = load_file(folder / _WEIGHTS)
    except (SafetensorError, OSError):
        return None
    if f"{head}weight" not in tensors:
        return None
    return tensors_sha256(tensors, head), tensors[f"{head}weight"], tensors.get(f"{head}bias")


def bundle_folder(folder: Path) -> Path:
    """Return the bundle of a run folder, and a bundle's folder itself."""
    return folder / "bundle" if (folder / "bundle" / _ABOUT).exists() else folder


def _read_about(folder: Path) -> dict[str, Any]:
    about_file = folder / _ABOUT
    files.require_single_run(folder)
    if not about_file.exists():
        raise CommandError(
            f"There is no bundle in {folder}: expected bundle.json, config.json and model.safetensors.\n"
            "Give a run folder whose training has ended, or its bundle folder."
        )
    about = files.read_json(about_file)
    if about.get("format") != FORMAT:
        raise CommandError(
            f"{about_file} has format {about.get('format')}; this version of wildtune reads {FORMAT}.\n"
            "Use the version that made it, named in its provenance."
        )
    return about


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state dict as contiguous CPU tensors that share no memory, as safetensors needs them."""
    return {k: v.detach().to("cpu").contiguous().clone() for k, v in model.state_dict().items()}


def _timm_config(bundle: Bundle) -> dict[str, Any]:
    """Describe the model in the form of timm's hub files; its `crop_mode` has our three ways to fit a photo."""
    pre = bundle.preprocess
    crop_mode = {"squash": "squash", "crop": "center", "pad": "border"}[pre.fit]
    config = {
        "architecture": bundle.backbone,
        "num_classes": len(bundle.class_names),
        "num_features": head_of(bundle.model).in_features,
        "pretrained_cfg": {
            "num_classes": len(bundle.class_names),
            "input_size": [3, pre.size, pre.size],
            "interpolation": pre.interpolation,
            "crop_pct": pre.size / pre.resize,
            "crop_mode": crop_mode,
            "mean": pre.mean,
            "std": pre.std,
            "label_names": bundle.class_names,
        },
    }
    if bundle.model.built_for_size:  # which timm must be told again
        config["model_args"] = {"img_size": pre.size}
    return config
