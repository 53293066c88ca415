"""How many times as long as another network, from calls that took turns: a ratio and its interval, by rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mnv3search.errors import MeasurementError
from mnv3search.latency.measured.measure import MAD_TO_STD, MEDIAN_EFFICIENCY, FloatArray

LEVEL = 0.95
PARTS = 8  # contiguous parts of a measurement; their medians are nearly independent where its single rounds are not
T_PARTS = 2.3646  # 97.5 % quantile of Student's t at PARTS - 1 degrees of freedom
SIGNS = 6  # rounds from which the smallest and the largest hold the median in 95 % of cases: 1 - 2 · 0.5⁶


@dataclass(frozen=True, slots=True)
class Ratio:
    """``value`` with its 95 % interval; an interval from 0 to infinity says that too few rounds were timed for one."""

    value: float
    low: float
    high: float


def paired_ratio(times_ms: FloatArray, base_ms: FloatArray) -> Ratio:
    """The median over the rounds of ``times / base``, and where it lies with 95 % confidence.

    Both networks ran in every round, so what slowed the machine in a round slowed both and leaves their ratio. What
    remains follows a round or so after what was before it: the interval is therefore the wider of what single rounds
    and what the medians of :data:`PARTS` contiguous parts say (Student's t). Medians throughout, so that a call which
    was interrupted counts as one call. The same times give the same interval.

    Args:
        times_ms: of one network, shape (rounds,), in order.
        base_ms: of the other, of the same rounds.

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
    if len(logs) < 2 * PARTS:
        return float(logs.min()), float(logs.max())
    deviation = MAD_TO_STD * float(np.median(np.abs(logs - middle)))
    medians = [np.median(part) for part in np.array_split(logs, PARTS)]
    error = max(MEDIAN_EFFICIENCY * deviation / math.sqrt(len(logs)), float(np.std(medians, ddof=1)) / PARTS**0.5)
    return middle - T_PARTS * error, middle + T_PARTS * error
