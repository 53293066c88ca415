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
    """What a file is meant to be, for messages.

    Attributes:
        name: such as ``space``.
        format: the value of its first field.
        error: what is raised where it breaks a rule.
    """

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
    """More nodes or nesting than a space needs; carries the line."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass
class Document:
    """Plain data and the line of each value.

    Attributes:
        name: of the file, for messages.
        data: mappings, lists and scalars.
        lines: the line of each value, from 1.
        key_lines: the line of each mapping's key.
        kind: what it is meant to be.
    """

    name: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    key_lines: dict[Path, int] = field(default_factory=dict)
    kind: DocumentKind = SPACE

    def error(self, path: Path, message: str) -> Mnv3SearchError:
        """An error with file, line and path: ``file.yaml:12: stages[2].block.kernel_size: …``."""
        line = self.key_lines.get(path) if path not in self.lines else self.lines[path]
        while line is None and path:
            path = path[:-1]
            line = self.lines.get(path)
        key = path_text(path)
        return self.kind.error(f"{self.name}:{line or 1}: {key + ': ' if key else ''}{message}")


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
    """The text of a file.

    Raises:
        SpaceError: or the kind's own: it is missing, larger than 1 MB, or not UTF-8.
    """
    try:
        return utf8(read_bounded(path, MAX_FILE_BYTES))
    except OSError as error:
        raise kind.error(f"{path}: cannot be read: {error.strerror or error}; a {kind.name} is a YAML file") from None
    except ValueError as error:
        raise kind.error(f"{path}: cannot be read: {error}; a {kind.name} is a YAML file") from None


def parse_document(text: str, name: str, kind: DocumentKind = SPACE) -> Document:
    """The data of a YAML text with its lines.

    Raises:
        SpaceError: or the kind's own: not YAML, several documents, duplicate or odd keys, more than 20,000 nodes, a
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
        raise kind.error(f"{name}:{mark.line + 1 if mark else 1}: is not YAML, or cut short: {problem}") from None
    except yaml.YAMLError as error:
        raise kind.error(f"{name}:1: is not YAML: {' '.join(str(error).split())}") from None
    except (_TooMuch, RecursionError) as error:
        raise kind.error(_too_much(name, getattr(error, "line", 1), kind)) from None
    if node is None:
        raise kind.error(f"{name}:1: is empty; a {kind.name} begins with 'format: {kind.format}'")
    document.data = _NodeReader(document).value(node, ())
    return document


def _too_much(name: str, line: int, kind: DocumentKind) -> str:
    return (
        f"{name}:{line}: more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}; "
        f"write the {kind.name} without such repetition"
    )


class _NodeReader:
    """Turns nodes into plain data; aliases are followed and count each time, so that they cannot multiply."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.visited = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.document.lines[path] = line
        self.visited += 1
        if self.visited > MAX_NODES or len(path) > MAX_DEPTH:
            raise self.document.kind.error(_too_much(self.document.name, line, self.document.kind))
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
            raise self.document.error(path, f"the tag {shown(node.tag)} is not allowed; write plain mappings and lists")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.document.kind.error(
                    f"{self.document.name}:{line}: a key must be a word, not a list or mapping"
                )
            key = str(key_node.value)
            here = (*path, key)
            if key in found:
                first = self.document.key_lines[here]
                raise self.document.kind.error(
                    f"{self.document.name}:{line}: {path_text(here)}: the key is given twice, first in line {first}; "
                    f"keep one"
                )
            self.document.key_lines[here] = line
            found[key] = self.value(value_node, here)
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text, pattern = node.value, _SCALARS.get(node.tag)
        if pattern is None or not pattern.fullmatch(text):
            raise self.document.error(path, f"{shown(text)} cannot be read as a value; write it without a tag")
        kind = node.tag.removeprefix(_TAG)
        if kind in ("null", "bool"):
            return None if kind == "null" else text[0] in "tT"
        if kind == "int":
            if len(text) > 1 and text.lstrip("+-0").isdigit() and text.lstrip("+-").startswith("0"):
                raise self.document.error(
                    path, f"{shown(text)} begins with 0, which some read as octal; write {shown(text.lstrip('+-0'))}"
                )
            if len(text) > _MAX_DIGITS:
                raise self.document.error(path, f"{shown(text)} has more than {_MAX_DIGITS} digits")
            return int(text, 0)
        return self._float(text, path) if kind == "float" else text

    def _float(self, text: str, path: Path) -> float | int:
        value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise self.document.error(path, f"{value} is not a finite number; give an ordinary one")
        return int(value) if value.is_integer() else value
