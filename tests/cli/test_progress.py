"""The progress line where nobody watches: plain lines on stderr."""

from __future__ import annotations

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
