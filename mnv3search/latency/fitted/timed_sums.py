"""Sums of units that were timed, as matrices: how often each unit stands in each sum, and what the units count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log2

import numpy as np
from numpy.typing import NDArray

from mnv3search.latency.estimated.features import FEATURE_NAMES, unit_features
from mnv3search.latency.keys import unit_key
from mnv3search.layers import Unit

Array = NDArray[np.float64]

PARAMETERS = ("fixed", *FEATURE_NAMES)
_USUAL = {  # proportions, as on phones' CPUs; a fit moves them freely
    "fixed": 0.0, "madds": 0.16, "stem_madds": 0.0, "depthwise_madds": 0.0, "wide_depthwise_madds": 0.07,
    "linear_madds": 0.0, "elements": 1.0, "weights": 0.15, "channels": 0.07, "squeeze_excite_elements": 2.7,
    "squeeze_excites": 0.07, "hard_swish_elements": 0.7, "layers": 0.0,
}  # fmt: skip
_MADDS = PARAMETERS.index("madds")
_SHARE = 0.1  # of a mean network, that each count may cost before the times are seen


@lru_cache(maxsize=1 << 15)
def counts_row(unit: Unit) -> tuple[float, ...]:
    """A unit's multipliers of :data:`PARAMETERS`: 0 for what is fixed, then its counts."""
    return (0.0, *unit_features(unit))


@lru_cache(maxsize=1 << 15)
def unit_kind(unit: Unit) -> tuple[str, bool, int]:
    """Units that may have rates of their own: stems, blocks or heads, squeeze-excite or not, of one octave of MAdds."""
    spec, madds = unit.spec, counts_row(unit)[_MADDS]
    return type(spec).__name__, getattr(spec, "squeeze_excite", None) is not None, round(log2(max(madds, 1e-6)))


class TimedSums:
    """The distinct units of n sums that were timed, u of them, and usual rates scaled to these times.

    Attributes:
        index: of each unit, by its :func:`~mnv3search.latency.keys.unit_key`.
        occurrences: of the units in the sums; shape (n, u).
        counts: of the units, by :data:`PARAMETERS`; shape (u, parameters).
        totals: of the sums, 1 for what is fixed; shape (n, parameters).
        kinds: the kinds of units, in order.
        kind_counts: ``counts`` with columns for each kind apart, shape (u, kinds · parameters).
        usual, stds: milliseconds for one of each parameter on a usual device, and how far from it one may be.
        usual_ms: of the sums by ``usual``; shape (n,).
    """

    def __init__(self, timed: Sequence[Sequence[Unit]], times_ms: Array) -> None:
        self.index: dict[str, int] = {}
        found: list[Unit] = []
        for unit in (u for parts in timed for u in parts):
            if self.index.setdefault(unit_key(unit), len(found)) == len(found):
                found.append(unit)
        self.occurrences = np.array([self.occurrences_in(parts) for parts in timed])
        self.counts = np.array([counts_row(unit) for unit in found])
        self.totals = self.occurrences @ self.counts
        self.totals[:, 0] = 1.0
        self.kinds = tuple(dict.fromkeys(map(unit_kind, found)))
        self.kind_counts = np.array([self.by_kind([unit]) for unit in found])
        self.usual, self.stds = _usual_rates(self.totals, times_ms)
        self.usual_ms = self.totals @ self.usual

    def by_kind(self, parts: Sequence[Unit]) -> Array:
        """The counts of a sum of units in columns for each kind apart; those of other kinds are left out."""
        found = np.zeros((len(self.kinds), len(PARAMETERS)))
        for unit in parts:
            if unit_kind(unit) in self.kinds:
                found[self.kinds.index(unit_kind(unit))] += counts_row(unit)
        return found.ravel()

    def occurrences_in(self, parts: Sequence[Unit]) -> Array:
        """How often each unit of the timed sums stands in another sum; shape (u,)."""
        found = np.zeros(len(self.index))
        for unit in parts:
            at = self.index.get(unit_key(unit))
            if at is not None:
                found[at] += 1
        return found


def _usual_rates(totals: Array, times: Array) -> tuple[Array, Array]:
    """Rates in the usual proportions, scaled to these times, and how far each may be from that."""
    usual = np.array([_USUAL[name] for name in PARAMETERS])
    usual = usual * float(np.median(times / (totals @ usual)))
    mean_count = totals.mean(axis=0)
    share = np.divide(_SHARE * times.mean(), mean_count, out=np.zeros_like(usual), where=mean_count > 0)
    return usual, usual + share
