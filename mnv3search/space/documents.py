"""Bounded and safe reading of YAML: duplicate keys are refused, and the line of every value is known."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from mnv3search.errors import Mnv3SearchError, SpaceError
from mnv3search.reading import read_bounded, utf8

Path = tuple[str | int, ...]
MAX_FILE_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 32
_MAX_DIGITS = 300
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = (f"{_TAG}map", f"{_TAG}seq")
# The core schema of YAML 1.2: in it `yes`, `off`, `1:30` and `1_000` are texts, and 1e-3 is a number.
_SCALARS = {
    f"{_TAG}null": re.compile(r"~|null|Null|NULL|"),
    f"{_TAG}bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    f"{_TAG}int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    f"{_TAG}float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
    f"{_TAG}str": re.compile(r".*", re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """What a file is meant to be: its name for messages, its ``format``, and the error where it breaks a rule."""

    name: str
    format: str
    error: type[Mnv3SearchError]


SPACE = DocumentKind("space", "mnv3search.space/1", SpaceError)


class _BoundedLoader(yaml.SafeLoader):
    """The safe loader by the rules of YAML 1.2, which stops at too many or too deeply nested nodes."""

    nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _TooMuch(mark.line + 1)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return next(tag for tag, pattern in _SCALARS.items() if pattern.fullmatch(value))
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


class _TooMuch(Exception):
    """More nodes or nesting than a space needs; its argument is the line."""


@dataclass
class Document:
    """Plain data (mappings, lists and scalars) and the line of each value and of each mapping's key, from 1."""

    name: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    key_lines: dict[Path, int] = field(default_factory=dict)
    kind: DocumentKind = SPACE

    def error(self, path: Path, message: str, line: int | None = None) -> Mnv3SearchError:
        """An error with file, line and path: ``file.yaml:12: stages[2].block.kernel_size: …``; the value's own line."""
        line = line or self.lines.get(path) or self.key_lines.get(path)
        while line is None and path:
            path = path[:-1]
            line = self.lines.get(path)
        key = path_text(path)
        return self.kind.error(f"{self.name}:{line or 1}: {key + ': ' if key else ''}{message}")

    def too_much(self, line: int) -> Mnv3SearchError:
        """The error of a document with too many values, or too deeply nested ones."""
        limits = f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}"
        return self.error((), f"{limits}; write the {self.kind.name} without such repetition", line)


def path_text(path: Path) -> str:
    """``stages[2].block.kernel_size``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: object) -> str:
    """A value for a message, on one line and not too long."""
    text = repr(value) if isinstance(value, (str, list, dict)) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_text(path: FilePath, kind: DocumentKind = SPACE) -> str:
    """The text of a file; the kind's error where it is missing, larger than 1 MB, or not UTF-8."""
    try:
        return utf8(read_bounded(path, MAX_FILE_BYTES))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise kind.error(f"{path}: cannot be read: {why}; a {kind.name} is a YAML file") from None


def parse_document(text: str, name: str, kind: DocumentKind = SPACE) -> Document:
    """The data of a YAML text with its lines.

    Raises:
        Mnv3SearchError: the kind's own: not YAML, several documents, duplicate or odd keys, more than 20,000 nodes, a
            value that is not finite.
    """
    document = Document(name, kind=kind)
    if len(text.encode("utf-8", "replace")) > MAX_FILE_BYTES:
        raise kind.error(f"{name}: the text is longer than {MAX_FILE_BYTES} bytes, the most that a {kind.name} has")
    try:
        loader = _BoundedLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise document.error((), f"is not YAML, or cut short: {problem}", mark.line + 1 if mark else 1) from None
    except yaml.YAMLError as error:
        raise document.error((), f"is not YAML: {' '.join(str(error).split())}") from None
    except _TooMuch as error:
        raise document.too_much(error.args[0]) from None
    except RecursionError:
        raise document.too_much(1) from None
    if node is None:
        raise document.error((), f"is empty; a {kind.name} begins with 'format: {kind.format}'")
    document.data = _value(document, node, ())
    return document


def _value(document: Document, node: yaml.Node, path: Path) -> Any:
    """A node as plain data; aliases are followed and count each time, so that they cannot multiply."""
    line = document.lines[path] = node.start_mark.line + 1
    if len(document.lines) > MAX_NODES or len(path) > MAX_DEPTH:
        raise document.too_much(line)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise document.error(path, f"the tag {shown(node.tag)} is not allowed; write plain mappings and lists")
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(document, item, (*path, i)) for i, item in enumerate(node.value)]
    return _scalar(document, node, path)


def _mapping(document: Document, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise document.error((), "a key must be a word, not a list or mapping", line)
        key = str(key_node.value)
        here = (*path, key)
        if key in found:
            first = document.key_lines[here]
            raise document.error(here, f"the key is given twice, first in line {first}; keep one", line)
        document.key_lines[here] = line
        found[key] = _value(document, value_node, here)
    return found


def _scalar(document: Document, node: yaml.Node, path: Path) -> Any:
    text, pattern = node.value, _SCALARS.get(node.tag)
    if pattern is None or not pattern.fullmatch(text):
        raise document.error(path, f"{shown(text)} cannot be read as a value; write it without a tag")
    kind = node.tag.removeprefix(_TAG)
    if kind in ("null", "bool"):
        return None if kind == "null" else text[0] in "tT"
    if kind == "int":
        if len(text) > 1 and text.lstrip("+-0").isdigit() and text.lstrip("+-").startswith("0"):
            raise document.error(
                path, f"{shown(text)} begins with 0, which some read as octal; write {shown(text.lstrip('+-0'))}"
            )
        if len(text) > _MAX_DIGITS:
            raise document.error(path, f"{shown(text)} has more than {_MAX_DIGITS} digits")
        return int(text, 0)
    if kind == "str":
        return text
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise document.error(path, f"{value} is not a finite number; give an ordinary one")
    return int(value) if value.is_integer() else value
