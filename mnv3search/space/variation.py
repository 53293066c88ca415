"""Mutation and crossover on index rows; parameters that a parent does not use say nothing and are redrawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import SpaceError
from mnv3search.space.tables import Rows, SpaceTables


def _random(tables: SpaceTables, count: int, rng: np.random.Generator) -> Rows:
    drawn: Rows = (rng.random((count, len(tables.parameters))) * tables.sizes).astype(np.int16)
    return drawn


def mutated(tables: SpaceTables, rows: Rows, rng: np.random.Generator, rate: float) -> Rows:
    """Each parameter changes to another of its choices with probability ``rate``; not yet canonical."""
    if not 0 <= rate <= 1:
        raise SpaceError(f"the mutation rate is {rate!r}; it must be a number from 0 to 1")
    shift = 1 + (rng.random(rows.shape) * (tables.sizes - 1)).astype(np.int16)
    changed = np.where(rng.random(rows.shape) < rate, (rows + shift) % tables.sizes, rows)
    found: Rows = np.where(tables.used(rows), changed, _random(tables, len(rows), rng)).astype(np.int16)
    return found


def crossed(tables: SpaceTables, a: Rows, b: Rows, rng: np.random.Generator) -> Rows:
    """Each parameter from one parent or the other, from the one that uses it where only one does; not yet canonical."""
    if a.shape != b.shape:
        raise SpaceError(f"crossover needs as many rows on both sides, not {len(a)} and {len(b)}")
    in_a, in_b = tables.used(a), tables.used(b)
    from_a: NDArray[np.bool_] = np.where(in_a & in_b, rng.random(a.shape) < 0.5, in_a)
    found: Rows = np.where(from_a, a, b).astype(np.int16)
    return np.where(in_a | in_b, found, _random(tables, len(a), rng)).astype(np.int16)
