"""Make the weights that `wildtune demo` starts from: pretrain a small backbone on generated animals.

The species here are invented at random and are not the demo's, so the features have to transfer. An
interrupted run goes on where it stopped, from the work folder: the photos are drawn once into a memory-mapped
array, and every epoch ends in a checkpoint. About half an hour on one core:

    python scripts/make_demo_weights.py --work /tmp/demo-weights
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from wildtune.demo.animals import draw_animal
from wildtune.demo.species import COATS, DEMO_SPECIES, EARS, HORNS, TAILS, Species, random_species
from wildtune.demo.weights import DEMO_BACKBONE, DEMO_SIZE, demo_weights_path
from wildtune.files import replacing, write_text

CACHE_SIZE = 144
TRAITS = {"coat": COATS, "tail": TAILS, "horns": HORNS, "ears": EARS}
MEASURES = ("depth", "leg", "leg_thickness", "neck", "neck_angle", "head", "snout", "hump")
VAL_PHOTOS = 6
"""The last photos of every species are never trained on."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result; kept beside the checkpoint and compared when resuming."""

    species: int
    photos: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    seed: int


@dataclass
class Photos:
    """`images` `(N, 144, 144, 3)` uint8 on disk, `labels` `(N,)` int64, and the rows of each split."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    species: int


def invent_species(settings: Settings) -> list[Species]:
    """Invent the species to learn from; none has the proportions of one of the demo's."""
    rng = np.random.default_rng([settings.seed, 1])
    invented = [random_species(f"species_{index:03d}", rng) for index in range(settings.species)]
    known = {tuple(asdict(species).values())[1:] for species in DEMO_SPECIES.values()}
    assert not known & {tuple(asdict(species).values())[1:] for species in invented}
    return invented


def draw_photos(settings: Settings, work: Path) -> Photos:
    """Draw every photo once, squashed to a square; a finished array is used again."""
    species = invent_species(settings)
    count = settings.species * settings.photos
    path = work / f"photos-{settings.species}x{settings.photos}-{settings.seed}.npy"
    if not path.exists():
        started = time.monotonic()
        with replacing(path) as temporary:
            shape = (count, CACHE_SIZE, CACHE_SIZE, 3)
            images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            for row in range(count):
                label, number = divmod(row, settings.photos)
                rng = np.random.default_rng([settings.seed, 2, label, number])
                photo = draw_animal(species[label], rng, scale=0.7)
                images[row] = np.asarray(photo.resize((CACHE_SIZE, CACHE_SIZE), Image.Resampling.BILINEAR))
                if (row + 1) % 1000 == 0:
                    print(f"drawn {row + 1} of {count} photos, {time.monotonic() - started:.0f} s", flush=True)
            images.flush()
            del images
    labels = np.repeat(np.arange(settings.species), settings.photos)
    held = np.tile(np.arange(settings.photos) >= settings.photos - VAL_PHOTOS, settings.species)
    return Photos(np.load(path, mmap_mode="r"), labels, np.flatnonzero(~held), np.flatnonzero(held), settings.species)


def normalise(images: Tensor) -> Tensor:
    """Scale `(B, 3, H, W)` pixels in [0, 1] by timm's mean and standard deviation for the backbone."""
    config = timm.get_pretrained_cfg(DEMO_BACKBONE)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    return (images - mean) / std


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop (0.5 to 1 of the area), flip, turn a little and jitter the colours of `(B, 3, H, W)` in [0, 1]."""
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side, aspect = uniform(0.5, 1.0).sqrt(), uniform(math.log(0.75), math.log(1.34)).exp().sqrt()
    wide, tall = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
    angle, mirror = uniform(-0.1, 0.1), torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    row_x = [wide * angle.cos() * mirror, -tall * angle.sin(), uniform(-1, 1) * (1 - wide)]
    row_y = [wide * angle.sin() * mirror, tall * angle.cos(), uniform(-1, 1) * (1 - tall)]
    theta = torch.stack([torch.stack(row_x, 1), torch.stack(row_y, 1)], 1)
    grid = F.affine_grid(theta, [count, 3, DEMO_SIZE, DEMO_SIZE], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.4, 1.5).view(-1, 1, 1, 1)
    middle = images.mean((1, 2, 3), keepdim=True)
    images = middle + (images - middle) * uniform(0.7, 1.4).view(-1, 1, 1, 1)
    return (images * uniform(0.7, 1.35).view(-1, 1, 1, 1)).clamp(0, 1)


@dataclass(frozen=True)
class Traits:
    """What the species look like: `kinds` `(S, 4)` indices into `TRAITS`, `measures` `(S, 8)` scaled."""

    kinds: Tensor
    measures: Tensor

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of `(B, S + 27)` outputs: species, then traits, then measures.

        The name of a species alone teaches slowly: there are many, and most of a photo is landscape. That an
        animal is striped and long in the tail is learnt sooner and shows where to look.
        """
        sizes = [len(self.kinds), *(len(values) for values in TRAITS.values()), len(MEASURES)]
        species, *kinds, measures = outputs.split(sizes, dim=1)
        total = F.cross_entropy(species, labels, label_smoothing=0.1)
        for column, scores in enumerate(kinds):
            total = total + 0.4 * F.cross_entropy(scores, self.kinds[labels, column])
        return total + 0.5 * F.mse_loss(measures, self.measures[labels])


def list_traits(species: list[Species]) -> Traits:
    """Tabulate what the model learns beside the species' names."""
    kinds = [[values.index(getattr(one, name)) for name, values in TRAITS.items()] for one in species]
    measures = torch.tensor([[float(getattr(one, name)) for name in MEASURES] for one in species])
    return Traits(torch.tensor(kinds), (measures - measures.mean(0)) / (measures.std(0) + 1e-6))


def load_batch(photos: Photos, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return `(B, 3, 144, 144)` float32 pixels in [0, 1] and `(B,)` labels of the given rows."""
    pixels = torch.from_numpy(photos.images[rows]).permute(0, 3, 1, 2).float().div_(255)
    return pixels, torch.from_numpy(photos.labels[rows])


@torch.inference_mode()
def validate(model: nn.Module, photos: Photos) -> float:
    """Return the accuracy on the photos kept aside, in [0, 1]."""
    model.eval()
    right = 0
    for start in range(0, len(photos.val), 128):
        images, labels = load_batch(photos, photos.val[start : start + 128])
        images = F.interpolate(images, size=(DEMO_SIZE, DEMO_SIZE), mode="bilinear", antialias=True)
        right += int((model(normalise(images))[:, : photos.species].argmax(1) == labels).sum())
    return right / len(photos.val)


def one_cycle(share: float) -> float:
    """Return the learning rate's factor after `share` of all steps: briefly up, then a cosine to 0."""
    if share < 0.08:
        return 0.04 + 0.96 * share / 0.08
    return 0.5 + 0.5 * math.cos(math.pi * (share - 0.08) / 0.92)


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Write model and optimizer after `epoch` epochs into one file, so that they cannot disagree."""
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value.contiguous() for key, value in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"epoch": str(epoch)})


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore model and optimizer and return how many epochs are done (0 where there is no checkpoint)."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as opened:
        epoch = int(opened.metadata()["epoch"])
    tensors = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return epoch


def train(settings: Settings, photos: Photos, work: Path) -> nn.Module:
    """Train the backbone and its classifier, from the last checkpoint if there is one."""
    torch.manual_seed(settings.seed)
    traits = list_traits(invent_species(settings))
    outputs = settings.species + sum(len(values) for values in TRAITS.values()) + len(MEASURES)
    model = timm.create_model(DEMO_BACKBONE, pretrained=False, num_classes=outputs, drop_rate=0.1)
    model = model.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr)
    checkpoint = work / "checkpoint.safetensors"
    steps = len(photos.train) // settings.batch
    for epoch in range(load_checkpoint(checkpoint, model, optimizer), settings.epochs):
        started, total = time.monotonic(), 0.0
        order = np.random.default_rng([settings.seed, 3, epoch]).permutation(photos.train)
        generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
        model.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * one_cycle((epoch * steps + step) / (settings.epochs * steps))
            images, labels = load_batch(photos, np.sort(order[step * settings.batch : (step + 1) * settings.batch]))
            images = normalise(augment(images, generator)).contiguous(memory_format=torch.channels_last)
            loss = traits.loss(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise SystemExit(f"the loss became {total} in epoch {epoch + 1}: try a smaller --lr than {settings.lr}")
        save_checkpoint(checkpoint, model, optimizer, epoch + 1)
        accuracy, seconds = validate(model, photos), time.monotonic() - started
        head = f"epoch {epoch + 1}/{settings.epochs} loss {total / steps:.3f}"
        print(f"{head} val_accuracy {accuracy:.3f} {seconds:.0f} s", flush=True)
    return model


def save_weights(model: nn.Module, settings: Settings, accuracy: float, out: Path) -> None:
    """Write the trunk, no classifier: convolutions in float16, BatchNorm's small variances in float32."""
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not name.startswith("classifier."):
            keep = name.rpartition(".")[0] in norms
            tensors[name] = (value if keep else value.half()).contiguous()
    metadata = {
        "backbone": DEMO_BACKBONE,
        "trained_on": f"{settings.species} invented species, {settings.photos} generated photos each",
        "epochs": str(settings.epochs),
        "seed": str(settings.seed),
        "input_size": str(DEMO_SIZE),
        "val_accuracy": f"{accuracy:.4f}",
        "wildtune_version": version("wildtune"),
        "format": "pt",
    }
    with replacing(out) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def main() -> None:
    """Draw, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=demo_weights_path(), help="the weights to write")
    parser.add_argument("--work", type=Path, default=Path("runs/demo-weights"), help="photos and checkpoints")
    parser.add_argument("--species", type=int, default=80)
    parser.add_argument("--photos", type=int, default=120, help="photos of each species")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = vars(parser.parse_args())
    out, work, threads = options.pop("out"), options.pop("work"), options.pop("threads")
    settings = Settings(**options)
    torch.set_num_threads(threads)
    kept = work / "settings.json"
    if kept.exists() and (before := json.loads(kept.read_text("utf-8"))) != asdict(settings):
        raise SystemExit(f"{work} holds a run with {before}; give the same settings or another --work folder")
    write_text(kept, json.dumps(asdict(settings), indent=1))
    photos = draw_photos(settings, work)
    model = train(settings, photos, work)
    accuracy = validate(model, photos)
    save_weights(model, settings, accuracy, out)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, val_accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
