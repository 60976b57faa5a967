"""The coat: pattern, colours, fur and light on an inflated body, as a picture with transparency."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wildtune.demo import body
from wildtune.demo.body import Relief, build_skeleton, inflate, random_pose
from wildtune.demo.noise import Floats, smooth_noise
from wildtune.demo.species import FUR, Species, vary

_PATTERNED = {
    "stripes": (body.TORSO, body.NECK, body.LEG, body.TAIL, body.MANE, body.HEAD),
    "spots": (body.TORSO, body.NECK),
    "rosettes": (body.TORSO, body.NECK, body.LEG, body.TAIL),
    "patches": (body.TORSO, body.NECK, body.LEG, body.HEAD, body.EAR, body.TAIL),
    "saddle": (body.TORSO, body.NECK),
    "belt": (body.TORSO,),
    "speckles": (body.TORSO, body.NECK, body.LEG, body.HEAD),
}


@dataclass(frozen=True)
class Cutout:
    """An animal cut out of its surroundings: `rgb` `(H, W, 3)` and `alpha` `(H, W)`, float32 in [0, 1].

    `eye` is the `(row, column)` of the eye, so that a night camera can make it shine.
    """

    rgb: Floats
    alpha: Floats
    eye: tuple[int, int] | None


def _spots(rng: np.random.Generator, x: Floats, y: Floats, ring: bool) -> Floats:
    """Spots or rings, one to a unit cell of a wobbly brick pattern."""
    row = np.floor(y)
    shifted = x + 0.5 * (row % 2)
    column = np.floor(shifted)
    table = rng.random((3, 32, 32), dtype=np.float32)
    across, up, size = table[:, row.astype(np.int32) % 32, column.astype(np.int32) % 32]
    off = np.hypot(shifted - column - 0.35 - 0.3 * across, y - row - 0.35 - 0.3 * up)
    radius = 0.20 + 0.14 * size
    return np.clip(2.6 - np.abs(off - radius) * 20, 0, 1) if ring else np.clip((radius - off) * 10, 0, 1)


def _pattern(animal: Species, region: NDArray[np.int8], x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """How much of the marking colour each pixel takes, `(H, W)` in [0, 1]."""
    if animal.coat == "plain":
        return np.zeros(region.shape, np.float32)
    scale, rows, columns = animal.coat_scale, float(np.ptp(y)), float(np.ptp(x))
    height, width = region.shape
    warp = smooth_noise(rng, height, width, rows * 4, columns * 4)
    ox, oy = rng.random(2, dtype=np.float32) + np.float32(9)
    middle = animal.leg + 0.31 * animal.depth
    if animal.coat == "stripes":
        level = np.isin(region, (body.LEG, body.TAIL))
        across = np.where(level, 1.25 * y, x + 0.22 * y) + 0.35 * scale * warp
        mask = np.clip(np.sin(2 * np.pi * (across + ox) / scale) * 3 + 0.3, 0, 1)
    elif animal.coat in ("spots", "rosettes"):
        wobble = np.float32(0.15) * warp
        mask = _spots(rng, x / scale + wobble + ox, y / scale - wobble + oy, animal.coat == "rosettes")
    elif animal.coat == "patches":
        mask = np.clip((smooth_noise(rng, height, width, rows / scale, columns / scale) + 0.2 * warp) * 9, 0, 1)
    elif animal.coat == "speckles":
        fine = 0.35 * scale
        mask = np.clip(smooth_noise(rng, height, width, rows / fine, columns / fine) * 3 - 0.5, 0, 1)
    elif animal.coat == "saddle":
        mask = np.clip((y - middle - 0.10 * animal.depth + 0.05 * warp) * 14, 0, 1)
    else:
        mask = np.clip((0.16 - np.abs(x + 0.05 + 0.05 * warp)) * 22, 0, 1)
    return mask * np.isin(region, _PATTERNED[animal.coat])


def _choose_colours(animal: Species, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """One animal's own base and marking colours, each `(3,)`: near the species' colours."""
    base = np.array(FUR[str(rng.choice(animal.base))]) * rng.normal(1, 0.12) + rng.normal(0, 0.014, 3)
    mark = np.array(FUR[animal.mark]) * rng.normal(1, 0.10) + rng.normal(0, 0.014, 3)
    if abs(base.mean() - mark.mean()) < 0.2:
        # A pattern in nearly the coat's own colour would not be seen.
        mark = np.clip(base * 0.45, 0, 1) if base.mean() > 0.3 else np.clip(base + 0.38, 0, 1)
    return np.clip(base, 0.07, 0.95).astype(np.float32), np.clip(mark, 0.05, 0.96).astype(np.float32)


def _paint(animal: Species, relief: Relief, x: Floats, y: Floats, slope: Floats, rng: np.random.Generator) -> Floats:
    """Fur colours before the light falls on them, `(H, W, 3)`; `slope` in [-1, 1] is how far it faces up."""
    base, mark = _choose_colours(animal, rng)
    region = relief.region
    pale = np.clip(base * 0.35 + np.float32(0.60), 0, 1)
    soft = np.isin(region, (body.TORSO, body.NECK, body.HEAD, body.TAIL))
    under = np.clip(-slope * 1.8 - 0.25, 0, 1) * soft * np.float32(animal.pale_belly)
    rgb = base + under[..., None] * (pale - base)
    rgb += _pattern(animal, region, x, y, rng)[..., None] * (mark - rgb) * np.float32(0.92)
    dark = base * np.float32(0.35)
    legs = np.isin(region, (body.LEG, body.FOOT)) * np.clip(1.3 - y / (0.6 * animal.leg + 1e-6), 0, 1)
    rgb += (legs * np.float32(animal.dark_legs))[..., None] * (dark - rgb)
    patterned = animal.coat != "plain"
    fixed: dict[int, Floats] = {
        body.FOOT: dark * np.float32(0.9),
        body.NOSE: np.array([0.10, 0.08, 0.08], np.float32),
        body.EYE: np.array([0.06, 0.04, 0.03], np.float32),
        body.HORN: np.array([0.62, 0.54, 0.42], np.float32) * np.float32(rng.uniform(0.6, 1.2)),
        body.MANE: mark * np.float32(0.8) if patterned else dark,
        body.TIP: pale if animal.tail == "brush" else dark,
    }
    for part, colour in fixed.items():
        rgb[region == part] = colour
    rgb[region == body.EAR] *= np.float32(0.86)
    return rgb


def _soften(values: Floats, times: int) -> Floats:
    """Blur `(H, W)` values with a 1-2-1 kernel along both axes."""
    for _ in range(times):
        for axis in (0, 1):
            padded = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            low, high = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
            values = (low + high + 2 * values) * np.float32(0.25)
    return values


def _light(relief: Relief, pixel: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return how bright each pixel is and how far it faces up, both `(H, W)`."""
    height = np.where(relief.height < -5, np.float32(-0.25), relief.height)
    # Blurred, the steps between overlapping limbs become soft creases instead of noise.
    down, across = np.gradient(_soften(height, 1 + round(0.006 / pixel)) / np.float32(pixel))
    norm = np.float32(1) / np.sqrt(down * down + across * across + 1)
    aim = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.45, 0.9), rng.uniform(0.35, 0.7)])
    aim /= np.linalg.norm(aim)
    facing = (-across * aim[0] + down * aim[1] + aim[2]) * norm
    ambient = rng.uniform(0.38, 0.62)
    bright = np.float32(ambient) + np.float32(1.12 - ambient) * np.clip(facing, 0, 1)
    far = np.isin(relief.region, (body.LEG, body.FOOT, body.EAR, body.HORN)) & (height < 0.02)
    return bright * np.where(far, np.float32(0.70), np.float32(1)), down * norm


def draw_cutout(species: Species, rng: np.random.Generator, width: int, height: int) -> Cutout:
    """Draw one animal in a random pose, as large as `width` x `height` pixels allow, feet on the last row."""
    animal, pose = vary(species, rng), random_pose(rng)
    parts = build_skeleton(animal, pose)
    reach = [
        (min(p.start[0], p.end[0]) - max(p.thick, p.thin), max(p.start[0], p.end[0]) + max(p.thick, p.thin))
        for p in parts
    ]
    left, right = min(r[0] for r in reach) - 0.02, max(r[1] for r in reach) + 0.02
    top = max(max(p.start[1], p.end[1]) + max(p.thick, p.thin) for p in parts) + 0.02
    pixel = max((right - left) * pose.turn / width, top / height)
    columns, rows = max(8, int((right - left) * pose.turn / pixel)), max(8, int(top / pixel))
    xs = np.linspace(left, right, columns, dtype=np.float32)
    ys = np.linspace(top, 0, rows, dtype=np.float32)
    relief = inflate(parts, xs, ys)
    bright, slope = _light(relief, pixel, rng)
    x, y = np.broadcast_to(xs, relief.edge.shape), np.broadcast_to(ys[:, None], relief.edge.shape)
    rgb = _paint(animal, relief, x, y, slope, rng)
    fur = smooth_noise(rng, rows, columns, rows / 2, columns / 5)
    rgb *= (bright * (1 + np.float32(0.10) * fur))[..., None]
    alpha = np.clip(0.5 - (relief.edge + np.float32(0.008) * (fur + 0.6)) / np.float32(pixel), 0, 1)
    eyes = np.argwhere(relief.region == body.EYE)
    eye = None
    if len(eyes):
        row, column = eyes[len(eyes) // 2] if len(eyes) < 3 else eyes.mean(axis=0).astype(int)
        eye = (int(row), int(column))
        rgb[max(0, row - 1), column] = 0.85
    cutout = Cutout(np.clip(rgb, 0, 1), alpha.astype(np.float32), eye)
    if rng.random() < 0.5:
        return cutout
    flipped = None if eye is None else (eye[0], columns - 1 - eye[1])
    return replace(cutout, rgb=cutout.rgb[:, ::-1], alpha=cutout.alpha[:, ::-1], eye=flipped)
