"""Prices of whole populations: every distinct unit of the space is priced once, then numpy gathers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnv3search.cost.counts import BYTES_PER_ELEMENT, unit_cost
from mnv3search.cost.units import Unit
from mnv3search.errors import SpaceError
from mnv3search.space.extremes import cheapest_row
from mnv3search.space.tables import Rows, SpaceTables

if TYPE_CHECKING:
    from mnv3search.space.space import SearchSpace

Price = Callable[[Sequence[Unit]], NDArray[np.float64]]


class CountBatch(NamedTuple):
    """Counts of a population, each of shape (n,); conventions as in :func:`mnv3search.cost.counts.count`."""

    madds: NDArray[np.int64]
    parameters: NDArray[np.int64]
    activations: NDArray[np.int64]
    peak_memory_bytes: NDArray[np.int64]


def count_rows(tables: SpaceTables, rows: Rows) -> CountBatch:
    """The counts of each row."""
    costs = np.array([*(unit_cost(unit) for unit in tables.units), (0, 0, 0, 0)], dtype=np.int64)
    ids = tables.unit_ids(rows)
    madds, parameters, activations = (costs[:, k][ids].sum(axis=1) for k in range(3))
    return CountBatch(madds, parameters, activations, costs[:, 3][ids].max(axis=1) * BYTES_PER_ELEMENT)


class PricedSpace:
    """A space whose units have prices, for sums over many rows and for exact extremes.

    Attributes:
        space: the space.
        prices: of each unit in the order of ``space.all_units()``; shape (units,).
    """

    def __init__(self, space: SearchSpace, price: Price) -> None:
        self.space = space
        tables = space.tables
        prices = np.asarray(price(tables.units), dtype=np.float64)
        if prices.shape != (len(tables.units),):
            raise SpaceError(f"pricing gave an array of shape {prices.shape} for {len(tables.units)} units")
        if not np.isfinite(prices).all():
            worst = int(np.flatnonzero(~np.isfinite(prices))[0])
            raise SpaceError(f"pricing gave {prices[worst]}, which is not finite, for {tables.units[worst]}")
        self.prices = prices
        self._padded = np.append(prices, 0.0)

    def sums(self, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        """The sum of the unit prices of each row; shape (n,)."""
        found: NDArray[np.float64] = self._padded[self.space.tables.unit_ids(indices)].sum(axis=1)
        return found

    def fastest(self) -> tuple[Rows, float]:
        """The canonical row of the smallest sum, and that sum: exact, by dynamic programming."""
        return self._extreme(self._padded)

    def slowest(self) -> tuple[Rows, float]:
        """The canonical row of the largest sum, and that sum: exact, by dynamic programming."""
        return self._extreme(-self._padded)

    def _extreme(self, prices: NDArray[np.float64]) -> tuple[Rows, float]:
        row = self.space.canonical(cheapest_row(self.space.tables, prices).reshape(1, -1))
        return row[0], float(self.sums(row)[0])
