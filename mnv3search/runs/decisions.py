"""Milliseconds that a run fixes once, such as its target, so that every session of it works with the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from mnv3search.errors import RunError
from mnv3search.files import write_text

MAX_BYTES = 1_000_000


class Decisions:
    """Named milliseconds in ``decisions.json``: each is computed when it is first asked for, and then kept.

    A device that is calibrated anew in each session prices a network a little differently; a resumed run must not
    drift with it from what it began.

    Raises:
        RunError: the file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path) if path.exists() else {}

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


def _read(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path} has more than {MAX_BYTES} bytes, which no run writes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged: it must hold named milliseconds")
    for name, value in content.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise RunError(f"{path} is damaged: {name} is {value!r}, not a positive number of milliseconds")
    return content
