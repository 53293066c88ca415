from __future__ import annotations

import importlib
import math
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from search_fakes import CostlyEvaluator, EffectEvaluator, OpaqueLatency, UnitLatency, small_space

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture
from mnv3search.block_search import SearchProgress, SearchResult, latency_range, search
from mnv3search.block_search.evolution import EvolutionSampler, Variation
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.block_search.samplers import OptunaSampler
from mnv3search.block_search.study import Outcome, StudyStorage
from mnv3search.errors import (
    DeviceError,
    EvaluatorError,
    InfeasibleError,
    Mnv3SearchError,
    SpaceError,
    TargetError,
    UnknownNameError,
)
from mnv3search.execution import Executor, ProcessExecutor, SerialExecutor
from mnv3search.layers import Unit

LARGE, BLOCKS = small_space("large"), small_space("blocks")
TARGET_MS = 24.0


def _random_top1(count: int, seed: int) -> list[float]:
    """Sorted top-1 of the first ``count`` random networks within the target."""
    within = [a for a in LARGE.sample(20 * count, seed) if UnitLatency().latency_ms([a])[0] <= TARGET_MS]
    return sorted(EffectEvaluator.top1(a) for a in within[:count])


def test_auto_is_far_better_than_random_on_the_same_number_of_evaluations() -> None:
    for seed in range(3):
        auto = search(LARGE, UnitLatency(), EffectEvaluator(), TARGET_MS, 300, seed)
        random = _random_top1(300, seed)
        assert len(random) == 300
        assert auto.sampler == "evolution"
        assert auto.best.top1 > random[-1] + 0.25 * (random[-1] - random[150])


@pytest.mark.parametrize("name", ["blocks", "widths", "stage choices"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_auto_finds_the_true_optimum_of_a_small_space(name: str, share: float) -> None:
    space = small_space(name)
    every = list(space.enumerate())
    times = UnitLatency().latency_ms(every)
    target = float(times.min() + share * (times.max() - times.min()))
    truth = max(EffectEvaluator.top1(a) for a, ms in zip(every, times, strict=True) if ms <= target)
    found = search(space, UnitLatency(), EffectEvaluator(), target, 320)
    assert found.best.top1 == pytest.approx(truth, abs=1e-9)


def test_auto_stops_when_everything_within_the_target_is_known() -> None:
    space = small_space("widths")
    times = UnitLatency().latency_ms(list(space.enumerate()))
    target = float(sorted(times)[len(times) // 2])
    found = search(space, UnitLatency(), EffectEvaluator(), target, 10_000)
    assert found.evaluated == (times <= target).sum()
    assert (found.refused, found.duplicates) == (0, 0)


def test_auto_learns_latencies_of_whole_networks() -> None:
    found = search(LARGE, OpaqueLatency(), EffectEvaluator(), TARGET_MS, 300)
    exact = search(LARGE, UnitLatency(), EffectEvaluator(), TARGET_MS, 300)
    assert found.best.top1 > 0.5 * (_random_top1(300, 0)[-1] + exact.best.top1)


class _Stopping(EffectEvaluator):
    """Fails as a killed process would: in the middle of a search."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        if len(self.seen) + len(architectures) > self._after:
            raise KeyboardInterrupt
        return super().evaluate(architectures)


_Stopping.__name__ = "EffectEvaluator"  # a study is known by its evaluator's name


@pytest.mark.parametrize("latency", [UnitLatency, OpaqueLatency])
def test_a_killed_auto_search_resumes_to_the_same_result(tmp_path: Path, latency: type[UnitLatency]) -> None:
    whole = search(LARGE, latency(), EffectEvaluator(), TARGET_MS, 400, 5, start=[])
    storage = tmp_path / "study.log"
    with pytest.raises(KeyboardInterrupt):
        search(LARGE, latency(), _Stopping(200), TARGET_MS, 400, 5, storage=storage)
    storage.write_bytes(storage.read_bytes()[:-700])  # and the last line is torn
    saved = storage.read_bytes().count(b'"evaluated"')
    rest = EffectEvaluator()
    resumed = search(LARGE, latency(), rest, TARGET_MS, 400, 5, storage=storage)
    assert 128 <= saved < 200
    assert len(rest.seen) == 400 - saved
    assert resumed.candidates == whole.candidates
    assert resumed.best == whole.best
    assert (resumed.refused, resumed.duplicates) == (whole.refused, whole.duplicates)
    again = EffectEvaluator()
    assert search(LARGE, latency(), again, TARGET_MS, 400, 5, storage=storage).candidates == whole.candidates
    assert again.seen == []


def test_a_costly_evaluation_is_saved_as_soon_as_it_is_known(tmp_path: Path) -> None:
    storage = tmp_path / "study.log"
    counts: list[int] = []

    class Watching(CostlyEvaluator):
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
            counts.append(storage.read_bytes().count(b'"evaluated"'))
            return super().evaluate(architectures)

    search(LARGE, UnitLatency(), Watching(), TARGET_MS, 6, sampler="evolution", storage=storage)
    assert counts == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("evaluator", [EffectEvaluator, CostlyEvaluator])
@pytest.mark.parametrize("latency", [UnitLatency, OpaqueLatency])
def test_auto_is_far_better_than_random_from_few_evaluations(
    evaluator: type[EffectEvaluator], latency: type[UnitLatency]
) -> None:
    for seed in range(2):
        auto = search(LARGE, latency(), evaluator(), TARGET_MS, 40, seed)
        assert auto.best.top1 > _random_top1(300 if latency is UnitLatency else 100, seed)[-1]


def test_few_evaluations_with_two_objectives_spread_over_the_front() -> None:
    found = search(LARGE, UnitLatency(), CostlyEvaluator(), TARGET_MS, 60, objectives=2)
    fastest, slowest = found.pareto_front[0].latency_ms, found.pareto_front[-1].latency_ms
    assert len(found.pareto_front) >= 10
    assert fastest < 0.6 * slowest


def test_with_two_objectives_every_other_generation_stays_within_a_lowered_budget() -> None:
    space, limit, evaluator = LARGE, TARGET_MS, EffectEvaluator()
    latencies, objective = RowLatency(space, UnitLatency()), Objective(TARGET_MS, 2)
    fastest = latencies.bounds(0)[0]
    fastest_ms = float(latencies.of_rows(fastest[None, :])[0])
    sampler = EvolutionSampler(space, latencies, objective, 0, fastest[None, :], fastest_ms, 40, cheap=False)
    slowest = {}
    for generation in range(12):
        rows = sampler.ask()
        times = latencies.of_rows(rows)
        slowest[generation] = float(times.max())
        top1 = [answer.top1 for answer in evaluator.evaluate(space.architectures(rows))]
        sampler.tell(
            [
                Outcome(row, "evaluated", float(ms), value, None, objective.values(value, float(ms)))
                for row, ms, value in zip(rows, times, top1, strict=True)
            ]
        )
    # halves, quarters and eighths of the way from the fastest network to the limit, evenly spread
    for generation, share in ((1, 0.5), (3, 0.25), (5, 0.75), (7, 0.125), (9, 0.625), (11, 0.375)):
        assert slowest[generation] <= fastest_ms + share * (limit - fastest_ms) + 1e-9
    assert max(slowest[generation] for generation in (4, 6, 8, 10)) > fastest_ms + 0.75 * (limit - fastest_ms)


def test_the_hard_constraint_searches_for_top1_and_the_soft_one_for_the_reward() -> None:
    for sampler in ("tpe", "auto"):
        hard = search(BLOCKS, UnitLatency(), CostlyEvaluator(), 1e6, 60, sampler=sampler)
        soft = search(BLOCKS, UnitLatency(), CostlyEvaluator(), 1e6, 60, sampler=sampler, hard=False)
        assert hard.best.top1 > soft.best.top1
        assert hard.best.latency_ms > soft.best.latency_ms


def test_a_reward_that_weighs_latency_draws_the_search_to_fast_networks() -> None:
    found = search(LARGE, UnitLatency(), EffectEvaluator(), TARGET_MS, 200, hard=False, reward_exponent=-1.0)
    times = [candidate.latency_ms for candidate in found.candidates]
    assert np.median(times[-64:]) < 0.8 * np.median(times[:40])  # the first fifth is random


def test_a_repeat_of_gp_is_followed_by_an_unseen_neighbour() -> None:
    pytest.importorskip("torch")
    objective = Objective(1e6)
    study = StudyStorage(BLOCKS, objective, 20)
    sampler = OptunaSampler("gp", BLOCKS, study, 0, np.zeros((0, len(BLOCKS.parameters)), np.int64), [])
    asked = []
    for status in ("evaluated", "duplicate", "duplicate"):
        asked.append(sampler.ask()[0])
        outcome = Outcome(asked[0] if status == "duplicate" else asked[-1], status, 9.0, 70.0, None, (70.0,))
        study.append([outcome], sampler.trial)
        sampler.tell([outcome])
    assert not (asked[2] == asked[0]).all()
    assert any((asked[2] == row).all() for row in Variation(BLOCKS).neighbours(asked[0]))


def test_a_space_that_was_priced_is_not_priced_again() -> None:
    priced = RowLatency(BLOCKS, UnitLatency())

    class Asked(UnitLatency):
        def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
            raise AssertionError("asked again")

    found = search(BLOCKS, Asked(), EffectEvaluator(), 1e6, 20, priced=priced)
    assert found.candidates == search(BLOCKS, UnitLatency(), EffectEvaluator(), 1e6, 20).candidates


def test_starts_come_first_where_they_may_be_evaluated() -> None:
    inside = [a for a in LARGE.sample(400, 1) if UnitLatency().latency_ms([a])[0] <= TARGET_MS][:2]
    assert len(inside) == 2
    slow = [a for a in LARGE.sample(40, 1) if UnitLatency().latency_ms([a])[0] > TARGET_MS][:1]
    outside = BLOCKS.sample(1, 0)
    for sampler in ("auto", "tpe"):
        evaluator = EffectEvaluator()
        search(LARGE, UnitLatency(), evaluator, TARGET_MS, 5, sampler=sampler, start=[*outside, *slow, *inside])
        assert evaluator.seen[:2] == inside


def test_progress_counts_up_to_the_trials() -> None:
    reports: list[SearchProgress] = []
    found = search(LARGE, UnitLatency(), EffectEvaluator(), TARGET_MS, 150, progress=reports.append)
    assert [report.done for report in reports] == [30, 94, 150]  # a fifth is random
    assert all(report.trials == 150 for report in reports)
    assert reports[-1].best_top1 == found.best.top1
    assert reports[-1].best_latency_ms == found.best.latency_ms


def test_an_infeasible_target_is_refused_before_anything_is_evaluated() -> None:
    evaluator = EffectEvaluator()
    with pytest.raises(InfeasibleError) as caught:
        search(LARGE, UnitLatency(), evaluator, 1.5, 10)
    assert caught.value.exact
    assert evaluator.seen == []


def test_a_target_that_only_the_fastest_meets_gives_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("mnv3search.block_search.search"), "MAX_IDLE_ASKS", 20)
    fastest = search(LARGE, UnitLatency(), EffectEvaluator(), 1e6, 1).feasibility
    for sampler in ("auto", "nsga2"):
        found = search(LARGE, UnitLatency(), EffectEvaluator(), fastest.fastest_ms, 5, sampler=sampler)
        assert found.best.architecture == fastest.fastest


def test_a_target_that_never_binds_is_said() -> None:
    assert not search(LARGE, UnitLatency(), EffectEvaluator(), 1e6, 5).binding
    assert search(LARGE, UnitLatency(), EffectEvaluator(), TARGET_MS, 5).binding


class _Answering:
    def __init__(self, *answers: float) -> None:
        self._answers = answers

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        return [Evaluation(answer) for answer in self._answers]


@pytest.mark.parametrize("answers", [(math.nan,), (math.inf,), (), (70.0, 71.0)])
def test_an_unusable_answer_is_an_error(answers: tuple[float, ...]) -> None:
    with pytest.raises(EvaluatorError, match="_Answering"):
        search(LARGE, UnitLatency(), _Answering(*answers), TARGET_MS, 3, sampler="random")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"target_latency_ms": 0.0}, TargetError),
        ({"target_latency_ms": math.nan}, TargetError),
        ({"sampler": "tpo"}, UnknownNameError),
        ({"trials": 0}, Mnv3SearchError),
        ({"objectives": 3}, Mnv3SearchError),
        ({"reward_exponent": 0.1}, Mnv3SearchError),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], error: type[Exception]) -> None:
    settings = {"target_latency_ms": TARGET_MS, **options}
    with pytest.raises(error, match=next(iter(options)).replace("target_latency_ms", "latency")):
        search(LARGE, UnitLatency(), EffectEvaluator(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "given", "error", "need"),
    [
        (0, "mnv3_large", SpaceError, "'mnv3_large', not a search space; give what load_space gives"),
        (1, "pixel1", DeviceError, "'pixel1', not a latency model; give what load_device gives"),
        (1, object(), DeviceError, "not a latency model"),
        (2, "imagenet-prior", EvaluatorError, "'imagenet-prior', not an accuracy evaluator"),
        (2, object(), EvaluatorError, "evaluate"),
        (2, EffectEvaluator, EvaluatorError, "an object with evaluate"),
    ],
)
def test_names_and_other_things_are_no_arguments(place: int, given: object, error: type[Exception], need: str) -> None:
    arguments: list[object] = [LARGE, UnitLatency(), EffectEvaluator()]
    arguments[place] = given
    with pytest.raises(error, match=re.escape(need)):
        search(*arguments, target_latency_ms=TARGET_MS, trials=3)  # type: ignore[arg-type, misc]
    if place < 2:
        with pytest.raises(error, match=re.escape(need)):
            latency_range(*arguments[:2])  # type: ignore[arg-type]


def test_a_search_that_saves_nothing_starts_without_optuna() -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from search_fakes import *\nfrom mnv3search.block_search import search\n"
        "search(small_space('blocks'), UnitLatency(), EffectEvaluator(), 1e6, 70)\n"
        "sys.exit(bool({'optuna', 'torch', 'scipy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


def test_processes_find_what_this_process_finds(tmp_path: Path) -> None:
    def found(executor: Executor) -> SearchResult:
        return search(BLOCKS, UnitLatency(), CostlyEvaluator(), 1e6, 24, executor=executor)

    serial, processes = found(SerialExecutor()), found(ProcessExecutor(2))
    assert processes.candidates == serial.candidates
    assert multiprocessing.active_children() == []


def test_several_workers_give_up_no_training_and_say_so() -> None:
    class Stoppable(CostlyEvaluator):
        def evaluate_until(self, architecture: Architecture, should_prune: object) -> Evaluation:
            raise AssertionError("asked one by one")

    with pytest.raises(Mnv3SearchError, match="pruner='none', or an executor of one worker"):
        search(BLOCKS, UnitLatency(), Stoppable(), 1e6, 4, pruner="median", executor=ProcessExecutor(2))


def test_a_percentage_out_of_range_ends_a_search_that_is_not_saved() -> None:
    class Beyond(CostlyEvaluator):
        def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
            return [Evaluation(100.5) for _ in architectures]

    with pytest.raises(EvaluatorError, match="not from 0 to 100"):
        search(BLOCKS, UnitLatency(), Beyond(), 1e6, 4)
