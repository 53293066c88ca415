"""How the machine's pace changed during a measurement, and times with that divided out.

Everything in one slot of a round runs within a fraction of a second, at one pace. So a slot's pace is the median, over
its items and the reference, of how much longer each took than it usually does: Tukey's median polish of the logarithms
into an item's usual time and a slot's pace. One reading of the reference alone is several percent off, two dozen items
together are not. The reference then says at which pace a whole measurement stands to another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SWEEPS = 4  # of the polish; it has settled to a fraction of a percent by then


class Drift(NamedTuple):
    """The pace in each slot of each round, (rounds, slots), 1 at the median, and the reference's milliseconds at 1."""

    pace: FloatArray
    reference_ms: float


def drift_of(ms: FloatArray, slots: NDArray[np.int64], reference_ms: FloatArray) -> Drift:
    """The drift of a measurement.

    Args:
        ms: of the items, shape (rounds, n); NaN where an item missed its turn, as in a round that was interrupted.
        slots: in which slot each took its turns, shape (n,).
        reference_ms: the reference's readings, one a slot, shape (rounds, slots).
    """
    readings = np.log(reference_ms)
    logs = np.hstack([np.log(ms), readings])
    of_slot = [np.flatnonzero(np.append(slots, np.arange(readings.shape[1])) == s) for s in range(readings.shape[1])]
    pace = np.zeros_like(readings)
    for _ in range(SWEEPS):
        usual = _median(logs - _spread(pace, slots), axis=0)
        usual[len(slots) :] = np.median(readings - pace)  # the reference is one network in all its slots
        pace = np.stack([_median((logs - usual)[:, items], axis=1) for items in of_slot], axis=1)
        pace -= np.median(pace)
    return Drift(np.exp(pace), float(np.exp(np.median(readings - pace))))


def _spread(pace: FloatArray, slots: NDArray[np.int64]) -> FloatArray:
    """The pace of each item's slot, then of each reading of the reference."""
    return np.hstack([pace[:, slots], pace])


def _median(logs: FloatArray, axis: int) -> FloatArray:
    """Of what was read: never nothing, for the reference reads first in every slot."""
    # several times slower where values are to be skipped
    found: FloatArray = np.nanmedian(logs, axis=axis) if np.isnan(logs).any() else np.median(logs, axis=axis)
    return found
