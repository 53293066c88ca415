"""Spaces by name or from a YAML file, checked against the JSON schema; each error names file, line and rule."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BLOCK_KINDS, Block, BlockSpec, SqueezeExciteSpec
from mnv3search.errors import ArchitectureError, Mnv3SearchError, SpaceError, UnknownNameError
from mnv3search.families import parse_network
from mnv3search.space.choices import SKIP, BlockChoices, Option, Skeleton, StageChoices, option_label
from mnv3search.space.documents import Document, Path, parse_document, read_text, shown
from mnv3search.space.space import SearchSpace

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError


def space_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a space file, with the choices of every kind of block."""
    return _schema(tuple(BLOCK_KINDS.values()))


@cache
def _schema(kinds: tuple[type[Block], ...]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("mnv3search.space").joinpath("schema.json").read_text(encoding="utf-8"))
    names = [kind.kind for kind in kinds]
    rules = {f"block_{kind.kind}": _block_rule(kind) for kind in kinds}
    kind_rule = {"description": f"one of {', '.join(names)}", "type": "string", "enum": names}
    chosen: dict[str, Any] = {"properties": {"kind": kind_rule}}
    for name in names:  # a block that names none is the default
        named = {"properties": {"kind": {"const": name}}, "required": [] if name == BlockSpec.kind else ["kind"]}
        chosen = {"if": named, "then": {"$ref": f"#/$defs/block_{name}"}, "else": chosen}
    block = {"description": "a mapping: the choices of each block", "type": "object", **chosen}
    found["$defs"] |= rules | {"block": block}
    return found


def _block_rule(kind: type[Block]) -> dict[str, Any]:
    """The rule of a block of one kind: lists of its choices, or options that have a value for each."""
    fixed: dict[str, Any] = {"kind": {"const": kind.kind}, **kind.settings}
    required = [name for name, rule in kind.choices.items() if rule.default is None]
    words = " and ".join(required) or "its choices"
    mapping = {"type": "object", "additionalProperties": False}
    option = {
        **mapping,
        "properties": {name: rule.schema for name, rule in kind.choices.items()},
        "required": required,
    }
    option_words = f"the word skip, or a mapping with {words}"
    lists = {
        name: {
            "description": f"{rule.noun}: one value or a list to choose from",
            "if": {"type": "array"},
            "then": _list_rule(rule.noun, rule.schema),
            "else": rule.schema,
        }
        for name, rule in kind.choices.items()
    }
    skip = {"description": option_words, "enum": [SKIP]}
    either = {"description": option_words, "if": {"type": "string"}, "then": skip, "else": option}
    by_options = {
        **mapping,
        "description": "a mapping with options",
        "properties": {"options": _list_rule("options", either), **fixed},
        "required": ["options"],
    }
    by_lists = {
        **mapping,
        "description": f"a mapping with {words}, or with options",
        "properties": lists | fixed,
        "required": required,
    }
    return {"if": {"required": ["options"]}, "then": by_options, "else": by_lists}


def _list_rule(noun: str, items: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": f"a list of 1 to 256 different {noun}",
        "type": "array",
        "minItems": 1,
        "maxItems": 256,
        "uniqueItems": True,
        "items": items,
    }


@cache
def _validator(kinds: tuple[type[Block], ...]) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(_schema(kinds))


def check_schema(document: Document) -> None:
    """Raise the error of the first rule of the schema that a document breaks, if any."""
    errors = _validator(tuple(BLOCK_KINDS.values())).iter_errors(document.data)
    if explained := [_explained(document, error) for error in errors]:
        raise min(explained, key=lambda found: found[0])[1]


def _explained(document: Document, error: ValidationError) -> tuple[tuple[int, int], Mnv3SearchError]:
    """The error in one line, with its rank: the format first, then unknown keys, then by line."""
    path: Path = tuple(error.absolute_path)
    instance: Any = error.instance
    schema: Any = error.schema
    if error.validator == "additionalProperties":
        key = next(k for k in instance if k not in schema["properties"])
        path = (*path, key)
        line = document.key_lines.get(path, 1)
        return (1, line), document.error(path, unknown_key(key, schema["properties"]), line)
    line = document.lines.get(path, 1)
    if error.validator == "required":
        missing = next(k for k in schema["required"] if k not in instance)
        rule = schema["properties"].get(missing, {})
        if "$ref" in rule:
            rule = space_schema()["$defs"][rule["$ref"].rsplit("/", 1)[-1]]
        hint = f"; it is {rule['description']}" if "description" in rule else ""
        return (2, line), document.error(path, f"lacks {missing!r}{hint}")
    rank = 0 if path == ("format",) or not path else 2
    return (rank, line), document.error(path, wrong_value(error, instance, schema.get("description", error.message)))


def wrong_value(error: ValidationError, instance: Any, valid: str) -> str:
    """The message for a value that breaks a rule; ``valid`` says what does not."""
    if error.validator == "minItems":
        return f"the list is empty; give {valid}"
    if error.validator == "uniqueItems":
        twice = next(v for i, v in enumerate(instance) if v in instance[:i])
        return f"{shown(twice)} is twice in the list; give {valid}"
    hint = ""
    if isinstance(instance, str) and "number" in valid:
        hint = " (in YAML a number is written 3, 0.25 or 1e-3, without quotes)"
    return f"{'null' if instance is None else shown(instance)} is not {valid}{hint}"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that is not known, with the nearest ones."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=2, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"the keys here are {', '.join(names)}"
    return f"{shown(key)} is an unknown key; {remedy}"


MAX_BLOCKS = 200
_SQUEEZE_FIELDS = {"norm": "use_norm", "bias": "use_bias"}
SUFFIXES = (".yaml", ".yml")


def _shipped() -> Traversable:
    """The folder of the shipped spaces: in a wheel inside the package, in a checkout next to it."""
    packaged = files("mnv3search").joinpath("_spaces")
    return packaged if packaged.is_dir() else FilePath(__file__).resolve().parents[2] / "search_spaces"


def space_names() -> tuple[str, ...]:
    """The names that :func:`load_space` knows."""
    folder = _shipped()
    if not folder.is_dir():
        return ()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_space(name_or_path: str | FilePath) -> SearchSpace:
    """A shipped space by name, or one from a YAML file (docs/spaces.md).

    Args:
        name_or_path: one of :func:`space_names`, or a path that ends in ``.yaml`` or ``.yml``.

    Raises:
        UnknownNameError: no such name; the message names the nearest.
        SpaceError: a file that cannot be read or breaks a rule: file, line, rule, value, what would be valid.
    """
    if isinstance(name_or_path, FilePath) or str(name_or_path).endswith(SUFFIXES):
        path = FilePath(name_or_path)
        return parse_space(read_text(path), path.stem, str(path))
    return parse_space(space_text(name_or_path), name_or_path, f"{name_or_path}.yaml")


def space_text(name_or_path: str | FilePath) -> str:
    """The YAML text of a shipped space or of a file; raises as :func:`load_space`, but does not check the content."""
    if isinstance(name_or_path, FilePath) or str(name_or_path).endswith(SUFFIXES):
        return read_text(FilePath(name_or_path))
    if name_or_path not in space_names():
        raise UnknownNameError("space", name_or_path, space_names(), "A path to a space ends in .yaml.")
    return _shipped().joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")


def parse_space(text: str, name: str, file_name: str = "space.yaml") -> SearchSpace:
    """The space of a YAML text; ``file_name`` is named in errors.

    Raises:
        SpaceError: as :func:`load_space`.
    """
    document = parse_document(text, file_name)
    check_schema(document)
    skeleton = _skeleton(document)
    defaults = dict(document.data.get("defaults", {}))
    reference = _reference(document, skeleton, defaults.pop("reference", None))
    space = SearchSpace(name, document.data.get("description", name), skeleton, *reference, **defaults)
    try:
        size = space.size
    except (ArchitectureError, SpaceError) as error:
        raise document.error(("stages",), str(error)) from None
    if size == 1:
        raise document.error(
            ("stages",), "the space has one architecture; give at least one list with two values to choose from"
        )
    return space


def _skeleton(document: Document) -> Skeleton:
    data: dict[str, Any] = document.data
    stages = tuple(_stage(document, number, stage) for number, stage in enumerate(data["stages"]))
    blocks = sum(max(stage.depth) for stage in stages)
    if blocks > MAX_BLOCKS:
        raise document.error(("stages",), f"{blocks} blocks at full depth; a space has at most {MAX_BLOCKS}")
    plain = ("resolution", "classes", "padding", "conv_bias", "expansion_divisor")
    given = {name: data[name] for name in plain if name in data}
    given |= {f"norm_{name}": value for name, value in data.get("norm", {}).items()}
    rule = {_SQUEEZE_FIELDS.get(name, name): value for name, value in data.get("squeeze_excite", {}).items()}
    skeleton = Skeleton(
        StemSpec(**data["stem"]), stages, HeadSpec(**data["head"]), squeeze_excite=SqueezeExciteSpec(8, **rule), **given
    )
    _check_skips(document, skeleton)
    return skeleton


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _stage(document: Document, number: int, stage: dict[str, Any]) -> StageChoices:
    block = stage["block"]
    kind = BLOCK_KINDS[block.get("kind", BlockSpec.kind)]
    settings = tuple((name, block[name]) for name in kind.settings if name in block)
    if "options" in block:
        options = _options(document, ("stages", number, "block", "options"), kind, block["options"])
        choices = BlockChoices(kind.kind, options=tuple(options.items()), settings=settings)
    else:
        lists = tuple((name, _listed(value)) for name, value in _values(kind, block))
        choices = BlockChoices(kind.kind, lists, settings=settings)
    widths, depths = _listed(stage["out_channels"]), _listed(stage.get("depth", 1))
    return StageChoices(widths, depths, stage.get("stride", 1), choices, stage.get("choices") == "stage")


def _values(kind: type[Block], given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is given for each of the kind's choices, or its default."""
    return ((name, given.get(name, rule.default)) for name, rule in kind.choices.items())


def _options(document: Document, path: Path, kind: type[Block], listed: list[Any]) -> dict[str, Option | None]:
    found: dict[str, Option | None] = {}
    for number, values in enumerate(listed):
        option = None if values == SKIP else tuple(_values(kind, values))
        label = SKIP if option is None else option_label(kind, option)
        if label in found:
            raise document.error((*path, number), f"the option {label} is given twice; keep one")
        found[label] = option
    return found


def _check_skips(document: Document, skeleton: Skeleton) -> None:
    """Skip needs a block of stride 1 and equal widths, and something to stay."""
    least = 0
    for number, stage in enumerate(skeleton.stages):
        least += min(stage.depth)
        if not stage.block.can_skip:
            continue
        options = document.data["stages"][number]["block"]["options"]
        path: Path = ("stages", number, "block", "options", options.index(SKIP))
        if stage.per_stage:
            raise document.error(path, "skip cannot be a choice of a whole stage; give a list of depths")
        if len(stage.depth) > 1:
            raise document.error(path, f"skip varies the depth already; give one depth in place of {list(stage.depth)}")
        first = stage.first_skippable(skeleton.widths_in(number))
        if not first and stage.depth == (1,):
            raise document.error(
                path, "skip is possible in a block of stride 1 with equal input and output widths, and this stage's "
                "only block is not one; remove skip or give a depth of 2 or more",
            )  # fmt: skip
        if len(stage.block.options) == 1:
            raise document.error(path, "skip is the only option; give another one")
        least -= stage.depth[0] if first else stage.depth[0] - 1
    if least == 0:
        raise document.error(("stages",), "every block can be skipped; at least one must stay")


def _reference(document: Document, skeleton: Skeleton, name: str | None) -> tuple[Architecture, str | None, str]:
    """The reference in the space's resolution, classes and stem stride; its name only where nothing changed."""
    if name is None:
        return _first_choices(document, skeleton), None, "first choices"
    try:
        published = parse_network(name)
    except Mnv3SearchError as error:
        raise document.error(("defaults", "reference"), str(error)) from None
    stem = replace(published.stem, stride=skeleton.stem.stride)
    changed = replace(published, stem=stem, resolution=skeleton.resolution, classes=skeleton.classes)
    if changed == published:
        return published, name, name
    parts = [f"{skeleton.resolution} px", f"{skeleton.classes} classes"]
    if stem != published.stem:
        parts.append(f"stem stride {stem.stride}")
    return changed, None, f"{name} ({', '.join(parts)})"


def _first_choices(document: Document, skeleton: Skeleton) -> Architecture:
    """The network of every parameter's first choice that is a block."""
    blocks = []
    channels = skeleton.stem.out_channels
    for number, stage in enumerate(skeleton.stages):
        option = next(o for o in stage.block.combinations(skippable=False) if o is not None)
        for index in range(stage.depth[0]):
            stride = stage.stride if index == 0 else 1
            try:
                blocks.append(skeleton.block(stage.block, option, channels, stage.out_channels[0], stride))
            except ArchitectureError as error:
                raise document.error(("stages", number), str(error)) from None
            channels = stage.out_channels[0]
    return skeleton.architecture(tuple(blocks))
