"""Ctrl-C, SIGTERM, closed terminals and pipes without a reader: in order, with the right code, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SEARCH = ("search", "--space", "mnv3_small", "--target-latency", "0.9x", "--trials", "20", "--out", "s")
AT_IMPORT = """
import signal, sys
from importlib.abc import MetaPathFinder
from mnv3search.cli import main

module, signals, *arguments = sys.argv[1:]
class Signalling(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            for number in signals.split(","):
                signal.raise_signal(int(number))
sys.meta_path.insert(0, Signalling())
sys.argv[1:] = arguments
main()
"""
BEFORE_THE_COMMAND, IN_A_COMMAND, IN_A_RUN = "click", "mnv3search.space.space", "optuna"


def signalled(folder: Path, module: str, *signals: signal.Signals) -> subprocess.CompletedProcess[str]:
    """A search that is sent ``signals``, one right after the other, when it first imports ``module``."""
    numbers = ",".join(str(int(number)) for number in signals)
    return _completed([sys.executable, "-c", AT_IMPORT, module, numbers, *SEARCH], folder)


def _completed(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_end_says_so_in_its_manifest_and_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = signalled(tmp_path, IN_A_RUN, number)
    assert done.returncode == 128 + number
    assert done.stderr.splitlines()[-1].endswith("go on with mnv3search search --resume s")
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("module", [BEFORE_THE_COMMAND, IN_A_COMMAND, IN_A_RUN])
@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_without_a_traceback(
    tmp_path: Path, module: str, again: signal.Signals
) -> None:
    done = signalled(tmp_path, module, signal.SIGINT, again)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_a_request_that_comes_twice_as_from_timeout_is_one(tmp_path: Path) -> None:
    done = signalled(tmp_path, IN_A_RUN, signal.SIGTERM, signal.SIGTERM)
    assert done.returncode == 143
    assert "go on with mnv3search search --resume s" in done.stderr
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("module", ["click", "json", "mnv3search.errors", "mnv3search.cli.run_command", "numpy"])
def test_an_interrupt_while_modules_are_imported_is_one_line(tmp_path: Path, module: str) -> None:
    done = signalled(tmp_path, module, signal.SIGINT)
    assert (done.returncode, done.stderr.split()) == (130, ["interrupted"])
    assert not (tmp_path / "s").exists()


def test_an_interrupt_that_python_cannot_raise_where_it_comes_is_not_lost(tmp_path: Path) -> None:
    code = """
import signal
from mnv3search.cli import stopping
class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
asked = stopping.Stopping()
asked.answer_signals()
asked.orderly = True
try:
    Interrupted()
    signal.pause()
except KeyboardInterrupt:
    raise SystemExit(asked.exit_code)
"""
    done = _completed([sys.executable, "-c", code], tmp_path)
    assert (done.returncode, done.stderr) == (130, "")


def test_signals_that_were_ignored_from_the_start_stay_so(tmp_path: Path) -> None:
    ignoring = AT_IMPORT.replace(
        "import signal, sys", "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)"
    )
    command = [sys.executable, "-c", ignoring, IN_A_RUN, str(int(signal.SIGHUP)), *SEARCH]
    assert _completed(command, tmp_path).returncode == 0


@pytest.mark.parametrize("arguments", ["count mobilenet_v2 --layers", "--help", "spaces", "count mobilenet_v2 --json"])
def test_a_reader_that_leaves_is_left_quietly(tmp_path: Path, arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # nobody reads from the first byte on
    done = subprocess.run(
        [sys.executable, "-m", "mnv3search", *arguments.split()], stdout=writing, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}, cwd=tmp_path, timeout=120,
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
