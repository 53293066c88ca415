"""A model in another runtime's format, by that runtime's converter; and native output kept from the user's stdout."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnv3search.errors import MeasurementError

CONVERSION_SECONDS = 600
SHOWN = 300  # characters of what a converter says, at most


def converted(python_arguments: list[str], content: bytes, what: str) -> bytes:
    """What a converter makes of ``content``; it runs in this interpreter with the two files' paths as last arguments.

    Raises:
        MeasurementError: the converter fails, takes longer than ten minutes, or writes nothing.
    """
    with tempfile.TemporaryDirectory(prefix="mnv3search-") as folder:
        given, made = Path(folder) / "given", Path(folder) / "made"
        given.write_bytes(content)
        try:
            done = subprocess.run(
                [sys.executable, *python_arguments, str(given), str(made)], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=CONVERSION_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{what} took longer than {CONVERSION_SECONDS} s; measure smaller networks or in another runtime"
            ) from None
        if done.returncode or not made.is_file():
            said = " ".join(done.stdout.decode("utf-8", "replace").split())[-SHOWN:]
            raise MeasurementError(f"{what} failed ({said or f'code {done.returncode}'}); use another runtime")
        return made.read_bytes()


@contextmanager
def native_output_dropped() -> Iterator[None]:
    """Within it stdout of the whole process leads nowhere: a command's JSON must stay alone there."""
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
    """Empties C's own buffers, whose content would otherwise appear later."""
    try:
        ctypes.CDLL(None).fflush(None)
    except (OSError, TypeError, AttributeError):  # no C library by that name (Windows)
        return
