"""What stands in the log of a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.cli.progress import ProgressLine
from mnv3search.errors import EvaluatorError, InfeasibleError, RunError
from mnv3search.log import logger
from mnv3search.runs.session import resume_run, start_run
from mnv3search.runs.settings import RunSettings

SETTINGS = RunSettings("search", "mnv3_small", "14ms", "pixel1", "prior", trials=30)


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.report.pareto.ParetoFigure.save", lambda *_: None)


def test_a_run_logs_its_stages_and_every_session(tmp_path: Path) -> None:
    with ProgressLine(quiet=True) as progress:
        start_run(SETTINGS, tmp_path / "r", progress=progress)
        resume_run(tmp_path / "r", progress=progress)
    lines = (tmp_path / "r" / "log.txt").read_text().splitlines()
    assert (
        sum("INFO began: mnv3search" in line for line in lines)
        == sum(line.endswith("INFO ended") for line in lines)
        == 2
    )
    assert any("INFO writing the report" in line for line in lines)
    assert all(line[:2] == "20" for line in lines), "each with its date"


def test_an_error_is_logged_with_where_it_was_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise EvaluatorError("no such luck")

    monkeypatch.setattr(ImagenetPrior, "evaluate", broken)
    with pytest.raises(EvaluatorError):
        start_run(SETTINGS, tmp_path / "r")
    text = (tmp_path / "r" / "log.txt").read_text()
    assert "ERROR failed" in text
    assert "test_log.py" in text
    assert "EvaluatorError: no such luck" in text
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["status"] == "failed"


def test_a_discarded_folder_leaves_no_log(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError):
        start_run(RunSettings("search", "mnv3_small", "1ms", "pixel1", "prior", trials=30), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    start_run(SETTINGS, tmp_path / "r")
    letter = tmp_path / "letter.txt"
    letter.write_text("dear")
    (tmp_path / "r" / "log.txt").unlink()
    os.symlink(letter, tmp_path / "r" / "log.txt")
    with pytest.raises(RunError, match=r"log\.txt is a link"):
        resume_run(tmp_path / "r")
    assert letter.read_text() == "dear"


def test_a_program_keeps_its_own_logging(tmp_path: Path) -> None:
    handlers, level = list(logger.handlers), logger.level
    start_run(SETTINGS, tmp_path / "r")
    assert (list(logger.handlers), logger.level) == (handlers, level)
