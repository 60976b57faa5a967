"""The places the animals are seen in: a backdrop behind them and grass, reeds or branches before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from wildtune.demo.noise import Floats, layered_noise, smooth_noise
from wildtune.demo.species import Colour

Ink = tuple[int, int, int]


@dataclass(frozen=True)
class Habitat:
    """One kind of place. Colours in [0, 1]; counts are ranges, taken anew for every photo.

    `sky` runs from the top to the horizon, `ground` from the horizon to the camera. `features` are the things
    that stand around: names of `_FEATURES`, and `flakes` for falling snow.
    """

    name: str
    sky: tuple[Colour, Colour]
    hills: Colour
    ground: tuple[Colour, Colour]
    growth: Colour
    blades: tuple[int, int]
    features: tuple[str, ...]


HABITATS = (
    Habitat(
        "meadow",
        ((0.45, 0.66, 0.88), (0.83, 0.90, 0.92)),
        (0.42, 0.55, 0.45),
        ((0.55, 0.62, 0.30), (0.33, 0.46, 0.18)),
        (0.36, 0.50, 0.18),
        (60, 160),
        ("hills", "rounds", "clouds"),
    ),
    Habitat(
        "forest",
        ((0.50, 0.60, 0.45), (0.72, 0.78, 0.62)),
        (0.27, 0.36, 0.22),
        ((0.38, 0.36, 0.20), (0.24, 0.22, 0.13)),
        (0.26, 0.36, 0.14),
        (30, 90),
        ("rounds", "trunks"),
    ),
    Habitat(
        "snow",
        ((0.66, 0.75, 0.85), (0.90, 0.92, 0.94)),
        (0.62, 0.69, 0.77),
        ((0.93, 0.95, 0.97), (0.80, 0.85, 0.92)),
        (0.55, 0.50, 0.38),
        (4, 30),
        ("hills", "conifers", "flakes"),
    ),
    Habitat(
        "shore",
        ((0.55, 0.72, 0.86), (0.90, 0.88, 0.80)),
        (0.38, 0.48, 0.50),
        ((0.42, 0.56, 0.62), (0.52, 0.50, 0.38)),
        (0.45, 0.47, 0.22),
        (20, 70),
        ("hills", "ripples", "rocks", "clouds"),
    ),
    Habitat(
        "desert",
        ((0.48, 0.68, 0.88), (0.95, 0.85, 0.68)),
        (0.74, 0.52, 0.36),
        ((0.88, 0.72, 0.48), (0.72, 0.52, 0.32)),
        (0.55, 0.48, 0.26),
        (6, 40),
        ("hills", "cacti", "rocks", "sun"),
    ),
    Habitat(
        "savanna",
        ((0.58, 0.70, 0.82), (0.94, 0.88, 0.72)),
        (0.60, 0.56, 0.38),
        ((0.80, 0.70, 0.40), (0.62, 0.50, 0.25)),
        (0.70, 0.58, 0.28),
        (80, 180),
        ("hills", "rounds", "sun"),
    ),
    Habitat(
        "dusk",
        ((0.34, 0.30, 0.52), (0.95, 0.55, 0.32)),
        (0.24, 0.17, 0.28),
        ((0.50, 0.36, 0.34), (0.30, 0.22, 0.22)),
        (0.24, 0.20, 0.15),
        (30, 100),
        ("hills", "conifers", "sun", "rounds"),
    ),
)


@dataclass(frozen=True)
class _Place:
    """A habitat as one photo has it: the size in pixels, the horizon's row and the colours, each `(3,)`."""

    width: int
    height: int
    horizon: float
    haze: Floats
    hills: Floats
    ground: tuple[Floats, Floats]
    growth: Floats


def ink(colour: Colour | Floats, rng: np.random.Generator, spread: float = 0.10) -> Ink:
    """Return a drawing colour near `colour`: its brightness off by `spread` (a standard deviation)."""
    scaled = np.clip(np.asarray(colour) * (1 + spread * rng.standard_normal()), 0, 1) * 255
    return int(scaled[0]), int(scaled[1]), int(scaled[2])


def _shift(colour: Colour, tint: Floats) -> Floats:
    """One photo's own version of a habitat colour."""
    return np.clip(np.asarray(colour, np.float32) * tint, 0, 1)


def _ridge(rng: np.random.Generator, width: int, cells: float) -> Floats:
    """A skyline in [0, 1], `(width,)`."""
    return (layered_noise(rng, 2, width, cells)[0] + 1) / 2


def _mix(near: Floats, far: Floats, share: float) -> Floats:
    """Return `near` with the given share of `far` in it."""
    return near * (1 - share) + far * share


def _hills(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Two or three ridges, the farther the paler."""
    for step in range(int(rng.integers(1, 4)), 0, -1):
        tall = place.height * rng.uniform(0.05, 0.16) * step
        line = place.horizon - tall * _ridge(rng, place.width, rng.uniform(1.5, 5))
        edge = [(x, float(line[x])) for x in range(0, place.width, 3)] + [(place.width, float(line[-1]))]
        colour = ink(_mix(place.hills, place.haze, 0.25 * step), rng, 0.04)
        draw.polygon([*edge, (place.width, place.horizon + 1), (0, place.horizon + 1)], fill=colour)


def _trunks(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Tree trunks from thin and hazy to thick and dark."""
    bark = np.array([0.34, 0.27, 0.20], np.float32) if rng.random() < 0.7 else np.array([0.72, 0.70, 0.66], np.float32)
    for near in np.sort(rng.random(int(rng.integers(5, 14)))):
        wide = place.width * (0.012 + 0.05 * near * rng.uniform(0.5, 1.2))
        x, lean = rng.uniform(0, place.width), rng.normal(0, 0.03) * place.height
        foot = place.horizon + 0.35 * near * (place.height - place.horizon)
        dark = _mix(bark, place.haze, 0.55 * (1 - float(near)))
        sides = [
            (x - wide * 0.35 + lean, -2),
            (x + wide * 0.35 + lean, -2),
            (x + wide * 0.6, foot),
            (x - wide * 0.6, foot),
        ]
        draw.polygon(sides, fill=ink(dark, rng))
        draw.line(
            [(x + wide * 0.22 + lean, -2), (x + wide * 0.38, foot)],
            fill=ink(dark * 0.7, rng),
            width=max(1, int(wide / 3)),
        )
        for _ in range(int(3 * near)):
            y, side = rng.uniform(0, place.horizon * 0.7), rng.choice([-1, 1])
            tip = (x + side * wide * rng.uniform(2, 5), y - wide * rng.uniform(0.5, 3))
            draw.line([(x + lean * (1 - y / foot), y), tip], fill=ink(dark, rng), width=max(1, int(wide / 5)))


def _conifers(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Firs in three tiers."""
    green = place.growth * 0.4 + np.array([0.06, 0.12, 0.10], np.float32)
    for near in np.sort(rng.random(int(rng.integers(3, 16)))):
        tall = place.height * (0.14 + 0.40 * near * rng.random())
        x, foot = rng.uniform(0, place.width), place.horizon + 0.14 * near * (place.height - place.horizon)
        colour = ink(_mix(green, place.haze, 0.5 * (1 - float(near))), rng)
        for tier in range(4):
            low, wide = foot - tall * (0.05 + 0.22 * tier), tall * (0.24 - 0.05 * tier)
            draw.polygon([(x - wide, low), (x + wide, low), (x, low - tall * 0.36)], fill=colour)


def _rounds(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Bushes and broad-leaved trees: clouds of leaves, some on a stem."""
    for near in np.sort(rng.random(int(rng.integers(2, 9)))):
        size = place.height * (0.03 + 0.10 * near * rng.random())
        x, foot = rng.uniform(0, place.width), place.horizon + 0.22 * near * (place.height - place.horizon)
        colour = _mix(place.growth * 0.75, place.haze, 0.5 * (1 - float(near)))
        middle = foot - size * rng.choice([0.5, 2.2])
        draw.line([(x, foot), (x, middle)], fill=ink(colour * 0.5, rng), width=max(1, int(size / 6)))
        for _ in range(9):
            px, py = x + size * rng.normal(0, 0.7), middle + size * rng.normal(0, 0.3)
            r = size * rng.uniform(0.3, 0.6)
            draw.ellipse([px - r, py - r, px + r, py + 0.8 * r], fill=ink(colour, rng, 0.12))


def _rocks(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Stones lying about, lit from above."""
    for _ in range(int(rng.integers(1, 7))):
        near = rng.random()
        x, y = (
            rng.uniform(0, place.width),
            place.horizon + (0.1 + 0.8 * near) * (place.height - place.horizon),
        )
        r = place.height * rng.uniform(0.01, 0.06) * (0.4 + near)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 8))
        reach = rng.uniform(0.7, 1.2, 8)
        stone = np.array([0.48, 0.45, 0.42], np.float32)
        for scale, shade in ((1.0, 0.65), (0.75, 1.0)):
            outline = [
                (
                    float(x + r * 1.5 * scale * k * np.cos(a)),
                    float(y - r * (1 - scale) + r * 0.8 * scale * k * np.sin(a)),
                )
                for a, k in zip(angles, reach, strict=True)
            ]
            draw.polygon(outline, fill=ink(stone * shade, rng, 0.06))


def _cacti(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Columns with arms."""
    for _ in range(int(rng.integers(0, 5))):
        near = rng.random()
        tall, x = place.height * (0.07 + 0.22 * near), rng.uniform(0, place.width)
        foot = place.horizon + 0.25 * near * (place.height - place.horizon)
        colour = ink(_mix(np.array([0.30, 0.42, 0.24], np.float32), place.haze, 0.4 * (1 - near)), rng)
        wide = max(2, int(tall * 0.13))
        draw.line([(x, foot), (x, foot - tall)], fill=colour, width=wide)
        for side in (-1, 1):
            y = foot - tall * rng.uniform(0.3, 0.6)
            elbow = x + side * tall * 0.22
            draw.line(
                [(x, y), (elbow, y), (elbow, y - tall * 0.28)],
                fill=colour,
                width=max(1, wide * 2 // 3),
                joint="curve",
            )


def _ripples(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """Water from the horizon to a wavy shore, with glints."""
    depth = (place.height - place.horizon) * rng.uniform(0.12, 0.55)
    shore = place.horizon + depth * (0.75 + 0.35 * _ridge(rng, place.width, 3))
    line = [(x, float(shore[x])) for x in range(0, place.width, 4)] + [(place.width, float(shore[-1]))]
    water = _mix(place.ground[0], place.haze, 0.25)
    draw.polygon([(0, place.horizon), *line, (place.width, place.horizon)], fill=ink(water, rng, 0.05))
    for _ in range(int(rng.integers(20, 60))):
        down = rng.random() ** 1.5
        x, y = rng.uniform(0, place.width), place.horizon + 0.75 * depth * down
        half = place.width * (0.01 + 0.06 * down) * rng.random()
        draw.line([(x - half, y), (x + half, y)], fill=ink(water * rng.choice([0.82, 1.15]), rng, 0.05))


def _sun(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """A low sun, in one photo of two."""
    if rng.random() < 0.5:
        x, y, r = (
            rng.uniform(0, place.width),
            place.horizon * rng.uniform(0.25, 1.0),
            place.height * rng.uniform(0.03, 0.07),
        )
        for scale, share in ((1.8, 0.55), (1.35, 0.35), (1.0, 0.0)):
            glow = _mix(np.array([1.0, 0.94, 0.74], np.float32), place.haze, share)
            draw.ellipse([x - r * scale, y - r * scale, x + r * scale, y + r * scale], fill=ink(glow, rng, 0.01))


def _clouds(draw: ImageDraw.ImageDraw, place: _Place, rng: np.random.Generator) -> None:
    """A few heaps of cloud."""
    white = _mix(place.haze, np.ones(3, np.float32), 0.7)
    for _ in range(int(rng.integers(0, 4))):
        x, y, size = (
            rng.uniform(0, place.width),
            rng.uniform(0, place.horizon * 0.7),
            place.width * rng.uniform(0.03, 0.09),
        )
        for _ in range(7):
            px, py, r = x + size * rng.normal(), y + size * 0.16 * rng.normal(), size * rng.uniform(0.2, 0.5)
            draw.ellipse([px - r, py - 0.5 * r, px + r, py + 0.5 * r], fill=ink(white, rng, 0.02))


_FEATURES = {
    "sun": _sun,
    "clouds": _clouds,
    "hills": _hills,
    "ripples": _ripples,
    "conifers": _conifers,
    "rounds": _rounds,
    "trunks": _trunks,
    "cacti": _cacti,
    "rocks": _rocks,
}


@dataclass(frozen=True)
class Backdrop:
    """A painted backdrop: `rgb` `(H, W, 3)` in [0, 1], the `horizon`'s row, the colour of the growth."""

    rgb: Floats
    horizon: float
    growth: Floats
    snowing: bool


def _blades(draw: ImageDraw.ImageDraw, place: _Place, count: int, rng: np.random.Generator) -> None:
    """Tufts of grass on the ground, taller towards the camera."""
    for near in np.sort(rng.random(count // 3)):
        y = place.horizon + near * (place.height - place.horizon)
        x, tall = rng.uniform(0, place.width), place.height * (0.012 + 0.05 * near * rng.random())
        colour = ink(_mix(place.growth, place.ground[0], 0.4 * rng.random()), rng, 0.15)
        for lean in rng.normal(0, 0.5, 3):
            draw.line([(x, y), (x + lean * tall, y - tall)], fill=colour)


def paint_backdrop(rng: np.random.Generator, width: int, height: int) -> Backdrop:
    """Paint a random place, `width` x `height` pixels."""
    habitat = HABITATS[int(rng.integers(len(HABITATS)))]
    tint = (1 + rng.normal(0, 0.06) + rng.normal(0, 0.05, 3)).astype(np.float32)
    horizon = height * float(rng.uniform(0.22, 0.62))
    sky = [_shift(colour, tint) for colour in habitat.sky]
    ground = (_shift(habitat.ground[0], tint), _shift(habitat.ground[1], tint))
    growth = _shift(habitat.growth, (tint + rng.normal(0, 0.08, 3)).astype(np.float32))
    place = _Place(width, height, horizon, sky[1], _shift(habitat.hills, tint), ground, growth)
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    up = np.clip(rows / np.float32(horizon), 0, 1)
    down = np.clip((rows - horizon) / np.float32(height - horizon), 0, 1)
    base = np.where(rows < horizon, sky[0] + up * (sky[1] - sky[0]), ground[0] + down * (ground[1] - ground[0]))
    image = Image.fromarray((np.broadcast_to(base, (height, width, 3)) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for name, feature in _FEATURES.items():
        if name in habitat.features and rng.random() < 0.85:
            feature(draw, place, rng)
    _blades(draw, place, int(rng.integers(*habitat.blades)), rng)
    # The camera is focused on the animal, so what lies behind it is a little soft.
    image = image.filter(ImageFilter.BoxBlur(width / 400 * float(rng.uniform(0.4, 2.0))))
    rgb = np.asarray(image, dtype=np.float32) / np.float32(255)
    texture = layered_noise(rng, height, width, rng.uniform(4, 9)) * np.where(rows[..., 0] > horizon, 0.13, 0.035)
    streaks = smooth_noise(rng, height, width, height / 3, width / 10) * np.float32(0.09)
    rgb = rgb * (1 + texture + np.where(rows[..., 0] > horizon, streaks, np.float32(0)))[..., None].astype(np.float32)
    return Backdrop(np.clip(rgb, 0, 1), horizon, growth, "flakes" in habitat.features and rng.random() < 0.5)


def _grass(draw: ImageDraw.ImageDraw, size: tuple[int, int], growth: Floats, rng: np.random.Generator) -> None:
    """Grass close to the camera, rising from the lower edge."""
    width, height = size
    reach, middle = height * rng.uniform(0.10, 0.42), rng.uniform(0, width)
    for _ in range(int(rng.integers(15, 70))):
        x, tall = rng.normal(middle, width * 0.35), reach * rng.uniform(0.4, 1.1)
        bend = rng.normal(0, 0.25) * tall
        thick = height * 0.005 * rng.uniform(0.6, 1.8)
        points = [
            (x - thick, height),
            (x + bend * 0.3 - thick, height - tall * 0.6),
            (x + bend, height - tall),
        ]
        draw.polygon(
            [*points, (x + bend * 0.3 + thick, height - tall * 0.6), (x + thick, height)],
            fill=(*ink(growth, rng, 0.2), 255),
        )


def _branch(draw: ImageDraw.ImageDraw, size: tuple[int, int], growth: Floats, rng: np.random.Generator) -> None:
    """A twig with leaves reaching in from one side."""
    width, height = size
    side, y = rng.choice([0.0, 1.0]), rng.uniform(0.0, 0.75) * height
    length, slope = width * rng.uniform(0.25, 0.75), rng.normal(0.05, 0.25)
    ahead = 1.0 if side == 0 else -1.0
    points = [
        (side * width + ahead * length * t, y + length * slope * t + rng.normal(0, 0.008) * height)
        for t in np.linspace(-0.05, 1, 7)
    ]
    draw.line(points, fill=(*ink((0.25, 0.19, 0.13), rng), 255), width=max(1, int(height * 0.012)), joint="curve")
    leafy = rng.random() < 0.75
    for _ in range(int(rng.integers(14, 40)) if leafy else 4):
        x, base = points[int(rng.integers(1, 7))]
        x += rng.normal(0, 0.03) * width
        angle, long = rng.uniform(0, 2 * np.pi), height * rng.uniform(0.02, 0.055)
        dx, dy = float(np.cos(angle) * long), float(np.sin(angle) * long)
        leaf = [
            (x, base),
            (x + dx / 2 - dy / 4, base + dy / 2 + dx / 4),
            (x + dx, base + dy),
            (x + dx / 2 + dy / 4, base + dy / 2 - dx / 4),
        ]
        draw.polygon(leaf, fill=(*ink(growth * 0.9, rng, 0.2), 255))


def grow_foreground(image: Image.Image, backdrop: Backdrop, rng: np.random.Generator) -> Image.Image:
    """Return the RGB `image` with grass, a branch or falling snow before it, or nothing in some photos."""
    kinds = [name for name, chance in (("grass", 0.45), ("branch", 0.22)) if rng.random() < chance]
    if kinds:
        # Starting from the growth's own colour keeps dark fringes out of the blurred edges.
        layer = Image.new("RGBA", image.size, (*ink(backdrop.growth, rng, 0), 0))
        draw = ImageDraw.Draw(layer)
        for kind in kinds:
            (_grass if kind == "grass" else _branch)(draw, image.size, backdrop.growth, rng)
        layer = layer.filter(ImageFilter.BoxBlur(image.width / 400 * float(rng.uniform(0.3, 2.2))))
        image.paste(layer, (0, 0), layer)
    if backdrop.snowing:
        draw = ImageDraw.Draw(image)
        for x, y, r in rng.random((int(rng.integers(20, 90)), 3)) * [
            image.width,
            image.height,
            image.height * 0.009,
        ]:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=(240, 244, 250))
    return image
