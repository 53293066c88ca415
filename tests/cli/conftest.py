"""The command line as a user meets it: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mnv3search.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Invoke = Callable[..., Outcome]


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run mnv3search in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            main(list(arguments))
        captured = capfd.readouterr()
        code = done.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
