"""The published JSON schema of a recipe, and its errors in one clear line each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mnv3search.errors import TrainingError
from mnv3search.space.documents import Path, shown
from mnv3search.space.loading import unknown_key

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Place = Callable[[Path], str]
"""Where a value stands, for a message: the file, the line and the field."""


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
    """Whether ``value`` is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_recipe(content: object, place: Place) -> None:
    """Hold a recipe's plain values to the schema.

    Raises:
        TrainingError: the first rule that is broken: place, value, and what would be valid.
    """
    errors: list[ValidationError] = list(_validator().iter_errors(content))
    if not errors:
        return
    # What is no recipe at all first, then words that are unknown: a slip in a key also makes that key missing.
    order = {"additionalProperties": 1, "required": 2}
    first = min(errors, key=lambda e: (0 if tuple(e.absolute_path) in ((), ("format",)) and e.validator in
                                       ("const", "type") else order.get(str(e.validator), 3)))  # fmt: skip
    path, message = _explained(first)
    where = place(path)
    raise TrainingError(f"{where}: {message}" if where else message)


def _explained(error: ValidationError) -> tuple[Path, str]:
    path: Path = tuple(error.absolute_path)
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
