"""A batch of trials in three steps: rows are priced, the new ones evaluated, and every outcome is recorded.

Rows over the budget are refused before they are evaluated, and no network is evaluated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import (
    Evaluation,
    Evaluator,
    StoppableEvaluator,
    checked_evaluations,
    evaluated_until,
)
from mnv3search.architecture import Architecture
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency, Rows, row_key
from mnv3search.block_search.stopping import StoppingRule
from mnv3search.block_search.study import Outcome
from mnv3search.candidate import Candidate
from mnv3search.cost import count
from mnv3search.execution import Run, Worker

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True, eq=False)
class PricedRows:
    """Rows (n, P), their latencies (n,) in milliseconds, and the positions of those to evaluate."""

    rows: Rows
    latencies_ms: NDArray[np.float64]
    new: list[int]


def priced_chunks(rows: Rows, latencies: RowLatency, history: History, size: int, limit: int) -> Iterator[PricedRows]:
    """``rows`` in chunks of ``size`` networks to evaluate, up to the row at which ``limit`` are reached.

    A chunk is cut when it is asked for: what ``history`` has recorded by then is not new.
    """
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    priced = latencies.of_rows(rows)
    start = 0
    new: list[int] = []
    for stop in range(1, len(rows) + 1):
        if history.is_new(rows[stop - 1], float(priced[stop - 1])):
            new.append(stop - 1 - start)
        full = len(new) >= min(size, limit)
        if full or stop == len(rows):
            yield PricedRows(rows[start:stop], priced[start:stop], new)
            limit -= len(new)
            start, new = stop, []
        if full and limit <= 0:
            return


@dataclass(frozen=True, slots=True)
class Task:
    """Networks to evaluate, and their latencies in milliseconds."""

    architectures: tuple[Architecture, ...]
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evaluating:
    """How the workers of an executor evaluate networks.

    Attributes:
        rule: when the training of a network is given up; it learns from one trial after the other, in this process.
    """

    evaluator: Evaluator
    rule: StoppingRule | None = None

    def __call__(self, worker: Worker) -> Callable[[Task], list[Evaluation]]:
        """As the executor's setup."""
        return self.evaluated

    def evaluated(self, task: Task) -> list[Evaluation]:
        """The evaluations of a task's networks, in order."""
        rule, evaluator = self.rule, self.evaluator
        if rule is None or not isinstance(evaluator, StoppableEvaluator):
            return checked_evaluations(evaluator, task.architectures)
        return [
            evaluated_until(evaluator, network, lambda reports, ms=ms: rule.should_prune(reports, ms))  # type: ignore[misc]
            for network, ms in zip(task.architectures, task.latencies_ms, strict=True)
        ]


Answers = Mapping[int, tuple[Architecture, Evaluation]]
"""By the position of the row: its network and the evaluation of that."""


def evaluate(space: SearchSpace, chunk: PricedRows, run: Run[Task, list[Evaluation]], workers: int) -> Answers:
    """Evaluate the new rows of ``chunk``: with one worker all at once, with several one by one."""
    if not chunk.new:
        return {}
    networks = space.architectures(chunk.rows[chunk.new])
    latencies = chunk.latencies_ms[chunk.new].tolist()
    size = len(networks) if workers == 1 else 1
    tasks = [Task(tuple(networks[i : i + size]), tuple(latencies[i : i + size])) for i in range(0, len(networks), size)]
    by_task = dict(run(tasks))
    evaluations = [evaluation for position in range(len(tasks)) for evaluation in by_task[position]]
    return dict(zip(chunk.new, zip(networks, evaluations, strict=True), strict=True))


class History:
    """The outcome of everything that a search has asked for.

    Attributes:
        candidates: every evaluated network, in order of trial number.
        refused, duplicates: how many rows were over the budget, and asked again.
        stopped: how many networks were given up while they were trained.
    """

    def __init__(self, objective: Objective, rule: StoppingRule | None = None) -> None:
        self._objective, self._rule = objective, rule
        self._known: dict[bytes, Outcome] = {}
        self._to_replay: set[bytes] = set()
        self._trials = 0
        self.candidates: list[Candidate] = []
        self.refused = self.duplicates = self.stopped = 0

    @property
    def spent(self) -> int:
        """How many networks were given to the evaluator, those that were stopped among them."""
        return len(self.candidates) + self.stopped

    @property
    def distinct(self) -> int:
        """How many distinct networks were evaluated or refused."""
        return len(self._known)

    def is_new(self, row: Rows, latency_ms: float) -> bool:
        """Whether the row is to be evaluated."""
        return row_key(row) not in self._known and latency_ms <= self._objective.limit_ms

    def restore(self, outcomes: Sequence[Outcome], space: SearchSpace, *, replays: bool) -> None:
        """Take what an earlier session saved; a replaying sampler asks for each once more, which does not count."""
        kept = [outcome.row for outcome in outcomes if outcome.status == "evaluated"]
        networks = iter(space.architectures(np.stack(kept)) if kept else ())
        for outcome in outcomes:
            self._keep(outcome, next(networks) if outcome.status == "evaluated" else None)
        if replays:
            self._to_replay = set(self._known)

    def record(self, chunk: PricedRows, answers: Answers) -> tuple[list[Outcome], list[Outcome]]:
        """The outcomes of all rows of ``chunk``, and those of them that are new, in order."""
        outcomes, new = [], []
        for position, row in enumerate(chunk.rows):
            key, ms = row_key(row), float(chunk.latencies_ms[position])
            if key in self._to_replay:
                self._to_replay.discard(key)
                outcomes.append(self._known[key])
                continue
            network = None
            if position in answers and key not in self._known:
                network, answer = answers[position]
                outcome = Outcome(
                    row, "stopped" if answer.stopped else "evaluated", ms, answer.top1, answer.top1_std,
                    self._objective.values(answer.top1, ms), {"architecture": str(network)}, answer.reports,
                    answer.stopped,
                )  # fmt: skip
            else:
                outcome = self._not_evaluated(row, key, ms)
            self._keep(outcome, network)
            outcomes.append(outcome)
            new.append(outcome)
        return outcomes, new

    def _not_evaluated(self, row: Rows, key: bytes, ms: float) -> Outcome:
        known = self._known.get(key)
        if known is not None and known.top1 is not None:
            return replace(known, status="duplicate", notes={})
        worst = min((c.top1 for c in self.candidates), default=0.0)
        return Outcome(row, "refused", ms, None, None, self._objective.values(worst, ms))

    def _keep(self, outcome: Outcome, network: Architecture | None) -> None:
        number, self._trials = self._trials, self._trials + 1
        if outcome.status == "duplicate":
            self.duplicates += 1
            return
        self._known.setdefault(row_key(outcome.row), outcome)
        if self._rule is not None:
            self._rule.learn(outcome)
        if outcome.status == "stopped":
            self.stopped += 1
        elif network is None or outcome.top1 is None:
            self.refused += 1
        else:
            counts = count(network)
            candidate = Candidate(
                network, outcome.top1, outcome.top1_std, outcome.latency_ms, counts.madds, counts.parameters,
                "block_search", number,
            )  # fmt: skip
            self.candidates.append(candidate)
