"""A plain timm and torch loop, as its users write it: six epochs of full fine-tuning, eager or compiled.

AdamW at 1e-4 by a one-cycle policy, random resized crops and flips, BatchNorm in eval mode, channels_last. A
DataLoader with one worker decodes beside the training; two computing threads, which measured best on two cores.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

import timm
import torch
from events import MEAN, SIZE, STD, read_arguments, read_split, say
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

BATCH, LR = 32, 1e-4


class Photos(Dataset):
    """(3, 224, 224) float32 input and target of each photo of one side."""

    def __init__(self, side: list[tuple[str, int]], train: bool) -> None:
        crop = (
            [v2.RandomResizedCrop(SIZE, (0.35, 1.0)), v2.RandomHorizontalFlip()] if train else [v2.Resize((SIZE,) * 2)]
        )
        tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.side, self.transform = side, v2.Compose([*crop, *tensor])

    def __len__(self) -> int:
        return len(self.side)

    def __getitem__(self, i: int):
        path, target = self.side[i]
        photo = Image.open(path)
        photo = photo.convert("RGBA").convert("RGB") if photo.mode in ("P", "RGBA") else photo.convert("RGB")
        return self.transform(photo), target


def create_model(classes: int, weights: Path) -> nn.Module:
    """Return timm's EfficientNet-B0 on the given weights with a fresh head."""
    model = timm.create_model("efficientnet_b0", num_classes=classes)
    state = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")}
    model.load_state_dict(state, strict=False)
    return model.to(memory_format=torch.channels_last)


def freeze_batch_norm(model: nn.Module) -> None:
    """Put BatchNorm into eval mode and fix its scale and shift."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False


@torch.inference_mode()
def measure_accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Return the share of a side's photos that the model has right, 0-1."""
    model.eval()
    right = [(model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).float() for x, y in loader]
    return float(torch.cat(right).mean())


def main() -> None:
    arguments = read_arguments(("eager", "compiled", "predict"))
    torch.manual_seed(arguments.seed)
    sides, names = read_split(arguments.split, arguments.photos)
    model = create_model(len(names), arguments.weights)
    say("ready")
    if arguments.task == "predict":
        side = [photo for photos in sides.values() for photo in photos]
        started = time.perf_counter()
        measure_accuracy(model, DataLoader(Photos(side, False), BATCH, num_workers=1))
        say("predicted", images_per_s=len(side) / (time.perf_counter() - started))
        return
    train = DataLoader(Photos(sides["train"], True), BATCH, shuffle=True, num_workers=1, drop_last=True)
    val = DataLoader(Photos(sides["val"], False), BATCH, num_workers=1)
    run = torch.compile(model, dynamic=False) if arguments.task == "compiled" else model
    optimizer = torch.optim.AdamW(list(model.parameters()), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, len(train) * arguments.epochs)
    for epoch in range(arguments.epochs):
        model.train()
        freeze_batch_norm(model)
        started, marks = time.perf_counter(), [time.perf_counter()]
        for step, (images, targets) in enumerate(train, start=1):
            optimizer.zero_grad()
            cross_entropy(run(images.contiguous(memory_format=torch.channels_last)), targets).backward()
            optimizer.step()
            schedule.step()
            marks.append(time.perf_counter())
            if step == arguments.steps:
                break
        took = [b - a for a, b in itertools.pairwise(marks[1:])]
        accuracy = None if arguments.steps else measure_accuracy(model, val)
        rate, seconds = BATCH / statistics.median(took), time.perf_counter() - started
        say("epoch", stage="finetune", epoch=epoch + 1, took=seconds, images_per_s=rate, val_accuracy=accuracy)
    torch.save(model.state_dict(), "model.pt")
    say("done")


if __name__ == "__main__":
    main()
