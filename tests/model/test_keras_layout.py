"""The Keras weights reader: on files written here in Keras' naming, and against Keras where TensorFlow is."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import timm
import torch

from wildtune.errors import WeightsError
from wildtune.model.keras_layout import convert_keras_efficientnet, is_keras_file, keras_normalization

BACKBONE = "tf_efficientnet_b0"
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
Layers = dict[str, dict[str, Any]]


def keras_layer(module: str) -> str:
    """The Keras name of a timm module."""
    outer = {"conv_stem": "stem_conv", "bn1": "stem_bn", "conv_head": "top_conv", "bn2": "top_bn"}
    if module in outer:
        return outer[module]
    _, stage, index, part = module.split(".", 3)
    part = {"se.conv_reduce": "se_reduce", "se.conv_expand": "se_expand", "conv_dw": "dwconv"}.get(part, part)
    first = {"bn1": "bn", "conv_pw": "project_conv", "bn2": "project_bn"}
    other = {
        "conv_pw": "expand_conv",
        "bn1": "expand_bn",
        "bn2": "bn",
        "conv_pwl": "project_conv",
        "bn3": "project_bn",
    }
    part = (first if stage == "0" else other).get(part, part)
    return f"block{int(stage) + 1}{'abcdefghijklm'[int(index)]}_{part}"


def keras_layers(state: dict[str, torch.Tensor]) -> Layers:
    """A timm state dict as Keras would hold it."""
    layers: Layers = {}
    for name, tensor in state.items():
        module, _, variable = name.rpartition(".")
        layer, array = keras_layer(module), tensor.numpy()
        if variable == "num_batches_tracked":
            continue
        if layer.endswith("bn"):
            names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
            variable = names.get(variable, "moving_variance")
        elif variable == "weight" and layer.endswith("dwconv"):
            variable, array = "depthwise_kernel", np.moveaxis(array[:, 0], 0, -1)[..., None]
        elif variable == "weight":
            variable, array = "kernel", np.moveaxis(array, (0, 1), (3, 2))
        layers.setdefault(layer, {})[variable] = array
    return layers


def random_state(backbone: str = BACKBONE) -> dict[str, torch.Tensor]:
    state = timm.create_model(backbone, num_classes=0).state_dict()
    generator = torch.Generator().manual_seed(7)
    return {k: torch.rand(v.shape, generator=generator) if v.is_floating_point() else v for k, v in state.items()}


def write_legacy(group: h5py.Group, layers: Layers, keras_version: str = "2.4.0", *, split: bool = False) -> None:
    group.attrs["keras_version"] = keras_version.encode()
    names = np.asarray([name.encode() for name in layers])
    if split:
        group.attrs["layer_names0"], group.attrs["layer_names1"] = np.array_split(names, 2)
    else:
        group.attrs["layer_names"] = names
    for layer, values in layers.items():
        inner = group.create_group(layer)
        inner.attrs["weight_names"] = [f"{layer}/{variable}:0".encode() for variable in values]
        for variable, array in values.items():
            inner[f"{layer}/{variable}:0"] = array


def write_keras_3(file: h5py.File, layers: Layers, *, names: bool = True) -> None:
    for i, (layer, values) in enumerate(layers.items()):
        inner = file.create_group(f"layers/some_class_{i}/vars")
        if names:
            inner.attrs["name"] = layer
        for j, array in enumerate(values.values()):
            inner[str(j)] = array


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_state()


@pytest.fixture
def layers(state: dict[str, torch.Tensor]) -> Layers:
    """As in Keras' own ImageNet file, with its head, whose "variance" is the standard deviation."""
    normalization = {
        "mean": np.array(MEAN, np.float32),
        "variance": np.array(STD, np.float32),
        "count": np.int64(0),
    }
    head = {"kernel": np.zeros((1280, 5), np.float32), "bias": np.zeros(5, np.float32)}
    middle = {"rescaling": {}, "normalization": normalization}
    return {"input_1": {}, **middle, **keras_layers(state), "predictions": head}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.h5"


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("split", [False, True])
def test_legacy_weights(path: Path, layers: Layers, state: dict[str, torch.Tensor], split: bool) -> None:
    with h5py.File(path, "w") as file:
        write_legacy(file, layers, split=split)
    found = convert_keras_efficientnet(path, BACKBONE)
    assert_same(found, state)
    timm.create_model(BACKBONE, num_classes=0).load_state_dict(found, strict=True)


def test_whole_model_file(path: Path, layers: Layers, state: dict[str, torch.Tensor]) -> None:
    with h5py.File(path, "w") as file:
        write_legacy(file.create_group("model_weights"), layers)
        file.create_group("optimizer_weights")
    assert_same(convert_keras_efficientnet(path, BACKBONE), state)


def test_legacy_nested_model(path: Path, layers: Layers, state: dict[str, torch.Tensor]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"efficientnetb0"]
        inner = file.create_group("efficientnetb0")
        arrays = {f"{layer}/{v}": array for layer, values in layers.items() for v, array in values.items()}
        inner.attrs["weight_names"] = [name.encode() for name in arrays]
        for name, array in arrays.items():
            inner[name] = array
    assert_same(convert_keras_efficientnet(path, BACKBONE), state)
    assert keras_normalization(path) == (MEAN, STD)


def test_keras_3_weights(path: Path, layers: Layers, state: dict[str, torch.Tensor]) -> None:
    with h5py.File(path, "w") as file:
        write_keras_3(file, layers)
    assert_same(convert_keras_efficientnet(path, BACKBONE), state)


def test_keras_3_weights_without_names(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        write_keras_3(file, layers, names=False)
    with pytest.raises(WeightsError, match=r"own name.*model\.save\('name\.h5'\)"):
        convert_keras_efficientnet(path, BACKBONE)


def test_other_sizes_are_told_from_the_layer_names(path: Path) -> None:
    state = random_state("tf_efficientnet_b2")
    with h5py.File(path, "w") as file:
        write_legacy(file, keras_layers(state))
    assert_same(convert_keras_efficientnet(path, "tf_efficientnet_b2.ns_jft_in1k"), state)
    with pytest.raises(WeightsError, match=r"found those of EfficientNetB2.*tf_efficientnet_b2"):
        convert_keras_efficientnet(path, BACKBONE)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("efficientnet_b0", "Use tf_efficientnet_b0 instead"),
        ("efficientnet_b0.ra_in1k", "Use tf_efficientnet_b0 instead"),
        ("resnet50", "found resnet50"),
        ("tf_efficientnet_lite0", "found tf_efficientnet_lite0"),
        ("tf_efficientnetv2_b0", "found tf_efficientnetv2_b0"),
    ],
)
def test_wrong_backbone(path: Path, layers: Layers, backbone: str, message: str) -> None:
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    with pytest.raises(WeightsError, match=message):
        convert_keras_efficientnet(path, backbone)


@pytest.mark.parametrize("layer", ["stem_conv", "block1a_bn", "block4b_expand_conv", "top_bn"])
def test_missing_layer_is_named(path: Path, layers: Layers, layer: str) -> None:
    del layers[layer]
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    with pytest.raises(WeightsError, match=f"without {layer}"):
        convert_keras_efficientnet(path, BACKBONE)


def test_missing_last_block(path: Path, layers: Layers) -> None:
    layers = {name: values for name, values in layers.items() if not name.startswith("block6d_")}
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    with pytest.raises(WeightsError, match=r"first blocks\.5\.3\.conv_pw\.weight"):
        convert_keras_efficientnet(path, BACKBONE)


def test_missing_variable_is_named(path: Path, layers: Layers) -> None:
    del layers["block3a_bn"]["moving_mean"]
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    with pytest.raises(WeightsError, match="block3a_bn to hold moving_mean"):
        convert_keras_efficientnet(path, BACKBONE)


def test_layer_of_another_network(path: Path, layers: Layers) -> None:
    layers["block4a_fused_conv"] = {"kernel": np.zeros((1, 1, 2, 2), np.float32)}
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    with pytest.raises(WeightsError, match="with block4a_fused_conv besides"):
        convert_keras_efficientnet(path, BACKBONE)


def test_one_input_channel(path: Path, layers: Layers) -> None:
    layers["stem_conv"]["kernel"] = layers["stem_conv"]["kernel"][:, :, :1]
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    with pytest.raises(WeightsError, match=r"conv_stem\.weight: 32x3x3x3 expected, 32x1x3x3 found"):
        convert_keras_efficientnet(path, BACKBONE)


def test_two_networks(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        write_keras_3(file, layers)
        again = file.create_group("layers/again/vars")
        again.attrs["name"] = "stem_conv"
        again["0"] = layers["stem_conv"]["kernel"]
    with pytest.raises(WeightsError, match="stem_conv/kernel more than once"):
        convert_keras_efficientnet(path, BACKBONE)


def test_not_an_efficientnet(path: Path) -> None:
    with h5py.File(path, "w") as file:
        write_legacy(file, {"conv1_conv": {"kernel": np.zeros((7, 7, 3, 64), np.float32)}})
    with pytest.raises(WeightsError, match="none of its blocks"):
        convert_keras_efficientnet(path, BACKBONE)
    assert keras_normalization(path) is None


def test_not_keras_at_all(path: Path, layers: Layers) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        convert_keras_efficientnet(path, BACKBONE)
    path.write_bytes(b"PK\x03\x04 a .keras file is a zip file")
    assert not is_keras_file(path)
    with pytest.raises(WeightsError, match="not HDF5"):
        convert_keras_efficientnet(path, BACKBONE)
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    assert is_keras_file(path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="cannot be read"):
        convert_keras_efficientnet(path, BACKBONE)


def test_a_file_that_lists_what_it_lacks(path: Path, layers: Layers) -> None:
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
        del file["top_conv"]
    with pytest.raises(WeightsError, match="cannot be read"):
        convert_keras_efficientnet(path, BACKBONE)


def normalization_of(path: Path, variance: tuple[float, ...], version: str, *rescalings: str) -> object:
    values = {
        "mean": np.array(MEAN, np.float32),
        "variance": np.array(variance, np.float32),
        "count": np.int64(0),
    }
    with h5py.File(path, "w") as file:
        write_legacy(file, {"normalization_2": values, **{name: {} for name in rescalings}}, version)
    found = keras_normalization(path)
    assert found is not None
    assert found[0] == MEAN
    return found[1]


def test_normalization(path: Path, layers: Layers) -> None:
    squares = tuple(s * s for s in STD)
    assert normalization_of(path, STD, "2.4.0", "rescaling") == STD
    assert normalization_of(path, STD, "3.15.1", "rescaling", "rescaling_1") == STD
    assert normalization_of(path, STD, "3.15.1", "rescaling") == pytest.approx(np.sqrt(STD))
    assert normalization_of(path, squares, "2.4.0", "rescaling") == pytest.approx(STD)
    with pytest.raises(WeightsError, match="variance \\(above 0\\)"):
        normalization_of(path, (0.2, 0.0, 0.2), "2.4.0", "rescaling")
    del layers["normalization"]
    with h5py.File(path, "w") as file:
        write_legacy(file, layers)
    assert keras_normalization(path) is None


# Keras runs in a process of its own: TensorFlow and torch each bring an LLVM; in one process they may abort.
# The batch norm statistics are measured on the random network, as training does. Drawn at random they either
# let activations grow to thousands, which blows up Keras' rounding of 1 / 255 to 32 bits, or let the signal
# fade until the features no longer depend on the photo; neither says anything of the conversion.
KERAS_SIDE = """
import sys
from pathlib import Path
import keras, numpy as np
from keras.src.applications import efficientnet
folder, name, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(11)
build = getattr(keras.applications, name)
options = dict(include_top=False, pooling="avg", input_shape=(size, size, 3))
model = build(weights=None, **options)
for layer in model.layers:
    values = []
    for w in layer.weights:
        if w.name == "mean": new = np.array([0.485, 0.456, 0.406])
        elif w.name == "variance": new = np.array([0.229, 0.224, 0.225])
        elif w.name == "count": new = np.zeros(())
        elif w.name == "kernel":
            inputs = np.prod(w.shape[:2] if "dwconv" in layer.name else w.shape[:3])
            # Gates that stay near 1/2: strong ones multiply any growth of the signal by itself, block by block.
            gain = 0.1 if "_se_" in layer.name else 2
            new = rng.normal(0, np.sqrt(gain / inputs), w.shape)
        elif w.name == "gamma": new = rng.uniform(0.5, 1.5, w.shape)
        elif w.name == "moving_variance": new = np.ones(w.shape)
        else: new = rng.normal(0, 0.2, w.shape)
        values.append(new)
    layer.set_weights(values)
model.save(folder / "plain.h5")
# The model with Keras' second Rescaling, from our weights in place of the ones it would download.
efficientnet.file_utils.get_file = lambda *args, **kwargs: str(folder / "plain.h5")
imagenet = build(weights="imagenet", **options)
# Two photos of coarse patches under fine noise: of noise alone, any two have the same features.
tiles = size // 28 + 1
patches = np.kron(rng.uniform(0, 200, (2, tiles, tiles, 3)), np.ones((1, 28, 28, 1)))[:, :size, :size]
pixels = np.round(patches + rng.uniform(0, 55, patches.shape)).astype(np.float32)
norms = [layer for layer in imagenet.layers if isinstance(layer, keras.layers.BatchNormalization)]
for layer in norms: layer.momentum = 0.0
imagenet(pixels, training=True)
for layer in norms: layer.momentum = 0.99
imagenet.save(folder / "imagenet.h5")
imagenet.save_weights(folder / "imagenet.weights.h5")
model.load_weights(folder / "imagenet.h5")
model.save(folder / "plain.h5")
model.save_weights(folder / "plain.weights.h5")
outer = keras.Sequential([keras.Input((size, size, 3)), imagenet, keras.layers.Dense(4)])
outer.save(folder / "nested.h5")
outer.save_weights(folder / "nested.weights.h5")
features = {"plain": model.predict(pixels, verbose=0), "imagenet": imagenet.predict(pixels, verbose=0)}
# The same network in 64 bits from its normalised input on, so that no rounding hides a small mistake.
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
exact = build(weights=None, **options)
exact.load_weights(folder / "plain.h5")
(normalization,) = [layer for layer in exact.layers if isinstance(layer, keras.layers.Normalization)]
inner = keras.Model(exact.input, [normalization.output, exact.output])
features["normalised"], features["exact"] = inner.predict(pixels.astype(np.float64), verbose=0)
np.savez(folder / "keras.npz", pixels=pixels, version=keras.__version__, **features)
"""


def features(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return model(images).numpy()


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize(
    ("name", "backbone", "size"),
    [
        ("EfficientNetB0", "tf_efficientnet_b0", 224),
        ("EfficientNetB0", "tf_efficientnet_b0", 235),
        ("EfficientNetB1", "tf_efficientnet_b1", 240),
    ],
)
def test_features_equal_those_of_keras(tmp_path: Path, name: str, backbone: str, size: int) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", KERAS_SIDE, str(tmp_path), name, str(size)]
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = np.load(tmp_path / "keras.npz")
    label = f"Keras {expected['version']} {name} {size}"
    model = timm.create_model(backbone, num_classes=0).eval()
    pixels = torch.from_numpy(expected["pixels"]).permute(0, 3, 1, 2)
    files = {"nested.h5": "imagenet", "nested.weights.h5": "imagenet"}
    files |= {f"{kind}{end}": kind for kind in ("imagenet", "plain") for end in (".h5", ".weights.h5")}
    for file, kind in files.items():
        model.load_state_dict(convert_keras_efficientnet(tmp_path / file, backbone), strict=True)
        normalization = keras_normalization(tmp_path / file)
        assert normalization is not None
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalization)
        difference = relative_difference(features(model, (pixels / 255 - mean) / std), expected[kind])
        print(f"{label} {file}: {difference:.1e}")
        assert difference < 1e-4, file
    normalised = torch.from_numpy(expected["normalised"]).permute(0, 3, 1, 2)
    difference = relative_difference(features(model.double(), normalised), expected["exact"])
    print(f"{label} from the normalised input, 64 bits: {difference:.1e}")
    assert difference < 1e-10
    # The features depend on the photo and on its normalization, or equality would prove nothing.
    assert relative_difference(expected["plain"][0], expected["plain"][1]) > 1e-2
    assert relative_difference(expected["plain"], expected["imagenet"]) > 1e-2
