"""Whatever happens to a run's files: it goes on, or says in one line what is wrong; nonsense never chooses a winner."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_board import Board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnv3search.errors import Mnv3SearchError, RunError
from mnv3search.runs.comparison import compared
from mnv3search.runs.progress import SilentProgress
from mnv3search.runs.session import resume_run, start_run
from mnv3search.runs.settings import RunSettings

TARGET_MS = 5.0
SETTINGS = RunSettings(
    "run", "mnv3_small", f"{TARGET_MS}ms", "pixel1", "prior", trials=12, finalists=1, step_fraction=0.03
)
RESULTS = ("best.json", "candidates.csv", "pareto.csv", "report.html")
JOURNALS = ("evaluations.jsonl", "measured.jsonl", "study.log")
FILES = ("manifest.json", "decisions.json", "best.json", "netadapt.csv", "pareto.csv", "space.yaml", *JOURNALS)


def board() -> Board:
    return Board(lambda _: 1.06)


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.report.pareto.ParetoFigure.save", lambda *_: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnv3search.report.pareto.ParetoFigure.save", lambda *_: None)
        start_run(SETTINGS, folder, device=board())
    assert all((folder / name).exists() for name in FILES)
    return folder


def copied(whole: Path, *, finished: bool) -> Path:
    copy = whole.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    if not finished:
        for name in RESULTS:
            (copy / name).unlink()
    return copy


NASTY: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1e308, 1e-308, 10**290, 10**400, float("nan"), float("inf"), "", "x", "\0", [], {}, [[]], 1e9]
)


def changed(value: Any, draw: Callable[[Any], Any]) -> Any:
    """``value`` with something within it left out or replaced."""
    if isinstance(value, dict | list) and value and draw(st.booleans() | st.just(True)):
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else list(range(len(value)))))
        other = value.copy()
        if draw(st.integers(0, 9)) == 0:
            del other[key]
        else:
            other[key] = changed(value[key], draw)
        return other
    return draw(NASTY)


def value_changed(name: str, content: bytes, draw: Callable[[Any], Any]) -> bytes:
    """A file with one of its values changed, that is otherwise whole."""
    if name.endswith(".json"):
        return json.dumps(changed(json.loads(content), draw)).encode()
    if name.endswith(".csv"):
        rows = list(csv.reader(io.StringIO(content.decode())))
        row = draw(st.sampled_from(rows))
        column = draw(st.integers(0, len(row) - 1))
        is_json = row[column].startswith("{")
        row[column] = json.dumps(changed(json.loads(row[column]), draw)) if is_json else str(draw(NASTY))
        stream = io.StringIO()
        csv.writer(stream).writerows(rows)
        return stream.getvalue().encode()
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = json.dumps(changed(json.loads(lines[at]), draw)).encode() if name in JOURNALS else b"stages: {}"
    return b"\n".join(lines) + b"\n"


def damaged(name: str, content: bytes, draw: Callable[[Any], Any]) -> bytes:
    kind = draw(st.sampled_from(["value", "value", "value", "cut", "bytes", "deep", "twice"]))
    at = draw(st.integers(0, len(content)))
    if kind == "value":
        return value_changed(name, content, draw)
    if kind == "cut":
        return content[:at]
    if kind == "bytes":
        piece: bytes = draw(st.binary(min_size=1, max_size=6))
        return content[:at] + piece + content[at + draw(st.integers(0, 6)) :]
    return content + b"[" * 50_000 + b"\n" if kind == "deep" and name != "study.log" else content + content


@given(data=st.data(), name=st.sampled_from(FILES), finished=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_one_line_or_none(whole: Path, data: st.DataObject, name: str, finished: bool) -> None:
    folder = copied(whole, finished=finished)
    if (folder / name).exists():
        (folder / name).write_bytes(damaged(name, (folder / name).read_bytes(), data.draw))
    try:
        outcome = resume_run(folder, device=board())
        best, target_ms = outcome.summary.best, outcome.summary.target_latency_ms
    except Mnv3SearchError as error:
        message = str(error)
    else:
        message = ""
        assert target_ms == TARGET_MS
        assert best.top1 is not None
        assert 0 <= best.top1 <= 100
        assert best.latency_ms == pytest.approx(board().latency_ms([best.architecture])[0])
    assert "\n" not in message.strip()
    try:
        compared([str(folder)], None, None, SilentProgress())
    except Mnv3SearchError as error:
        message = str(error)
    assert "\n" not in message.strip()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *(("evaluations.jsonl", "top1", top1) for top1 in (-1, 1e308, 10**300, True, None)),
        *(("measured.jsonl", "measured_ms", ms) for ms in (0, 1e-5, 1e308)),
        ("measured.jsonl", "error_ms", -1),
        *(("decisions.json", "target_ms", ms) for ms in (1e9, 15.0, 0)),
        *(("decisions.json", "block_search_limit_ms", ms) for ms in (1e9, 6.0, 1e-3)),
        ("decisions.json", "finalist_1_first_limit_ms", 5.1),
        ("manifest.json", "seconds", 1e308),
        ("manifest.json", "sessions", 0),
    ],
)
def test_values_out_of_range_are_refused_by_name(whole: Path, name: str, key: str, value: Any) -> None:
    folder = copied(whole, finished=False)
    lines = (
        [json.loads(line) for line in ([text] if name.endswith(".json") else text.splitlines())]
        if (text := (folder / name).read_text())
        else []
    )
    for line in lines:
        line[key] = value
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=f"{name}.*"):
        resume_run(folder, device=board())


@pytest.mark.parametrize(("column", "value"), [("latency_ms", "0.001"), ("top1", "100.5"), ("number", "2")])
def test_steps_out_of_range_are_refused(whole: Path, column: str, value: str) -> None:
    folder = copied(whole, finished=False)
    with (folder / "netadapt.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0][column] = value
    with (folder / "netadapt.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(RunError, match=r"netadapt\.csv"):
        resume_run(folder, device=board())


@pytest.mark.parametrize("name", [*FILES, "report.html"])
def test_a_file_that_is_a_link_is_refused_and_what_it_points_to_left_alone(whole: Path, name: str) -> None:
    folder = copied(whole, finished=True)
    letter = whole.parent / "letter"
    letter.write_bytes((folder / name).read_bytes() + b'{"unfinished')
    before = letter.read_bytes()
    (folder / name).unlink()
    (folder / name).symlink_to(letter)
    with pytest.raises(RunError, match="link"):
        resume_run(folder, device=board())
    assert letter.read_bytes() == before
