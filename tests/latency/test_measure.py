"""The measuring protocol: its statistics by hand, its rounds with scripted sessions, and real networks."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.errors import MeasurementError
from mnv3search.families import published
from mnv3search.latency.measure import (
    MeasuringPlan,
    at_level,
    median_error,
    moment_deviation,
    pace,
    rounds,
    slot_of,
    summarise,
)
from mnv3search.latency.runtimes import load_runtime


class Scripted:
    """A session that takes the times it is told, and notes when it was called."""

    def __init__(self, name: str, log: list[str], seconds: Sequence[float] = (1e-3,)) -> None:
        self.name, self.log, self.seconds = name, log, list(seconds)

    def time_once(self) -> float:
        self.log.append(self.name)
        return self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_pace_is_a_running_median_in_time_order() -> None:
    readings = np.array([[1.0, 9.0], [1.0, 1.0], [2.0, 2.0], [2.0, 2.0]])
    # windows: [1 9 1], [1 9 1 1], [1 9 1 1 2], [9 1 1 2 2], [1 1 2 2 2], [1 2 2 2 2], [2 2 2 2], [2 2 2]
    np.testing.assert_allclose(pace(readings), [[1, 1], [1, 2], [2, 2], [2, 2]])


def test_drift_that_slows_everything_alike_is_divided_out() -> None:
    drift = np.repeat([1.0, 1.3, 0.9, 1.1], 10)
    reference = 8.0 * drift[:, None]
    item = 0.5 * drift
    settled = np.r_[2:8, 12:18, 22:28, 32:38]  # away from the steps, at which a window sees both sides
    corrected = at_level(item, pace(reference)[:, 0], 8.0)
    np.testing.assert_allclose(corrected[settled], 0.5)
    assert summarise(corrected).median_ms == pytest.approx(0.5)


def test_summary_by_hand() -> None:
    timing = summarise(np.array([2.0, 1.0, 3.0, 2.0, 10.0]))
    assert timing.median_ms == 2.0
    assert timing.minimum_ms == 1.0
    assert timing.rounds == 5
    # deviations from 2: 0 1 1 0 8, median 1
    assert timing.spread == pytest.approx(1.4826 / 2)
    assert timing.error_ms == pytest.approx(1.2533 * 1.4826 / np.sqrt(5), rel=1e-4)
    assert summarise(np.array([2.0, 3.0]), minimum_ms=1.5).minimum_ms == 1.5


def test_error_of_a_median_is_what_repeated_experiments_show() -> None:
    rng = np.random.default_rng(0)
    experiments = 1 + 0.05 * rng.standard_normal((400, 64))
    actual = np.median(experiments, axis=1).std()
    stated = np.median([summarise(row).error_ms for row in experiments])
    assert 0.9 * actual < stated < 1.5 * actual


def test_moments_that_differ_widen_the_error() -> None:
    rng = np.random.default_rng(1)
    steady = 1 + 0.01 * rng.standard_normal(64)
    wandering = steady + np.repeat([0, 0.1, 0, 0.1, 0, 0.1, 0, 0.1], 8)
    assert median_error(wandering, 0.01) > 5 * median_error(steady, 0.01)


def test_deviation_of_moments_by_hand() -> None:
    # eight parts of two: medians 1 and 3, four times each; variance 8/7
    assert moment_deviation(np.repeat([1.0, 3.0] * 4, 2)) == pytest.approx(np.sqrt(8 / 7))
    assert moment_deviation(np.array([5.0])) == 0


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60), st.floats(0.5, 2))
def test_statistics_scale_with_time(times: list[float], factor: float) -> None:
    one, other = summarise(np.array(times)), summarise(np.array(times) * factor)
    assert one.minimum_ms <= one.median_ms
    assert other.median_ms == pytest.approx(one.median_ms * factor)
    assert other.error_ms == pytest.approx(one.error_ms * factor, abs=1e-9)
    assert other.spread == pytest.approx(one.spread, abs=1e-6)


def test_every_item_takes_its_turn_in_every_round_after_the_reference() -> None:
    log: list[str] = []
    items = [Scripted(str(i), log) for i in range(5)]
    plan = MeasuringPlan(rounds=3, min_seconds=0, warmup=0, slot_size=2)
    found = list(rounds(items, Scripted("R", log), plan))
    assert len(found) == 3
    assert all(one.ms.shape == (5,) and one.reference_ms.shape == (3,) for one in found)
    assert slot_of(5, 2).tolist() == [0, 0, 1, 1, 2]
    for turn in range(3):
        taken = log[turn * 8 : turn * 8 + 8]
        assert [taken[0], taken[3], taken[6]] == ["R", "R", "R"]
        assert (set(taken[1:3]), set(taken[4:6]), taken[7]) == ({"0", "1"}, {"2", "3"}, "4")


def test_the_order_within_a_slot_changes_from_round_to_round() -> None:
    log: list[str] = []
    items = [Scripted(str(i), log) for i in range(8)]
    list(rounds(items, Scripted("R", log), MeasuringPlan(rounds=4, min_seconds=0, warmup=0)))
    orders = {tuple(log[turn * 9 + 1 : turn * 9 + 9]) for turn in range(4)}
    assert len(orders) == 4


def test_warm_up_is_not_counted_and_times_are_milliseconds_of_their_item() -> None:
    log: list[str] = []
    items = [Scripted("a", log, [9, 9, 0.001]), Scripted("b", log, [9, 9, 0.002])]
    reference = Scripted("R", log, [9, 9, 0.008])
    (found,) = rounds(items, reference, MeasuringPlan(rounds=1, min_seconds=0, warmup=2))
    np.testing.assert_allclose(found.ms, [1, 2])
    np.testing.assert_allclose(found.reference_ms, [8])


def test_rounds_go_on_until_the_time_is_spread() -> None:
    clock = ticking(0.5)
    plan = MeasuringPlan(rounds=2, min_seconds=4.0, warmup=0)
    found = list(rounds([Scripted("a", [])], Scripted("R", []), plan, clock=lambda: next(clock)))
    assert len(found) == 7  # the clock is read once at the start and once before each round: 4 s have passed at the 8th
    endless = MeasuringPlan(rounds=2, min_seconds=1e9, max_rounds=5, warmup=0)
    assert len(list(rounds([Scripted("a", [])], Scripted("R", []), endless))) == 5


def test_too_slow_a_measurement_fails_and_says_what_to_do() -> None:
    clock = ticking(10.0)
    plan = MeasuringPlan(rounds=40, max_seconds=35.0, warmup=0)
    measuring = rounds([Scripted("a", [])], Scripted("R", []), plan, clock=lambda: next(clock))
    assert len(list(itertools.islice(measuring, 3))) == 3
    with pytest.raises(MeasurementError, match=r"only 3 of 40 rounds.*run it again"):
        next(measuring)


@pytest.mark.parametrize("seconds", [0.0, -1e-3, float("nan"), float("inf")])
def test_impossible_times_are_refused(seconds: float) -> None:
    with pytest.raises(MeasurementError, match="cannot be used"):
        next(rounds([Scripted("a", [], [seconds])], Scripted("R", []), MeasuringPlan(warmup=0)))


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": 50, "max_rounds": 40}, {"slot_size": 0}, {"warmup": -1}])
def test_impossible_plans_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(MeasurementError):
        MeasuringPlan(**wrong)


def test_the_collector_is_off_while_timing_and_on_again_after() -> None:
    seen = []

    class Watching(Scripted):
        def time_once(self) -> float:
            seen.append(gc.isenabled())
            return 1e-3

    list(rounds([Watching("a", [])], Watching("R", []), MeasuringPlan(rounds=2, min_seconds=0, warmup=0)))
    assert seen == [False] * 4
    assert gc.isenabled()


def test_real_networks_are_timed() -> None:
    pytest.importorskip("onnxruntime")
    runtime = load_runtime("onnxruntime")
    sessions = [runtime.prepare(published("mobilenet_v3_small", resolution=r)) for r in (32, 224)]
    reference = runtime.prepare(published("mobilenet_v3_small", resolution=64))
    found = list(rounds(sessions, reference, MeasuringPlan(rounds=12, min_seconds=0)))
    times, readings = np.stack([one.ms for one in found]), np.stack([one.reference_ms for one in found])
    small, large = (summarise(at_level(times[:, i], pace(readings)[:, 0], float(np.median(readings)))) for i in (0, 1))
    assert small.minimum_ms > 0
    assert small.minimum_ms < large.minimum_ms  # 49 times the pixels
    assert small.rounds == 12
    assert 0 <= small.error_ms < 10 * small.median_ms
