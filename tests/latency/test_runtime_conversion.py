"""Converters in a process of their own, and what native libraries print."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mnv3search.errors import MeasurementError
from mnv3search.latency.runtimes import conversion
from mnv3search.latency.runtimes.conversion import converted
from mnv3search.latency.runtimes.litert_cpu import LiteRtCpu

COPY_TWICE = "import sys; *_, given, made = sys.argv; open(made, 'wb').write(2 * open(given, 'rb').read())"


def test_a_converter_gets_the_content_and_gives_what_it_writes() -> None:
    assert converted(["-c", COPY_TWICE], b"ab\0", "doubling") == b"ab\0ab\0"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('no operator of\\n that name')", "doubling failed .no operator of that name"),
        ("import sys; sys.exit(3)", "doubling failed .code 3.; use another runtime"),
        ("pass", "doubling failed .code 0"),
        ("print('x' * 100_000)", r"doubling failed .x{300}\)"),
    ],
)
def test_a_converter_that_fails_is_said(program: str, words: str) -> None:
    with pytest.raises(MeasurementError, match=words):
        converted(["-c", program], b"", "doubling")


def test_a_converter_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "CONVERSION_SECONDS", 0.2)
    with pytest.raises(MeasurementError, match=r"doubling took longer than 0\.2 s; measure smaller networks"):
        converted(["-c", "import time; time.sleep(60)"], b"", "doubling")


def test_what_native_code_prints_does_not_reach_stdout() -> None:
    program = (
        "import ctypes\n"
        "from mnv3search.latency.runtimes.conversion import native_output_dropped\n"
        "print('before')\n"
        "with native_output_dropped():\n"
        "    ctypes.CDLL(None).printf(b'native\\n')\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["before", "after"]


def test_litert_says_that_it_takes_whole_networks_alone() -> None:
    assert LiteRtCpu.whole_only is True
