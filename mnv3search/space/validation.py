"""The published JSON schema of a space file, and its errors in one clear line each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mnv3search.errors import Mnv3SearchError
from mnv3search.space.documents import Document, Path, shown

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError


@cache
def space_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a space file."""
    found: dict[str, Any] = json.loads(files("mnv3search.space").joinpath("schema.json").read_text(encoding="utf-8"))
    return found


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(space_schema())


def check_schema(document: Document) -> None:
    """Check a document against the schema.

    Raises:
        SpaceError: the first rule that it breaks: file, line, place, value, and what would be valid.
    """
    errors: list[ValidationError] = list(_validator().iter_errors(document.data))
    if errors:
        raise min((_explained(document, error) for error in errors), key=lambda found: found[0])[1]


def _explained(document: Document, error: ValidationError) -> tuple[tuple[int, int], Mnv3SearchError]:
    """The error in the project's words, with its rank: the format first, then unknown keys, then by line."""
    path: Path = tuple(error.absolute_path)
    rule, schema, instance = error.validator, _schema_of(error), _instance_of(error)
    if rule == "additionalProperties":
        key = next(k for k in instance if k not in schema["properties"])
        path = (*path, key)
        line = document.key_lines.get(path, 1)
        return (1, line), _at(document, path, line, unknown_key(key, schema["properties"]))
    line = document.lines.get(path, 1)
    if rule == "required":
        missing = next(k for k in schema["required"] if k not in instance)
        hint = _described(schema["properties"].get(missing, {}))
        return (2, line), document.error(path, f"lacks {missing!r}{f'; it is {hint}' if hint else ''}")
    rank = 0 if path == ("format",) or not path else 2
    return (rank, line), document.error(path, _wrong_value(error))


def _schema_of(error: ValidationError) -> dict[str, Any]:
    """The rule that failed; every rule of this schema is a mapping."""
    return error.schema  # type: ignore[return-value]


def _instance_of(error: ValidationError) -> Any:
    return error.instance


def _wrong_value(error: ValidationError) -> str:
    instance = _instance_of(error)
    valid = _schema_of(error).get("description", error.message)
    if error.validator == "minItems":
        return f"the list is empty; give {valid}"
    if error.validator == "uniqueItems":
        twice = next(v for i, v in enumerate(instance) if v in instance[:i])
        return f"{shown(twice)} stands twice in the list; give {valid}"
    hint = ""
    if isinstance(instance, str) and "number" in valid:
        hint = " (in YAML a number is written 3, 0.25 or 1e-3, without quotes)"
    return f"{'null' if instance is None else shown(instance)} is not {valid}{hint}"


def _described(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        schema = space_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return str(schema.get("description", ""))


def _at(document: Document, path: Path, line: int, message: str) -> Mnv3SearchError:
    document.lines[path] = line
    return document.error(path, message)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that is not known, with the nearest ones."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=2, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"the keys here are {', '.join(names)}"
    return f"{shown(key)} is an unknown key; {remedy}"
