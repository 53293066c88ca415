"""The progress line where nobody watches: plain lines on stderr."""

from __future__ import annotations

import threading
import time

import pytest

from mnv3search.cli import progress
from mnv3search.cli.progress import ProgressLine


def test_plain_lines_end_where_nothing_more_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    with ProgressLine() as line:
        line.stage("features of 2 images", 2)
        line.advance(2)
        line.stage("timing")
        line.advance(3, "calls")
    assert capsys.readouterr().err.splitlines() == [
        "features of 2 images", "  features of 2 images: 2 of 2", "timing", "  timing: 3, calls",
    ]  # fmt: skip


def test_a_stage_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as line:
        line.stage("looking at \x1b]0;mine\x07")
    assert capsys.readouterr().err == "looking at \\x1b]0;mine\\x07\n"


def test_a_long_stage_says_that_it_is_still_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENCE_S", 0.02)
    said, deadline = "", time.monotonic() + 60
    with ProgressLine() as line:
        line.stage("fine-tuning proposal 3 of 40")
        while "under way for" not in said and time.monotonic() < deadline:
            said += capsys.readouterr().err
    assert said.splitlines()[0] == "fine-tuning proposal 3 of 40"
    assert "  fine-tuning proposal 3 of 40: under way for 0 s" in said


def test_quiet_breaks_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE_S", 0.01)
    before = threading.active_count()
    with ProgressLine(quiet=True) as line:
        line.stage("anything")
        assert threading.active_count() == before
