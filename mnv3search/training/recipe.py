"""A recipe: everything that decides how a network is trained, but the images and the seed.

Recipes are YAML files, of which ``recipes/`` holds those that ship; ``recipe_schema.json`` lists every field with its
range.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mnv3search.errors import Mnv3SearchError, TrainingError, UnknownNameError
from mnv3search.space.documents import DocumentKind, parse_document, path_text, read_text
from mnv3search.space.documents import Path as YamlPath
from mnv3search.space.loading import SUFFIXES, unknown_key, wrong_value
from mnv3search.training.data.augmentation import Augmentation

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Position = Callable[[YamlPath], str]  # the file, the line and the field of a value, for a message


@cache
def recipe_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a recipe file."""
    text = files("mnv3search.training").joinpath("recipe_schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # Neither YAML's .nan and .inf nor those of the command line are outside a minimum, so they are no numbers here.
    kinds = Draft202012Validator.TYPE_CHECKER.redefine("number", _finite)
    return extend(Draft202012Validator, type_checker=kinds)(recipe_schema())  # type: ignore[no-untyped-call]


def _finite(_: object, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_recipe(content: object, position: Position) -> None:
    """Raises :class:`TrainingError` for the first rule of the schema that is broken: position, value, what is valid."""
    errors: list[ValidationError] = list(_validator().iter_errors(content))
    if not errors:
        return
    # What is no recipe at all first, then words that are unknown: a slip in a key also makes that key missing.
    order = {"additionalProperties": 1, "required": 2}
    first = min(errors, key=lambda e: (0 if tuple(e.absolute_path) in ((), ("format",)) and e.validator in
                                       ("const", "type") else order.get(str(e.validator), 3)))  # fmt: skip
    path, message = _explained(first)
    where = position(path)
    raise TrainingError(f"{where}: {message}" if where else message)


def _explained(error: ValidationError) -> tuple[YamlPath, str]:
    path: YamlPath = tuple(error.absolute_path)
    schema: Mapping[str, Any] = error.schema  # type: ignore[assignment]  # every rule here is a mapping
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        key = next(k for k in instance if k not in schema["properties"])
        return (*path, key), unknown_key(key, schema["properties"])
    if error.validator == "required":
        missing = next(k for k in schema["required"] if k not in instance)
        return path, f"lacks {missing!r}; it is {schema['properties'][missing]['description']}"
    return path, wrong_value(error, instance, schema["description"])


Optimizer = Literal["rmsprop_tf", "sgd", "adamw"]
Schedule = Literal["cosine", "step", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
FEW_STEPS, LEAST_BATCH = 500, 8
FORMAT = "mnv3search.recipe/1"
RECIPE = DocumentKind("recipe", FORMAT, TrainingError)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained."""

    epochs: int  # passes over the training images
    batch_size: int  # images of a step, over all processes together
    optimizer: Optimizer  # rmsprop_tf is TensorFlow's
    learning_rate: float  # at its highest, for batches of reference_batch images; scaled in proportion to the batch
    reference_batch: int
    momentum: float = 0.9  # of the gradient (AdamW's first beta)
    squares_decay: float = 0.9  # of the squared gradients' average (RMSProp's decay, AdamW's second beta)
    epsilon: float = 1e-3  # inside RMSProp's square root
    nesterov: bool = False  # SGD's momentum looks ahead
    weight_decay: float = 0.0  # on weights of convolutions and linear layers, never on norms or biases
    schedule: Schedule = "cosine"  # to 0; step: × decay_factor every decay_epochs; constant
    decay_factor: float = 0.99
    decay_epochs: float = 3.0
    warmup_epochs: float = 0.0  # over which the rate rises linearly
    label_smoothing: float = 0.0  # share of the label that is spread over all classes
    ema_decay: float | None = None  # of the moving average of weights, which is then evaluated and kept
    clip_norm: float | None = None  # the gradients' largest norm; None for any
    dropout: float | None = None  # before the classifier, in place of the architecture's
    norm_momentum: float | None = None  # in place of the architecture's; few steps need more than the paper's 0.01
    augmentation: Augmentation = field(default_factory=Augmentation)  # of training images
    precision: Precision = "auto"  # fp32 on CPUs, bf16 or fp16 on GPUs
    distillation_temperature: float = 2.0  # of a teacher's loss, where a teacher is given
    distillation_share: float = 0.5
    name: str = "recipe"  # of the file, for messages and manifests

    def __post_init__(self) -> None:
        if not isinstance(self.augmentation, Augmentation):
            raise TrainingError(f"recipe {self.name}: augmentation must be an Augmentation, not {self.augmentation!r}")
        check_recipe(self.to_mapping(), lambda path: f"recipe {self.name}: {path_text(path)}")
        if self.warmup_epochs > self.epochs:
            raise TrainingError(
                f"recipe {self.name}: a warm-up of {self.warmup_epochs:g} epochs is longer than the training of "
                f"{self.epochs}; give at most that"
            )

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by field, as a recipe file holds them; fields that are None, and ``name``, are left out."""
        values = {key: value for key, value in asdict(self).items() if key != "name" and value is not None}
        return {"format": FORMAT, **values, "augmentation": self.augmentation.to_mapping()}

    @classmethod
    def from_mapping(cls, mapping: object, name: str = "recipe") -> Self:
        """The recipe of a mapping such as :meth:`to_mapping` gives."""
        return cls._read(mapping, name, lambda path: f"recipe {name}: {path_text(path)}")

    @classmethod
    def _read(cls, content: Any, name: str, position: Position) -> Self:
        check_recipe(content, position)
        values = {key: value for key, value in content.items() if key not in {"format", "description"}}
        try:
            values["augmentation"] = Augmentation.from_mapping(content.get("augmentation", {}))
        except Mnv3SearchError as error:
            raise TrainingError(f"{position(('augmentation',))}: {error}") from None
        return cls(**values, name=name)

    def changed(self, **values: Any) -> Self:
        """This recipe with other values; None leaves a field as it is."""
        given = {key: value for key, value in values.items() if value is not None}
        return replace(self, **given) if given else self

    def for_epochs(self, epochs: int) -> Self:
        """This recipe over ``epochs`` epochs; warm-up is cut to a fifth of them where it would be more."""
        return replace(self, epochs=epochs, warmup_epochs=min(self.warmup_epochs, epochs / 5))

    def for_images(self, images: int) -> Self:
        """This recipe for ``images`` training images: batches are halved where they make too few steps to learn in.

        Until all epochs together have :data:`FEW_STEPS`, down to :data:`LEAST_BATCH`. The rate of SGD's step stays: in
        proportion to the batch a short training would hardly move (``benchmarks/proxy_small.py``). That of the others,
        which divide by the gradient's size, falls with the root of the batch (Malladi et al. 2022, arXiv:2205.10287).
        """
        size = self.batch_size
        while size >= 2 * LEAST_BATCH and images // size * self.epochs < FEW_STEPS:
            size //= 2
        if size == self.batch_size:
            return self
        rate = self.learning_rate * self.batch_size / self.reference_batch
        if self.optimizer != "sgd":
            rate *= math.sqrt(size / self.batch_size)
        return replace(self, batch_size=size, reference_batch=size, learning_rate=rate)


def recipe_names() -> tuple[str, ...]:
    """The shipped recipes."""
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _shipped().iterdir() if f.name.endswith(".yaml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or one from a YAML file.

    Raises:
        UnknownNameError: no such name; the message names the nearest.
        TrainingError: a file that cannot be read or breaks a rule: file, line, field, value, what would be valid.
    """
    if isinstance(name_or_path, Path) or str(name_or_path).endswith(SUFFIXES):
        path = Path(name_or_path)
        return parse_recipe(read_text(path, RECIPE), path.stem, str(path))
    if name_or_path not in recipe_names():
        raise UnknownNameError("recipe", str(name_or_path), recipe_names(), "A path to a recipe ends in .yaml.")
    text = _shipped().joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    return parse_recipe(text, str(name_or_path), f"{name_or_path}.yaml")


def parse_recipe(text: str, name: str, file_name: str = "recipe.yaml") -> Recipe:
    """The recipe of a YAML text; ``file_name`` is for errors."""
    document = parse_document(text, file_name, RECIPE)
    return Recipe._read(document.data, name, lambda path: str(document.error(path, "")).removesuffix(": "))


def _shipped() -> Traversable:
    return files("mnv3search.training").joinpath("recipes")


def learning_rate(recipe: Recipe, epochs_passed: float) -> float:
    """The rate at ``epochs_passed`` epochs (a fraction within one).

    The recipe's rate belongs to batches of ``reference_batch`` and is scaled in proportion (Goyal et al. 2017,
    arXiv:1706.02677). It rises linearly over the warm-up; then ``cosine`` falls to 0 at the last epoch, ``step``
    multiplies by ``decay_factor`` every ``decay_epochs`` epochs since the start, and ``constant`` stays.
    """
    full = recipe.learning_rate * recipe.batch_size / recipe.reference_batch
    if epochs_passed < recipe.warmup_epochs:
        return full * epochs_passed / recipe.warmup_epochs
    if recipe.schedule == "constant":
        return full
    if recipe.schedule == "step":
        return full * recipe.decay_factor ** math.floor(epochs_passed / recipe.decay_epochs + 1e-9)
    span = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    share = min((epochs_passed - recipe.warmup_epochs) / span, 1.0)
    return full * (1 + math.cos(math.pi * share)) / 2
