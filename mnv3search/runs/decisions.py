"""Milliseconds that a run fixes once, such as its target, so that every session of it works with the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from mnv3search.errors import RunError
from mnv3search.files import write_text
from mnv3search.reading import read_json
from mnv3search.records import LATENCY_MS, UNREADABLE, Record

MAX_BYTES = 1_000_000
TARGET = "target_ms"
FARTHEST = 100.0  # from the target, as a factor, that any limit of a search or a narrowing is
REMEDY = "put it right, or remove the file: what it fixes is then worked out anew"


class Decisions:
    """Named milliseconds in ``decisions.json``: each is computed when it is first asked for, and then kept.

    A device that is calibrated anew in each session prices a network a little differently; a resumed run must not
    drift with it from what it began.

    Raises:
        RunError: the file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def fix(self, name: str, compute: Callable[[], float]) -> float:
        """The figure of this name in milliseconds; ``compute`` is called where it is not yet known.

        Raises:
            RunError: the file cannot be written.
        """
        if name not in self._known:
            self._known[name] = float(compute())
            write_text(self._path, json.dumps(self._known, indent=1) + "\n")
        return self._known[name]

    def check(self, name: str, low: float, high: float) -> None:
        """Pass where the figure of this name is unknown, or within what can have been fixed.

        Raises:
            RunError: it is not.
        """
        known = self._known.get(name, low)
        if not low <= known <= high:
            raise RunError(
                f"{self._path} is damaged: {name} is {known:g}; what was asked makes it {low:g}"
                + (f" to {high:g}" if high > low else "") + f"; {REMEDY}"
            )


def _read(path: Path) -> dict[str, float]:
    try:
        record = Record(read_json(path, MAX_BYTES, os.O_NOFOLLOW))
        found = {name: record.number(name, *LATENCY_MS) for name in record.names()}
        if (target := found.get(TARGET)) is not None:
            for name in found:
                record.number(name, target / FARTHEST, target * FARTHEST)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except UNREADABLE as error:
        raise RunError(f"{path} is damaged: {error}; {REMEDY}") from None
    return found
