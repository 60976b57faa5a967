"""Pretrained weights: found, checked against the backbone, converted where need be, with a message when missing."""

from __future__ import annotations

import pickle
import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wildtune import files
from wildtune.errors import WeightsError
from wildtune.language import recorded, recorded_counted
from wildtune.model.backbone import create_classifier, head_prefix, state_sha256
from wildtune.model.keras_layout import convert_keras_efficientnet, is_keras_file


@dataclass(frozen=True)
class WeightsFacts:
    """Where weights came from: `source` "file", "timm" or "none"; `sha256` of the file's bytes, or of the tensors where
    timm downloaded them; notes in plain words."""

    source: str
    name: str
    sha256: str
    notes: tuple[str, ...] = ()


def create_pretrained(
    backbone: str, weights: str, num_classes: int, size: int | None, seed: int = 0
) -> tuple[nn.Module, WeightsFacts]:
    """Create a classifier on pretrained weights; the head's weights are left as timm makes them.

    `weights` is "auto" (timm's download), "none" (random, drawn from `seed`) or a file: safetensors, a PyTorch
    file of plain tensors, or Keras' EfficientNet in HDF5. Raises WeightsError with the next move where they can't
    be had.
    """
    torch.manual_seed(seed)  # whatever the weights do not bring is drawn anew, and the same on resuming
    if weights == "auto":
        return _download(backbone, num_classes, size)
    model = create_classifier(backbone, num_classes, size)
    if weights == "none":
        return model, WeightsFacts(
            "none", "random", "", (recorded("weights", "the backbone starts from random weights"),)
        )
    path = require_file(weights)
    notes = load_backbone_weights(model, read_state(path, backbone), path, backbone)
    return model, WeightsFacts("file", path.name, files.sha256_file(path), tuple(notes))


def require_file(weights: str) -> Path:
    """Return the path of a weights file; raises WeightsError when there is no such file."""
    path = files.user_path(weights)
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path}.\nGive the path of a .safetensors, .pth or Keras .h5 file to --weights."
        )
    return path


def read_state(path: Path, backbone: str) -> dict[str, Tensor]:
    """Read a file of weights as float tensors by name. Raises WeightsError when it cannot be used."""
    if is_keras_file(path):
        return convert_keras_efficientnet(path, backbone)
    try:
        state = load_file(path)
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise WeightsError(
                f"{path} is damaged: {error}.\nIt is cut short, or stands for a file kept elsewhere: bring it again."
            ) from error
        state = _read_torch_file(path)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_backbone_weights(model: nn.Module, state: dict[str, Tensor], path: Path, backbone: str) -> list[str]:
    """Copy a state dict into the model's backbone; return notes on what was dropped.

    The head is always dropped: its classes are not ours. Raises WeightsError when a tensor of the backbone is
    missing, has another shape or holds values that are no finite numbers.
    """
    prefix = head_prefix(model)
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(prefix)}
    # A network saved from DataParallel or torch.compile has its own prefix on every name.
    for wrapper in ("module.", "_orig_mod.", "model.", "backbone."):
        if state and all(k.startswith(wrapper) for k in state):
            state = {k.removeprefix(wrapper): v for k, v in state.items()}
    counters = {k for k in wanted if k.endswith("num_batches_tracked")}
    missing = [k for k in wanted if k not in state and k not in counters]
    other_shape = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or other_shape:
        raise WeightsError(_mismatch_message(path, backbone, wanted, state, missing, other_shape))
    broken = [k for k in wanted if k in state and not state[k].isfinite().all()]
    if broken:
        raise WeightsError(
            f"{path} is damaged: {broken[0]} holds values that are no finite numbers ({len(broken)} tensors do).\n"
            "Bring it again from where it came."
        )
    model.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)
    head = state.get(f"{prefix}weight")
    extra = [k for k in state if k not in wanted and not k.startswith(prefix)]
    notes = []
    if head is not None:
        classes = int(head.shape[0])
        notes.append(
            recorded_counted(
                "weights",
                "its head for {n} other classes was dropped",
                "its head for {n} other classes was dropped",
                classes,
            )
        )
    notes += _warn_of_twin(path, backbone)
    if extra:
        notes.append(
            recorded_counted(
                "weights",
                "{n} tensors that this backbone has no use for were passed over, such as {name}",
                "{n} tensors that this backbone has no use for were passed over, such as {name}",
                len(extra),
                name=extra[0],
            )
        )
    return notes


def _warn_of_twin(path: Path, backbone: str) -> list[str]:
    """Say so where a file may belong to the twin of a backbone, whose tensors have the same names and shapes.

    timm's `tf_` models pad and normalise as TensorFlow does; the same weights in the other twin give other features.
    """
    twin = backbone.removeprefix("tf_") if backbone.startswith("tf_") else f"tf_{backbone}"
    name = path.name.lower()
    named_as_plain = backbone.startswith("tf_") and twin in name and backbone not in name
    named_as_twin = not backbone.startswith("tf_") and twin in name
    if timm.is_model(twin.split(".")[0]) and (named_as_plain or named_as_twin):
        return [
            recorded(
                "weights",
                "WARNING: {path} reads like weights of '{twin}', which fit '{backbone}' in shape but give other "
                "features there; if they are, say --backbone {twin}",
                path=path.name,
                twin=twin,
                backbone=backbone,
            )
        ]
    return []


def _mismatch_message(
    path: Path,
    backbone: str,
    wanted: dict[str, Tensor],
    state: dict[str, Tensor],
    missing: list[str],
    other_shape: list[str],
) -> str:
    lines = [f"{path} does not fit backbone '{backbone}'."]
    if missing:
        lines.append(f"{len(missing)} of its {len(wanted)} tensors are not in the file, the first is {missing[0]}.")
    if other_shape:
        name = other_shape[0]
        lines.append(
            f"{len(other_shape)} have another shape, the first is {name}: expected {tuple(wanted[name].shape)}, "
            f"found {tuple(state[name].shape)}."
        )
    found = ", ".join(list(state)[:3])
    lines.append(f"The file holds {len(state)} tensors: {found}, ... Give --backbone the name they were made for,")
    lines.append(
        "and for a model built for one size (vision transformers) leave input.size at that size or at auto or larger."
    )
    return "\n".join(lines)


def _read_torch_file(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        # torch says how to load what is not plain all the same, which wildtune never does.
        reason = "" if isinstance(error, pickle.UnpicklingError) else str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} could not be read as weights: expected safetensors, a PyTorch file of plain tensors, or Keras' "
            f"HDF5.\n{f'Found: {reason}' if reason else 'It is none of these.'}\n"
            "A PyTorch file that holds a whole pickled model is refused, because opening it can run any code: save "
            "its state_dict() instead."
        ) from error
    for key in ("state_dict_ema", "state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no named tensors. Save the model's state_dict() and give that file.")
    return tensors


def _download(backbone: str, num_classes: int, size: int | None) -> tuple[nn.Module, WeightsFacts]:
    """Create the model on timm's own weights, from its cache or the network."""
    model = create_classifier(backbone, num_classes, size)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    if not config.get("hf_hub_id") and not config.get("url") and not config.get("file"):
        raise WeightsError(
            f"timm has no pretrained weights for '{backbone}'.\n"
            "Bring a file with --weights FILE, or start from random weights with --weights none."
        )
    if not _hub_can_be_reached():
        # Weights downloaded earlier are still found; for others the hub's client would try again for a minute.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        model = create_classifier(backbone, num_classes, size, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds; every one means the same to the user
        hub = config.get("hf_hub_id") or config.get("url")
        raise WeightsError(
            f"The pretrained weights of '{backbone}' could not be downloaded ({type(error).__name__}).\n"
            f"On a machine with network access, get model.safetensors of {hub}, bring it here and run again with "
            "--weights PATH/model.safetensors\n(or put the downloaded hub cache in the folder that HF_HOME names)."
        ) from error
    name = f"{backbone}.{config['tag']}" if config.get("tag") else backbone
    return model, WeightsFacts("timm", name, state_sha256(model))


def _hub_can_be_reached() -> bool:
    """Say whether the weights hub answers; behind a proxy that cannot be told from here, and is taken to be so."""
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    if urllib.request.getproxies():
        return True
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname or "", port), timeout=5):
            return True
    except OSError:
        return False
