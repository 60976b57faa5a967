"""The lab report's recipe in Keras, as written, but for pixels clipped to 0-255 (without that the features collapse).

Photos are decoded and resized once and kept in memory (tf.data's cache), batches are prefetched: Keras' own advice.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from events import MEAN, STD, list_photos, read_arguments, read_split, save_predictions, say
from PIL import Image
from safetensors.numpy import load_file

CANVAS, SIZE, BATCH = 235, 224, 64
BLOCKS = (1, 2, 2, 3, 3, 4, 1)


def is_common(path: str) -> bool:
    """Return whether TensorFlow itself can decode the file: a JPEG or a PNG."""
    with open(path, "rb") as handle:
        return handle.read(8).startswith((b"\xff\xd8", b"\x89PNG"))


def load_pixels(path, common):
    """Return the photo's pixels, uint8 (height, width, 3); Pillow reads the kinds that TensorFlow cannot."""

    def decode():
        return tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)

    def ask_pillow():
        return tf.numpy_function(lambda p: np.asarray(Image.open(p.decode()).convert("RGB")), [path], tf.uint8)

    pixels = tf.cond(common, decode, ask_pillow)
    pixels.set_shape((None, None, 3))
    return pixels


def adjust(pixels):
    """Return the photo after the report's contrast and brightness, float32, clipped to 0-255."""
    pixels = tf.image.adjust_contrast(tf.cast(pixels, tf.float32), 2.0)
    return tf.clip_by_value(tf.image.adjust_brightness(pixels, 0.1), 0.0, 255.0)


def create_dataset(
    paths: Sequence[str], targets: Sequence[int], keep: bool, shuffle: bool, seed: int = 0
) -> tf.data.Dataset:
    """Return batches of (adjusted pixels, target): canvases, or their centres where nothing is to be shuffled."""
    left = (CANVAS - SIZE) // 2
    # Lists, as tf.data takes a tuple for parts of an element.
    parts = list(paths), [is_common(path) for path in paths], list(targets)
    data = tf.data.Dataset.from_tensor_slices(parts)

    def load(path, common, target):
        pixels = tf.image.resize(load_pixels(path, common), (CANVAS, CANVAS))
        return tf.cast(tf.round(pixels), tf.uint8), target

    def finish(pixels, target):
        pixels = adjust(pixels)
        return pixels if shuffle else pixels[left : left + SIZE, left : left + SIZE], target

    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.cache() if keep else data
    data = data.shuffle(len(paths), seed=seed) if shuffle else data
    return data.map(finish, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def timm_names() -> dict[str, str]:
    """Return the timm module of each Keras layer of EfficientNet-B0."""
    names = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2"}
    for stage, count in enumerate(BLOCKS):
        first = {"dwconv": "conv_dw", "bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}
        later = {
            "expand_conv": "conv_pw",
            "expand_bn": "bn1",
            "dwconv": "conv_dw",
            "bn": "bn2",
            "project_conv": "conv_pwl",
            "project_bn": "bn3",
        }
        parts = (first if stage == 0 else later) | {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
        for number in range(count):
            for part, module in parts.items():
                names[f"block{stage + 1}{'abcd'[number]}_{part}"] = f"blocks.{stage}.{number}.{module}"
    return names


def put_weights(backbone: keras.Model, path: Path) -> None:
    """Put timm's weights into Keras' EfficientNetB0, whose BatchNorm has another epsilon (1e-3 for 1e-5)."""
    state = load_file(path)
    for layer_name, module in timm_names().items():
        layer = backbone.get_layer(layer_name)
        if layer_name.endswith("bn"):
            variance = np.maximum(state[f"{module}.running_var"] + 1e-5 - layer.epsilon, 0)
            mean = state[f"{module}.running_mean"]
            layer.set_weights([state[f"{module}.weight"], state[f"{module}.bias"], mean, variance])
        else:
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            kernel = state[f"{module}.weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
            bias = [state[f"{module}.bias"]] if f"{module}.bias" in state else []
            layer.set_weights([kernel, *bias])
    normalization = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array(MEAN, np.float32), np.square(np.array(STD, np.float32)), np.array(0)])
    normalization.finalize_state()


class Announce(keras.callbacks.Callback):
    """Prints a line an epoch."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage, self.started = stage, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        took, right = time.perf_counter() - self.started, (logs or {})["val_accuracy"]
        say("epoch", stage=self.stage, epoch=epoch + 1, epoch_s=took, val_accuracy=right)


def create_model(classes: int, weights: Path) -> tuple[keras.Model, keras.Model]:
    """Return the report's classifier and the backbone within it."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.RandomCrop(SIZE, SIZE)(inputs)
    x = keras.layers.RandomRotation(0.025, fill_mode="reflect")(x)
    x = keras.layers.GaussianNoise(0.05)(x)
    backbone = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    put_weights(backbone, weights)
    backbone.trainable = False
    x = keras.layers.GlobalAveragePooling2D()(backbone(x, training=False))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax", dtype="float32")(x)), backbone


def train(model: keras.Model, backbone: keras.Model, sides: dict, arguments: argparse.Namespace) -> None:
    """Train the head by the report's policy, then everything but BatchNorm at its 2e-8."""
    data = create_dataset(*zip(*sides["train"], strict=True), keep=True, shuffle=True, seed=arguments.seed)
    val = create_dataset(*zip(*sides["val"], strict=True), keep=True, shuffle=False)
    for stage, lr, epochs in (("transfer", 1e-2, arguments.head_epochs), ("finetune", 2e-8, arguments.epochs)):
        callbacks: list[keras.callbacks.Callback] = [Announce(stage)]
        if stage == "transfer":
            callbacks.append(keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 * math.exp(-0.3 * epoch)))
        else:
            backbone.trainable = True
            for layer in backbone.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        model.compile(keras.optimizers.Adam(lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(data, validation_data=val, epochs=epochs, callbacks=callbacks, verbose=0)
    model.save_weights("model.weights.h5")


def main() -> None:
    arguments = read_arguments(("train", "predict"))
    if arguments.bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(arguments.seed)
    sides, names = read_split(arguments.split, arguments.photos)
    model, backbone = create_model(len(names), arguments.weights)
    if arguments.task == "predict":
        paths = list_photos(arguments.photos)
        data = create_dataset(paths, [0] * len(paths), keep=False, shuffle=False)
        save_predictions(paths, model.predict(data, verbose=0), names)
        return
    train(model, backbone, sides, arguments)


if __name__ == "__main__":
    main()
