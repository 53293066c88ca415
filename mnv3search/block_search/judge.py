"""Judging asked rows: priced first, refused over the budget, never evaluated twice, saved as soon as known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import (
    Evaluation,
    Evaluator,
    StoppableEvaluator,
    capabilities_of,
    checked_evaluations,
    evaluated_until,
)
from mnv3search.architecture import Architecture
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.block_search.stopping import StoppingRule
from mnv3search.block_search.study import Outcome, Status, StudyLedger
from mnv3search.candidate import Candidate
from mnv3search.cost import count

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]

CHEAP_CHUNK = 64


class Judge:
    """Turns rows into outcomes and keeps everything judged.

    Attributes:
        candidates: every evaluated network, in order of trial number.
        refused, duplicates: how many rows were over the budget, and asked again.
        stopped: how many networks were given up while they were trained.
    """

    def __init__(
        self,
        space: SearchSpace,
        latencies: RowLatency,
        evaluator: Evaluator,
        objective: Objective,
        ledger: StudyLedger | None,
        rule: StoppingRule | None = None,
    ) -> None:
        self._space, self._latencies, self._evaluator = space, latencies, evaluator
        self._objective, self._ledger, self._rule = objective, ledger, rule
        self._chunk = CHEAP_CHUNK if capabilities_of(evaluator).cheap else 1
        self._judged: dict[bytes, Outcome] = {}
        self._to_replay: set[bytes] = set()
        self._trials = 0
        self.candidates: list[Candidate] = []
        self.refused = self.duplicates = self.stopped = 0
        self.after_chunk: Callable[[], None] = lambda: None  # called after each network, or some hundred cheap ones

    @property
    def spent(self) -> int:
        """How many networks were given to the evaluator, those that were stopped among them."""
        return len(self.candidates) + self.stopped

    @property
    def distinct(self) -> int:
        """How many distinct networks were evaluated or refused."""
        return len(self._judged)

    def restore(self, outcomes: Sequence[Outcome], *, replays: bool) -> None:
        """Take what an earlier session saved; a replaying sampler meets each once more without it counting again."""
        kept = [outcome for outcome in outcomes if outcome.status == "evaluated"]
        built = self._space.architectures(np.stack([outcome.row for outcome in kept])) if kept else []
        architectures = iter(built)
        for outcome in outcomes:
            self._latencies.remember(outcome.row, outcome.latency_ms)
            self._keep(outcome, next(architectures) if outcome.status == "evaluated" else None)
        if replays:
            self._to_replay = set(self._judged)

    def judge(self, rows: Rows, limit: int, system_attrs: dict[str, Any] | None = None) -> list[Outcome]:
        """Outcomes of ``rows`` in order, up to the row at which ``limit`` new evaluations are reached.

        Raises:
            EvaluatorError: the evaluator gave an unusable answer.
            RunError: the study cannot be written.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        latencies = self._latencies.of_rows(rows)
        outcomes: list[Outcome] = []
        start, fresh = 0, 0
        for stop in range(1, len(rows) + 1):
            fresh += self._is_fresh(rows[stop - 1], float(latencies[stop - 1]))
            full = fresh >= min(self._chunk, limit)
            if full or stop == len(rows):
                outcomes += self._chunk_outcomes(rows[start:stop], latencies[start:stop], system_attrs or {})
                limit -= fresh
                start, fresh = stop, 0
                self.after_chunk()
            if full and limit <= 0:
                break
        return outcomes

    def _is_fresh(self, row: Rows, latency_ms: float) -> bool:
        return row.tobytes() not in self._judged and latency_ms <= self._objective.limit_ms

    def _chunk_outcomes(
        self, rows: Rows, latencies: NDArray[np.float64], system_attrs: dict[str, Any]
    ) -> list[Outcome]:
        new = [i for i, row in enumerate(rows) if self._is_fresh(row, float(latencies[i]))]
        architectures = self._space.architectures(rows[new]) if new else []
        evaluations = self._evaluations(architectures, latencies[new])
        answers = dict(zip(new, zip(architectures, evaluations, strict=True), strict=True))
        found, saved = [], []
        for i, row in enumerate(rows):
            key, ms = row.tobytes(), float(latencies[i])
            if key in self._to_replay:
                self._to_replay.discard(key)
                found.append(self._judged[key])
                continue
            if i in answers and key not in self._judged:
                architecture, evaluation = answers[i]
                outcome = self._evaluated(row, ms, evaluation, str(architecture), system_attrs)
                self._keep(outcome, architecture)
            else:
                outcome = self._without_evaluation(row, key, ms, system_attrs)
                self._keep(outcome, None)
            found.append(outcome)
            saved.append(outcome)
        if self._ledger is not None and saved:
            self._ledger.append(saved)
        return found

    def _evaluations(
        self, architectures: Sequence[Architecture], latencies: NDArray[np.float64]
    ) -> Sequence[Evaluation]:
        rule, evaluator = self._rule, self._evaluator
        if rule is None or not isinstance(evaluator, StoppableEvaluator):
            return checked_evaluations(evaluator, architectures) if architectures else []
        return [
            evaluated_until(evaluator, architecture, lambda reports, ms=float(ms): rule.give_up(reports, ms))  # type: ignore[misc]
            for architecture, ms in zip(architectures, latencies, strict=True)
        ]

    def _evaluated(self, row: Rows, ms: float, answer: Evaluation, text: str, system_attrs: dict[str, Any]) -> Outcome:
        top1, std = float(answer.top1), None if answer.top1_std is None else float(answer.top1_std)
        values = self._objective.values(top1, ms)
        status: Status = "stopped" if answer.stopped else "evaluated"
        return Outcome(
            row, status, ms, top1, std, values, {"architecture": text}, system_attrs, answer.reports, answer.stopped
        )

    def _without_evaluation(self, row: Rows, key: bytes, ms: float, system_attrs: dict[str, Any]) -> Outcome:
        known = self._judged.get(key)
        if known is not None and known.top1 is not None:
            return replace(known, status="duplicate", notes={}, system_attrs=system_attrs)
        worst = min((c.top1 for c in self.candidates), default=0.0)
        return Outcome(row, "refused", ms, None, None, self._objective.values(worst, ms), {}, system_attrs)

    def _keep(self, outcome: Outcome, architecture: Architecture | None) -> None:
        number = self._trials
        self._trials += 1
        if outcome.status == "duplicate":
            self.duplicates += 1
            return
        self._judged.setdefault(np.ascontiguousarray(outcome.row, dtype=np.int64).tobytes(), outcome)
        if self._rule is not None:
            self._rule.learn(outcome)
        if outcome.status == "stopped":
            self.stopped += 1
            return
        if architecture is None or outcome.top1 is None:
            self.refused += 1
            return
        counts = count(architecture)
        self.candidates.append(
            Candidate(
                architecture=architecture,
                top1=outcome.top1,
                top1_std=outcome.top1_std,
                latency_ms=outcome.latency_ms,
                madds=counts.madds,
                parameters=counts.parameters,
                origin="block_search",
                number=number,
            )
        )
