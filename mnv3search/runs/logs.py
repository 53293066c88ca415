"""Logs that are only ever appended to, a line as soon as something is known; a kill may cut the last one short."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mnv3search.errors import ArchitectureError, RunError

MAX_LOG_BYTES = 512_000_000
Entry = TypeVar("Entry")


def read_log(log: Path, parse: Callable[[bytes], Entry], kind: str) -> list[Entry]:
    """What ``parse`` makes of each line; none where there is no file.

    A line that does not end is cut away, so that the next begins on one of its own: what it told is done again.

    Args:
        log: of at most ``MAX_LOG_BYTES``.
        parse: of one line; it may raise what wrong JSON and wrong architectures do.
        kind: of entry, for errors: ``evaluation``.

    Raises:
        RunError: the file is too large, or a line is damaged.
    """
    if not log.exists():
        return []
    if log.stat().st_size > MAX_LOG_BYTES:
        raise RunError(f"{log} has more than {MAX_LOG_BYTES} bytes, which no run writes")
    content = log.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(log, len(whole))
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            found.append(parse(line))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError, ArchitectureError) as error:
            raise RunError(f"{log}:{number}: a damaged {kind}: {error}") from None
    return found
