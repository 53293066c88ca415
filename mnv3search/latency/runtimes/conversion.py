"""A model in another runtime's format, made by that runtime's own converter in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
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
