"""Standard output: one JSON object, or tables for people in which control characters are shown as escapes."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import click

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else there."
)


_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # control and direction; not \n, \t


def shown(text: str) -> str:
    """``text`` with what a terminal would obey as escapes."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def examples(*lines: str) -> str:
    """An epilog of example commands, a line each, which no terminal's width wraps: they can be copied."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def escape_what_cannot_be_shown() -> None:
    """Print what a terminal's encoding lacks, or is not UTF-8 in a file's name, as escapes; hush others' warnings."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters of it the scan says, by the image's name
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # a picture's names are in a table as well


def print_json(content: Mapping[str, object]) -> None:
    """One JSON object on stdout; what is not finite becomes null, as JSON has no such number."""
    finite = _finite(content)
    text = json.dumps(finite, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(finite)
    click.echo(text)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
