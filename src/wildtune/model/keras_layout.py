"""Reads the HDF5 weights of a Keras EfficientNet B0 to B7 into the names and layouts of timm.

Keras writes HDF5 in two layouts and both are read here, by the layers' own names:

- the legacy one (`efficientnetb0_notop.h5`, `model.save("x.h5")`): an attribute `layer_names`, a group a
  layer, an attribute `weight_names` in each; a whole model keeps all this in the group `model_weights`;
- the one of Keras 3 (`model.save_weights("x.weights.h5")`): groups named by class (`layers/conv2d_3/vars/0`),
  with the layer's own name in the attribute `name` of `vars`.

An EfficientNet that is a layer of a larger model is found in either.

Keras fixes its padding when the model is built. A Keras model with a fixed input size, or an input whose
sides are multiples of 32, gives the same features as timm; a Keras model of free input size pads otherwise at
other sizes, and no backbone of timm can follow it there.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import timm
import torch

from wildtune.errors import WeightsError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_IMAGENET_STD = (0.229, 0.224, 0.225)

_BACKBONE = re.compile(r"(?P<tf>tf_)?efficientnet_b(?P<size>[0-7])(\..+)?")
_BLOCK_LAYER = re.compile(r"block(?P<stage>[1-9])(?P<letter>[a-z])_(?P<part>.+)")
_NORMALIZATION = re.compile(r"normalization(_\d+)?")
_RESCALING = re.compile(r"rescaling(_\d+)?")

_STEM_AND_TOP = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2"}
_SQUEEZE = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
# Stage 1 does not expand, so timm numbers its batch norms one lower and calls its last convolution otherwise.
_STAGE_1_PARTS = {
    "dwconv": "conv_dw",
    "bn": "bn1",
    **_SQUEEZE,
    "project_conv": "conv_pw",
    "project_bn": "bn2",
}
_LATER_PARTS = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "dwconv": "conv_dw",
    "bn": "bn2",
    **_SQUEEZE,
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}

# The Keras 3 layout numbers a layer's variables; these are their names, in that order.
_CONV_VARIABLES = ("kernel", "bias")
_BATCH_NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")
_NORMALIZATION_VARIABLES = ("mean", "variance", "count")
_BATCH_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass
class _KerasWeights:
    """What a file holds: the EfficientNet's layers by name, and what tells how its input was normalised."""

    layers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    normalizations: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    rescalings: int = 0
    by_keras_3: bool = False


def is_keras_file(path: Path) -> bool:
    """Whether the file begins as HDF5, the only kind of Keras weights read here."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def convert_keras_efficientnet(path: Path, backbone: str) -> dict[str, torch.Tensor]:
    """The weights of a Keras EfficientNet as a state dict of the timm `backbone` without its classifier.

    The result holds every name of `timm.create_model(backbone, num_classes=0)` in the shape it has there, so
    it loads strictly. Keras' own classifier (`predictions`) is left out. Raises WeightsError when the
    backbone is none that Keras' weights fit, or the file is no such network, lacks a layer, or is of another
    size.
    """
    _require_tf_backbone(backbone)
    layers = _read(path).layers
    state: dict[str, torch.Tensor] = {}
    for layer, module in _modules_by_layer(layers, path).items():
        if layer.endswith("bn"):
            state |= _batch_norm_tensors(path, layer, layers[layer], module)
        else:
            state |= _conv_tensors(path, layer, layers[layer], module)
    _require_same_shapes(state, backbone, path)
    return state


def keras_normalization(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation, in 0-1 units, by which Keras normalises this network's input.

    The network expects `(pixels / 255 - mean) / std`. None when the file has no normalization layer.

    Keras divides by the square root of the stored variance. Its ImageNet files store the standard deviation
    in that place, and Keras makes up for it by a second Rescaling of 1 / sqrt(std): (x - mean) / std in all.
    That Rescaling is a constant of the model and is not stored, so those files are known by their values.
    """
    weights = _read(path)
    if not weights.normalizations:
        return None
    if len(weights.normalizations) > 1:
        raise WeightsError(
            f"{path}: expected one normalization layer, found {_listed(weights.normalizations)}. "
            "Save the EfficientNet alone and give that file."
        )
    name, values = next(iter(weights.normalizations.items()))
    mean = _array(path, name, values, "mean").reshape(-1).astype(np.float64)
    variance = _array(path, name, values, "variance").reshape(-1).astype(np.float64)
    if len(mean) != 3 or len(variance) != 3 or not (variance > 0).all():
        raise WeightsError(
            f"{path}: expected layer {name} to hold the mean and the variance (above 0) of three channels, "
            f"found mean {mean.tolist()} and variance {variance.tolist()}. "
            "Give weights of a network for colour photos."
        )
    std = np.sqrt(variance)
    # A model built by Keras 3 with its ImageNet weights has two Rescaling layers; where only one is listed,
    # the ImageNet file was loaded into a model without the second, which really divides by the square root.
    lacks_second_rescaling = weights.by_keras_3 and weights.rescalings == 1
    if np.allclose(variance, _IMAGENET_STD, atol=1e-3) and not lacks_second_rescaling:
        std = std * np.sqrt(_IMAGENET_STD)
    # Seven digits are what a 32-bit float holds; more would show 0.48500001430511475 in every report.
    return tuple(round(float(m), 7) for m in mean), tuple(round(float(s), 7) for s in std)


def _require_tf_backbone(backbone: str) -> None:
    match = _BACKBONE.fullmatch(backbone)
    if match and match["tf"]:
        return
    if match:
        raise WeightsError(
            f"Keras weights fit only the tf_efficientnet backbones, found {backbone}: its padding at "
            "stride 2 and its batch norm epsilon are not those of Keras. "
            f"Use tf_{backbone.partition('.')[0]} instead."
        )
    raise WeightsError(
        "Keras weights are read for the backbones tf_efficientnet_b0 to tf_efficientnet_b7, "
        f"found {backbone}. Choose one of these, or give this backbone weights in another format "
        "(safetensors or a torch file)."
    )


def _read(path: Path) -> _KerasWeights:
    """Everything of interest in the file, whichever of Keras' layouts it has."""
    if not is_keras_file(path):
        found = "a file that is not HDF5" if path.is_file() else "no such file"
        raise WeightsError(
            f"{path}: expected Keras weights in an HDF5 file, found {found}. If you have a .keras file, load "
            "it in Keras and save its weights: model.save_weights('name.weights.h5')."
        )
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if _strings(group, "layer_names") is not None:
                return _read_legacy(group, path)
            return _read_keras_3(group, path)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: expected Keras weights in a whole HDF5 file, found one that cannot be read ({error}). "
            "Download or save it again."
        ) from error


def _strings(group: h5py.Group, name: str) -> list[str] | None:
    """An attribute that lists names; Keras splits a long one into name0, name1 and so on."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
        if not parts:
            return None
    return [v.decode() if isinstance(v, bytes) else str(v) for part in parts for v in np.atleast_1d(part)]


def _read_legacy(group: h5py.Group, path: Path) -> _KerasWeights:
    version = group.attrs.get("keras_version", b"")
    version = version.decode() if isinstance(version, bytes) else str(version)
    weights = _KerasWeights(by_keras_3=bool(version) and version[0] not in "12")
    for listed in _strings(group, "layer_names") or []:
        weights.rescalings += bool(_RESCALING.fullmatch(listed))
        for weight_name in _strings(group[listed], "weight_names") or []:
            # A nested model is one entry here, so the layer is what the weight's own name says, if it does.
            owner, _, variable = weight_name.rpartition("/")
            layer = owner.rpartition("/")[2] or listed
            # Before version 3 a depthwise kernel had a name of its own, and every name ended in ":0".
            variable = variable.partition(":")[0].removeprefix("depthwise_")
            if (kept := _store(weights, layer)) is not None:
                _put(kept.setdefault(layer, {}), layer, variable, group[listed][weight_name], path)
    return weights


def _read_keras_3(file: h5py.Group, path: Path) -> _KerasWeights:
    weights = _KerasWeights(by_keras_3=True)
    named: list[tuple[str, h5py.Group]] = []
    nameless: list[str] = []

    def visit(place: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and place.endswith("/vars"):
            name = item.attrs.get("name")
            if name is not None:
                named.append((name.decode() if isinstance(name, bytes) else str(name), item))
            elif len(item):
                nameless.append(place)

    file.visititems(visit)
    if nameless and not named:
        raise WeightsError(
            f"{path}: expected each layer under its own name, found only {nameless[0]} and the like: an "
            "early version of Keras 3's layout, which does not say what is what. Load the weights into the "
            "model in Keras and save them in the legacy layout: model.save('name.h5')."
        )
    for layer, group in named:
        weights.rescalings += bool(_RESCALING.fullmatch(layer))
        if (kept := _store(weights, layer)) is not None:
            for variable, key in zip(_variables(layer), sorted(group), strict=False):
                _put(kept.setdefault(layer, {}), layer, variable, group[key], path)
    return weights


def _variables(layer: str) -> tuple[str, ...]:
    if _NORMALIZATION.fullmatch(layer):
        return _NORMALIZATION_VARIABLES
    return _BATCH_NORM_VARIABLES if layer.endswith("bn") else _CONV_VARIABLES


def _store(weights: _KerasWeights, layer: str) -> dict[str, dict[str, np.ndarray]] | None:
    """Where a layer's variables are kept; None for a layer that is no part of the network (a head, say)."""
    if layer in _STEM_AND_TOP or _BLOCK_LAYER.fullmatch(layer):
        return weights.layers
    return weights.normalizations if _NORMALIZATION.fullmatch(layer) else None


def _put(values: dict[str, np.ndarray], layer: str, variable: str, data: h5py.Dataset, path: Path) -> None:
    if variable in values:
        raise WeightsError(
            f"{path}: expected one EfficientNet, found {layer}/{variable} more than once. "
            "Save the EfficientNet alone and give that file."
        )
    values[variable] = np.asarray(data[()])


def _modules_by_layer(found: Iterable[str], path: Path) -> dict[str, str]:
    """The timm module of each Keras layer, in the network's order; the layers' names tell which blocks."""
    found = set(found)
    last_letter: dict[int, str] = {}
    for layer in found:
        if match := _BLOCK_LAYER.fullmatch(layer):
            stage = int(match["stage"])
            last_letter[stage] = max(match["letter"], last_letter.get(stage, "a"))
    if not last_letter:
        raise WeightsError(
            f"{path}: expected the layers of a Keras EfficientNet (stem_conv, block1a_dwconv, ...), "
            "found none of its blocks. Give a file saved from keras.applications.EfficientNetB0 to B7."
        )
    modules = dict(list(_STEM_AND_TOP.items())[:2])
    for stage in range(1, max(last_letter) + 1):
        parts = _STAGE_1_PARTS if stage == 1 else _LATER_PARTS
        for index in range(ord(last_letter.get(stage, "a")) - ord("a") + 1):
            block = f"block{stage}{chr(ord('a') + index)}"
            modules |= {f"{block}_{part}": f"blocks.{stage - 1}.{index}.{to}" for part, to in parts.items()}
    modules |= dict(list(_STEM_AND_TOP.items())[2:])

    missing = [layer for layer in modules if layer not in found]
    foreign = sorted(found - modules.keys())
    if missing or foreign:
        lacks = f"without {_listed(missing)}" if missing else f"with {_listed(foreign)} besides"
        raise WeightsError(
            f"{path}: expected the {len(modules)} layers with weights of a Keras EfficientNet, found the "
            f"file {lacks}. Give a whole file of keras.applications.EfficientNetB0 to B7 "
            "(EfficientNetV2 is not read)."
        )
    return modules


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _array(path: Path, layer: str, values: dict[str, np.ndarray], variable: str) -> np.ndarray:
    if variable in values and values[variable].dtype.kind == "f":
        return values[variable]
    found = f"numbers of type {values[variable].dtype}" if variable in values else f"only {_listed(values)}"
    raise WeightsError(
        f"{path}: expected layer {layer} to hold {variable} as floating point numbers, found {found}. "
        "Save the weights again, without quantization."
    )


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _conv_tensors(path: Path, layer: str, values: dict[str, np.ndarray], module: str) -> dict[str, torch.Tensor]:
    kernel = _array(path, layer, values, "kernel")
    if kernel.ndim != 4:
        raise WeightsError(
            f"{path}: expected layer {layer} to hold a kernel of four axes, found shape {kernel.shape}. "
            "Give a file saved from keras.applications.EfficientNetB0 to B7."
        )
    # Height, width, in, out -> out, in, height, width; a depthwise kernel has its channels third and 1 last.
    axes = (2, 3, 0, 1) if layer.endswith("dwconv") else (3, 2, 0, 1)
    tensors = {f"{module}.weight": _tensor(kernel.transpose(axes))}
    if module.rpartition(".")[2] in ("conv_reduce", "conv_expand"):
        tensors[f"{module}.bias"] = _tensor(_array(path, layer, values, "bias"))
    return tensors


def _batch_norm_tensors(path: Path, layer: str, values: dict[str, np.ndarray], module: str) -> dict[str, torch.Tensor]:
    tensors = {f"{module}.{to}": _tensor(_array(path, layer, values, v)) for v, to in _BATCH_NORM_NAMES.items()}
    # Keras does not count batches; 0 is what a fresh module of torch has.
    tensors[f"{module}.num_batches_tracked"] = torch.tensor(0, dtype=torch.long)
    return tensors


def _shapes(backbone: str) -> dict[str, torch.Size]:
    # On the meta device no memory is taken and nothing is initialised: only names and shapes are wanted.
    with torch.device("meta"):
        model = timm.create_model(backbone, pretrained=False, num_classes=0)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _require_same_shapes(state: dict[str, torch.Tensor], backbone: str, path: Path) -> None:
    expected = _shapes(backbone)
    found = {name: tensor.shape for name, tensor in state.items()}
    if found == expected:
        return
    # Most often the file is of a sister; then its name is the best help.
    for size in range(8):
        sister = f"tf_efficientnet_b{size}"
        if _shapes(sister) == found:
            raise WeightsError(
                f"{path}: expected Keras weights of {backbone}, found those of EfficientNetB{size}. "
                f"Use the backbone {sister}, or give the weights of {backbone}."
            )
    names = [name for name in expected | found if expected.get(name) != found.get(name)]
    first = names[0]
    raise WeightsError(
        f"{path}: expected the shapes of {backbone}, found {len(names)} that differ, first {first}: "
        f"{_shape(expected.get(first))} expected, {_shape(found.get(first))} found. "
        "Give a file saved from the Keras EfficientNet of the same size, with three input channels."
    )


def _shape(shape: torch.Size | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "a single number"
