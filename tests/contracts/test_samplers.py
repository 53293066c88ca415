"""What every sampler of a block search must keep to."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from search_fakes import CostlyEvaluator, EffectEvaluator, OpaqueLatency, UnitLatency, small_space

from mnv3search.block_search import SearchResult, search
from mnv3search.block_search.row_latency import latency_range

TRIALS = {"evolution": 100, "tpe": 24, "nsga2": 40, "gp": 12, "random": 40}
SPACES = dict.fromkeys(TRIALS, "large") | {"gp": "blocks"}  # its cost grows fast with the parameters
TARGETS_MS = {"large": 24.0, "blocks": 9.0}

samplers = pytest.mark.parametrize(
    "sampler", [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in TRIALS]
)


def _target(sampler: str) -> float:
    if sampler == "gp":
        pytest.importorskip("torch")
    return TARGETS_MS[SPACES[sampler]]


def _run(sampler: str, **options: object) -> SearchResult:
    space, evaluator = small_space(SPACES[sampler]), EffectEvaluator()
    target, trials = _target(sampler), TRIALS[sampler]
    found = search(space, UnitLatency(), evaluator, target, trials, 7, sampler=sampler, **options)  # type: ignore[arg-type]
    assert len(evaluator.seen) == len(set(evaluator.seen)), "an architecture was evaluated twice"
    return found


@pytest.mark.parametrize("name", TARGETS_MS)
def test_the_targets_cut_the_spaces(name: str) -> None:
    found = latency_range(small_space(name), UnitLatency())
    assert found.fastest_ms < TARGETS_MS[name] < 0.7 * found.slowest_ms


@samplers
def test_it_evaluates_what_was_asked_for_and_only_within_the_target(sampler: str) -> None:
    found = _run(sampler)
    assert found.sampler == sampler
    assert found.evaluated == len(found.candidates) == TRIALS[sampler]
    assert all(candidate.latency_ms <= _target(sampler) for candidate in found.candidates)
    assert found.best.top1 == max(candidate.top1 for candidate in found.candidates)
    assert all(a.number < b.number for a, b in itertools.pairwise(found.candidates))


@samplers
def test_the_same_seed_gives_the_same_search(sampler: str) -> None:
    assert _run(sampler).candidates == _run(sampler).candidates


@samplers
def test_two_objectives_give_a_front(sampler: str) -> None:
    found = _run(sampler, objectives=2)
    assert found.evaluated == TRIALS[sampler]
    front = found.pareto_front
    assert all(a.latency_ms < b.latency_ms and a.top1 < b.top1 for a, b in itertools.pairwise(front))


@samplers
def test_a_soft_target_refuses_nothing(sampler: str) -> None:
    found = _run(sampler, hard=False, reward_exponent=-0.15)
    assert found.refused == 0
    rewards = [c.top1 * (c.latency_ms / _target(sampler)) ** -0.15 for c in found.candidates]
    best = found.best
    assert best.top1 * (best.latency_ms / _target(sampler)) ** -0.15 == pytest.approx(max(rewards))


@samplers
def test_a_stopped_search_goes_on_without_evaluating_anything_again(sampler: str, tmp_path: Path) -> None:
    space, storage = small_space(SPACES[sampler]), tmp_path / "study.log"
    first, second = EffectEvaluator(), EffectEvaluator()
    half = TRIALS[sampler] // 2
    before = search(space, UnitLatency(), first, _target(sampler), half, 7, sampler=sampler, storage=storage)
    after = search(space, UnitLatency(), second, _target(sampler), TRIALS[sampler], 7, sampler=sampler, storage=storage)
    assert after.candidates[:half] == before.candidates
    assert after.evaluated == TRIALS[sampler] == len(first.seen) + len(second.seen)
    assert not set(first.seen) & set(second.seen)


@samplers
def test_whole_networks_priced_by_the_model_will_do(sampler: str) -> None:
    space = small_space(SPACES[sampler])
    found = search(space, OpaqueLatency(), CostlyEvaluator(), _target(sampler), 12, 7, sampler=sampler)
    assert found.evaluated == 12
    assert not found.feasibility.exact
    assert all(candidate.latency_ms <= _target(sampler) for candidate in found.candidates)
