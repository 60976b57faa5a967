"""The body of an animal: a skeleton of tapered capsules, inflated into a height field.

The animal lives in its own frame: x towards its nose, y up, the ground at y = 0, one unit a torso length.
Every capsule adds a height towards the viewer and the highest wins; `coat` paints and lights the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wildtune.demo.species import Species

Floats = NDArray[np.float32]
Point = tuple[float, float]

TORSO, NECK, LEG, FOOT, HEAD, NOSE, EAR, HORN, TAIL, TIP, MANE, EYE = range(12)


@dataclass(frozen=True)
class Capsule:
    """A stroke from `start` (radius `thick`) to `end` (radius `thin`), raised by `lift` to the viewer."""

    start: Point
    end: Point
    thick: float
    thin: float
    lift: float
    region: int


@dataclass(frozen=True)
class Pose:
    """How an animal stands.

    `phase` of its walk in radians, `stride` in leg lengths, `nod` of the neck in degrees (negative is down),
    `tail_lift` in [0, 1], and `turn`, how much of its length is seen, in (0, 1].
    """

    phase: float
    stride: float
    nod: float
    tail_lift: float
    turn: float


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: standing or walking, head up, level or grazing."""
    stride = float(rng.choice([0.05, 0.25, 0.45]))
    nod = float(rng.choice([rng.normal(0, 9), rng.uniform(-85, -30)], p=[0.72, 0.28]))
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=stride,
        nod=nod,
        tail_lift=float(rng.random()),
        turn=float(rng.uniform(0.78, 1.0)),
    )


def _chain(points: list[Point], radii: list[float], lift: float, region: int) -> list[Capsule]:
    """Join points by capsules whose radii meet."""
    pairs = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    return [Capsule(a, b, thick, thin, lift, region) for a, b, thick, thin in pairs]


def _bezier(a: Point, b: Point, c: Point, count: int) -> list[Point]:
    """Return `count` points on the quadratic curve from `a` to `c` bent towards `b`."""
    t = np.linspace(0, 1, count)[:, None]
    curve = (1 - t) ** 2 * np.array(a) + 2 * t * (1 - t) * np.array(b) + t**2 * np.array(c)
    return [(float(x), float(y)) for x, y in curve]


def _legs(animal: Species, pose: Pose, middle: float) -> list[Capsule]:
    """Four legs, the far pair behind the body; a diagonal walk."""
    parts: list[Capsule] = []
    thin = animal.leg_thickness
    for front, far, step in (
        (True, False, 0.0),
        (False, True, 0.3),
        (True, True, 3.14),
        (False, False, 3.44),
    ):
        swing = np.sin(pose.phase + step) * pose.stride * animal.leg
        raised = max(0.0, float(np.cos(pose.phase + step))) * pose.stride * 0.22 * animal.leg
        top = (0.34 if front else -0.38) + (0.05 if far else 0.0)
        hip = (top, middle - 0.08 * animal.depth)
        foot = (top + swing + (0.0 if front else -0.03), thin * 0.8 + raised)
        lift = -0.45 * animal.depth if far else 0.22 * animal.depth
        length = hip[1] - foot[1]
        if front:
            knee = (top + 0.55 * swing + 0.3 * raised, foot[1] + 0.47 * length)
            points, radii = [hip, knee, foot], [animal.depth * 0.26, thin * 1.15, thin * 0.8]
        else:
            knee = (top + 0.07 + 0.3 * swing, foot[1] + 0.62 * length)
            hock = (top - 0.09 + 0.75 * swing, foot[1] + 0.33 * length)
            points, radii = [hip, knee, hock, foot], [animal.depth * 0.34, thin * 1.7, thin, thin * 0.8]
        parts += _chain(points, radii, lift, LEG)
        toe = (foot[0] + thin * 0.9, foot[1] - thin * 0.1)
        parts.append(Capsule(foot, toe, thin * 0.85, thin * 0.75, lift + 0.01, FOOT))
    return parts


def _tail(animal: Species, pose: Pose, root: Point) -> list[Capsule]:
    """The tail of the animal's kind, hanging or raised."""
    size, lift = animal.tail_size, 0.05
    raised = pose.tail_lift
    if animal.tail == "stub":
        end = (root[0] - 0.6 * size, root[1] - size * (0.8 - raised))
        return [Capsule(root, end, 0.06, 0.035, lift, TAIL)]
    if animal.tail == "whip":
        end = (root[0] - size * (0.25 + 0.3 * raised), root[1] - size * (1.0 - 0.3 * raised))
        points = _bezier(root, (root[0] - 0.45 * size, root[1]), end, 5)
        tuft = 0.055 + 0.02 * animal.mane / 0.07
        stem = _chain(points[:4], [0.04, 0.035, 0.032, 0.035], lift, TAIL)
        return [*stem, Capsule(points[3], points[4], 0.035, tuft, lift, TIP)]
    if animal.tail == "brush":
        end = (root[0] - size * 0.9, root[1] - size * (0.55 - 0.75 * raised))
        points = _bezier(root, (root[0] - 0.5 * size, root[1] - 0.45 * size), end, 6)
        radii = [0.05, 0.085, 0.115, 0.11, 0.075, 0.02]
        return _chain(points[:5], radii[:5], lift, TAIL) + _chain(points[4:], radii[4:], lift, TIP)
    end = (root[0] - size * 0.75, root[1] + size * (0.75 * raised - 0.55))
    points = _bezier(root, (root[0] - 0.55 * size, root[1] - 0.75 * size), end, 7)
    return _chain(points[:6], [0.05, 0.042, 0.04, 0.038, 0.038, 0.038], lift, TAIL) + _chain(
        points[5:], [0.038, 0.034], lift, TIP
    )


def _horns(animal: Species, crown: Point, lift: float) -> list[Capsule]:
    """One horn or antler rising from `crown`."""
    size, (x, y) = animal.horn_size, crown
    if animal.horns == "spikes":
        return [Capsule(crown, (x - 0.35 * size, y + size), 0.028, 0.008, lift, HORN)]
    if animal.horns == "curved":
        points = _bezier(crown, (x + 0.1 * size, y + 1.1 * size), (x - 0.9 * size, y + 0.55 * size), 6)
        return _chain(points, [0.04, 0.038, 0.034, 0.028, 0.02, 0.01], lift, HORN)
    points = _bezier(crown, (x - 0.7 * size, y + 0.35 * size), (x - 0.25 * size, y + 1.1 * size), 6)
    parts = _chain(points, [0.022, 0.02, 0.019, 0.017, 0.014, 0.008], lift, HORN)
    for index, reach in ((1, 0.30), (3, 0.38), (4, 0.26)):
        px, py = points[index]
        tine = (px + reach * size, py + 0.55 * reach * size)
        parts.append(Capsule((px, py), tine, 0.015, 0.007, lift, HORN))
    return parts


def _head(animal: Species, pose: Pose, centre: Point) -> list[Capsule]:
    """Skull, snout, nose, eye, ears and horns around `centre`."""
    (x, y), r = centre, animal.head
    down = np.deg2rad(-22 + 0.45 * pose.nod)
    ahead = (float(np.cos(down)), float(np.sin(down)))
    up = (-ahead[1], ahead[0])

    def at(forward: float, upward: float) -> Point:
        return (x + forward * ahead[0] + upward * up[0], y + forward * ahead[1] + upward * up[1])

    reach, tip = r * 0.55 + animal.snout, animal.snout_thickness
    lift = 0.12
    parts = [
        Capsule(centre, at(0.35 * r, -0.1 * r), r, 0.92 * r, lift, HEAD),
        Capsule(at(0.3 * r, -0.2 * r), at(reach, -0.38 * r), 0.72 * r, tip, lift + 0.02, HEAD),
        Capsule(at(reach + 0.4 * tip, -0.3 * r), at(reach + 0.5 * tip, -0.3 * r), 0.62 * tip, 0.5 * tip, 0.2, NOSE),
        Capsule(at(0.42 * r, 0.28 * r), at(0.46 * r, 0.28 * r), 0.17 * r, 0.17 * r, 0.4, EYE),
    ]
    size = animal.ear_size
    for far in (True, False):
        shift, level = (0.35 * r, -0.1) if far else (0.0, lift + r * 0.6)
        base = at(-0.25 * r + shift, 0.72 * r)
        if animal.ears == "round":
            parts.append(Capsule(base, at(-0.3 * r + shift, 0.75 * r + size * 0.6), size * 0.8, size * 0.8, level, EAR))
        elif animal.ears == "pointed":
            parts.append(Capsule(base, at(-0.35 * r + shift, 0.8 * r + size), size * 0.42, 0.01, level, EAR))
        else:
            middle, end = (
                at(-0.7 * r + shift, 0.85 * r + 0.45 * size),
                at(-1.1 * r + shift, 0.95 * r + 0.9 * size),
            )
            parts += _chain([base, middle, end], [size * 0.2, size * 0.28, size * 0.08], level, EAR)
        if animal.horns != "none":
            parts += _horns(animal, at(0.15 * r + shift, 0.85 * r), -0.15 if far else lift + 0.05)
    return parts


def build_skeleton(animal: Species, pose: Pose) -> list[Capsule]:
    """Return the capsules of one animal in its own frame, in no particular order."""
    half = animal.depth / 2
    middle = animal.leg + 0.62 * half
    rump, chest = (-0.36, middle), (0.32, middle + 0.1 * half)
    parts = [
        Capsule(rump, chest, half * 0.94, half, 0.0, TORSO),
        Capsule((-0.1, middle - 0.12 * half), (0.2, middle - 0.16 * half), half * 0.9, half, 0.0, TORSO),
    ]
    if animal.hump > 0.01:
        top = (0.22, middle + 0.3 * half + animal.hump)
        parts.append(Capsule(top, (-0.1, middle + 0.1 * half), half * 0.85, half * 0.8, 0.0, TORSO))
    base = (0.36, middle + 0.30 * half)
    # A short neck cannot bring the head to the ground, and no neck can push it under.
    lowest = np.rad2deg(np.arcsin(np.clip((1.2 * animal.head + 0.04 - base[1]) / (animal.neck + 0.08), -0.95, 0.95)))
    angle = np.deg2rad(max(animal.neck_angle + pose.nod, float(lowest)))
    reach = animal.neck + 0.5 * half
    head = (base[0] + reach * float(np.cos(angle)), base[1] + reach * float(np.sin(angle)))
    parts.append(Capsule(base, head, half * 0.74, animal.head * 0.72, 0.03, NECK))
    if animal.mane > 0.01:
        back = (-float(np.sin(angle)), float(np.cos(angle)))
        start = (base[0] + back[0] * half * 0.66 - 0.04, base[1] + back[1] * half * 0.66)
        end = (head[0] + back[0] * animal.head * 0.85, head[1] + back[1] * animal.head * 0.85)
        parts.append(Capsule(start, end, animal.mane, animal.mane * 0.7, 0.02, MANE))
    root = (-0.36 - half * 0.82, middle + 0.32 * half)
    return parts + _legs(animal, pose, middle) + _tail(animal, pose, root) + _head(animal, pose, head)


@dataclass
class Relief:
    """What the capsules look like from the side, one value a pixel, each `(H, W)`.

    `height` towards the viewer and `edge`, the signed distance to the outline (negative inside), are in torso
    lengths; `region` is the part seen.
    """

    height: Floats
    edge: Floats
    region: NDArray[np.int8]


def inflate(parts: list[Capsule], xs: Floats, ys: Floats) -> Relief:
    """Raise every capsule over the grid; `xs` is `(W,)` ascending, `ys` is `(H,)` descending."""
    shape = (len(ys), len(xs))
    height = np.full(shape, -9.0, np.float32)
    edge = np.full(shape, 9.0, np.float32)
    region = np.zeros(shape, np.int8)
    for part in parts:
        (ax, ay), (bx, by), wide = part.start, part.end, max(part.thick, part.thin) + 0.03
        left, right = np.searchsorted(xs, [min(ax, bx) - wide, max(ax, bx) + wide])
        top, bottom = np.searchsorted(-ys, [-max(ay, by) - wide, -min(ay, by) + wide])
        window = (slice(top, bottom), slice(left, right))
        px, py = xs[None, left:right] - np.float32(ax), ys[top:bottom, None] - np.float32(ay)
        dx, dy = bx - ax, by - ay
        along = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(dx * dx + dy * dy + 1e-9), 0, 1)
        radius = np.float32(part.thick) + along * np.float32(part.thin - part.thick)
        squared = (px - along * np.float32(dx)) ** 2 + (py - along * np.float32(dy)) ** 2
        np.minimum(edge[window], np.sqrt(squared) - radius, out=edge[window])
        inside = radius * radius - squared
        level = np.where(inside > 0, np.sqrt(np.maximum(inside, 0)) + np.float32(part.lift), np.float32(-9))
        seen = level > height[window]
        height[window][seen] = level[seen]
        region[window][seen] = part.region
    return Relief(height, edge, region)
