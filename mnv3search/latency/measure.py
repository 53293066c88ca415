"""The measuring protocol: a round-robin with a reference network in every round, and what is read from it.

A loop over one item sees one moment of the machine; the next item sees another, several percent away. So everything
that is compared takes its turn in every round, the reference network runs before each slot of items, and each time is
divided by what the reference took around that moment. :func:`rounds` measures; all else is pure.
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
from mnv3search.latency.runtimes.base import Session

FloatArray = NDArray[np.float64]

DRIFT_WINDOW = 5  # readings of the reference whose median is the machine's pace at the middle one
MEDIAN_EFFICIENCY = math.sqrt(math.pi / 2)  # standard error of a median over that of a mean, for normal noise
MAD_TO_STD = 1.4826
MOMENTS = 8  # contiguous parts of a measurement whose medians are compared


@dataclass(frozen=True, slots=True)
class MeasuringPlan:
    """How much is measured.

    Attributes:
        rounds: at least so many of every item.
        min_seconds: more rounds follow until so long has passed, so that few items are spread over time as well.
        max_rounds: never more than so many.
        max_seconds: the measurement fails where ``rounds`` are not reached by then.
        warmup: calls of every item before the first round.
        slot_size: items between two readings of the reference.
        seed: of the order within the slots, another in each round.
    """

    rounds: int = 40
    min_seconds: float = 4.0
    max_rounds: int = 200
    max_seconds: float = 1_800.0
    warmup: int = 2
    slot_size: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= self.max_rounds:
            raise MeasurementError(f"{self.rounds} rounds of at most {self.max_rounds} were asked for; give at least 1")
        if self.slot_size < 1 or self.warmup < 0:
            raise MeasurementError(f"slot_size {self.slot_size} must be at least 1 and warmup {self.warmup} at least 0")


class Round(NamedTuple):
    """Milliseconds of one round: of every item, shape (n,), and of the reference before each slot, shape (slots,)."""

    ms: FloatArray
    reference_ms: FloatArray


@dataclass(frozen=True, slots=True)
class Timing:
    """What the repeats of one item come to, the reference's drift divided out.

    Attributes:
        median_ms, minimum_ms: milliseconds.
        error_ms: one standard deviation of the median.
        spread: robust standard deviation of single repeats, as a share of the median.
        rounds: how many repeats.
    """

    median_ms: float
    minimum_ms: float
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
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Round]:
    """Warm up, then yield round after round until the plan is fulfilled.

    Raises:
        MeasurementError: time ran out before ``plan.rounds``, or a time is not a positive number.
    """
    for session in (reference, *items):
        for _ in range(plan.warmup):
            session.time_once()
    rng = np.random.default_rng(plan.seed)
    start = clock()
    for done in range(plan.max_rounds):
        elapsed = clock() - start
        if done >= plan.rounds and elapsed >= plan.min_seconds:
            return
        if 0 < done < plan.rounds and elapsed > plan.max_seconds:
            raise MeasurementError(
                f"only {done} of {plan.rounds} rounds were measured within {plan.max_seconds:g} s; they are kept: "
                f"run it again to go on, or measure fewer networks"
            )
        yield _one_round(items, reference, plan.slot_size, rng)


def _one_round(items: Sequence[Session], reference: Session, slot_size: int, rng: np.random.Generator) -> Round:
    ms = np.zeros(len(items))
    reference_ms = []
    with _no_collection():
        for first in range(0, max(len(items), 1), slot_size):
            reference_ms.append(reference.time_once() * 1e3)
            for index in first + rng.permutation(min(slot_size, len(items) - first)):
                ms[index] = items[index].time_once() * 1e3
    found = Round(ms, np.array(reference_ms))
    for times in found:
        if not (np.isfinite(times).all() and (times > 0).all()):
            raise MeasurementError(f"a runtime reported {times.min():g} ms for one call; its clock cannot be used")
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the timed calls."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def pace(reference_ms: FloatArray) -> FloatArray:
    """The reference's smoothed time at each of its readings, shape (rounds, slots) as given.

    A running median over :data:`DRIFT_WINDOW` readings in the order in which they were taken, shorter at both ends.
    """
    readings = reference_ms.reshape(-1)
    half = DRIFT_WINDOW // 2
    smoothed = [np.median(readings[max(0, i - half) : i + half + 1]) for i in range(readings.size)]
    return np.array(smoothed, dtype=np.float64).reshape(reference_ms.shape)


def at_level(ms: FloatArray, pace_ms: FloatArray, level_ms: float) -> FloatArray:
    """Times as they would be where the reference takes ``level_ms``; ``ms`` and ``pace_ms`` of shape (rounds,)."""
    return ms * (level_ms / pace_ms)


def summarise(ms: FloatArray, minimum_ms: float | None = None) -> Timing:
    """Median, minimum, error and spread of one item's times, shape (rounds,), in the order in which they were taken.

    ``minimum_ms`` is the smallest time where another one than the smallest of ``ms`` is meant.
    """
    median = float(np.median(ms))
    deviation = MAD_TO_STD * float(np.median(np.abs(ms - median)))
    least = float(ms.min()) if minimum_ms is None else minimum_ms
    return Timing(median, least, median_error(ms, deviation), deviation / median, len(ms))


def median_error(ms: FloatArray, deviation: float) -> float:
    """One standard deviation of the median: the larger of what single repeats and what whole moments say.

    Repeats that follow one another are not independent, so the medians of :data:`MOMENTS` contiguous parts are
    compared as well.
    """
    by_repeats = MEDIAN_EFFICIENCY * deviation / math.sqrt(len(ms))
    if len(ms) < 2 * MOMENTS:
        return by_repeats
    return max(by_repeats, moment_deviation(ms) / math.sqrt(MOMENTS))


def moment_deviation(ms: FloatArray) -> float:
    """Standard deviation of the medians of :data:`MOMENTS` contiguous parts: how far one moment is from another."""
    parts = np.array_split(ms, min(MOMENTS, len(ms)))
    return float(np.std([np.median(part) for part in parts], ddof=1)) if len(parts) > 1 else 0.0
