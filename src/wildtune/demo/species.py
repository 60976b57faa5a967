"""What an invented animal is made of: a few proportions, a coat and some colours."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

Colour = tuple[float, float, float]
"""Red, green and blue, each in [0, 1]."""

COATS = ("plain", "stripes", "spots", "rosettes", "patches", "saddle", "belt", "speckles")
TAILS = ("stub", "whip", "brush", "long")
HORNS = ("none", "spikes", "curved", "antlers")
EARS = ("round", "pointed", "long")

# Fur has few colours, so species share them: a colour alone seldom names the animal.
FUR: dict[str, Colour] = {
    "sand": (0.80, 0.66, 0.45),
    "russet": (0.70, 0.38, 0.18),
    "brown": (0.45, 0.30, 0.19),
    "umber": (0.30, 0.21, 0.15),
    "grey": (0.52, 0.50, 0.47),
    "slate": (0.34, 0.35, 0.38),
    "cream": (0.90, 0.84, 0.71),
    "black": (0.14, 0.13, 0.13),
    "white": (0.93, 0.92, 0.89),
    "ochre": (0.76, 0.54, 0.24),
}


@dataclass(frozen=True)
class Species:
    """One invented species. Lengths are in torso lengths (nose and tail not counted), angles in degrees.

    `base` and `mark` name colours of `FUR`; each animal takes one of the `base` colours and varies it.
    `coat_scale` is the size of one stripe, spot or patch. `pale_belly` in [0, 1] lightens the underside.
    """

    name: str
    depth: float = 0.42
    leg: float = 0.55
    leg_thickness: float = 0.055
    neck: float = 0.40
    neck_angle: float = 45.0
    head: float = 0.12
    snout: float = 0.20
    snout_thickness: float = 0.06
    hump: float = 0.0
    ears: str = "pointed"
    ear_size: float = 0.13
    horns: str = "none"
    horn_size: float = 0.0
    tail: str = "stub"
    tail_size: float = 0.2
    mane: float = 0.0
    coat: str = "plain"
    coat_scale: float = 0.14
    pale_belly: float = 0.4
    dark_legs: float = 0.0
    base: tuple[str, ...] = ("brown",)
    mark: str = "cream"


_DEER = Species(
    "plain_deer",
    depth=0.38,
    leg=0.68,
    leg_thickness=0.038,
    neck=0.42,
    neck_angle=58,
    head=0.095,
    snout=0.17,
    snout_thickness=0.05,
    ears="long",
    ear_size=0.16,
    horns="antlers",
    horn_size=0.34,
    tail="stub",
    tail_size=0.14,
    pale_belly=0.7,
    base=("russet", "brown", "sand", "grey"),
)
_HORSE = Species(
    "patched_horse",
    depth=0.45,
    leg=0.62,
    leg_thickness=0.05,
    neck=0.44,
    neck_angle=48,
    head=0.115,
    snout=0.25,
    snout_thickness=0.07,
    ear_size=0.10,
    tail="whip",
    tail_size=0.50,
    mane=0.07,
    coat="patches",
    coat_scale=0.34,
    pale_belly=0.2,
    base=("cream", "sand", "white", "ochre"),
    mark="umber",
)
_FOX = Species(
    "bushy_fox",
    depth=0.30,
    leg=0.36,
    leg_thickness=0.040,
    neck=0.20,
    neck_angle=32,
    head=0.115,
    snout=0.19,
    snout_thickness=0.034,
    ear_size=0.17,
    tail="brush",
    tail_size=0.62,
    pale_belly=0.8,
    dark_legs=0.7,
    base=("russet", "ochre", "grey", "sand"),
)

_DEMO = (
    replace(_DEER, name="spotted_deer", coat="spots", coat_scale=0.105),
    _DEER,
    replace(_HORSE, name="striped_horse", coat="stripes", coat_scale=0.115),
    _HORSE,
    _FOX,
    replace(
        _FOX,
        name="slim_jackal",
        leg=0.52,
        tail="long",
        tail_size=0.46,
        ear_size=0.19,
        coat="saddle",
        mark="slate",
        dark_legs=0.2,
    ),
    Species(
        "spotted_cat",
        depth=0.31,
        leg=0.40,
        leg_thickness=0.058,
        neck=0.17,
        neck_angle=25,
        head=0.13,
        snout=0.09,
        snout_thickness=0.066,
        ears="round",
        ear_size=0.075,
        tail="long",
        tail_size=0.80,
        coat="rosettes",
        coat_scale=0.13,
        pale_belly=0.7,
        base=("ochre", "sand", "grey", "cream"),
        mark="black",
    ),
    Species(
        "humped_bear",
        depth=0.56,
        leg=0.36,
        leg_thickness=0.095,
        neck=0.20,
        neck_angle=12,
        head=0.17,
        snout=0.17,
        snout_thickness=0.075,
        hump=0.10,
        ears="round",
        ear_size=0.075,
        tail="stub",
        tail_size=0.06,
        pale_belly=0.0,
        dark_legs=0.4,
        base=("brown", "umber", "ochre", "slate"),
        mark="umber",
    ),
)

DEMO_SPECIES: dict[str, Species] = {species.name: species for species in _DEMO}
"""The demo's species by name."""


def random_species(name: str, rng: np.random.Generator) -> Species:
    """Invent a species: proportions, coat and colours drawn independently from wide ranges."""
    horns = str(rng.choice(HORNS, p=[0.5, 0.2, 0.15, 0.15]))
    tail = str(rng.choice(TAILS))
    ears = str(rng.choice(EARS))
    bases = rng.choice(sorted(FUR), size=int(rng.integers(2, 5)), replace=False)
    leg = float(rng.uniform(0.25, 0.80))
    return Species(
        name,
        depth=float(rng.uniform(0.26, 0.60)),
        leg=leg,
        leg_thickness=float(rng.uniform(0.035, 0.10)),
        neck=float(rng.uniform(0.12, min(0.75, leg + 0.1))),
        neck_angle=float(rng.uniform(10, 68)),
        head=float(rng.uniform(0.085, 0.17)),
        snout=float(rng.uniform(0.08, 0.27)),
        snout_thickness=float(rng.uniform(0.03, 0.08)),
        hump=float(rng.choice([0.0, 0.0, 0.06, 0.12])),
        ears=ears,
        ear_size=float(rng.uniform(0.06, 0.10) if ears == "round" else rng.uniform(0.09, 0.21)),
        horns=horns,
        horn_size=float(rng.uniform(0.12, 0.40)),
        tail=tail,
        tail_size=float(rng.uniform(0.06, 0.2) if tail == "stub" else rng.uniform(0.3, 0.85)),
        mane=float(rng.choice([0.0, 0.0, 0.07])),
        coat=str(rng.choice(COATS)),
        coat_scale=float(rng.uniform(0.08, 0.22)),
        pale_belly=float(rng.uniform(0, 0.9)),
        dark_legs=float(rng.choice([0.0, 0.0, 0.4, 0.8])),
        base=tuple(str(name) for name in bases),
        mark=str(rng.choice(sorted(FUR))),
    )


def vary(species: Species, rng: np.random.Generator, amount: float = 0.09) -> Species:
    """Return one animal of the species: every proportion off by about `amount` of itself (one sd)."""
    changes: dict[str, float] = {}
    for field in fields(species):
        value = getattr(species, field.name)
        if isinstance(value, (int, float)):
            changes[field.name] = float(value) * float(np.clip(1 + amount * rng.standard_normal(), 0.75, 1.25))
    return replace(species, **changes)  # type: ignore[arg-type]
