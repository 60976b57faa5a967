"""fastai's own way: `vision_learner` on timm's backbone, then `fine_tune`, with its own augmentation and one-cycle."""

from __future__ import annotations

import time

import torch
from events import SIZE, read_arguments, read_split, say
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    imagenet_stats,
    vision_learner,
)
from safetensors.torch import load_file

BATCH = 32


class Announce(Callback):
    """Prints a line an epoch."""

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def after_epoch(self) -> None:
        accuracy_value = float(self.recorder.values[-1][-1])
        rate = len(self.dls.train_ds) / (time.perf_counter() - self.started)
        say("epoch", stage="fine_tune", epoch=self.epoch + 1, images_per_s=rate, val_accuracy=accuracy_value)


def main() -> None:
    arguments = read_arguments(("train",))
    torch.manual_seed(arguments.seed)
    sides, names = read_split(arguments.split, arguments.photos)
    rows = [(path, names[target], side == "val") for side in ("train", "val") for path, target in sides[side]]
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=lambda row: row[0],
        get_y=lambda row: row[1],
        splitter=lambda items: (
            [i for i, row in enumerate(items) if not row[2]],
            [i for i, row in enumerate(items) if row[2]],
        ),
        item_tfms=Resize(288, method="squish"),
        batch_tfms=[*aug_transforms(size=SIZE, min_scale=0.35), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(rows, bs=BATCH, num_workers=1)
    learner = vision_learner(loaders, "efficientnet_b0", pretrained=False, metrics=accuracy, cbs=[Announce()])
    state = {k: v for k, v in load_file(arguments.weights).items() if not k.startswith("classifier.")}
    learner.model[0].model.load_state_dict(state, strict=False)
    learner.freeze()
    say("ready")
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(arguments.epochs)
    learner.save("model")
    say("done")


if __name__ == "__main__":
    main()
