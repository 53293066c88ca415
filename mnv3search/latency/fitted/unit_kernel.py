"""How alike two units' times are, beyond their counts: the covariance behind devices fitted to sums of units.

A unit takes ``price(1 + g)`` where ``price`` is a sum over its counts and ``g`` a Gaussian process: units of like sizes
and kinds depart from their counts alike (the smooth part), and each departs a little on its own (the own part).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import log2
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import BlockSpec, StemSpec, out_size
from mnv3search.cost.units import Unit
from mnv3search.latency.estimated.features import FEATURE_NAMES, unit_features
from mnv3search.latency.keys import unit_key

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float64]

PARAMETERS = ("fixed", *FEATURE_NAMES)
_APART = 1e3  # between stems, blocks and heads: nothing in common
_SIZES = 5  # the first coordinates after the kind are logarithms of sizes, the rest are kinds of work
_ACTIVATIONS = {"relu": 0.0, "relu6": 0.0, "hard_swish": 1.0, "swish": 1.5}
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class KernelScales:
    """What the marginal likelihood chooses, all above 0.

    Attributes:
        smooth: how far units of one sort depart from their counts, as a share of their price.
        size_length: over how many octaves of sizes this changes.
        work_length: over how many steps of kernel, stride, activation or squeeze-excite.
        own: how far each unit departs by itself, as a share of its price.
        counts: how far the price of each count may be from a usual device's.
        noise: of one timing of a network, and of what is no sum over units, as a share.
    """

    smooth: float
    size_length: float
    work_length: float
    own: float
    counts: float
    noise: float

    def as_array(self) -> Array:
        """In the order of the fields; shape (6,)."""
        return np.array([getattr(self, f.name) for f in fields(self)], dtype=np.float64)


@lru_cache(maxsize=1 << 15)
def unit_coordinates(unit: Unit) -> tuple[float, ...]:
    """Where a unit stands: its kind, the logarithms of its sizes, and its kinds of work."""
    spec, size, into = unit.spec, log2(unit.in_size), log2(unit.in_channels)
    if isinstance(spec, StemSpec):
        middle = out = float(spec.out_channels)
        work = (spec.kernel_size / 2, log2(spec.stride), 0.0, _ACTIVATIONS[spec.activation], 0.0)
        kind = 0.0
    elif isinstance(spec, BlockSpec):
        middle, out = float(spec.expanded_channels), float(spec.out_channels)
        squeezed = 0.0 if spec.squeeze_excite is None else 1.0
        residual = 1.0 if spec.has_residual(unit.in_channels) else 0.0
        work = (spec.kernel_size / 2, log2(spec.stride), squeezed, _ACTIVATIONS[spec.activation], residual / 2)
        kind = _APART
    else:
        middle, out = float(spec.feature_channels or 1), float(spec.hidden_channels or 1)
        squeezed = 0.0 if spec.squeeze_excite is None else 1.0
        work = (0.0, log2(unit.classes), squeezed, _ACTIVATIONS[spec.activation], 0.0)
        kind = 2 * _APART
    after = log2(out_size(unit.in_size, getattr(spec, "stride", 1)))
    return (kind, size, after, into, log2(middle), log2(out), *work)


def parameter_row(unit: Unit) -> tuple[float, ...]:
    """A unit's multipliers of :data:`PARAMETERS`: 0 for what is fixed, then its counts."""
    return (0.0, *unit_features(unit))


class Support:
    """The distinct units of what was timed, with their prices by counts; prepares covariances with them.

    Args:
        timed: the units of each thing that was timed: of a network, or one alone; n of them.
        prices: milliseconds for one of each of :data:`PARAMETERS`; what the departures are shares of.
    """

    def __init__(self, timed: Sequence[Sequence[Unit]], prices: Array) -> None:
        of_key: dict[str, int] = {}
        found: list[Unit] = []
        columns: list[int] = []
        for unit in (u for parts in timed for u in parts):
            at = of_key.setdefault(unit_key(unit), len(found))
            if at == len(found):
                found.append(unit)
            columns.append(at)
        starts = np.cumsum([0, *map(len, timed)])
        self.of_key, self.units = of_key, tuple(found)
        self.prices = prices
        self.price = np.array([parameter_row(u) for u in found]) @ prices
        self.coordinates = np.array([unit_coordinates(u) for u in found])
        self.counts = _counts(columns, starts, len(found))
        self.design = design(timed)
        self.sums_ms = self.design @ prices
        weighed = self.counts @ _diagonal(self.price)
        self._same_units = np.asarray((weighed @ weighed.T).todense(), dtype=np.float64)

    def __len__(self) -> int:
        """How many distinct units there are."""
        return len(self.units)

    def squared_distances(self) -> tuple[Array, Array]:
        """Between all pairs of units: of their sizes, and of their kinds of work; shapes (units, units)."""
        split = _SIZES + 1
        work = self.coordinates[:, [0, *range(split, self.coordinates.shape[1])]]
        return _squared(self.coordinates[:, 1:split]), _squared(work)

    def sum_covariance(self, scales: KernelScales, distances: tuple[Array, Array] | None = None) -> Array:
        """Covariance of the departures of what was timed, without noise and the price of counts; shape (n, n)."""
        if distances is not None:
            return self._by_units(smooth_part(*distances, scales), slice(None)) + scales.own**2 * self._same_units
        total = scales.own**2 * self._same_units
        for start in range(0, len(self), _CHUNK):  # never all pairs of thousands of units at once
            rows = slice(start, start + _CHUNK)
            near = np.array([self._near(c, scales) for c in self.coordinates[rows]])
            total += self._by_units(near, rows)
        return total

    def _by_units(self, near: Array, rows: slice) -> Array:
        weighed = near * self.price[rows, None] * self.price
        return np.asarray(self.counts[:, rows] @ (self.counts @ weighed.T).T, dtype=np.float64)

    def _near(self, coordinates: Array, scales: KernelScales) -> Array:
        difference = (self.coordinates - coordinates) ** 2
        split = _SIZES + 1
        sizes, work = difference[:, 1:split].sum(axis=1), difference[:, 0] + difference[:, split:].sum(axis=1)
        return smooth_part(sizes, work, scales)

    def covariance_with(self, unit: Unit, scales: KernelScales) -> Array:
        """Covariance of one unit's departure with that of every unit here, in ms²; shape (units,)."""
        near = self._near(np.array(unit_coordinates(unit)), scales)
        at = self.of_key.get(unit_key(unit))
        if at is not None:
            near[at] += scales.own**2
        return near * self.price * self.price_of(unit)

    def price_of(self, unit: Unit) -> float:
        """Milliseconds of a unit by its counts alone, at least 0."""
        return float((np.array(parameter_row(unit)) * self.prices).sum())


def smooth_part(sizes: Array, work: Array, scales: KernelScales) -> Array:
    """The smooth covariance of shares, from squared distances of sizes and of work."""
    return np.asarray(scales.smooth**2 * np.exp(-0.5 * (sizes / scales.size_length**2 + work / scales.work_length**2)))


def departure_variance(parts: Sequence[Unit], prices: Array, scales: KernelScales) -> float:
    """Variance of the sum of the departures of one network's units, in ms²."""
    rows = np.array([unit_coordinates(u) for u in parts])
    split = _SIZES + 1
    sizes, work = _squared(rows[:, 1:split]), _squared(rows[:, [0, *range(split, rows.shape[1])]])
    keys = np.array([unit_key(u) for u in parts])
    share = smooth_part(sizes, work, scales) + scales.own**2 * (keys[:, None] == keys)
    price = np.array([parameter_row(u) for u in parts]) @ prices
    return float(price @ share @ price)


def design(timed: Sequence[Sequence[Unit]]) -> Array:
    """Multipliers of :data:`PARAMETERS` of each sum of units, 1 for what is fixed; shape (n, parameters)."""
    rows = [np.sum([parameter_row(u) for u in parts], axis=0) for parts in timed]
    found = np.array(rows, dtype=np.float64).reshape(len(timed), len(PARAMETERS))
    found[:, 0] = 1.0
    return found


def _squared(points: Array) -> Array:
    """Squared distances between all pairs of points, coordinate by coordinate; shape (n, n)."""
    total = np.zeros((len(points), len(points)))
    for column in points.T:
        total += (column[:, None] - column) ** 2
    return total


def _diagonal(values: Array) -> csr_matrix:
    from scipy.sparse import csr_matrix

    places = np.arange(len(values) + 1)
    return csr_matrix((values, places[:-1], places))


def _counts(columns: Sequence[int], starts: NDArray[np.int64], width: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    found = csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(starts) - 1, width))
    found.sum_duplicates()
    return found
