"""The measuring protocol: a round-robin with a reference network in every round, and its statistics.

A machine's speed changes by several percent from one moment to the next. So everything that is compared takes its turn
in every round, the reference runs before each slot of items, and each time is divided by that slot's clock drift: the
median, over the slot's items and the reference, of how much longer each took than usual, by Tukey's median polish of
the logarithms. The reference then relates the speed of one measurement to another's.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import MeasurementError
from mnv3search.latency.runtimes.base import (
    LONGEST_CALL,
    SHORTEST_CALL,
    Runtime,
    Session,
    TakesTurns,
    time_in_turn,
    turns_of,
)

FloatArray = NDArray[np.float64]

SWEEPS = 4  # of the median polish, which has settled to a fraction of a percent by then


class Drift(NamedTuple):
    """How much longer calls took, shape (rounds, slots), 1 at the median; and the reference's milliseconds at 1."""

    factors: FloatArray
    reference_ms: float


def drift_of(ms: FloatArray, slots: NDArray[np.int64], reference_ms: FloatArray) -> Drift:
    """The drift of a measurement, whose items took their turns in ``slots``, shape (n,).

    ``ms`` has the shape (rounds, n), NaN where an interrupted round lacks an item; ``reference_ms`` (rounds, slots).
    """
    readings = np.log(reference_ms)
    logs = np.hstack([np.log(ms), readings])
    of_slot = [np.flatnonzero(np.append(slots, np.arange(readings.shape[1])) == s) for s in range(readings.shape[1])]
    drift = np.zeros_like(readings)
    for _ in range(SWEEPS):
        usual = _median(logs - np.hstack([drift[:, slots], drift]), axis=0)
        usual[len(slots) :] = np.median(readings - drift)  # the reference is one network in all its slots
        drift = np.stack([_median((logs - usual)[:, items], axis=1) for items in of_slot], axis=1)
        drift -= np.median(drift)
    return Drift(np.exp(drift), float(np.exp(np.median(readings - drift))))


def _median(logs: FloatArray, axis: int) -> FloatArray:
    found: FloatArray = (np.nanmedian if np.isnan(logs).any() else np.median)(logs, axis=axis)  # nanmedian is slow
    return found


Turns = Callable[[Sequence[Session]], list[float]]

MEDIAN_EFFICIENCY = math.sqrt(math.pi / 2)  # standard error of a median over that of a mean, for normal noise
MAD_TO_STD = 1.4826
INTERVAL_95 = 1.96
LOOK = 10  # rounds of a burst
MAX_DISAGREEMENT = 0.02  # of odd and even rounds; above it the machine was not quiet
MOMENTS = 8  # contiguous parts of a measurement whose medians are compared
WAITED_SPREAD = 0.12  # of the speed, where all time is waited: 10 s windows of V3-Large on a loaded 2-core server


@dataclass(frozen=True, slots=True)
class MeasuringPlan:
    """How much is measured.

    Attributes:
        rounds: at least so many of every item.
        min_seconds: more rounds follow until so long has passed, so that few items are spread over time as well.
        pause_seconds: between bursts of :data:`LOOK` rounds, so that few items see the machine at several moments.
        tolerance: and, where it is given, until the 95 % interval of every median is within ± this share of it.
        max_rounds: never more than so many.
        max_seconds: the measurement fails where ``rounds`` are not reached by then.
        warmup: calls of every item before the first round.
        lead_calls: calls right before each one that counts; with 0 it finds the caches as other items left them.
        after_reference: whether these are the reference's, so that every call that counts finds the caches as one large
            network leaves them, whatever else is measured; otherwise the item's own.
        slot_size: items between two readings of the reference.
        seed: of the order within the slots, another in each round.
    """

    rounds: int = 60
    min_seconds: float = 4.0
    pause_seconds: float = 0.0
    tolerance: float | None = None
    max_rounds: int = 200
    max_seconds: float = 1_800.0
    warmup: int = 2
    lead_calls: int = 0
    after_reference: bool = False
    slot_size: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= self.max_rounds:
            raise MeasurementError(f"{self.rounds} rounds of at most {self.max_rounds} were asked for; give at least 1")
        if self.slot_size < 1 or self.warmup < 0 or self.lead_calls < 0:
            raise MeasurementError(
                f"slot_size {self.slot_size} must be at least 1, warmup {self.warmup} and lead_calls {self.lead_calls} "
                "at least 0"
            )


class Round(NamedTuple):
    """Milliseconds of one round: of every item, shape (n,), and of the reference before each slot, shape (slots,)."""

    ms: FloatArray
    reference_ms: FloatArray


@dataclass(frozen=True, slots=True)
class Timing:
    """Statistics of the repeats of one item, the clock drift divided out.

    Attributes:
        lower_ms: the lower quartile, which disturbances move less than the median, and noise less than the minimum.
        error_ms: one standard deviation of the median.
        spread: robust standard deviation of single repeats, as a share of the median.
    """

    median_ms: float
    minimum_ms: float
    lower_ms: float
    error_ms: float
    spread: float
    rounds: int


def slot_of(items: int, slot_size: int) -> NDArray[np.int64]:
    """The slot of each item, shape (items,): 0, 0, …, 1, 1, … up to the last."""
    return np.arange(items, dtype=np.int64) // slot_size


def rounds(
    items: Sequence[Session],
    reference: Session,
    plan: MeasuringPlan,
    *,
    turns: Turns = time_in_turn,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Round]:
    """Warm up, then yield round after round until the plan is fulfilled.

    ``turns`` runs sessions once each, in order, and gives their seconds.
    """
    for _ in range(plan.warmup):
        turns([reference, *items])
    rng = np.random.default_rng(plan.seed)
    start = clock()
    kept: list[Round] = []
    for done in range(plan.max_rounds):
        elapsed = clock() - start
        if done >= plan.rounds and elapsed >= plan.min_seconds and settled(kept, plan):
            return
        if 0 < done < plan.rounds and elapsed > plan.max_seconds:
            raise MeasurementError(
                f"only {done} of {plan.rounds} rounds were measured within {plan.max_seconds:g} s; they are kept: "
                f"run it again to go on, or measure fewer networks"
            )
        if plan.pause_seconds and done and done % LOOK == 0:
            sleep(plan.pause_seconds)
            turns([reference, *items])  # the pause has cooled the caches
        kept.append(_one_round(items, reference, plan, rng, turns))
        yield kept[-1]


def _one_round(
    items: Sequence[Session], reference: Session, plan: MeasuringPlan, rng: np.random.Generator, turns: Turns
) -> Round:
    ms = np.zeros(len(items))
    reference_ms = []
    with _no_collection():
        for first in range(0, max(len(items), 1), plan.slot_size):
            order = first + rng.permutation(min(plan.slot_size, len(items) - first))
            slot = [reference, *(items[index] for index in order)]
            leads = [[reference if plan.after_reference else session] * plan.lead_calls for session in slot]
            calls = turns([one for lead, session in zip(leads, slot, strict=True) for one in (*lead, session)])
            found = calls[plan.lead_calls :: plan.lead_calls + 1]
            reference_ms.append(found[0] * 1e3)
            ms[order] = np.array(found[1:]) * 1e3
    done = Round(ms, np.array(reference_ms))
    for times in done:
        wrong = ~((times >= 1e3 * SHORTEST_CALL) & (times <= 1e3 * LONGEST_CALL))
        if wrong.any():
            raise MeasurementError(
                f"a runtime reported {times[wrong][0]:g} ms for one call; its clock cannot be used: a call takes "
                f"{1e3 * SHORTEST_CALL:g} ms at least and {1e3 * LONGEST_CALL:g} ms at most; use another runtime"
            )
    return done


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class WatchedTurns:
    """Runs sessions in turn, and sees how long their calls waited for a core where they run in this thread alone."""

    def __init__(self, runtime: Runtime) -> None:
        self._turns = turns_of(runtime)
        self._visible = not isinstance(runtime, TakesTurns) and runtime.threads == 1
        self._wall = self._cpu = 0.0

    def __call__(self, sessions: Sequence[Session]) -> list[float]:
        """Seconds of each session, run once in this order."""
        wall, cpu = time.perf_counter(), time.thread_time()
        found = self._turns(sessions)
        self._wall += time.perf_counter() - wall
        self._cpu += time.thread_time() - cpu
        return found

    @property
    def waited(self) -> float:
        """The share of the wall's time in which calls waited for a core; 0 where it cannot be seen."""
        return max(0.0, 1 - self._cpu / self._wall) if self._visible and self._wall else 0.0


class DriftCorrected(NamedTuple):
    """Times of every item at the median speed, shape (rounds, n), and what the reference takes at it; milliseconds.

    ``drift`` says how much longer calls took in each round, shape (rounds,), 1 at the median.
    """

    ms: FloatArray
    reference_ms: float
    drift: FloatArray


def drift_corrected(kept: Sequence[Round], slot_size: int) -> DriftCorrected:
    """The rounds with the clock drift divided out."""
    ms = np.stack([one.ms for one in kept])
    slots = slot_of(ms.shape[1], slot_size)
    drift = drift_of(ms, slots, np.stack([one.reference_ms for one in kept]))
    return DriftCorrected(ms / drift.factors[:, slots], drift.reference_ms, np.median(drift.factors, axis=1))


def settled(kept: Sequence[Round], plan: MeasuringPlan) -> bool:
    """Whether every median is known within the plan's tolerance; checked every :data:`LOOK` rounds."""
    if plan.tolerance is None:
        return True
    if len(kept) % LOOK or not kept:
        return False
    timings = (summarise(column) for column in drift_corrected(kept, plan.slot_size).ms.T)
    return all(INTERVAL_95 * timing.error_ms <= plan.tolerance * timing.median_ms for timing in timings)


def halves_disagreement(times_ms: FloatArray) -> float:
    """By how much the medians of odd and even rounds differ, as a share; the median over items of (rounds, n)."""
    if len(times_ms) < 2:
        return 0.0
    return float(np.median(np.abs(np.median(times_ms[::2], axis=0) / np.median(times_ms[1::2], axis=0) - 1)))


def summarise(ms: FloatArray, minimum_ms: float | None = None) -> Timing:
    """One item's times, shape (rounds,), in the order in which they were taken; their smallest may be another."""
    median = float(np.median(ms))
    deviation = robust_deviation(ms, median)
    least = float(ms.min()) if minimum_ms is None else minimum_ms
    lower = float(np.quantile(ms, 0.25))
    return Timing(median, least, lower, median_error(ms, deviation), deviation / median, len(ms))


def robust_deviation(values: FloatArray, median: float) -> float:
    """The standard deviation of normal values that have this median absolute deviation from their median."""
    return MAD_TO_STD * float(np.median(np.abs(values - median)))


def median_error(ms: FloatArray, deviation: float) -> float:
    """One standard deviation of the median: the larger of what single repeats and contiguous parts say.

    Repeats that follow one another are not independent, so the medians of :data:`MOMENTS` parts are compared as well.
    """
    by_repeats = MEDIAN_EFFICIENCY * deviation / math.sqrt(len(ms))
    if len(ms) < 2 * MOMENTS:
        return by_repeats
    return max(by_repeats, moment_deviation(ms) / math.sqrt(MOMENTS))


def moment_deviation(ms: FloatArray, moments: int = MOMENTS) -> float:
    """Standard deviation of the medians of so many contiguous parts."""
    parts = np.array_split(ms, min(moments, len(ms)))
    return float(np.std([np.median(part) for part in parts], ddof=1)) if len(parts) > 1 else 0.0


def drift_error(drift: FloatArray, waited: float = 0.0) -> float:
    """How well the machine's usual speed is known from one measurement: one standard deviation, as a share.

    From the medians of bursts of :data:`LOOK` rounds of ``drift``, shape (rounds,). Those that follow one another are
    alike, so they count half. Where calls ``waited`` for a core, a share of the time, the speed of the minutes before
    and after is further off than bursts can show.
    """
    bursts = max(len(drift) // LOOK, min(4, len(drift)))
    return math.hypot(moment_deviation(drift, bursts) / math.sqrt(max(1.0, bursts / 2)), WAITED_SPREAD * waited)
