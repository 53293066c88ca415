"""A recipe: everything that decides how a network is trained, but the images and the seed.

Recipes are YAML files; ``recipe_schema.json`` lists every field with its range. The shipped ones are

- ``paper``: from scratch on ImageNet, as the MobileNetV3 paper (its sources stand in the file);
- ``finetune``: all of a network that has weights, on other images;
- ``transfer``: a new classifier on frozen features, which are computed once;
- ``small_32``: from scratch on 32×32 images, fast on a CPU; ``benchmarks/recipe.py`` compares it with others.
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
from mnv3search.space.documents import DocumentKind, parse_document, path_text, read_text, shown
from mnv3search.space.documents import Path as YamlPath
from mnv3search.space.loading import unknown_key
from mnv3search.training.data.augmentation import Augmentation

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Position = Callable[[YamlPath], str]
"""The position of a value, for a message: the file, the line and the field."""


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
    """Whether ``value`` is a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_recipe(content: object, position: Position) -> None:
    """Hold a recipe's plain values to the schema.

    Raises:
        TrainingError: the first rule that is broken: position, value, and what would be valid.
    """
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
    hint = ""
    if isinstance(instance, str) and "number" in schema["description"]:
        hint = " (in YAML a number is written 3, 0.25 or 1e-3, without quotes)"
    return path, f"{'null' if instance is None else shown(instance)} is not {schema['description']}{hint}"


Optimizer = Literal["rmsprop_tf", "sgd", "adamw"]
Schedule = Literal["cosine", "step", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
FEW_STEPS, LEAST_BATCH = 500, 8
SUFFIXES = (".yaml", ".yml")
FORMAT = "mnv3search.recipe/1"
RECIPE = DocumentKind("recipe", FORMAT, TrainingError)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of a step, over all processes together.
        optimizer: ``rmsprop_tf`` (TensorFlow's), ``sgd`` or ``adamw``.
        learning_rate: at its highest, for batches of ``reference_batch`` images; scaled in proportion to the batch.
        momentum: of the gradient (AdamW's first beta).
        squares_decay: of the squared gradients' average (RMSProp's decay, AdamW's second beta).
        epsilon: inside RMSProp's square root.
        nesterov: SGD's momentum looks ahead.
        weight_decay: on weights of convolutions and linear layers, never on norms or biases.
        schedule: ``cosine`` to 0, ``step`` (× ``decay_factor`` every ``decay_epochs``) or ``constant``.
        warmup_epochs: over which the rate rises linearly.
        label_smoothing: share of the label that is spread over all classes.
        ema_decay: of the moving average of weights, which is then evaluated and kept; None for none.
        clip_norm: the gradients' largest norm; None for any.
        dropout: before the classifier, in place of the architecture's; None for that.
        norm_momentum: of the norms' running statistics, in place of the architecture's; None for that. Training of few
            steps needs more than the paper's 0.01.
        augmentation: of training images.
        precision: ``auto`` is fp32 on CPUs, bf16 or fp16 on GPUs.
        distillation_temperature, distillation_share: of a teacher's loss, where a teacher is given.
        name: of the file, for messages and manifests.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    reference_batch: int
    momentum: float = 0.9
    squares_decay: float = 0.9
    epsilon: float = 1e-3
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    decay_factor: float = 0.99
    decay_epochs: float = 3.0
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    clip_norm: float | None = None
    dropout: float | None = None
    norm_momentum: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "auto"
    distillation_temperature: float = 2.0
    distillation_share: float = 0.5
    name: str = "recipe"

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
        """The recipe of a mapping such as :meth:`to_mapping` gives.

        Raises:
            TrainingError: an unknown or missing field, or a value out of its range.
        """
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
    """The recipe of a YAML text; ``file_name`` is for errors.

    Raises:
        TrainingError: as :func:`load_recipe`.
    """
    document = parse_document(text, file_name, RECIPE)

    def position(path: YamlPath) -> str:
        return str(document.error(path, "")).removesuffix(": ")

    return Recipe._read(document.data, name, position)


def _shipped() -> Traversable:
    return files("mnv3search.training").joinpath("recipes")


def learning_rate(recipe: Recipe, epochs_passed: float, batch_size: int | None = None) -> float:
    """The rate at ``epochs_passed`` epochs (a fraction within one), for batches of ``batch_size`` images.

    The recipe's rate belongs to batches of ``reference_batch`` and is scaled in proportion (Goyal et al. 2017,
    arXiv:1706.02677). It rises linearly over the warm-up; then ``cosine`` falls to 0 at the last epoch, ``step``
    multiplies by ``decay_factor`` every ``decay_epochs`` epochs since the start, and ``constant`` stays.
    """
    size = recipe.batch_size if batch_size is None else batch_size
    full = recipe.learning_rate * size / recipe.reference_batch
    if epochs_passed < recipe.warmup_epochs:
        return full * epochs_passed / recipe.warmup_epochs
    if recipe.schedule == "constant":
        return full
    if recipe.schedule == "step":
        return full * recipe.decay_factor ** math.floor(epochs_passed / recipe.decay_epochs + 1e-9)
    span = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    share = min((epochs_passed - recipe.warmup_epochs) / span, 1.0)
    return full * (1 + math.cos(math.pi * share)) / 2
