"""The lab report's recipe in Keras, as written, but for pixels clipped to 0-255 (without that the features collapse).

Photos are decoded and resized once and kept in memory (tf.data's cache), batches are prefetched: Keras' own advice.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from events import MEAN, STD, read_arguments, read_split, say
from PIL import Image
from safetensors.numpy import load_file

CANVAS, SIZE, BATCH = 235, 224, 64
BLOCKS = (1, 2, 2, 3, 3, 4, 1)


def load_canvas(path: str) -> np.ndarray:
    """Return the photo on the canvas, uint8 (235, 235, 3); Pillow reads the kinds that TensorFlow cannot."""
    photo = Image.open(path)
    photo = photo.convert("RGBA").convert("RGB") if photo.mode in ("P", "RGBA") else photo.convert("RGB")
    pixels = tf.image.resize(np.asarray(photo), (CANVAS, CANVAS))
    return tf.cast(tf.round(pixels), tf.uint8).numpy()


def create_dataset(side: list[tuple[str, int]], train: bool, seed: int) -> tf.data.Dataset:
    """Return batches of (float32 0-255 pixels after contrast and brightness, target); cropped but for training."""
    left = (CANVAS - SIZE) // 2
    paths, targets = [path for path, _ in side], [target for _, target in side]
    data = tf.data.Dataset.from_tensor_slices((paths, targets))

    def load(path, target):
        pixels = tf.numpy_function(lambda p: load_canvas(p.decode()), [path], tf.uint8)
        pixels.set_shape((CANVAS, CANVAS, 3))
        return pixels, target

    def adjust(pixels, target):
        pixels = tf.image.adjust_contrast(tf.cast(pixels, tf.float32), 2.0)
        pixels = tf.clip_by_value(tf.image.adjust_brightness(pixels, 0.1), 0.0, 255.0)
        return pixels if train else pixels[left : left + SIZE, left : left + SIZE], target

    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE).cache()
    if train:
        data = data.shuffle(len(side), seed=seed)
    return data.map(adjust, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


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


class Timer(keras.callbacks.Callback):
    """Prints a line an epoch, with the images a second of its training steps; may end it after some steps."""

    def __init__(self, stage: str, photos: int, steps: int = 0) -> None:
        super().__init__()
        self.stage, self.photos, self.steps, self.marks = stage, photos, steps, []

    def on_epoch_begin(self, epoch, logs=None):
        self.marks = [time.perf_counter()]

    def on_train_batch_end(self, batch, logs=None):
        self.marks.append(time.perf_counter())
        if self.steps and batch + 1 >= self.steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        took = np.diff(self.marks)[1:]  # the first step builds the graph
        rate = BATCH / float(np.median(took)) if len(took) else math.nan
        seconds = time.perf_counter() - self.marks[0]
        accuracy = (logs or {}).get("val_accuracy")
        say("epoch", stage=self.stage, epoch=epoch + 1, took=seconds, images_per_s=rate, val_accuracy=accuracy)


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
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x)), backbone


def main() -> None:
    arguments = read_arguments(("train", "predict"))
    keras.utils.set_random_seed(arguments.seed)
    sides, names = read_split(arguments.split, arguments.photos)
    model, backbone = create_model(len(names), arguments.weights)
    say("ready")
    if arguments.task == "predict":
        side = [photo for photos in sides.values() for photo in photos]
        data = create_dataset(side, False, 0)
        model.predict(data.take(1), verbose=0)
        started = time.perf_counter()
        model.predict(data, verbose=0)
        say("predicted", images_per_s=len(side) / (time.perf_counter() - started))
        return
    train = create_dataset(sides["train"], True, arguments.seed)
    val = create_dataset(sides["val"], False, 0)
    stages = (("transfer", 1e-2, arguments.head_epochs, 0), ("finetune", 2e-8, arguments.epochs, arguments.steps))
    for stage, lr, epochs, steps in stages:
        callbacks: list[keras.callbacks.Callback] = [Timer(stage, len(sides["train"]), steps)]
        if stage == "transfer":
            callbacks.append(keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 * math.exp(-0.3 * epoch)))
        else:
            backbone.trainable = True
            for layer in backbone.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        model.compile(keras.optimizers.Adam(lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(train, validation_data=None if steps else val, epochs=epochs, callbacks=callbacks, verbose=0)
    model.save_weights("model.weights.h5")
    say("done")


if __name__ == "__main__":
    main()
