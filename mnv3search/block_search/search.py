"""Block search: the most accurate networks of a space within a latency target."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mnv3search.accuracy.evaluator import Evaluation, Evaluator, StoppableEvaluator, capabilities_of, check_evaluator
from mnv3search.architecture import Architecture
from mnv3search.block_search.evolution import EvolutionSampler
from mnv3search.block_search.objective import REWARD_EXPONENT_LARGE, UNBOUNDED_MS, Objective
from mnv3search.block_search.row_latency import Feasibility, RowLatency, Rows, assess, check_space_and_model
from mnv3search.block_search.samplers import OptunaSampler, Sampler, resolved_sampler
from mnv3search.block_search.stopping import StoppingRule, stopping_rule
from mnv3search.block_search.study import Outcome, StudyFile, StudyIdentity, StudyStorage
from mnv3search.block_search.trials import Evaluating, History, Task, evaluate, priced_chunks
from mnv3search.candidate import Candidate, Candidates, pareto_front
from mnv3search.errors import EvaluatorError, Mnv3SearchError, TargetError
from mnv3search.execution import Executor, Run, SerialExecutor
from mnv3search.latency.estimated import RooflineDevice
from mnv3search.latency.model import LatencyModel, Progress, checked_target
from mnv3search.records import real, whole

if TYPE_CHECKING:
    from optuna.trial import Trial
    from pandas import DataFrame

    from mnv3search.space import SearchSpace

MAX_ASKS_PER_TRIAL = 10
MAX_IDLE_ASKS = 500
CHEAP_CHUNK = 64
FREE_MEMORY_GBYTES = 1e9  # memory so fast that multiply-adds alone count


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        done, trials: networks evaluated, and to evaluate.
        best_top1, best_latency_ms: of the best within the target so far; None before there is one.
        rate: networks evaluated a second in this session.
    """

    done: int
    trials: int
    best_top1: float | None
    best_latency_ms: float | None
    rate: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a block search found.

    Attributes:
        candidates: every evaluated network, in order of trial number; under the hard constraint all within the target.
        best: the highest top-1 within the target; without the hard constraint the highest reward.
        pareto_front: of the candidates, fastest first.
        evaluated: distinct architectures given to the evaluator, those of resumed sessions included.
        stopped: how many of them were given up while they were trained; they are no candidates.
        refused, duplicates: asked rows that were over the target, and that had been asked before.
        feasibility: the range of latencies of the space.
        binding: False where no network of the space exceeds the target (of the sample, where the range is sampled).
        sampler: the one used; never ``auto``.
        objective: what was maximised, in words.
        seconds: of this session.
    """

    candidates: Candidates
    best: Candidate
    pareto_front: Candidates
    evaluated: int
    refused: int
    duplicates: int
    feasibility: Feasibility
    binding: bool
    sampler: str
    seconds: float
    stopped: int = 0
    objective: str = ""

    @property
    def front(self) -> Candidates:
        """The Pareto front, as :attr:`pareto_front`."""
        return self.pareto_front

    def to_frame(self) -> DataFrame:
        """Every candidate as a row; see :meth:`Candidates.to_frame`."""
        return self.candidates.to_frame()

    def __repr__(self) -> str:
        """One line on what was found, and the front as a table."""
        return f"{self._found()}\n{self.front!r}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._found())}</p>{self.front._repr_html_()}"

    def _found(self) -> str:
        best = self.best
        std = "" if best.top1_std is None else f" ±{best.top1_std:.2f}"
        return (
            f"SearchResult: best {best.top1:.2f}{std} at {best.latency_ms:.3f} ms (number {best.number}); "
            f"{self.evaluated:,} networks evaluated by {self.sampler} in {self.seconds:.1f} s; the Pareto front:"
        )


def search(
    space: SearchSpace,
    latency: LatencyModel | None,
    evaluator: Evaluator,
    target_latency_ms: float | None = None,
    trials: int = 2000,
    seed: int = 0,
    *,
    sampler: str = "auto",
    objectives: Literal[1, 2] = 1,
    reward_exponent: float = REWARD_EXPONENT_LARGE,
    hard: bool = True,
    pruner: str = "auto",
    storage: str | Path | None = None,
    start: Sequence[Architecture] = (),
    progress: Callable[[SearchProgress], None] | None = None,
    prepare_progress: Progress | None = None,
    time_limit_s: float | None = None,
    priced: RowLatency | None = None,
    executor: Executor | None = None,
) -> SearchResult:
    """Search ``space`` for the most accurate network within ``target_latency_ms``, or of all.

    The same arguments and seed give the same result, unless ``time_limit_s`` ends the search. A search continued from
    ``storage`` gives it too with ``evolution``; Optuna's samplers go on from what was saved but then choose otherwise
    than an undisturbed search would.

    Args:
        space: where to search.
        latency: prices networks; where it prices units, the space's range of latencies is exact. None for accuracy
            alone: candidates' ``latency_ms`` are then those of 10⁹ multiply-adds a second (a millisecond a million).
        evaluator: answers for top-1.
        target_latency_ms: milliseconds by ``latency``; None for no limit.
        trials: how many distinct networks to evaluate; fewer where the space has no more within the target.
        seed: of all random choices.
        sampler: ``auto``, ``evolution``, ``tpe``, ``nsga2``, ``gp`` or ``random``.
        objectives: 1, top-1 within the target (without ``hard`` the paper's reward), or 2, top-1 and latency.
        reward_exponent: the reward's w.
        hard: refuse what is over the target before it is evaluated, and maximise top-1 alone.
        pruner: when a network that is trained for its evaluation is given up: ``median`` or ``halving`` (Optuna's, one
            objective), ``dominated``, ``none`` or ``auto`` (``median``, with two objectives ``dominated``).
        storage: the study's file; where it exists, the search continues and evaluates nothing again.
        start: architectures to evaluate first; those outside the space or over the target are left out.
        progress: called after every network, or some hundred where they are cheap to evaluate.
        prepare_progress: called with (done, total, what) while ``latency`` measures units.
        time_limit_s: ask for no more after so many seconds.
        priced: ``space`` as ``latency`` prices it, where that is at hand.
        executor: where networks are evaluated; in this process where None. Others must be able to pickle the evaluator,
            and evaluate as many networks at once as they have workers, where the sampler asks for so many.

    Raises:
        TargetError: the target is not positive and finite, or the evaluator's score has nothing to hold latency down.
        InfeasibleError: no network of the space meets it.
        UnknownNameError: no such sampler or pruner.
        SpaceError: ``space`` is no search space.
        DeviceError: ``latency`` is no latency model, or gave an answer that is not usable.
        EvaluatorError: ``evaluator`` is none, or gave an answer that is not usable.
        RunError: the study cannot be opened, belongs to another search or cannot be written.
    """
    began = time.perf_counter()
    latency = RooflineDevice("madds", 1.0, FREE_MEMORY_GBYTES) if latency is None else latency
    check_space_and_model(space, latency)
    trials, seed = _checked_whole("trials", trials, 1), _checked_whole("seed", seed, None)
    objective = _checked_objective(evaluator, target_latency_ms, objectives, reward_exponent, hard)
    executor = executor or SerialExecutor()
    rule = _checked_rule(pruner, objective, evaluator, executor)
    seed %= 2**32
    name = resolved_sampler(sampler)
    latencies = priced or RowLatency(space, latency, prepare_progress)
    feasibility = assess(space, latencies, seed)
    if hard:
        feasibility.require(objective.target_latency_ms)
    first = _first_rows(space, latencies, objective, (*start, feasibility.fastest))
    identity = StudyIdentity.of(space, latencies, evaluator, name, seed, objective)
    cheap = capabilities_of(evaluator).cheap
    with (
        _opened(storage, space, objective, identity, trials) as study,
        executor.open(Evaluating(evaluator, rule)) as run,
    ):
        earlier = study.outcomes() if study else []
        chosen: Sampler
        if study is None or name == "evolution":
            planned = study.planned if study else trials
            chosen = EvolutionSampler(
                space, latencies, objective, seed, first, feasibility.fastest_ms, planned, cheap=cheap
            )
        else:
            chosen = OptunaSampler(name, space, study, seed, first[:-1], earlier)
        history = History(objective, rule)
        for outcome in earlier:
            latencies.remember(outcome.row, outcome.latency_ms)
        history.restore(earlier, space, replays=chosen.replays)
        size = CHEAP_CHUNK if cheap else executor.workers
        loop = _Loop(
            space, latencies, history, chosen, study, run, executor.workers, size, objective, trials, began,
            history.spent, time_limit_s, progress,
        )  # fmt: skip
        loop.run()
        if len(history.candidates) == 0:
            loop.evaluated(first[-1:], 1)
    if len(history.candidates) == 0:
        raise EvaluatorError(
            f"{type(evaluator).__name__} gave all {history.stopped} networks up: their trainings diverged or were "
            "stopped; check the images, or give pruner='none'"
        )
    candidates = Candidates(sorted(history.candidates, key=lambda candidate: candidate.number))
    return SearchResult(
        candidates=candidates,
        best=_best(candidates, objective),
        pareto_front=Candidates(pareto_front(candidates)),
        evaluated=history.spent,
        refused=history.refused,
        duplicates=history.duplicates,
        feasibility=feasibility,
        binding=feasibility.binds(objective.target_latency_ms),
        sampler=name,
        seconds=time.perf_counter() - began,
        stopped=history.stopped,
        objective=str(objective),
    )


@dataclass(slots=True)
class _Loop:
    """Ask, price, evaluate, record, tell, until enough is evaluated or nothing new is found; every way out is bounded.

    Attributes:
        size: how many networks are evaluated before they are saved and reported.
        restored: how many networks earlier sessions evaluated.
    """

    space: SearchSpace
    latencies: RowLatency
    history: History
    sampler: Sampler
    study: StudyStorage | None
    executed: Run[Task, list[Evaluation]]
    workers: int
    size: int
    objective: Objective
    trials: int
    began: float
    restored: int
    time_limit_s: float | None
    progress: Callable[[SearchProgress], None] | None

    def run(self) -> None:
        history, asks, idle = self.history, 0, 0
        while (left := self.trials - history.spent) > 0 and history.distinct < self.space.size:
            if self.time_limit_s is not None and time.perf_counter() - self.began > self.time_limit_s:
                break
            rows = self.sampler.ask()
            asks += 1
            if len(rows) == 0 or idle >= MAX_IDLE_ASKS or asks > MAX_ASKS_PER_TRIAL * self.trials + MAX_IDLE_ASKS:
                break
            outcomes = self.evaluated(rows, left, self.sampler.trial)
            self.sampler.tell(outcomes)
            idle = 0 if any(outcome.status in {"evaluated", "stopped"} for outcome in outcomes) else idle + 1

    def evaluated(self, rows: Rows, limit: int, trial: Trial | None = None) -> list[Outcome]:
        """The outcomes of ``rows``, in order, up to the row at which ``limit`` new evaluations are reached."""
        outcomes: list[Outcome] = []
        for chunk in priced_chunks(rows, self.latencies, self.history, self.size, limit):
            answers = evaluate(self.space, chunk, self.executed, self.workers)
            found, new = self.history.record(chunk, answers)
            outcomes += found
            if self.study is not None and new:
                self.study.append(new, trial)
            self._report()
        return outcomes

    def _report(self) -> None:
        if self.progress is None:
            return
        done, candidates = self.history.spent, self.history.candidates
        best = _best(candidates, self.objective) if candidates else None
        top1, best_ms = (best.top1, best.latency_ms) if best else (None, None)
        rate = (done - self.restored) / max(1e-9, time.perf_counter() - self.began)
        self.progress(SearchProgress(done, self.trials, top1, best_ms, rate))


def _checked_rule(pruner: str, objective: Objective, evaluator: Evaluator, executor: Executor) -> StoppingRule | None:
    """When trainings are given up: a rule learns from one after the other, in this process."""
    rule = stopping_rule(pruner, objective)
    if rule is None or executor.workers == 1:
        return rule
    if pruner != "auto" and isinstance(evaluator, StoppableEvaluator):
        raise Mnv3SearchError(
            f"pruner {pruner} gives up one training at a time, and {executor.workers} workers train at once; give "
            "pruner='none', or an executor of one worker"
        )
    return None


def _checked_objective(
    evaluator: Evaluator, target: float | None, objectives: int, reward_exponent: float, hard: bool
) -> Objective:
    check_evaluator(evaluator)
    if objectives not in (1, 2):
        raise Mnv3SearchError(
            f"objectives is {objectives!r}; it must be 1 (top-1 or the reward) or 2 (top-1 and latency)"
        )
    exponent = real(reward_exponent)
    if exponent is None or not math.isfinite(exponent) or exponent > 0:
        raise Mnv3SearchError(f"reward_exponent is {reward_exponent!r}; it must be finite and at most 0, such as -0.07")
    if target is None and not hard:
        raise TargetError("target_latency_ms is None; the reward of hard=False needs a target, such as 50.0")
    target_ms = UNBOUNDED_MS if target is None else checked_target(target)
    return Objective(
        target_ms, 1 if objectives == 1 else 2, exponent, hard, capabilities_of(evaluator).score_name is not None
    )


def _checked_whole(name: str, value: object, least: int | None) -> int:
    found = whole(value)
    if found is None or (least is not None and found < least):
        rule = "an integer" if least is None else f"an integer of at least {least}"
        raise Mnv3SearchError(f"{name} is {value!r}; it must be {rule}")
    return found


def _first_rows(
    space: SearchSpace, latencies: RowLatency, objective: Objective, architectures: Sequence[Architecture]
) -> Rows:
    """Rows of the architectures that may be evaluated."""
    rows = [space.indices(architecture) for architecture in architectures if space.contains(architecture)]
    rows = [row for row in rows if latencies.of_rows(row[None, :])[0] <= objective.limit_ms]
    return np.stack(rows).astype(np.int64)


@contextlib.contextmanager
def _opened(
    storage: str | Path | None, space: SearchSpace, objective: Objective, identity: StudyIdentity, trials: int
) -> Iterator[StudyStorage | None]:
    """The search's study: a file's, or for Optuna's samplers one in memory; ``evolution`` needs none."""
    asked = identity.sampler != "evolution"
    if storage is None:
        yield StudyStorage(space, objective, trials) if asked else None
        return
    with contextlib.closing(StudyFile(Path(storage), space, objective, identity, trials, asked=asked)) as study:
        yield study


def _best(candidates: Sequence[Candidate], objective: Objective) -> Candidate:
    return max(candidates, key=lambda c: (objective.fitness(c.top1, c.latency_ms), -c.latency_ms, -c.number))
