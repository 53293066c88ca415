"""The optimum that the samplers are measured against, against brute force."""

from __future__ import annotations

import pytest
from search_fakes import EffectEvaluator, UnitLatency, small_space

from benchmarks._knapsack import AdditiveSurrogate, optimum

pytest.importorskip("scipy")


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_the_solver_finds_what_brute_force_finds(share: float) -> None:
    space = small_space("blocks")
    surrogate, rmse = AdditiveSurrogate.fitted(space, EffectEvaluator(), 600, seed=0)
    assert rmse < 0.2
    every = list(space.enumerate())
    times = UnitLatency().latency_ms(every)
    values = [answer.top1 for answer in surrogate.evaluate(every)]
    budget = float(times.min() + share * (times.max() - times.min()))
    truth = max(value for value, ms in zip(values, times, strict=True) if ms <= budget)
    found = optimum(space, surrogate, UnitLatency(), budget)
    assert found.value == pytest.approx(truth, abs=1e-6)
    assert found.bound == pytest.approx(truth, abs=1e-4)
    assert found.latency_ms <= budget + 1e-9
    best = every[values.index(truth)]
    assert best.blocks[-len(found.blocks) :] == found.blocks


def test_spaces_whose_blocks_depend_on_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="independent"):
        AdditiveSurrogate.fitted(small_space("widths"), EffectEvaluator(), 10, seed=0)
