from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest

from wildtune.errors import RecipeError
from wildtune.recipe import builtin_recipes, create_recipe, describe_keys, dump_recipe, load_recipe


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_survive_being_saved(name: str) -> None:
    recipe = load_recipe(name)
    assert create_recipe(tomllib.loads(dump_recipe(recipe))) == recipe


def test_lab5_has_the_reports_values() -> None:
    recipe = load_recipe("lab5")
    head, rest = recipe.stages
    assert (recipe.input.resize, recipe.input.size, recipe.input.fit) == (235, 224, "squash")
    assert (recipe.input.contrast, recipe.input.brightness, recipe.input.clip) == (2.0, 0.1, False)
    assert (head.optimizer, head.lr, head.epochs, head.batch_size) == ("adam", 0.01, 20, 64)
    assert (head.policy.name, head.policy.rate, head.views) == ("exp_decay", 0.3, "every_epoch")
    assert (rest.optimizer, rest.lr, rest.epochs, rest.train) == ("adam", 2e-8, 20, "all")
    for stage in recipe.stages:
        assert (stage.augment.crop, stage.augment.rotation, stage.augment.noise) == ("random", 0.025, 0.05)
        assert stage.augment.flip == 0


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = builtin_recipes()["default"]
    path.write_text(text.replace("weight_decay", "weight_decaj").replace('fit = "squash"', 'fit = "squish"'))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), ["stages.1.lr=-1", 'stages.0.epochs="3"', "split.val=0.9", "seed"])
    message = str(caught.value)
    for part in ("did you mean 'weight_decay'", "did you mean 'squash'", "stages.1.lr", "stages.0.epochs", "split:"):
        assert part in message
    assert "--set seed" in message
    assert "6 mistakes" in message


@pytest.mark.parametrize("change", ["stages.5.lr=1", "stages.x.lr=1", "name.lr=1", "=3", "stages=[]"])
def test_a_change_that_cannot_be_made_is_a_recipe_error(change: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe("default", [change])
    with pytest.raises(RecipeError):
        load_recipe("default", ["stages=[1]", change])


def test_a_stage_goes_by_its_name_or_its_number() -> None:
    named = load_recipe("lab5", ["stages.finetune.epochs=3", "stages.transfer.augment.noise=2"])
    assert named == load_recipe("lab5", ["stages.1.epochs=3", "stages.0.augment.noise=2"])
    with pytest.raises(RecipeError, match=r"stages are 0 \(transfer\), 1 \(finetune\); give a number or a name"):
        load_recipe("lab5", ["stages.finetuning.epochs=3"])
    with pytest.raises(RecipeError, match="the list has 2 values; give a number from 0 to 1"):
        load_recipe("default", ["stages.1.augment.crop_scale.7=0.5"])


def test_changes_keep_their_types() -> None:
    recipe = load_recipe("default", ["stages.0.epochs=3", "input.fit=crop", "input.size=96", "stages.1.lr=1"])
    assert (recipe.stages[0].epochs, recipe.input.fit, recipe.input.size, recipe.stages[1].lr) == (3, "crop", 96, 1.0)


def test_nan_is_no_value() -> None:
    with pytest.raises(RecipeError):
        load_recipe("default", ["stages.0.lr=nan"])
    assert math.isfinite(load_recipe("default").stages[0].lr)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'default'"):
        load_recipe("defualt")


def test_every_key_is_explained() -> None:
    for line in describe_keys().splitlines():
        assert "None" not in line, line
