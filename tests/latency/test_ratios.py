"""Ratios of networks that took turns: exact where there is no noise, and right as often as they say where there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv3search.errors import MeasurementError
from mnv3search.latency.measured.whole_networks import Ratio, paired_ratio

Array = NDArray[np.float64]


def following(rng: np.random.Generator, rounds: int, share: float) -> Array:
    """Noise of which each value keeps ``share`` of the one before; deviation 1."""
    kicks = rng.standard_normal(rounds + 50) * math.sqrt(1 - share**2)
    found = np.zeros(rounds + 50)
    for i in range(1, rounds + 50):
        found[i] = share * found[i - 1] + kicks[i]
    return found[50:]


def interrupted(rng: np.random.Generator, rounds: int) -> Array:
    """One call in twelve takes up to a third longer."""
    return 0.3 * (rng.random(rounds) < 0.08) * rng.random(rounds)


def test_a_steady_ratio_is_found_through_any_drift() -> None:
    base = np.linspace(1.0, 3.0, 60)
    ratio = paired_ratio(1.25 * base, base)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.25, 1.25, 1.25))


def test_a_network_against_itself_is_1() -> None:
    times = np.array([1.0, 2.0, 3.0, 1.5, 2.5, 9.0])
    assert paired_ratio(times, times) == Ratio(1.0, 1.0, 1.0)


def test_few_rounds_by_hand() -> None:
    ratio = paired_ratio(np.array([2.0, 4.0, 3.0, 2.5, 3.5, 3.2]), np.ones(6))
    assert ratio.value == pytest.approx(math.sqrt(3.0 * 3.2))
    assert (ratio.low, ratio.high) == pytest.approx((2.0, 4.0))


def test_too_few_rounds_have_no_interval() -> None:
    ratio = paired_ratio(np.array([2.0, 2.0]), np.array([1.0, 1.0]))
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 0.0, math.inf)


@pytest.mark.parametrize(
    ("rounds", "share", "least"), [(40, 0.0, 0.95), (40, 0.5, 0.92), (100, 0.5, 0.93), (200, 0.8, 0.91)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(rounds: int, share: float, least: float) -> None:
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        drift = 0.1 * np.sin(np.arange(rounds) / rounds * 6) + 0.05 * following(rng, rounds, 0.9)
        times = 2.0 * np.exp(drift + 0.02 * following(rng, rounds, share) + interrupted(rng, rounds))
        base = np.exp(drift + 0.01 * rng.standard_normal(rounds) + interrupted(rng, rounds))
        ratio = paired_ratio(times, base)
        held += ratio.low <= 2.0 <= ratio.high
    assert least <= held / 300 <= 0.999


def test_the_interval_is_narrow_although_each_time_drifts_widely() -> None:
    rng = np.random.default_rng(0)
    drift = np.exp(0.3 * np.sin(np.arange(100) / 15))
    times, base = (scale * drift * np.exp(0.01 * rng.standard_normal(100)) for scale in (1.02, 1.0))
    ratio = paired_ratio(times, base)
    assert 1.0 < ratio.low < 1.02 < ratio.high < 1.04


def test_the_same_times_give_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    times, base = rng.random(50) + 1, rng.random(50) + 1
    assert paired_ratio(times, base) == paired_ratio(times, base)


@pytest.mark.parametrize(
    ("times", "base"),
    [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0]), ([math.nan], [1.0]), ([math.inf], [1.0])],
)
def test_what_cannot_be_compared(times: list[float], base: list[float]) -> None:
    with pytest.raises(MeasurementError):
        paired_ratio(np.array(times), np.array(base))
