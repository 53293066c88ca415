"""Architectures to and from plain mappings and JSON files.

A file is ``{"format": "mnv3search.architecture", "version": 1, "architecture": {…}}``; a run's ``best.json``, whose
``architecture`` has the same content, is read as well. Fields at their defaults are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, SqueezeExciteSpec, StemSpec, spec_fields
from mnv3search.errors import ArchitectureError
from mnv3search.reading import parse_json, read_bounded, utf8

FORMAT = "mnv3search.architecture"
VERSION = 1
MAX_FILE_BYTES = 4_000_000

_Spec = SqueezeExciteSpec | BlockSpec | StemSpec | HeadSpec | Architecture


def to_mapping(spec: _Spec) -> dict[str, Any]:
    """A plain mapping of a spec's fields, those at their defaults left out."""
    found: dict[str, Any] = {}
    for f in fields(spec):
        if not f.init:
            continue
        value = getattr(spec, f.name)
        if f.default is not MISSING and value == f.default:
            continue
        if isinstance(value, tuple):
            found[f.name] = [to_mapping(block) for block in value]
        else:
            found[f.name] = to_mapping(value) if isinstance(value, _Spec) else value
    return found


def from_mapping(mapping: object) -> Architecture:
    """The architecture of a plain mapping.

    Raises:
        ArchitectureError: an unknown or missing field, or a value that breaks a rule; the message says where.
    """
    values = _checked(mapping, Architecture, "architecture")
    values["stem"] = _build(values.get("stem"), StemSpec, "stem")
    values["head"] = _build(values.get("head"), HeadSpec, "head")
    blocks = values.get("blocks")
    if not isinstance(blocks, list):
        raise ArchitectureError("architecture.blocks must be a list of blocks")
    values["blocks"] = tuple(_build(block, BlockSpec, f"blocks[{i}]") for i, block in enumerate(blocks))
    return Architecture(**values)


def _checked(mapping: object, cls: type, where: str) -> dict[str, Any]:
    if not isinstance(mapping, Mapping):
        raise ArchitectureError(f"{where} must be an object, not {type(mapping).__name__}")
    known = spec_fields(cls)
    for key in mapping:
        if key not in known:
            raise ArchitectureError(f"{where}.{key} is unknown; the fields are {', '.join(known)}")
    required = [f.name for f in fields(cls) if f.init and f.default is MISSING]
    missing = [name for name in required if name not in mapping]
    if missing:
        raise ArchitectureError(f"{where} lacks {', '.join(missing)}")
    return dict(mapping)


def _build(mapping: object, cls: type[Any], where: str) -> Any:
    values = _checked(mapping, cls, where)
    if values.get("squeeze_excite") is not None:
        values["squeeze_excite"] = _build(values["squeeze_excite"], SqueezeExciteSpec, f"{where}.squeeze_excite")
    try:
        return cls(**values)
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def dump_architecture(architecture: Architecture) -> str:
    """The JSON text of an architecture file."""
    content = {"format": FORMAT, "version": VERSION, "architecture": to_mapping(architecture)}
    return json.dumps(content, indent=1) + "\n"


def parse_architecture(text: str, where: str = "architecture") -> Architecture:
    """The architecture of a JSON text; ``where`` names it in errors."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ArchitectureError(f"{where} is not JSON that can be read: {error}") from None
    if not isinstance(content, dict) or "architecture" not in content:
        raise ArchitectureError(f"{where} has no 'architecture'; it must be a {FORMAT} file or a run's best.json")
    found = content.get("format", FORMAT)  # a run's best.json has none
    if found != FORMAT:
        raise ArchitectureError(f"{where} is of format {found!r:.60}; an architecture's file has {FORMAT!r}, or none")
    if "format" in content and content.get("version") != VERSION:
        raise ArchitectureError(f"{where} has version {content.get('version')!r}; this release reads version {VERSION}")
    try:
        return from_mapping(content["architecture"])
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def load_architecture(path: str | Path) -> Architecture:
    """The architecture in a JSON file.

    Raises:
        ArchitectureError: the file is missing, too large, not JSON, or breaks a rule.
    """
    try:
        text = utf8(read_bounded(path, MAX_FILE_BYTES))
    except OSError as error:
        raise ArchitectureError(
            f"cannot read {path}: {error.strerror or error}; give the path of a network's JSON file, such as a run's "
            "best.json"
        ) from None
    except ValueError as error:
        raise ArchitectureError(f"cannot read {path}: {error}") from None
    return parse_architecture(text, str(path))
