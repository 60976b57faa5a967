"""Generated wildlife photos: invented species in random poses, places and weather, the same for a seed.

The place never tells the species, colours overlap between species, and some species differ by their coat or
their shape alone: a model has to look at the animal.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from wildtune.demo.camera import take_photo
from wildtune.demo.coat import Cutout, draw_cutout
from wildtune.demo.habitat import grow_foreground, paint_backdrop
from wildtune.demo.noise import Floats
from wildtune.demo.species import DEMO_SPECIES, Species
from wildtune.errors import CommandError
from wildtune.files import write_bytes

SPECIES: tuple[str, ...] = tuple(sorted(DEMO_SPECIES))
"""The demo's species names, which are also its class folders."""

PLANTED_FAULTS: dict[str, str] = {
    "bushy_fox/IMG_0901.jpg": "exact_duplicate",
    "humped_bear/IMG_0902.jpg": "exact_duplicate",
    "slim_jackal/IMG_0903.jpg": "label_conflict",
    "spotted_cat/IMG_0904.jpg": "unreadable",
    "patched_horse/IMG_0905.jpg": "unreadable",
    "plain_deer/IMG_0906.jpg": "blank",
    "striped_horse/IMG_0907.jpg": "misnamed",
    "spotted_deer/IMG_0908.png": "transparent",
}
"""What `write_demo_photos` plants, as `class/file`: the kind of finding.

`IMG_0903` is a copy of a photo of another class, `IMG_0904` a truncated JPEG, `IMG_0905` a text file,
`IMG_0907` a PNG named .jpg, and `IMG_0908` an RGBA PNG, which is no fault but has to be read right.
"""

_SHAPES = ((4, 3), (3, 2), (16, 10), (1, 1), (4, 5), (3, 4))


def _frame_size(rng: np.random.Generator, scale: float) -> tuple[int, int]:
    """Return a width and a height in pixels: 200 to 480 a side before `scale`."""
    across, down = _SHAPES[int(rng.choice(len(_SHAPES), p=[0.34, 0.22, 0.14, 0.12, 0.09, 0.09]))]
    short = rng.uniform(200, 300) * scale
    unit = short / min(across, down)
    return round(unit * across), round(unit * down)


def _cast_shadow(rgb: Floats, row: int, left: int, width: int, strength: float) -> None:
    """Darken the ground under an animal whose feet stand on `row`, in place."""
    half = max(3, round(width * 0.10))
    top, bottom = max(0, row - half), min(rgb.shape[0], row + half)
    start, stop = max(0, left - width // 8), min(rgb.shape[1], left + width + width // 8)
    if top >= bottom or start >= stop:
        return
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - row) / np.float32(half)
    x = (np.arange(start, stop, dtype=np.float32)[None, :] - (left + width / 2)) / np.float32(width * 0.56)
    dark = np.clip(1 - x * x - y * y, 0, 1) ** np.float32(0.7) * np.float32(strength)
    rgb[top:bottom, start:stop] *= 1 - dark[..., None]


def _place_cutout(rgb: Floats, cutout: Cutout, row: int, left: int) -> tuple[int, int] | None:
    """Put an animal into the scene, in place, feet on `row`; return its eye's place if seen."""
    tall, wide = cutout.alpha.shape
    top = row - tall
    rows = slice(max(0, top), min(rgb.shape[0], row))
    columns = slice(max(0, left), min(rgb.shape[1], left + wide))
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    alpha = cutout.alpha[inner][..., None]
    rgb[rows, columns] += alpha * (cutout.rgb[inner] - rgb[rows, columns])
    if cutout.eye is None:
        return None
    eye = (cutout.eye[0] + top, cutout.eye[1] + left)
    return eye if 0 <= eye[0] < rgb.shape[0] and 0 <= eye[1] < rgb.shape[1] else None


def draw_animal(species: str | Species, rng: np.random.Generator, scale: float = 1.0) -> Image.Image:
    """Draw a photo of one animal (now and then two) of a species.

    `species` is a name of `SPECIES` or an invented `Species`. The result is an RGB image of 200 to 480 pixels
    a side, times `scale`; the state of `rng` decides everything in it. An unknown name raises `KeyError`.
    """
    kind = DEMO_SPECIES[species] if isinstance(species, str) else species
    width, height = _frame_size(rng, scale)
    backdrop = paint_backdrop(rng, width, height)
    rgb = backdrop.rgb
    eyes: list[tuple[int, int]] = []
    strength = float(rng.uniform(0.15, 0.55))
    sizes = [float(rng.uniform(0.50, 0.94))]
    if rng.random() < 0.12:
        sizes.insert(0, sizes[0] * float(rng.uniform(0.45, 0.7)))
    for size in sizes:
        cutout = draw_cutout(kind, rng, round(width * min(1.0, size * 1.1)), round(height * size))
        tall, wide = cutout.alpha.shape
        lowest = height * float(rng.uniform(0.80, 1.0)) if size == sizes[-1] else height * 0.78
        row = round(max(lowest, backdrop.horizon + 0.1 * height, tall + 2))
        # Up to an eighth of the animal may be outside the frame.
        left = round(float(rng.uniform(-0.06 * wide, width - 0.94 * wide)))
        _cast_shadow(rgb, row - 2, left, wide, strength)
        eye = _place_cutout(rgb, cutout, row, left)
        eyes += [eye] if eye else []
    scene = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    scene = grow_foreground(scene, backdrop, rng)
    return take_photo(np.asarray(scene, dtype=np.float32) / np.float32(255), eyes, rng)


def _encode(image: Image.Image, kind: str, quality: int = 85) -> bytes:
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    if kind == "PNG":
        image.save(stream, "PNG", compress_level=3)
    else:
        image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _plant_faults(folder: Path, seed: int, first: dict[str, bytes]) -> None:
    """Write the files of `PLANTED_FAULTS`; `first` has the bytes of the first photo of every species."""
    rng = np.random.default_rng([seed, len(SPECIES), 0])
    png = draw_animal("striped_horse", rng)
    clear = draw_animal("spotted_deer", rng)
    # A soft-edged oval, as a cut-out saved from an image editor has it.
    y, x = np.ogrid[-1 : 1 : clear.height * 1j, -1 : 1 : clear.width * 1j]
    oval = np.clip((1.25 - x**2 - y**2) * 4, 0, 1) * 255
    clear.putalpha(Image.fromarray(oval.astype(np.uint8)))
    contents = {
        "IMG_0901": first["bushy_fox"],
        "IMG_0902": first["humped_bear"],
        "IMG_0903": first["plain_deer"],
        "IMG_0904": first["spotted_cat"][: len(first["spotted_cat"]) * 2 // 5],
        "IMG_0905": b"Card 3 was full: the photos of this station are on the other disk.\n",
        "IMG_0906": _encode(Image.new("RGB", (320, 240), (9, 9, 10)), "JPEG"),
        "IMG_0907": _encode(png, "PNG"),
        "IMG_0908": _encode(clear, "PNG"),
    }
    for path in PLANTED_FAULTS:
        write_bytes(folder / path, contents[Path(path).stem])


def write_demo_photos(folder: Path, seed: int = 0, per_species: int = 40) -> None:
    """Write `per_species` photos of each species into `folder/SPECIES/`, and the files of `PLANTED_FAULTS`.

    Most are JPEGs of varied quality, some PNGs. The same seed gives the same bytes on one machine. Files of
    the same names are replaced, others left alone. `per_species` below 1 raises `CommandError`. About 8 s for
    8 x 40 photos.
    """
    if per_species < 1:
        raise CommandError(f"per_species must be at least 1. Got {per_species}.")
    first: dict[str, bytes] = {}
    for index, species in enumerate(SPECIES):
        for number in range(per_species):
            rng = np.random.default_rng([seed, index, number])
            photo = draw_animal(species, rng)
            # The first stays a JPEG: one of the planted files is a cut-off copy of it.
            kind = "PNG" if number and rng.random() < 0.06 else "JPEG"
            content = _encode(photo, kind, int(rng.integers(55, 95)))
            first.setdefault(species, content)
            suffix = "png" if kind == "PNG" else "jpg"
            write_bytes(folder / species / f"{species}_{number + 1:03d}.{suffix}", content)
    _plant_faults(folder, seed, first)
