"""Networks timed whole in one session: what each took, and how the session stands to the table's times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnv3search.architecture import Architecture
from mnv3search.latency.measured.measure import FloatArray, Round, levelled, summarise


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredLatency:
    """One network timed whole, interleaved with the others and the reference.

    Attributes:
        latency_ms: median, at the pace of the process's first whole measurement: later drift is divided out.
        error_ms: one standard deviation of that median.
        minimum_ms: the fastest call, as it was.
        rounds: how many calls.
        reference_ms: the reference network's median in this measurement, as it was.
        times_ms: every call, in order, the reference's drift divided out; call i of all networks is of one round.
    """

    architecture: Architecture
    latency_ms: float
    error_ms: float
    minimum_ms: float
    rounds: int
    reference_ms: float
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


def measured_latencies(
    architectures: Sequence[Architecture], found: Sequence[Round], slot_size: int, pace_ms: float | None
) -> list[MeasuredLatency]:
    """What rounds of these networks say, where the reference takes ``pace_ms``; at its own pace where None."""
    at_pace = levelled(found, slot_size)
    scale = 1.0 if pace_ms is None else pace_ms / at_pace.reference_ms
    measured = []
    for index, architecture in enumerate(architectures):
        timing = summarise(at_pace.ms[:, index] * scale, min(float(one.ms[index]) for one in found))
        measured.append(
            MeasuredLatency(
                architecture, timing.median_ms, timing.error_ms, timing.minimum_ms, timing.rounds,
                at_pace.reference_ms, at_pace.ms[:, index] * scale,
            )
        )  # fmt: skip
    return measured
