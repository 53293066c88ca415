from __future__ import annotations

import math

import pytest

from mnv3search.block_search.objective import REWARD_EXPONENT_SMALL, Objective, reward
from mnv3search.errors import TargetError
from mnv3search.latency.model import checked_target


def test_reward_is_the_papers() -> None:
    assert reward(75.0, 50.0, 50.0) == 75.0
    assert reward(75.0, 100.0, 50.0) == pytest.approx(71.44785, abs=1e-4)  # 75 · 2^-0.07
    assert reward(75.0, 25.0, 50.0) == pytest.approx(78.7287, abs=1e-4)  # 75 · 2^0.07
    assert reward(60.0, 100.0, 50.0, REWARD_EXPONENT_SMALL) == pytest.approx(54.0750, abs=1e-4)  # 60 · 2^-0.15


@pytest.mark.parametrize("target", [0, -1.0, math.nan, math.inf, "50", None, True])
def test_a_target_that_is_no_positive_finite_number_is_refused(target: object) -> None:
    with pytest.raises(TargetError, match="target_latency_ms"):
        checked_target(target)  # type: ignore[arg-type]


def test_hard_constraint_ranks_by_top1_within_the_target() -> None:
    hard = Objective(50.0)
    assert hard.fitness(75.0, 50.0) == 75.0
    assert hard.fitness(80.0, 50.001) == -math.inf
    assert (hard.limit_ms, hard.excess_ms(48.0)) == (50.0, -2.0)


def test_soft_objective_ranks_by_reward_and_refuses_nothing() -> None:
    soft = Objective(50.0, hard=False)
    assert soft.fitness(75.0, 100.0) == pytest.approx(71.44785, abs=1e-4)
    assert soft.limit_ms == math.inf


def test_values_follow_the_directions() -> None:
    assert Objective(50.0).values(75.0, 50.0) == (75.0,)
    assert Objective(50.0).directions == ("maximize",)
    two = Objective(50.0, 2)
    assert two.values(75.0, 40.0) == (75.0, 40.0)
    assert two.directions == ("maximize", "minimize")
