"""What native libraries print to stdout by themselves, kept from the user's: a command's JSON must stay alone there."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_output_dropped() -> Iterator[None]:
    """While it lasts, stdout of the whole process leads nowhere."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        _flush_native()
        os.dup2(nowhere, 1)
        yield
    finally:
        _flush_native()
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def _flush_native() -> None:
    """Empties C's own buffers, which would otherwise appear when stdout leads somewhere again."""
    try:
        ctypes.CDLL(None).fflush(None)
    except (OSError, TypeError, AttributeError):  # no C library by that name (Windows)
        return
