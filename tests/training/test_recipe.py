"""Recipes: the shipped ones load, files are held to the schema, and errors say file, line, field and what is valid."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from training_fakes import RECIPE

from mnv3search.errors import TrainingError, UnknownNameError
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.recipe import Recipe, learning_rate, load_recipe, parse_recipe, recipe_names, recipe_schema

TEXT = """format: mnv3search.recipe/1
epochs: 3
batch_size: 64
optimizer: sgd
learning_rate: 0.1
reference_batch: 64
augmentation: {crop: pad, flip: true}
"""


def test_the_shipped_ones() -> None:
    assert recipe_names() == ("finetune", "paper", "small_32", "transfer")
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_the_paper() -> None:
    paper = load_recipe("paper")
    assert (paper.optimizer, paper.momentum, paper.learning_rate, paper.reference_batch) == (
        "rmsprop_tf", 0.9, 0.1, 4096,
    )  # fmt: skip
    assert (paper.schedule, paper.decay_factor, paper.decay_epochs) == ("step", 0.99, 3)
    assert (paper.dropout, paper.weight_decay, paper.ema_decay, paper.norm_momentum) == (0.2, 1e-5, 0.9999, None)


def test_transfer_lets_features_be_computed_once() -> None:
    assert load_recipe("transfer").augmentation == Augmentation()


def test_the_schema_is_one_and_knows_every_field() -> None:
    Draft202012Validator.check_schema(recipe_schema())
    known = {f.name for f in fields(Recipe)} - {"name"}
    assert set(recipe_schema()["properties"]) - {"format", "description"} == known
    assert all("description" in rule for rule in recipe_schema()["properties"].values())


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    recipe = load_recipe(path)
    assert (recipe.name, recipe.epochs, recipe.augmentation) == ("mine", 3, Augmentation(crop="pad", flip=True))
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("epochs: 3", "epochs: 0", ("mine.yaml:2: epochs: 0 is not", "1 to 10000")),
        ("epochs: 3", "epochs: many", ("mine.yaml:2: epochs:", "'many'", "a whole number")),
        ("learning_rate: 0.1", "learning_rate: -1", ("mine.yaml:5: learning_rate: -1",)),
        ("learning_rate: 0.1", "learning_rate: .nan", ("mine.yaml:5: learning_rate: nan",)),
        ("learning_rate: 0.1", "learning_rate: '0.1'", ("mine.yaml:5", "without quotes")),
        ("optimizer: sgd", "optimizer: sdg", ("mine.yaml:4: optimizer: 'sdg' is not", "adamw")),
        ("epochs: 3", "epoch: 3", ("mine.yaml:2", "'epoch' is an unknown key", "epochs")),
        ("epochs: 3\n", "", ("mine.yaml:1", "lacks 'epochs'")),
        ("recipe/1", "recipe/2", ("mine.yaml:1: format: 'mnv3search.recipe/2'", "mnv3search.recipe/1")),
        ("crop: pad", "crop: tight", ("mine.yaml:7: augmentation", "'tight'", "random_resized")),
        ("crop: pad", "corp: pad", ("mine.yaml:7: augmentation", "corp")),
        ("epochs: 3", "epochs: 3\nwarmup_epochs: 4", ("mine", "warm-up of 4 epochs")),
        ("epochs: 3", "epochs: 3\nepochs: 4", ("mine.yaml:3", "twice")),
        (TEXT, "- 3", ("mine.yaml:1",)),
        (TEXT, "", ("mine.yaml:1",)),
        (TEXT, "a: [", ("mine.yaml",)),
        ("epochs: 3", "epochs: !!python/object:os.system 3", ("mine.yaml:2",)),
    ],
)
def test_what_a_file_gets_wrong(tmp_path: Path, before: str, after: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace(before, after))
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    for word in words:
        assert word in str(caught.value)
    assert "space" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gone\.yaml"):
        load_recipe(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match=r"binary\.yaml.*UTF-8"):
        load_recipe(tmp_path / "binary.yaml")


def test_a_name_that_is_none() -> None:
    with pytest.raises(UnknownNameError, match="did you mean small_32"):
        load_recipe("small32")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("momentum", 1.0),
        ("precision", "int8"),
        ("clip_norm", 0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", 10**400),
        ("weight_decay", math.nan),
        ("dropout", math.nan),
    ],
)
def test_values_in_python(name: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=name):
        replace(RECIPE, **{name: value})


@pytest.mark.parametrize("name", [key for key, rule in recipe_schema()["properties"].items() if "maximum" in rule])
def test_a_value_above_a_bound_is_told_the_bound(name: str) -> None:
    bound = recipe_schema()["properties"][name]["maximum"]
    with pytest.raises(TrainingError, match=rf"{name}: {5 * bound + 1} is not .*\b{bound}\b"):
        replace(RECIPE, **{name: 5 * bound + 1})


@given(
    epochs=st.integers(1, 1000),
    optimizer=st.sampled_from(["sgd", "rmsprop_tf", "adamw"]),
    schedule=st.sampled_from(["cosine", "step", "constant"]),
    ema=st.one_of(st.none(), st.floats(0.1, 0.9999)),
    rate=st.floats(1e-6, 100),
    mixup=st.floats(0, 5),
)
def test_mappings_round_trip(
    epochs: int, optimizer: Any, schedule: Any, ema: float | None, rate: float, mixup: float
) -> None:
    recipe = replace(
        RECIPE, epochs=epochs, optimizer=optimizer, schedule=schedule, ema_decay=ema, learning_rate=rate,
        augmentation=Augmentation(mixup=mixup),
    )  # fmt: skip
    assert Recipe.from_mapping(recipe.to_mapping(), recipe.name) == recipe


def test_shorter_trainings_warm_up_less() -> None:
    recipe = replace(RECIPE, epochs=20, warmup_epochs=5)
    assert (recipe.for_epochs(5).epochs, recipe.for_epochs(5).warmup_epochs) == (5, 1)
    assert recipe.for_epochs(100).warmup_epochs == 5


def test_parsed_text_says_its_own_name() -> None:
    assert parse_recipe(TEXT, "inline").name == "inline"


@pytest.mark.parametrize(
    ("images", "epochs", "size", "rate"),
    [(10_000, 3, 32, 0.04), (300, 30, 16, 0.04), (300, 3, 8, 0.04), (20, 1, 8, 0.04)],
)
def test_few_images_make_small_batches_at_the_same_rate(images: int, epochs: int, size: int, rate: float) -> None:
    fitted = load_recipe("small_32").for_epochs(epochs).for_images(images)
    assert fitted.batch_size == size
    assert learning_rate(replace(fitted, warmup_epochs=0, schedule="constant"), 0.0) == pytest.approx(rate)


def test_the_rate_of_what_divides_by_the_gradient_falls_with_the_root_of_the_batch() -> None:
    fitted = load_recipe("paper").for_images(300)
    assert fitted.batch_size == 256
    full = 0.1 * 1024 / 4096
    assert learning_rate(replace(fitted, warmup_epochs=0), 0.0) == pytest.approx(full / 2)
    assert load_recipe("paper").for_images(1_281_167) == load_recipe("paper")
