"""How sure a latency is to be within a target: one-sided bounds from the errors that a model states.

A stated error is one standard deviation; errors are taken as normal. A model that states none is taken at its word.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, TargetError
from mnv3search.latency.model import LatencyModel, checked_latencies

Array = NDArray[np.float64]

LEAST_CONFIDENCE = 0.5
_NORMAL = NormalDist()


def z_of(confidence: float) -> float:
    """Standard deviations that a latency must stay below its target, at least 0: 0.5 gives 0, 0.9 gives 1.28.

    Raises:
        TargetError: ``confidence`` is below 0.5, or not below 1.
    """
    if not LEAST_CONFIDENCE <= confidence < 1:
        raise TargetError(
            f"confidence is {confidence!r}; it must be at least 0.5 (the latency itself meets the target) and below 1"
        )
    return max(0.0, _NORMAL.inv_cdf(confidence))


def probability_within(latency_ms: float, error_ms: float | None, target_ms: float) -> float:
    """How likely a latency of this error is at most ``target_ms``: from 0 to 1."""
    if not error_ms:
        return float(latency_ms <= target_ms)
    return _NORMAL.cdf((target_ms - latency_ms) / error_ms)


def stated_errors_ms(model: LatencyModel, architectures: Sequence[Architecture]) -> Array:
    """One standard deviation of each network's latency in milliseconds, shape (n,); 0 where ``model`` states none."""
    stated = getattr(model, "latency_error_ms", None)
    if stated is None or not architectures:
        return np.zeros(len(architectures))
    found = np.asarray(stated(architectures), dtype=np.float64)
    if found.shape != (len(architectures),) or not (np.isfinite(found) & (found >= 0)).all():
        raise DeviceError(
            f"{type(model).__name__} gave no usable errors; latency_error_ms must give one finite number of at least 0 "
            "for each network"
        )
    return found


def limits_ms(model: LatencyModel, architectures: Sequence[Architecture], target_ms: float, confidence: float) -> Array:
    """What each network's latency must come to, its relative error kept, to be within the target; shape (n,)."""
    z = z_of(confidence)
    if z == 0:
        return np.full(len(architectures), float(target_ms))
    relative = stated_errors_ms(model, architectures) / checked_latencies(model, architectures)
    return np.asarray(target_ms / (1 + z * relative))
