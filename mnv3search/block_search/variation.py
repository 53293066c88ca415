"""How rows vary: crossover, mutation, neighbours; whole populations at a time."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]

_CROSSOVER_SHARE = 0.6
_EXPECTED_CHANGES = (1.0, 2.0, 4.0)


class Variation:
    """Operators over the rows of one space; every answer is canonical."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._sizes = [len(parameter.choices) for parameter in space.parameters]
        self.combinations = math.prod(self._sizes)

    def children(self, parents: Rows, count: int, rng: np.random.Generator) -> Rows:
        """``count`` children of ``parents`` (best first, which are chosen more often); shape (count, P)."""
        first, second = (parents[_tournament(len(parents), count, rng)] for _ in range(2))
        crossed = self._space.crossover(first, second, rng)
        crossed = np.where(rng.random((count, 1)) < _CROSSOVER_SHARE, crossed, first)
        rates = [min(1.0, changes / max(1, len(self._sizes))) for changes in _EXPECTED_CHANGES]
        parts = np.array_split(crossed, len(rates))
        return np.concatenate([self._space.mutate(part, rng, rate) for part, rate in zip(parts, rates, strict=True)])

    def towards(self, rows: Rows, goal: Rows, shares: NDArray[np.float64], rng: np.random.Generator) -> Rows:
        """``rows`` with a share (n,) of their columns taken from ``goal`` (P,)."""
        return self._space.canonical(np.where(rng.random(rows.shape) < shares[:, None], goal, rows))

    def neighbours(self, row: Rows) -> Rows:
        """Every row that differs from ``row`` in one parameter before it is made canonical."""
        changed = []
        for column, size in enumerate(self._sizes):
            for choice in range(size):
                if choice != row[column]:
                    other = row.copy()
                    other[column] = choice
                    changed.append(other)
        return self._space.canonical(np.stack(changed)) if changed else row[None, :]

    def every_row(self) -> Rows:
        """All canonical rows; for spaces of few combinations only."""
        rows = np.array(list(product(*(range(size) for size in self._sizes))), dtype=np.int64)
        return np.unique(self._space.canonical(rows.reshape(-1, len(self._sizes))), axis=0)


def _tournament(parents: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of winners of tournaments of two; a lower index is a better parent."""
    drawn: NDArray[np.int64] = rng.integers(0, parents, (count, 2))
    return np.asarray(drawn.min(axis=1))
