"""What the user asks for: a recipe, its stages and its augmentation, each option defined here and only here.

A recipe is a TOML file. `load_recipe` reads a built-in one by name or any file, applies `--set` changes and
reports every mistake at once, with the nearest valid name.
"""

from __future__ import annotations

import difflib
import importlib.resources
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
import tomlkit

from wildtune import files
from wildtune.errors import RecipeError

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[float, pydantic.Field(gt=0)]
NotNegative = Annotated[float, pydantic.Field(ge=0)]
Count = Annotated[int, pydantic.Field(ge=1)]


class _Table(pydantic.BaseModel):
    """A frozen TOML table that refuses unknown keys and values of another type."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Input(_Table):
    """How every photo becomes the model's input, in training and afterwards alike."""

    size: Literal["auto", "larger"] | Annotated[int, pydantic.Field(ge=16, le=2048)] = pydantic.Field(
        "auto",
        description="side of the square input in pixels; auto: the backbone's own; larger: a multiple of 32 "
        "about a quarter above it, where the network takes that",
    )
    fit: Literal["squash", "crop", "pad"] = pydantic.Field(
        "squash",
        description="squash: both sides to `resize`, the whole animal with its shape squashed; crop: shorter "
        "side to `resize`, then the centre; pad: the whole photo at its own shape on the mean colour",
    )
    resize: Literal["auto"] | Annotated[int, pydantic.Field(ge=16, le=4096)] = pydantic.Field(
        "auto", description="pixels the photo is resized to before the centre `size` is cut out; auto: `size`"
    )
    antialias: bool = pydantic.Field(True, description="smooth while shrinking; false is what TensorFlow's resize does")
    contrast: Positive = pydantic.Field(
        1.0, description="factor about each channel's mean, on every photo, validation too; 1: none"
    )
    brightness: float = pydantic.Field(
        0.0, description="added to every pixel on the 0-255 scale, on every photo, validation too"
    )
    clip: bool = pydantic.Field(True, description="limit pixels to 0-255 after contrast, brightness and noise")


class SplitOptions(_Table):
    """Which share of the photos is kept from training."""

    val: Annotated[float, pydantic.Field(gt=0, lt=1)] = pydantic.Field(0.10, description="share for validation")
    test: Annotated[float, pydantic.Field(ge=0, lt=1)] = pydantic.Field(
        0.15, description="share looked at once, at the end; 0: none"
    )
    seed: int = pydantic.Field(0, description="another number gives another split")
    group_by: Literal["auto", "none", "folder", "camera"] = pydantic.Field(
        "auto",
        description="what stays on one side; none: the groups you give; auto: also near copies, and bursts of one "
        "camera within 60 s; folder: also each first folder below a class; camera: also all photos of one camera",
    )
    keep: str = pydantic.Field("", description="split.csv of an earlier run, whose photos keep their sides")
    folds: Annotated[int, pydantic.Field(ge=0, le=100)] = pydantic.Field(
        0, description="above 0: the test photos are one of so many folds, whatever `test` says; 0: no folds"
    )
    fold: Count = pydantic.Field(1, description="which fold is the test, from 1")

    @property
    def test_share(self) -> float:
        """The share of the photos that the test is to have, 0-1."""
        return 1 / self.folds if self.folds else self.test

    @pydantic.model_validator(mode="after")
    def _one_of_the_folds(self) -> SplitOptions:
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2. Got 1")
        if self.folds and self.fold > self.folds:
            raise ValueError(f"fold must be one of the {self.folds} folds, from 1. Got {self.fold}")
        if self.folds and self.keep:
            raise ValueError("folds divide all photos anew, so keep must be empty with them")
        return self

    @pydantic.model_validator(mode="after")
    def _leave_some_to_train(self) -> SplitOptions:
        if self.val + max(self.test, self.test_share) >= 1:
            raise ValueError("val and test (or one fold) together must be below 1, so that photos are left to train on")
        return self


class Augment(_Table):
    """What happens to training photos only, anew for each view. Neutral values by default."""

    crop: Literal["centre", "random", "random_resized"] = pydantic.Field(
        "centre", description="centre: as in validation; random: a place of the same size; random_resized: also a size"
    )
    crop_scale: tuple[Positive, Positive] = pydantic.Field(
        (0.35, 1.0), strict=False, description="random_resized: share of the photo's area, lowest and highest"
    )
    crop_ratio: tuple[Positive, Positive] = pydantic.Field(
        (0.75, 1.3333), strict=False, description="random_resized: width over height, lowest and highest"
    )
    flip: Fraction = pydantic.Field(0.0, description="chance of mirroring left and right")
    rotation: Annotated[float, pydantic.Field(ge=0, le=0.5)] = pydantic.Field(
        0.0, description="largest turn either way, as a fraction of a full turn (0.025 is 9 degrees)"
    )
    brightness: Fraction = pydantic.Field(0.0, description="largest relative change of brightness (0.2: 0.8 to 1.2)")
    contrast: Fraction = pydantic.Field(0.0, description="largest relative change of contrast")
    saturation: Fraction = pydantic.Field(0.0, description="largest relative change of saturation")
    noise: NotNegative = pydantic.Field(0.0, description="standard deviation of Gaussian noise, on the 0-255 scale")

    @pydantic.model_validator(mode="after")
    def _ordered_ranges(self) -> Augment:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from low to high. Got [{low}, {high}]")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale cannot exceed 1, the whole photo. Got {self.crop_scale[1]}")
        return self

    @property
    def neutral(self) -> bool:
        """Whether it leaves photos as they are without augmentation."""
        return self == Augment()


class Policy(_Table):
    """How the learning rate changes: a factor on the stage's `lr`, after the warm-up."""

    name: Literal["constant", "exp_decay", "step", "cosine", "one_cycle", "plateau"] = pydantic.Field(
        "constant", description="shape of the learning rate over the stage"
    )
    rate: Positive = pydantic.Field(0.3, description="exp_decay: lr * exp(-rate * epoch)")
    every: Count = pydantic.Field(10, description="step: epochs between two drops")
    factor: Annotated[float, pydantic.Field(gt=0, lt=1)] = pydantic.Field(
        0.1, description="step, plateau: what the rate is multiplied by at a drop"
    )
    patience: Count = pydantic.Field(3, description="plateau: epochs without a lower validation loss before a drop")
    floor: Fraction = pydantic.Field(0.0, description="cosine, one_cycle: last rate as a share of `lr`")
    peak: Annotated[float, pydantic.Field(gt=0, lt=1)] = pydantic.Field(
        0.3, description="one_cycle: share of the steps at which the rate is highest"
    )
    warmup: NotNegative = pydantic.Field(0.0, description="epochs of linear rise from zero before the policy starts")


class Stage(_Table):
    """One stage of training. The stages run in the order of the list."""

    name: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_-]*$")] = pydantic.Field(
        description="name in the files and charts (small letters, digits, - and _)"
    )
    train: Literal["head", "all"] = pydantic.Field(
        description="head: the classifier on the frozen backbone's features; all: every weight but BatchNorm's"
    )
    epochs: Count = pydantic.Field(description="times through the training photos")
    batch_size: Count = pydantic.Field(32, description="photos a step")
    size: Literal["input", "own"] | Annotated[int, pydantic.Field(ge=16, le=2048)] = pydantic.Field(
        "input",
        description="all: side in pixels of the square a training photo becomes; input: the same as input.size; own: "
        "the backbone's own where that is smaller",
    )
    optimizer: Literal["adam", "adamw", "sgd"] = pydantic.Field("adamw", description="sgd has momentum 0.9")
    epsilon: Positive = pydantic.Field(1e-8, description="adam, adamw: added to the root of the second moment")
    lr: Positive = pydantic.Field(description="highest learning rate")
    relative_lr: bool = pydantic.Field(
        False, description="lr is a share of each tensor's own size: times its root mean square at the stage's start"
    )
    layer_decay: Annotated[float, pydantic.Field(gt=0, le=1)] = pydantic.Field(
        1.0, description="all: factor on lr from each block to the one before it; 1: one rate for all"
    )
    weight_decay: NotNegative = pydantic.Field(0.0, description="on weights, never on biases")
    label_smoothing: Annotated[float, pydantic.Field(ge=0, lt=1)] = pydantic.Field(
        0.0, description="share of the target spread over all classes"
    )
    imbalance: Literal["none", "sampling", "class_weights", "logit_adjustment"] = pydantic.Field(
        "none",
        description="for classes of unequal size; sampling: photos of rare classes come more often; class_weights: "
        "their loss counts more; logit_adjustment: the loss expects each class as often as it is there",
    )
    imbalance_strength: Positive = pydantic.Field(
        1.0,
        description="of that; 1: all classes count the same, 0.5: as if their sizes were the roots of what they are; "
        "logit_adjustment: its tau",
    )
    views: Literal["every_epoch"] | Count = pydantic.Field(
        1, description="head: augmented views of each photo that are cached; every_epoch: a fresh one each epoch"
    )
    average: Fraction = pydantic.Field(
        0.0,
        description="above 0: the weights validated and kept are this share of their mean over all steps of the stage, "
        "and the rest of those it started from",
    )
    keep: Literal["best", "last"] = pydantic.Field(
        "best",
        description="best: the epoch with the highest validation accuracy (balanced accuracy where imbalance is set), "
        "or the weights the stage started from "
        "where no epoch beats an earlier stage's; last: the last epoch",
    )
    policy: Policy = Policy()
    augment: Augment = Augment()

    @property
    def judged_by(self) -> Literal["val_accuracy", "val_balanced_accuracy"]:
        """The score on the validation photos that says which epoch is best."""
        return "val_accuracy" if self.imbalance == "none" else "val_balanced_accuracy"

    @pydantic.model_validator(mode="after")
    def _warm_up_ends(self) -> Stage:
        if self.policy.warmup >= self.epochs:
            raise ValueError(
                f"policy.warmup must be shorter than the stage's {self.epochs} epochs. Got {self.policy.warmup:g}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _one_size_for_features(self) -> Stage:
        if self.train == "head" and self.size != "input":
            raise ValueError(f"size can be set where train is 'all' only; a head has input.size. Got {self.size}")
        return self


class Recipe(_Table):
    """Everything a user can ask for. `Plan` is what becomes of it on given photos and a given machine."""

    name: str = pydantic.Field("custom", description="what the run is called")
    backbone: str = pydantic.Field("tf_efficientnet_b0", description="any timm model by name")
    weights: str = pydantic.Field(
        "auto", description="auto: timm's own, downloaded; none: random; else a file (.safetensors, .pth, .h5)"
    )
    seed: int = pydantic.Field(0, description="of everything random in training")
    input: Input = Input()
    split: SplitOptions = SplitOptions()
    stages: tuple[Stage, ...] = pydantic.Field(strict=False, description="what is trained, in order")

    @pydantic.model_validator(mode="after")
    def _distinct_names(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if not names:
            raise ValueError("stages must have at least one entry")
        if len(set(names)) < len(names):
            raise ValueError(f"stages must have different names. Got {names}")
        return self


def builtin_recipes() -> dict[str, str]:
    """Return the TOML text of each recipe that comes with the package, by name."""
    folder = importlib.resources.files("wildtune") / "recipes"
    found = {item.name[:-5]: item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(".toml")}
    return dict(sorted(found.items()))


def load_recipe(name: str | Path = "default", changes: Sequence[str] = (), **values: Any) -> Recipe:
    """Read a recipe by name or from a TOML file, with changes.

    `changes` are "dotted.key=value" strings as given to `--set`, values in TOML (a bare word is a string), or one such;
    `values` replace top-level keys, and may be paths where a recipe has the text of one.
    Raises RecipeError naming every mistake at once.
    """
    table, source = _read_table(str(name))
    problems: list[str] = []
    for change in [changes] if isinstance(changes, str) else changes:
        problems += _apply_change(table, change)
    table.update({k: str(v) if isinstance(v, Path) else v for k, v in values.items() if v is not None})
    return create_recipe(table, source, problems)


def create_recipe(table: dict[str, Any], source: str = "the recipe", problems: Sequence[str] = ()) -> Recipe:
    """Validate a plain table into a Recipe; `problems` found earlier are reported together with its own."""
    found = list(problems)
    recipe = None
    try:
        recipe = Recipe.model_validate(table)
    except pydantic.ValidationError as error:
        found += _explain_all(error)
    if recipe is not None and not found:
        return recipe
    count = "1 mistake" if len(found) == 1 else f"{len(found)} mistakes"
    lines = "\n".join(f"  - {problem}" for problem in found)
    raise RecipeError(f"{source} has {count}:\n{lines}\n`wildtune recipes keys` explains every key.")


def describe_keys() -> str:
    """Return a table of every key of a recipe: its name, type, default and meaning, one a line."""
    lines: list[str] = []

    def walk(model: type[pydantic.BaseModel], prefix: str) -> None:
        for name, info in model.model_fields.items():
            nested = next(
                (a for a in (info.annotation, *get_args(info.annotation)) if hasattr(a, "model_fields")), None
            )
            if nested is not None:
                walk(nested, f"{prefix}{name}.N." if name == "stages" else f"{prefix}{name}.")
                continue
            default = "required" if info.is_required() else f"default {json.dumps(info.default)}"
            choices = [c for a in (info.annotation, *get_args(info.annotation)) for c in _choices(a)]
            allowed = f" [{' | '.join(choices)}]" if len(choices) > 1 else ""
            lines.append(f"{prefix + name:32} {default:24} {info.description}{allowed}")

    walk(Recipe, "")
    return "\n".join(lines) + "\n"


def _choices(annotation: Any) -> list[str]:
    """Return the words a Literal allows, none for another type."""
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as TOML text that `load_recipe` reads back to an equal value."""
    return tomlkit.dumps(recipe.model_dump(mode="json"))


def _read_table(name: str) -> tuple[dict[str, Any], str]:
    builtin = builtin_recipes()
    if name in builtin:
        return tomllib.loads(builtin[name]), f"recipe '{name}'"
    path = files.user_path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, builtin, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise RecipeError(
            f"There is no recipe or file '{name}'.{hint}\n"
            f"Built in are {', '.join(builtin)}; or give the path of a TOML file."
        )
    try:
        return tomllib.loads(path.read_text("utf-8-sig")), f"recipe file {path}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}\nMend that place and try again.") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from error


def _apply_change(table: dict[str, Any], change: str) -> list[str]:
    """Set one dotted key in the table; return what is wrong with the change, if anything."""
    dotted, equals, text = change.partition("=")
    if not equals or not dotted.strip():
        return [f"--set {change}: must be KEY=VALUE, such as stages.0.epochs=3"]
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, last = dotted.strip().split(".")
    place: Any = table
    try:
        for key in parents:
            place = place[_find_item(place, key)] if isinstance(place, list) else place.setdefault(key, {})
        place[_find_item(place, last) if isinstance(place, list) else last] = value
    except (ValueError, IndexError):
        names = _names(place)
        if place and not any(names):
            return [f"--set {dotted}: the list has {len(place)} values; give a number from 0 to {len(place) - 1}"]
        stages = ", ".join(f"{i} ({name})" if name else str(i) for i, name in enumerate(names))
        return [f"--set {dotted}: the recipe's stages are {stages or 'none'}; give a number or a name"]
    except (TypeError, AttributeError):
        return [f"--set {dotted}: '{'.'.join(parents)}' is a value, not a table"]
    return []


def _find_item(items: list[Any], key: str) -> int:
    """Return the place in a list that a key means: its number, or the name of the table that is there."""
    names = _names(items)
    return names.index(key) if key in names else int(key)


def _names(items: list[Any]) -> list[Any]:
    return [item.get("name") if isinstance(item, dict) else None for item in items]


def _explain_all(error: pydantic.ValidationError) -> list[str]:
    """Turn pydantic's errors into one sentence for each key, in the recipe's order."""
    by_key: dict[str, list[str]] = {}
    for detail in error.errors():
        where = ".".join(str(part) for part in detail["loc"] if not _is_branch(part)) or "recipe"
        by_key.setdefault(where, []).append(_explain(detail))
    # A key that allows a word or a number fails once for each: both belong in one sentence.
    return [f"{where}: {' or '.join(dict.fromkeys(said))}" for where, said in by_key.items()]


def _explain(detail: Any) -> str:
    """Say what one pydantic error means: what was expected, what was found, the nearest name."""
    if detail["type"] == "extra_forbidden":
        names = _valid_names(detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
        return f"unknown key; {hint}"
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        options = [part.strip(" '") for part in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = difflib.get_close_matches(detail["input"], options, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"must be one of {detail['ctx']['expected']}. Got {detail['input']!r}{hint}"
    message = detail["msg"].removeprefix("Input ")
    return f"{message}. Got {detail['input']!r}"


def _is_branch(part: Any) -> bool:
    """Say whether pydantic put the name of a union's branch, which is no key of the recipe, into a location."""
    return isinstance(part, str) and (part in ("int", "float", "constrained-int") or "[" in part)


def _valid_names(location: Sequence[Any]) -> list[str]:
    """Return the keys allowed in the table at a pydantic error location."""
    model: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), model)
    return list(model.model_fields)
