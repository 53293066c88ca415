"""A winner is timed before it is named: what the table has wrong is found, mended where it can be, and said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_board import TIMED_ERROR, Board, Table

from mnv3search.errors import InfeasibleError, MeasurementError, RunError
from mnv3search.families import parse_network
from mnv3search.latency.confidence import z_of
from mnv3search.report.summary import headline
from mnv3search.runs.artifacts import RunOutcome
from mnv3search.runs.final_selection import MAX_REPAIRS
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.session import resume_run, start_run
from mnv3search.runs.settings import RunSettings

TARGET = 5.0
SETTINGS = RunSettings("run", "mnv3_small", f"{TARGET}ms", "pixel1", "prior", trials=120, finalists=2)
SEARCH = RunSettings("search", "mnv3_small", f"{TARGET}ms", "pixel1", "prior", trials=400)
NETADAPT = RunSettings("netadapt", "mobilenet_v3_small", "0.9x", "pixel1", "prior")


def true_to_the_table(_: object) -> float:
    return 1.0


def slower_by_six_percent(_: object) -> float:
    return 1.06


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.report.pareto.ParetoFigure.save", lambda *_: None)


def upper(outcome: RunOutcome) -> float:
    best = outcome.summary.best
    assert best.measured_ms is not None
    assert best.measured_error_ms is not None
    return best.measured_ms + z_of(0.9) * best.measured_error_ms


def said(outcome: RunOutcome) -> str:
    return dict(headline(outcome.summary))["Target"]


def test_without_timing_a_table_that_is_too_fast_names_a_winner_that_misses(tmp_path: Path) -> None:
    best = start_run(SETTINGS, tmp_path / "r", device=Table()).summary.best
    assert best.measured_ms is None
    assert best.latency_ms <= TARGET / (1 + z_of(0.9) * 0.01)
    assert Board(slower_by_six_percent).truth_ms(best.architecture) > TARGET


@pytest.mark.parametrize("settings", [SETTINGS, SEARCH], ids=["run", "search"])
def test_timed_whole_the_same_run_is_repaired_and_passes(tmp_path: Path, settings: RunSettings) -> None:
    board = Board(slower_by_six_percent)
    outcome = start_run(settings, tmp_path / "r", device=board)
    verdict = outcome.summary.verdict
    assert verdict is not None
    assert verdict.met
    assert verdict.repairs >= 1
    assert upper(outcome) <= TARGET
    assert said(outcome).startswith("PASS: timed whole the best takes 4.")
    assert any("the search went on" in note for note in outcome.summary.notes)
    target: Any = outcome.to_mapping()["target"]
    assert target["met"] is target["meets_target_measured"] is True
    assert target["measured_ms"] == outcome.summary.best.measured_ms
    assert target["margin_percent"] == pytest.approx(100 * (1 - target["measured_ms"] / TARGET))
    assert json.loads((tmp_path / "r" / "best.json").read_text())["target"] == target


def test_a_true_table_needs_no_repair_and_times_everyone_in_one_session(tmp_path: Path) -> None:
    board = Board(true_to_the_table)
    outcome = start_run(SETTINGS, tmp_path / "r", device=board)
    verdict = outcome.summary.verdict
    assert verdict is not None
    assert (verdict.met, verdict.repairs) == (True, 0)
    (session,) = board.sessions
    assert outcome.summary.best.architecture in session
    assert outcome.reference.architecture in session
    assert outcome.reference.measured_ms is not None
    assert 6 <= verdict.timed <= len(session)
    tops = [n.top1 or 0.0 for n in outcome.summary.finalists]
    assert (outcome.summary.best.top1 or 0.0) >= max(tops)


@pytest.mark.parametrize("settings", [SETTINGS, replace(NETADAPT, target="5ms")], ids=["run", "netadapt"])
def test_a_winner_that_leaves_the_budget_unused_has_better_ones_nearer_the_target_timed(
    tmp_path: Path, settings: RunSettings
) -> None:
    slow_table = start_run(settings, tmp_path / "a", device=Board(true_to_the_table)).summary.best
    board = Board(lambda _: 0.92)
    outcome = start_run(settings, tmp_path / "b", device=board)
    verdict, best = outcome.summary.verdict, outcome.summary.best
    assert verdict is not None
    assert verdict.met
    assert len(board.sessions) > 1
    assert verdict.margin_percent < 3.0 + 100 * z_of(0.9) * TIMED_ERROR
    assert (best.top1 or 0.0) > (slow_table.top1 or 0.0)
    again = resume_run(tmp_path / "b", device=Board(lambda _: 0.92)).summary
    assert again.best == best


def test_who_passes_wins_over_who_was_predicted_best(tmp_path: Path) -> None:
    first = start_run(SETTINGS, tmp_path / "a", device=Board(true_to_the_table)).summary.best.architecture
    board = Board(lambda a: 1.05 if a == first else 1.0)
    outcome = start_run(SETTINGS, tmp_path / "b", device=board)
    assert outcome.summary.best.architecture != first
    assert outcome.summary.verdict is not None
    assert outcome.summary.verdict.met
    assert first in board.sessions[0]
    assert upper(outcome) <= TARGET


def test_what_cannot_be_repaired_fails_and_names_the_closest(tmp_path: Path) -> None:
    board = Board(true_to_the_table)
    board.truth_ms = lambda architecture: 5.5 + 1e-9 * float(Table().latency_ms([architecture])[0])  # type: ignore[method-assign]
    outcome = start_run(SETTINGS, tmp_path / "r", device=board)
    verdict = outcome.summary.verdict
    assert verdict is not None
    assert verdict.met is False
    assert verdict.margin_percent == pytest.approx(-10.0, abs=1e-3)
    assert 1 <= len(board.sessions) <= MAX_REPAIRS + 1
    assert "FAIL: timed whole the best takes 5.50" in said(outcome)
    assert "10.0 % above 5 ms" in said(outcome)
    timed = [a for session in board.sessions for a in session]
    assert outcome.summary.best.architecture in timed


def test_a_time_below_the_target_whose_spread_is_too_wide_is_no_pass(tmp_path: Path) -> None:
    class Noisy(Board):
        def measure(self, architectures: Any, progress: Any = None) -> Any:
            return [type(time)(4.9, 0.2) for time in super().measure(architectures, progress)]

    outcome = start_run(SEARCH, tmp_path / "s", device=Noisy(true_to_the_table))
    assert outcome.summary.verdict is not None
    assert outcome.summary.verdict.met is False
    assert "2.0 % below 5 ms, but its spread does not leave 90 % confidence" in said(outcome)


def test_netadapt_alone_is_repaired_too(tmp_path: Path) -> None:
    seed = parse_network("mobilenet_v3_small")
    board = Board(lambda a: 1.0 if a == seed else 1.06)
    outcome = start_run(NETADAPT, tmp_path / "n", device=board)
    verdict = outcome.summary.verdict
    assert verdict is not None
    assert verdict.met
    assert verdict.repairs == 1
    assert upper(outcome) <= outcome.summary.target_latency_ms == pytest.approx(0.9 * board.truth_ms(seed))
    assert [step.number for step in outcome.summary.steps] == list(range(1, len(outcome.summary.steps) + 1))
    assert outcome.summary.steps[-1].architecture == outcome.summary.best.architecture


def test_a_relative_target_is_of_the_references_measured_time_and_stays(tmp_path: Path) -> None:
    board = Board(slower_by_six_percent)
    outcome = start_run(NETADAPT, tmp_path / "n", device=board)
    assert outcome.reference.measured_ms == board.truth_ms(outcome.reference.architecture)
    assert outcome.summary.target_latency_ms == pytest.approx(0.9 * outcome.reference.measured_ms)
    assert board.sessions[0] == [outcome.reference.architecture]
    later = Board(lambda _: 2.0)
    again = resume_run(tmp_path / "n", device=later)
    assert again.summary.target_latency_ms == outcome.summary.target_latency_ms
    assert again.summary.best == outcome.summary.best
    assert later.sessions == []


def test_a_run_killed_between_timing_and_report_resumes_to_the_same_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = start_run(SETTINGS, tmp_path / "a", device=Board(slower_by_six_percent)).summary.best
    board = Board(slower_by_six_percent)
    with monkeypatch.context() as patched:
        patched.setattr("mnv3search.runs.pipeline.write_report", _killed)
        with pytest.raises(KeyboardInterrupt):
            start_run(SETTINGS, tmp_path / "b", device=board)
    assert len(board.sessions) >= 2
    later = Board(slower_by_six_percent)
    assert resume_run(tmp_path / "b", device=later).summary.best == undisturbed
    assert later.sessions == []


def test_a_run_killed_while_timing_a_repair_times_only_that_again(tmp_path: Path) -> None:
    undisturbed = start_run(SETTINGS, tmp_path / "a", device=Board(slower_by_six_percent)).summary.best

    class Dying(Board):
        def measure(self, architectures: Any, progress: Any = None) -> Any:
            if self.sessions:
                raise KeyboardInterrupt
            return super().measure(architectures, progress)

    dying = Dying(slower_by_six_percent)
    with pytest.raises(KeyboardInterrupt):
        start_run(SETTINGS, tmp_path / "b", device=dying)
    later = Board(slower_by_six_percent)
    assert resume_run(tmp_path / "b", device=later).summary.best == undisturbed
    assert len(later.sessions) >= 1
    assert later.sessions[0][0] not in dying.sessions[0]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_damage_to_what_was_kept_is_named(tmp_path: Path) -> None:
    start_run(SEARCH, tmp_path / "s", device=Board(true_to_the_table))
    measured, decisions = tmp_path / "s" / "measured.jsonl", tmp_path / "s" / "decisions.json"
    whole = measured.read_text()
    measured.write_text(whole + '{"measured_ms": -1}\n')
    with pytest.raises(RunError, match=rf"measured\.jsonl:{len(whole.splitlines()) + 1}: a damaged time"):
        resume_run(tmp_path / "s", device=Board(true_to_the_table))
    measured.write_text(whole[:-20])
    board = Board(true_to_the_table)
    resume_run(tmp_path / "s", device=board)
    assert measured.read_text().endswith("}\n")
    for content in ("[]", '{"target_ms": -1}', '{"target_ms": "x"}', "{"):
        decisions.write_text(content)
        with pytest.raises(RunError, match=r"decisions\.json is damaged"):
            resume_run(tmp_path / "s", device=board)


def test_times_that_cannot_be_used_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="times that cannot be used"):
        start_run(SEARCH, tmp_path / "s", device=Board(lambda _: float("nan")))


def test_an_infeasible_run_leaves_no_folder(tmp_path: Path) -> None:
    settings = RunSettings("run", "mnv3_small", "1us", "pixel1", "prior", trials=10)
    with pytest.raises(InfeasibleError, match="fastest takes"):
        start_run(settings, tmp_path / "r", device=Board(true_to_the_table))
    assert not (tmp_path / "r").exists()


def test_a_run_that_found_something_is_not_discarded(tmp_path: Path) -> None:
    start_run(SEARCH, tmp_path / "s", device=Table())
    RunFolder.open(tmp_path / "s").discard()
    assert (tmp_path / "s" / "best.json").exists()


def test_the_spread_of_one_time_is_counted(tmp_path: Path) -> None:
    outcome = start_run(SEARCH, tmp_path / "s", device=Board(true_to_the_table))
    best = outcome.summary.best
    assert best.measured_error_ms == pytest.approx(TIMED_ERROR * (best.measured_ms or 0.0))
