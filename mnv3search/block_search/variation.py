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
_EXPECTED_CHANGES = np.array([1.0, 2.0, 4.0])


class Variation:
    """Operators over the rows of one space; every answer is canonical."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._sizes = np.array([len(parameter.choices) for parameter in space.parameters], dtype=np.int64)
        self.combinations = math.prod(self._sizes.tolist())

    def children(self, parents: Rows, count: int, rng: np.random.Generator) -> Rows:
        """``count`` children of ``parents`` (best first, which are chosen more often); shape (count, P).

        Crossover takes a parameter from the parent that uses it; what neither uses is drawn anew, so that a block that
        mutation brings back is not always the same. One pass over the population: the space's own operators make rows
        canonical after each step, which would be most of the search's time.
        """
        used = self._space.tables.used(parents)
        first, second = (_tournament(len(parents), count, rng) for _ in range(2))
        a, b, in_a, in_b = parents[first], parents[second], used[first], used[second]
        swap = (rng.random(a.shape) < 0.5) & (rng.random((count, 1)) < _CROSSOVER_SHARE)
        crossed = np.where(np.where(in_a & in_b, swap, swap & in_b | ~in_a), b, a)
        drawn = (rng.random(a.shape) * self._sizes).astype(np.int64)
        crossed = np.where(in_a | in_b, crossed, drawn)
        rate = rng.choice(_EXPECTED_CHANGES, size=(count, 1)) / max(1, len(self._sizes))
        shift = 1 + (rng.random(a.shape) * (self._sizes - 1)).astype(np.int64)
        mutated = np.where(rng.random(a.shape) < rate, (crossed + shift) % self._sizes, crossed)
        return self._space.canonical(mutated)

    def towards(self, rows: Rows, goal: Rows, shares: NDArray[np.float64], rng: np.random.Generator) -> Rows:
        """``rows`` with a share (n,) of their columns taken from ``goal`` (P,)."""
        return self._space.canonical(np.where(rng.random(rows.shape) < shares[:, None], goal, rows))

    def neighbours(self, row: Rows) -> Rows:
        """Every row that differs from ``row`` in one parameter before it is made canonical."""
        changed = []
        for column, size in enumerate(self._sizes.tolist()):
            for choice in range(size):
                if choice != row[column]:
                    other = row.copy()
                    other[column] = choice
                    changed.append(other)
        return self._space.canonical(np.stack(changed)) if changed else row[None, :]

    def every_row(self) -> Rows:
        """All canonical rows; for spaces of few combinations only."""
        rows = np.array(list(product(*(range(size) for size in self._sizes.tolist()))), dtype=np.int64)
        return np.unique(self._space.canonical(rows.reshape(-1, len(self._sizes))), axis=0)


def _tournament(parents: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of winners of tournaments of two; a lower index is a better parent."""
    drawn: NDArray[np.int64] = rng.integers(0, parents, (count, 2))
    return np.asarray(drawn.min(axis=1))
