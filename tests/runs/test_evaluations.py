"""No evaluation is asked for twice, and none that was finished is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture
from mnv3search.errors import RunError
from mnv3search.families import published
from mnv3search.runs.evaluations import CachedEvaluator, LoggedEvaluator

LARGE, SMALL, V2 = published("mobilenet_v3_large"), published("mobilenet_v3_small"), published("mobilenet_v2")


class Counting:
    """Answers with the number of blocks; knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Architecture] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        self.asked += architectures
        return [Evaluation(len(a.blocks) / 3, 0.1) for a in architectures]


def test_nothing_is_asked_twice() -> None:
    counting = Counting()
    memory = CachedEvaluator(counting)
    assert [e.top1 for e in memory.evaluate([LARGE, SMALL, LARGE])] == [5.0, 11 / 3, 5.0]
    memory.evaluate([SMALL, V2])
    assert counting.asked == [LARGE, SMALL, V2]
    assert memory.distinct == 3


def test_a_later_session_starts_from_what_was_written(tmp_path: Path) -> None:
    log = tmp_path / "evaluations.jsonl"
    first = LoggedEvaluator(CachedEvaluator(Counting()), log).evaluate([LARGE, SMALL])
    counting = Counting()
    memory = CachedEvaluator(counting)
    assert LoggedEvaluator(memory, log).evaluate([LARGE, V2, SMALL])[::2] == first
    assert counting.asked == [V2]
    assert memory.distinct == 3
    assert len(log.read_text().splitlines()) == 3


def test_a_line_cut_short_by_a_kill_costs_only_that_evaluation(tmp_path: Path) -> None:
    log = tmp_path / "evaluations.jsonl"
    LoggedEvaluator(CachedEvaluator(Counting()), log).evaluate([LARGE, SMALL])
    log.write_bytes(log.read_bytes()[:-30])
    counting = Counting()
    LoggedEvaluator(CachedEvaluator(counting), log).evaluate([LARGE, SMALL])
    assert counting.asked == [SMALL]
    again = Counting()
    LoggedEvaluator(CachedEvaluator(again), log).evaluate([LARGE, SMALL])
    assert again.asked == []


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"top1": NaN, "top1_std": null, "architecture": {}}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    log = tmp_path / "evaluations.jsonl"
    LoggedEvaluator(CachedEvaluator(Counting()), log).evaluate([LARGE])
    log.write_text(log.read_text() + line + "\n")
    with pytest.raises(RunError, match=r"evaluations\.jsonl:2: a damaged evaluation"):
        LoggedEvaluator(CachedEvaluator(Counting()), log)
