"""Networks timed whole in one session: what each took, ratios to one another, and whether the machine was quiet.

Other programs show in the load average before, in calls that waited for a core (their CPU time is less than the
wall's) and in a speed that changes, which is all that can be seen of a neighbour or of a clock that heat slows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnv3search.errors import MeasurementError
from mnv3search.latency.measured.measuring import (
    MOMENTS,
    FloatArray,
    Round,
    drift_corrected,
    drift_error,
    median_error,
    robust_deviation,
    summarise,
)
from mnv3search.latency.remote.agent import load_average
from mnv3search.latency.runtimes.base import Runtime, machine_of


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredLatency:
    """One network timed whole, interleaved with the others and the reference.

    Attributes:
        latency_ms: median, at the speed of the process's first whole measurement.
        error_ms: one standard deviation of that median, and of the speed: it holds from one process to another.
        minimum_ms: the fastest call, uncorrected.
        reference_ms: the reference network's median in this measurement, uncorrected.
        waited: share of the time in which the calls of the measurement waited for a core.
        drift_error: one standard deviation of the machine's speed in this measurement, as a share.
        times_ms: every call, in order, the clock drift divided out; call i of all networks is of one round.
    """

    latency_ms: float
    error_ms: float
    minimum_ms: float
    rounds: int
    reference_ms: float
    waited: float
    drift_error: float
    times_ms: FloatArray


@dataclass(frozen=True, slots=True)
class SessionScale:
    """What ``networks`` take in this process for a millisecond of the table, and one standard deviation as a share."""

    factor: float
    error: float
    networks: int


@dataclass(frozen=True, slots=True)
class SessionReference:
    """What the reference took in a process's first whole measurement, and one standard deviation as a share."""

    reference_ms: float
    error: float


def measured_latencies(
    found: Sequence[Round], slot_size: int, session: SessionReference | None, waited: float
) -> list[MeasuredLatency]:
    """Each network's latency from their rounds, at this session's speed; at the rounds' own where None."""
    corrected = drift_corrected(found, slot_size)
    own = SessionReference(corrected.reference_ms, drift_error(corrected.drift, waited))
    session = session or own
    scale = session.reference_ms / own.reference_ms
    measured = []
    for index in range(corrected.ms.shape[1]):
        timing = summarise(corrected.ms[:, index] * scale, min(float(one.ms[index]) for one in found))
        measured.append(
            MeasuredLatency(
                timing.median_ms, math.hypot(timing.error_ms, timing.median_ms * session.error),
                timing.minimum_ms, timing.rounds, own.reference_ms, waited, own.error, corrected.ms[:, index] * scale,
            )
        )  # fmt: skip
    return measured


T_MOMENTS = 2.3646  # 97.5 % quantile of Student's t at MOMENTS - 1 degrees of freedom
SIGNS = 6  # rounds from which the smallest and the largest hold the median in 95 % of cases: 1 - 2 · 0.5⁶


@dataclass(frozen=True, slots=True)
class Ratio:
    """``value`` with its 95 % interval, which is 0 to infinity where too few rounds were timed for one."""

    value: float
    low: float
    high: float


def paired_ratio(times_ms: FloatArray, base_ms: FloatArray) -> Ratio:
    """The median of ``times / base`` over the same rounds, shape (rounds,), and its 95 % interval.

    Both networks ran in every round, so what slowed the machine in a round slowed both and leaves their ratio. The
    interval is of Student's t by the error of a median. An interrupted call counts as one call.

    Raises:
        MeasurementError: no rounds, not as many of one as of the other, or times that are not above 0.
    """
    if times_ms.shape != base_ms.shape or times_ms.ndim != 1 or not times_ms.size:
        raise MeasurementError(
            f"times of {times_ms.shape} and {base_ms.shape} rounds cannot be compared; time both in the same rounds"
        )
    if not all(np.isfinite(times).all() and (times > 0).all() for times in (times_ms, base_ms)):
        raise MeasurementError("a time is not a number above 0; ratios need milliseconds of every round")
    logs = np.log(times_ms / base_ms)
    middle = float(np.median(logs))
    below, above = _interval(logs, middle)
    return Ratio(math.exp(middle), math.exp(below), math.exp(above))


def _interval(logs: FloatArray, middle: float) -> tuple[float, float]:
    if len(logs) < SIGNS:
        return -math.inf, math.inf
    if len(logs) < 2 * MOMENTS:
        return float(logs.min()), float(logs.max())
    half = T_MOMENTS * median_error(logs, robust_deviation(logs, middle))
    return middle - half, middle + half


BUSY = 0.5  # load average for each of its cores
MAX_WAITED = 0.05  # share of the wall's time in which timed calls waited for a core
MAX_DRIFT_ERROR = 0.02  # of the machine's speed, one standard deviation, as a share
_REMEDY = "stop what else runs there, or measure again when it is idle"


def load_of(runtime: object) -> float | None:
    """The load average of the machine on which ``runtime`` times, here or elsewhere; None where it is unknown."""
    found: float | None = runtime.load_average if hasattr(runtime, "load_average") else load_average()
    return found


def busy_sentence(device: object) -> str | None:
    """What to say before a measurement of a device whose machine's load average is above half of its cores, or None."""
    runtime = getattr(device, "runtime", None)
    if not isinstance(runtime, Runtime):
        return None
    load, cores = load_of(runtime), machine_of(runtime).cores
    if load is None or load <= BUSY * cores:
        return None
    return (
        f"the machine to be timed is busy: its load average was {load:.1f} on {cores} cores, so its times will be long "
        f"and uneven; {_REMEDY}"
    )


def disturbed_sentence(timed: Sequence[object]) -> str | None:
    """What to say after a device timed whole networks together and other programs disturbed that, or None."""
    waited = max((getattr(one, "waited", 0.0) for one in timed), default=0.0)
    drift_error = max((getattr(one, "drift_error", 0.0) for one in timed), default=0.0)
    signs = []
    if waited > MAX_WAITED:
        signs.append(f"timed calls waited {100 * waited:.0f} % of the time for a core")
    if drift_error > MAX_DRIFT_ERROR:
        signs.append(f"its speed is known within ±{100 * drift_error:.1f} % alone, which the stated deviations hold")
    return f"the machine was busy while it was timed: {' and '.join(signs)}; {_REMEDY}" if signs else None
