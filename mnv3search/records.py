"""Values of files and of callers, each checked by its rule.

A log is only ever appended to, a line of JSON as soon as something is known; a kill may cut the last one short.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from mnv3search.errors import Mnv3SearchError, RunError
from mnv3search.reading import open_regular, parse_json


def real(value: object) -> float | None:
    """``value`` as a float; None where it is no real number: a text, a bool, an array."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def whole(value: object) -> int | None:
    """``value`` as an int; None where it is no integer: 8.0, a text, a bool."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


MAX_LOG_BYTES = 512_000_000
TOP1 = (0.0, 100.0)  # percent
SCORE = (-1e30, 1e30)  # of evaluators whose answers are no accuracies
MAX_EPOCH = 10**6
LATENCY_MS = (1e-6, 1e7)
ERROR_MS = (0.0, 1e7)
UNREADABLE = (Mnv3SearchError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading a damaged record may raise."""
_LINE_START = b'{"'
_REMEDY = "restore the file, or remove this line and those after it: what they hold is then done again"
Entry = TypeVar("Entry")


class Record:
    """Named values of a JSON object, each read with its type and range; unknown ones are ignored.

    With ``texts`` the numbers are texts, as in a row of a CSV file, where an empty text is no value.

    Raises:
        ValueError: from here and from every method, a value that is missing, of another type or out of its range.
    """

    def __init__(self, content: object, *, texts: bool = False) -> None:
        if not isinstance(content, Mapping):
            raise ValueError(f"{_shown(content)} is not an object with named values")
        self.content, self._texts = content, texts

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def value(self, name: str) -> Any:
        """A value of any type."""
        if name not in self.content:
            raise ValueError(f"{name} is missing")
        return self.content[name]

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from ``low`` to ``high``."""
        value = self._figure(name, float)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {_shown(value)}; it must be a finite number")
        if not low <= value <= high:
            raise ValueError(f"{name} is {_shown(value)}; it must be from {low:g} to {high:g}")
        return float(value)

    def optional(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """The same, or None."""
        return None if self.value(name) in (None, "") else self.number(name, low, high)

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._figure(name, int)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} is {_shown(value)}; it must be a whole number from {low} to {high}")
        return value

    def _figure(self, name: str, kind: Callable[[str], float]) -> Any:
        value = self.value(name)
        with suppress(ValueError):  # what is no number is refused with its rule
            return kind(value) if self._texts else value
        return value

    def text(self, name: str) -> str:
        """A text."""
        return self._typed(name, str, "a text")

    def list(self, name: str) -> list[Any]:
        """A list of values of any type."""
        return self._typed(name, list, "a list")

    def _typed(self, name: str, kind: type[Entry], words: str) -> Entry:
        value = self.value(name)
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {_shown(value)}; it must be {words}")
        return value

    def record(self, name: str) -> Record:
        """A record within this one."""
        return Record(self.value(name))

    def names(self) -> tuple[str, ...]:
        """Of all values."""
        return tuple(self.content)


def read_log(log: Path, parse: Callable[[Record], Entry], kind: str) -> list[Entry]:
    """What ``parse``, which may raise any of :data:`UNREADABLE`, makes of each line; none where there is no file.

    A last line without an end is cut away, so that the next begins on one of its own: what it held is done again.
    ``kind`` is what an entry is, for errors: ``evaluation``.

    Raises:
        RunError: a link, no regular file, too large, or a damaged line; the message names the line and the rule.
    """
    found: list[Entry] = []
    read = 0
    try:
        with open_regular(log, os.O_NOFOLLOW) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_LOG_BYTES:
                raise RunError(f"{log} has more than {MAX_LOG_BYTES} bytes, which no run writes")
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    _mend(log, number, line, read)
                    break
                try:
                    found.append(parse(Record(parse_json(line))))
                except UNREADABLE as error:
                    raise RunError(f"{log}:{number}: a damaged {kind}: {error}; {_REMEDY}") from None
                read += len(line)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {log}: {error.strerror}") from None
    return found


def _mend(log: Path, number: int, line: bytes, start: int) -> None:
    """Cut the last line, which begins at byte ``start``, if a run wrote it."""
    text = line.rstrip(b"\0")  # which a file system may leave after a power cut
    if not (text.startswith(_LINE_START) or _LINE_START.startswith(text)):
        raise RunError(f"{log}:{number}: this was not written by a run: {_shown(text)}; {_REMEDY}")
    os.truncate(log, start)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
