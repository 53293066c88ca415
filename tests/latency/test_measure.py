"""The measuring protocol: its statistics by hand, its rounds with scripted sessions, and real networks."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.errors import MeasurementError
from mnv3search.families import published
from mnv3search.latency.measured.measuring import (
    LOOK,
    MAX_DISAGREEMENT,
    WAITED_SPREAD,
    MeasuringPlan,
    Round,
    WatchedTurns,
    drift_corrected,
    drift_error,
    halves_disagreement,
    median_error,
    moment_deviation,
    rounds,
    settled,
    slot_of,
    summarise,
)
from mnv3search.latency.runtimes.base import Image, Session, TakesTurns, time_in_turn, turns_of
from mnv3search.latency.runtimes.registry import load_runtime

PLAIN = MeasuringPlan(rounds=1, min_seconds=0, warmup=0)


class Scripted:
    """A session that takes the times it is told, and notes when it was called."""

    def __init__(self, name: str, log: list[str], seconds: Sequence[float] = (1e-3,)) -> None:
        self.name, self.log, self.seconds = name, log, list(seconds)

    def time_once(self) -> float:
        self.log.append(self.name)
        return self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]

    def output(self) -> Image:
        return np.zeros((1, 1), dtype=np.float32)


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_drift_that_slows_everything_alike_is_divided_out() -> None:
    drift = np.repeat([1.0, 1.3, 0.9, 1.1, 1.0], 5)
    usual = np.array([0.5, 2.0, 0.1])
    found = drift_corrected([Round(usual * p, np.array([8.0, 8.0]) * p) for p in drift], slot_size=2)
    np.testing.assert_allclose(found.ms, np.tile(usual, (25, 1)))
    assert found.reference_ms == pytest.approx(8.0)


def test_each_item_is_corrected_by_its_own_slot() -> None:
    slots = slot_of(6, 3)
    first, second = np.array([1.0, 1.5, 1.0, 1.0, 0.5]), np.array([2.0, 1.0, 1.0, 0.5, 1.0])
    usual = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    kept = [Round(usual * drift[slots], 10.0 * drift) for drift in np.stack([first, second], axis=1)]
    found = drift_corrected(kept, 3)
    np.testing.assert_allclose(found.ms, np.tile(usual, (5, 1)))
    assert found.reference_ms == pytest.approx(10.0)


def test_noise_of_one_item_is_its_own() -> None:
    times = np.array([[1.0, 2.0, 3.0], [1.4, 2.0, 3.0], [0.7, 2.0, 3.0]])
    found = drift_corrected([Round(ms, np.array([10.0])) for ms in times], 24)
    np.testing.assert_allclose(found.ms, times)  # three others say that the drift was steady


def test_rounds_of_nothing_but_the_reference_are_corrected() -> None:
    found = drift_corrected([Round(np.zeros(0), np.array([ms])) for ms in (10.0, 12.0, 11.0)], 24)
    assert found.ms.shape == (3, 0)
    assert found.reference_ms == pytest.approx(11.0)


def test_halves_by_hand() -> None:
    times = np.array([[1.0, 5.0, 1.0], [1.1, 5.0, 2.0]] * 3)
    # odd against even: 1/1.1, 5/5 and 1/2, so shares 0.0909, 0 and 0.5
    assert halves_disagreement(times) == pytest.approx(1 - 1 / 1.1)
    assert halves_disagreement(times) > MAX_DISAGREEMENT
    assert halves_disagreement(times[:1]) == 0
    rng = np.random.default_rng(0)
    assert halves_disagreement(1 + 0.02 * rng.standard_normal((40, 9))) < MAX_DISAGREEMENT


def wobbling(count: int, share: float) -> list[Round]:
    """Rounds of an item that alternates between 1 - share and 1 + share, and of two that are steady."""
    return [Round(np.array([1 + share * (-1) ** index, 1, 1]), np.array([10.0])) for index in range(count)]


def test_settled_by_hand() -> None:
    rough = MeasuringPlan(rounds=1, tolerance=0.1)
    # deviation 1.4826 · 0.1 of 10 repeats, so 1.96 · 1.2533 · 0.14826 / √10 = 0.1152; of 20 repeats 0.0814
    assert not settled(wobbling(10, 0.1), rough)
    assert settled(wobbling(20, 0.1), rough)
    assert not settled(wobbling(21, 0.1), rough)  # looked at every ten rounds alone
    assert not settled([], rough)
    assert settled([], MeasuringPlan())
    assert settled(wobbling(3, 0.5), MeasuringPlan())


def test_every_item_must_be_settled() -> None:
    one = wobbling(20, 0.1)
    both = [Round(np.append(r.ms, r.ms * (1 + 2 * (r.ms - 1))), r.reference_ms) for r in one]
    assert settled(one, MeasuringPlan(tolerance=0.1))
    assert not settled(both, MeasuringPlan(tolerance=0.1))


def test_summary_by_hand() -> None:
    timing = summarise(np.array([2.0, 1.0, 3.0, 2.0, 10.0]))
    assert timing.median_ms == 2.0
    assert timing.minimum_ms == 1.0
    assert timing.lower_ms == 2.0  # of 1 2 2 3 10 the second
    assert timing.rounds == 5
    # deviations from 2: 0 1 1 0 8, median 1
    assert timing.spread == pytest.approx(1.4826 / 2)
    assert timing.error_ms == pytest.approx(1.2533 * 1.4826 / np.sqrt(5), rel=1e-4)
    two = summarise(np.array([2.0, 3.0]), minimum_ms=1.5)
    assert (two.minimum_ms, two.lower_ms) == (1.5, 2.25)


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
    assert one.minimum_ms <= one.lower_ms <= one.median_ms
    assert other.lower_ms == pytest.approx(one.lower_ms * factor)
    assert other.median_ms == pytest.approx(one.median_ms * factor)
    assert other.error_ms == pytest.approx(one.error_ms * factor, abs=1e-9)
    assert other.spread == pytest.approx(one.spread, abs=1e-6)


def test_every_item_takes_its_turn_in_every_round_after_the_reference() -> None:
    log: list[str] = []
    items = [Scripted(str(i), log) for i in range(5)]
    plan = replace(PLAIN, rounds=3, slot_size=2)
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
    list(rounds(items, Scripted("R", log), replace(PLAIN, rounds=4)))
    orders = {tuple(log[turn * 9 + 1 : turn * 9 + 9]) for turn in range(4)}
    assert len(orders) == 4


def test_warm_up_is_not_counted_and_times_are_milliseconds_of_their_item() -> None:
    log: list[str] = []
    items = [Scripted("a", log, [9, 9, 0.001]), Scripted("b", log, [9, 9, 0.002])]
    reference = Scripted("R", log, [9, 9, 0.008])
    (found,) = rounds(items, reference, replace(PLAIN, warmup=2))
    np.testing.assert_allclose(found.ms, [1, 2])
    np.testing.assert_allclose(found.reference_ms, [8])


def test_rounds_go_on_until_the_time_is_spread() -> None:
    clock = ticking(0.5)
    plan = replace(PLAIN, rounds=2, min_seconds=4.0)
    found = list(rounds([Scripted("a", [])], Scripted("R", []), plan, clock=lambda: next(clock)))
    assert len(found) == 7  # the clock is read once at the start and once before each round: 4 s have passed at the 8th
    endless = replace(PLAIN, rounds=2, min_seconds=1e9, max_rounds=5)
    assert len(list(rounds([Scripted("a", [])], Scripted("R", []), endless))) == 5


def test_rounds_go_on_until_the_medians_are_known() -> None:
    def measured(tolerance: float | None, *, wobble: float = 0.1, least: int = 2, most: int = 200) -> int:
        item = Scripted("a", [], [1e-3 * (1 + wobble * (-1) ** index) for index in range(1_000)])
        plan = replace(PLAIN, rounds=least, max_rounds=most, tolerance=tolerance)
        steady = [Scripted(name, []) for name in "bc"]
        return len(list(rounds([item, *steady], Scripted("R", []), plan)))

    assert measured(None) == 2
    assert measured(0.5) == LOOK
    # 0.3643 / √n within the tolerance: n ≥ 13.3, looked at every ten
    assert measured(0.1) == 20
    assert measured(0.1, least=80) == 80
    assert measured(0.05, most=35) == 35
    assert measured(0.001, wobble=0.0) == LOOK


def test_few_items_are_spread_over_time_by_pauses_between_bursts() -> None:
    log: list[str] = []
    slept: list[tuple[float, int]] = []
    plan = replace(PLAIN, rounds=25, pause_seconds=1.5)
    found = list(
        rounds([Scripted("a", log)], Scripted("R", log), plan, sleep=lambda s: slept.append((s, log.count("a"))))
    )
    assert len(found) == 25
    assert slept == [(1.5, LOOK), (1.5, 2 * LOOK + 1)]  # a call after the first pause warms up, and counts in no round
    assert log.count("a") == log.count("R") == 27


def test_the_drift_is_known_as_well_as_its_bursts_agree() -> None:
    drifts = np.array([1.0, 1.1, 0.9, 1.0])
    found = drift_corrected([Round(np.array([2.0, 3.0]) * p, np.array([8.0]) * p) for p in np.repeat(drifts, LOOK)], 24)
    np.testing.assert_allclose(found.drift, np.repeat(drifts, LOOK))
    # four bursts, of which two count
    assert drift_error(found.drift) == pytest.approx(np.std(drifts, ddof=1) / np.sqrt(2))
    assert drift_error(np.ones(60)) == 0
    assert drift_error(np.ones(1)) == 0
    assert drift_error(np.ones(60), waited=0.5) == pytest.approx(0.5 * WAITED_SPREAD)


class Waiting(Scripted):
    """A session whose calls wait."""

    def time_once(self) -> float:
        time.sleep(0.01)
        return 1e-3


def test_calls_that_wait_for_a_core_are_seen_where_they_run_in_this_thread() -> None:
    class Here:
        name, version, threads, precision = "fake", "1", 1, "fp32"

        def prepare(self, subject: object) -> Session:
            return Waiting("a", [])

    class Elsewhere(Here):
        def time_in_turn(self, sessions: Sequence[Session]) -> list[float]:
            return time_in_turn(sessions)

    here, elsewhere = Here(), Elsewhere()
    for runtime, seen in ((here, True), (elsewhere, False)):
        turns = WatchedTurns(runtime)  # type: ignore[arg-type]
        assert turns.waited == 0
        assert turns([Waiting("a", [])]) == [1e-3]
        assert (0 < turns.waited <= 1) is seen


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-300, 1e300, float("inf"), float("nan")])
def test_a_clock_that_gives_impossible_times_is_refused(seconds: float) -> None:
    for item, reference in ((seconds, 1e-3), (1e-3, seconds)):
        with pytest.raises(MeasurementError, match=r"its clock cannot be used.*use another runtime"):
            list(rounds([Scripted("a", [], [item])], Scripted("R", [], [reference]), PLAIN))


def test_every_call_that_counts_follows_one_of_the_reference() -> None:
    log: list[str] = []
    plan = replace(PLAIN, lead_calls=1, after_reference=True)
    (found,) = rounds([Scripted("a", log, [0.002]), Scripted("b", log, [0.004])], Scripted("R", log), plan)
    assert log[:2] == ["R", "R"]  # the reference's own that counts
    assert sorted(log[2:]) == ["R", "R", "a", "b"]
    assert log[2] == log[4] == "R"
    np.testing.assert_allclose(found.ms, [2, 4])
    assert found.reference_ms.shape == (1,)


class InTurn:
    """Takes the questions of a round in one go, as a runtime on another machine does."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def time_in_turn(self, sessions: Sequence[Session]) -> list[float]:
        self.asked.append([session.name for session in sessions if isinstance(session, Scripted)])
        return time_in_turn(sessions)


def test_a_runtime_that_takes_turns_gets_whole_slots_and_gives_the_same() -> None:
    def found(turns: InTurn | None) -> tuple[list[Round], list[str]]:
        log: list[str] = []
        items = [Scripted(str(i), log, [1e-3 * (i + 1 + 0.1 * turn) for turn in range(9)]) for i in range(5)]
        plan = replace(PLAIN, rounds=3, warmup=1, slot_size=2)
        reference = Scripted("R", log)
        how = time_in_turn if turns is None else turns_of(turns)  # type: ignore[arg-type]
        return list(rounds(items, reference, plan, turns=how)), log

    turns = InTurn()
    assert isinstance(turns, TakesTurns)
    there, there_log = found(turns)
    here, here_log = found(None)
    assert there_log == here_log
    for one, other in zip(there, here, strict=True):
        assert (one.ms.tolist(), one.reference_ms.tolist()) == (other.ms.tolist(), other.reference_ms.tolist())
    assert turns.asked[0] == ["R", "0", "1", "2", "3", "4"]  # the warm-up
    assert [len(slot) for slot in turns.asked[1:]] == [3, 3, 2] * 3
    assert {slot[0] for slot in turns.asked} == {"R"}
    assert [set(slot[1:]) for slot in turns.asked[1:4]] == [{"0", "1"}, {"2", "3"}, {"4"}]


def test_too_slow_a_measurement_fails_and_says_what_to_do() -> None:
    clock = ticking(10.0)
    plan = replace(PLAIN, rounds=40, max_seconds=35.0)
    measuring = rounds([Scripted("a", [])], Scripted("R", []), plan, clock=lambda: next(clock))
    assert len(list(itertools.islice(measuring, 3))) == 3
    with pytest.raises(MeasurementError, match=r"only 3 of 40 rounds.*run it again"):
        next(measuring)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": 50, "max_rounds": 40}, {"slot_size": 0}, {"warmup": -1}])
def test_impossible_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError):
        MeasuringPlan(**wrong)


def test_the_collector_is_off_while_timing_and_on_again_after() -> None:
    seen = []

    class Watching(Scripted):
        def time_once(self) -> float:
            seen.append(gc.isenabled())
            return 1e-3

    list(rounds([Watching("a", [])], Watching("R", []), replace(PLAIN, rounds=2)))
    assert seen == [False] * 4
    assert gc.isenabled()


def test_real_networks_are_timed() -> None:
    pytest.importorskip("onnxruntime")
    runtime = load_runtime("onnxruntime")
    sessions = [runtime.prepare(published("mobilenet_v3_small", resolution=r)) for r in (32, 224)]
    reference = runtime.prepare(published("mobilenet_v3_small", resolution=64))
    plan = replace(PLAIN, rounds=12, warmup=2)
    found = list(rounds(sessions, reference, plan))
    small, large = (summarise(times) for times in drift_corrected(found, plan.slot_size).ms.T)
    assert small.minimum_ms > 0
    assert small.minimum_ms < large.minimum_ms  # 49 times the pixels
    assert small.rounds == 12
    assert 0 <= small.error_ms < 10 * small.median_ms
