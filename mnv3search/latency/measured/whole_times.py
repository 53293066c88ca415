"""Networks timed whole in one session: what each took, and how the session stands to the table's times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnv3search.latency.measured.measure import FloatArray, Round, levelled, pace_error, summarise


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredLatency:
    """One network timed whole, interleaved with the others and the reference.

    The network stands in the same place as among those that were given.

    Attributes:
        latency_ms: median, at the pace of the process's first whole measurement: later drift is divided out.
        error_ms: one standard deviation of that median, and of the pace: it holds from one process to another.
        minimum_ms: the fastest call, as it was.
        rounds: how many calls.
        reference_ms: the reference network's median in this measurement, as it was.
        waited: share of the time in which the calls of the measurement waited for a core.
        pace_error: how well this measurement knows the machine's pace, one standard deviation, as a share.
        times_ms: every call, in order, the reference's drift divided out; call i of all networks is of one round.
    """

    latency_ms: float
    error_ms: float
    minimum_ms: float
    rounds: int
    reference_ms: float
    waited: float
    pace_error: float
    times_ms: FloatArray


@dataclass(frozen=True, slots=True)
class Level:
    """How the machine of this process's session stands to the table's times.

    Attributes:
        factor: what networks take now for one millisecond that the table gave them.
        error: one standard deviation of that, as a share.
        networks: how many were timed to know it.
    """

    factor: float
    error: float
    networks: int


@dataclass(frozen=True, slots=True)
class Pace:
    """That of a process: what the reference takes at it, and its standard deviation as a share."""

    reference_ms: float
    error: float


def measured_latencies(
    found: Sequence[Round], slot_size: int, pace: Pace | None, waited: float
) -> list[MeasuredLatency]:
    """What rounds of networks say of each, at this pace; at their own where None.

    ``waited`` is the share of their time in which the calls waited for a core.
    """
    at_pace = levelled(found, slot_size)
    own = Pace(at_pace.reference_ms, pace_error(at_pace.pace, waited))
    pace = pace or own
    scale = pace.reference_ms / own.reference_ms
    measured = []
    for index in range(at_pace.ms.shape[1]):
        timing = summarise(at_pace.ms[:, index] * scale, min(float(one.ms[index]) for one in found))
        measured.append(
            MeasuredLatency(
                timing.median_ms, math.hypot(timing.error_ms, timing.median_ms * pace.error),
                timing.minimum_ms, timing.rounds, own.reference_ms, waited, own.error, at_pace.ms[:, index] * scale,
            )
        )  # fmt: skip
    return measured
