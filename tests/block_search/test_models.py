"""The surrogate models that lead the batched sampler, and the exact filling of a budget under one."""

from __future__ import annotations

import numpy as np
import pytest
from search_fakes import EffectEvaluator, UnitLatency, small_space

from mnv3search.block_search.budgeted_optimum import BudgetedOptimum
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.block_search.surrogates import AccuracyModel, AdditiveModel

SIZES = np.array([3, 2, 4])
EFFECTS = np.array([0.0, 1.0, -2.0, 0.5, 0.0, 3.0, -1.0, 0.0, 0.25])
OFFSETS = np.array([0, 3, 5])


def _data(count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, SIZES, (count, 3))
    return rows, 70.0 + EFFECTS[rows + OFFSETS].sum(axis=1) + noise * rng.standard_normal(count)


def test_additive_truth_is_recovered() -> None:
    rows, values = _data(60, 0.0)
    model = AdditiveModel(SIZES)
    model.add(rows[:20], values[:20])
    model.add(rows[20:], values[20:])
    assert model.fit().mean(rows) == pytest.approx(values, abs=1e-3)


def test_noise_is_shrunk_and_draws_spread_with_it() -> None:
    rows, values = _data(200, 0.5)
    model = AdditiveModel(SIZES)
    model.add(rows, values)
    posterior = model.fit()
    truth = 70.0 + EFFECTS[rows + OFFSETS].sum(axis=1)
    assert np.abs(posterior.mean(rows) - truth).max() < 0.4
    rng = np.random.default_rng(1)
    draws = np.stack([posterior.draw(rng).mean(rows) for _ in range(200)])
    assert 0.02 < draws.std(axis=0).mean() < 0.3  # 9 effects from 200 values with noise 0.5: about 0.1


def test_equal_values_are_no_trouble() -> None:
    rows, _ = _data(20, 0.0)
    model = AdditiveModel(SIZES)
    model.add(rows, np.full(20, 70.0))
    assert model.fit().mean(rows) == pytest.approx(np.full(20, 70.0))


def _model(name: str) -> tuple[AccuracyModel, np.ndarray, np.ndarray]:
    space = small_space(name)
    every = list(space.enumerate())
    rows = np.stack([space.indices(architecture) for architecture in every]).astype(np.int64)
    truth = np.array([EffectEvaluator.top1(architecture) for architecture in every])
    model = AccuracyModel(space)
    model.add(rows, truth)
    return model, rows, truth


def test_whole_blocks_explain_what_choices_do_not() -> None:
    model, rows, truth = _model("blocks")
    for _ in range(4):
        posterior = model.fit()
    of_choices = np.sqrt(np.mean((posterior.choices.mean(rows) - truth) ** 2))
    whole = np.sqrt(np.mean((posterior.mean(rows) - truth) ** 2))
    assert whole < 0.1 * of_choices


@pytest.mark.parametrize("name", ["blocks", "widths", "stage choices"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_the_budget_is_filled_as_brute_force_would(name: str, share: float) -> None:
    model, rows, _ = _model(name)
    posterior = model.fit()
    latencies = RowLatency(small_space(name), UnitLatency())
    times = latencies.of_rows(rows)
    budget = times.min() + share * (times.max() - times.min())
    prices = latencies.unit_prices
    assert prices is not None
    found = BudgetedOptimum(small_space(name), *prices).rows(posterior, budget, 40)
    best = posterior.mean(rows)[times <= budget].max()
    within = found[latencies.of_rows(found) <= budget]
    # the grid rounds each unit by at most half of 1/800 of the budget
    worst = posterior.mean(rows)[times <= budget * (1 - 8 / 800)].max()
    assert worst - 1e-9 <= posterior.mean(within).max() <= best + 1e-9


def test_a_budget_below_everything_fills_nothing() -> None:
    model, _, _ = _model("blocks")
    latencies = RowLatency(small_space("blocks"), UnitLatency())
    prices = latencies.unit_prices
    assert prices is not None
    assert BudgetedOptimum(small_space("blocks"), *prices).rows(model.fit(), 0.5, 10).shape[0] == 0
