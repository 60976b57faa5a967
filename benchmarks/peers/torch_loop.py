"""A plain timm and torch loop, as its careful users write it: full fine-tuning, eager or compiled, and prediction.

AdamW at 3e-4 by a one-cycle policy (1e-4 reached less), random resized crops and flips, BatchNorm in eval mode,
channels_last, `torch.compile(dynamic=False)`, photos decoded once and kept in memory. A DataLoader with one worker
augments beside the training; two computing threads, which measured best on two cores.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import timm
import torch
from events import (
    KEPT,
    MEAN,
    SIZE,
    STD,
    list_photos,
    load_photo,
    load_resized,
    read_arguments,
    read_split,
    save_predictions,
    say,
)
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

BATCH, LR = 32, 3e-4
PREDICT_BATCH = 8  # on CPUs small batches are faster forward, as their activations stay in the caches
FINISH = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class Photos(Dataset):
    """(3, 224, 224) float32 input and target of each photo of one side; the photos are kept at 288 px."""

    def __init__(self, side: list[tuple[str, int]], train: bool) -> None:
        self.targets = [target for _, target in side]
        self.photos = torch.from_numpy(np.stack(load_resized([path for path, _ in side], KEPT if train else SIZE)))
        crop = [v2.RandomResizedCrop(SIZE, (0.35, 1.0)), v2.RandomHorizontalFlip()] if train else []
        self.transform = v2.Compose([*crop, *FINISH])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int):
        return self.transform(self.photos[i].permute(2, 0, 1)), self.targets[i]


class Files(Dataset):
    """(3, 224, 224) float32 input of each file, decoded when it is asked for."""

    def __init__(self, paths: list[str]) -> None:
        self.paths, self.transform = paths, v2.Compose([v2.Resize((SIZE, SIZE)), v2.ToImage(), *FINISH])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(load_photo(self.paths[i], SIZE))


def create_loaders(sides: dict[str, list[tuple[str, int]]]) -> tuple[DataLoader, DataLoader]:
    """Return batches to train on, and those of the validation photos."""
    keep = {"num_workers": 1, "persistent_workers": True}
    train = DataLoader(Photos(sides["train"], True), BATCH, shuffle=True, drop_last=True, **keep)
    return train, DataLoader(Photos(sides["val"], False), BATCH, **keep)


def create_model(classes: int, weights: Path) -> nn.Module:
    """Return timm's EfficientNet-B0 on the given weights with a fresh head."""
    model = timm.create_model("efficientnet_b0", num_classes=classes)
    state = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(name.startswith("classifier.") for name in missing), missing
    return model.to(memory_format=torch.channels_last)


def freeze_batch_norm(model: nn.Module) -> None:
    """Put BatchNorm into eval mode and fix its scale and shift."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False


def create_optimizer(model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """Return AdamW on what may move, and its one-cycle policy over all steps."""
    freeze_batch_norm(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps)


def choose_precision(bfloat16: bool) -> contextlib.AbstractContextManager:
    """Return what a forward pass is computed within."""
    return torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()


@torch.inference_mode()
def measure_accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Return the share of a side's photos that the model has right, 0-1."""
    model.eval()
    right = [(model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).float() for x, y in loader]
    return float(torch.cat(right).mean())


@torch.inference_mode()
def predict(model: nn.Module, paths: list[str], bfloat16: bool) -> np.ndarray:
    """Return the probabilities (N, classes) of files."""
    model.eval()
    probs = []
    with choose_precision(bfloat16):
        for images in DataLoader(Files(paths), PREDICT_BATCH, num_workers=1 if len(paths) > 1 else 0):
            probs.append(model(images.contiguous(memory_format=torch.channels_last)).float().softmax(1))
    return torch.cat(probs).numpy()


def main() -> None:
    arguments = read_arguments(("eager", "compiled", "predict"))
    torch.manual_seed(arguments.seed)
    sides, names = read_split(arguments.split, arguments.photos)
    model = create_model(len(names), arguments.weights)
    if arguments.task == "predict":
        paths = list_photos(arguments.photos)
        save_predictions(paths, predict(model, paths, arguments.bfloat16), names)
        return
    train, val = create_loaders(sides)
    run = torch.compile(model, dynamic=False) if arguments.task == "compiled" else model
    optimizer, schedule = create_optimizer(model, len(train) * arguments.epochs)
    for epoch in range(arguments.epochs):
        model.train()
        freeze_batch_norm(model)
        started = time.perf_counter()
        for images, targets in train:
            optimizer.zero_grad()
            with choose_precision(arguments.bfloat16):
                loss = cross_entropy(run(images.contiguous(memory_format=torch.channels_last)), targets)
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = measure_accuracy(model, val)
        took = time.perf_counter() - started
        say("epoch", stage="finetune", epoch=epoch + 1, epoch_s=took, val_accuracy=accuracy)
    torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
