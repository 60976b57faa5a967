"""fastai's own way: `vision_learner` on timm's backbone, then `fine_tune` (one epoch frozen, the rest whole).

Its own augmentation, one-cycle policy and rates, ChannelsLast, photos resized once and kept in memory (what its
`resize_images` does on disk), one worker beside the training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from operator import attrgetter

import torch
from events import KEPT, SIZE, list_photos, load_resized, read_arguments, read_split, save_predictions, say
from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    imagenet_stats,
    vision_learner,
)
from safetensors.torch import load_file

BATCH, PREDICT_BATCH = 32, 8  # as in torch_loop.py


class Announce(Callback):
    """Prints a line an epoch, after fastai's recorder has its numbers."""

    order = 60

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def after_epoch(self) -> None:
        if self.opt is None:
            return  # to fastai predicting is an epoch too
        took, stage = time.perf_counter() - self.started, "head" if self.opt.frozen_idx else "finetune"
        right = float(self.recorder.values[-1][-1])
        say("epoch", stage=stage, epoch=self.epoch + 1, epoch_s=took, val_accuracy=right)


@dataclass(frozen=True)
class Row:
    """A photo, as its path or its pixels, its class and its side; a class, as fastai takes tuples apart."""

    photo: object
    label: str
    validates: bool = False


def create_block(train: bool) -> DataBlock:
    """Return how rows become batches."""
    normalize = Normalize.from_stats(*imagenet_stats)
    return DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=attrgetter("photo"),
        get_y=attrgetter("label"),
        splitter=lambda rows: tuple([i for i, r in enumerate(rows) if r.validates is side] for side in (False, True)),
        item_tfms=None if train else Resize(SIZE, method="squish"),
        batch_tfms=[*aug_transforms(size=SIZE, min_scale=0.35), normalize] if train else [normalize],
    )


def create_learner(loaders, weights) -> Learner:
    """Return the learner on the given weights; its head is fastai's."""
    learner = vision_learner(
        loaders, "efficientnet_b0", pretrained=False, metrics=accuracy, cbs=[Announce(), ChannelsLast()]
    )
    state = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")}
    missing = learner.model[0].model.load_state_dict(state, strict=False).missing_keys
    assert not missing, missing
    return learner


def main() -> None:
    arguments = read_arguments(("train", "predict"))
    torch.manual_seed(arguments.seed)
    sides, names = read_split(arguments.split, arguments.photos)
    if arguments.task == "predict":
        paths = list_photos(arguments.photos)
        # A learner wants photos and classes to begin with; those to predict come after.
        rows = [Row(paths[0], name) for name in names]
        loaders = create_block(False).dataloaders([*rows, Row(paths[0], names[0], True)], bs=1, num_workers=0)
        learner = create_learner(loaders, arguments.weights)
        test = loaders.test_dl(
            [Row(path, names[0]) for path in paths], bs=PREDICT_BATCH, num_workers=1 if len(paths) > 1 else 0
        )
        with learner.no_bar():
            probs, _ = learner.get_preds(dl=test)
        save_predictions(paths, probs.numpy(), names)
        return
    rows = []
    for side in ("train", "val"):
        photos = load_resized([path for path, _ in sides[side]], KEPT)
        rows += [Row(photo, names[k], side == "val") for photo, (_, k) in zip(photos, sides[side], strict=True)]
    loaders = create_block(True).dataloaders(rows, bs=BATCH, num_workers=1, persistent_workers=True)
    learner = create_learner(loaders, arguments.weights)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(arguments.epochs)
    learner.save("model")


if __name__ == "__main__":
    main()
