"""A device whose truth is known: its table of units is off by a known share, and timing it whole tells the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.cost import unit_cost
from mnv3search.latency.model import LatencyKind, Progress
from mnv3search.layers import Unit, units

TIMED_ERROR = 0.001


@dataclass(frozen=True, slots=True)
class FakeTime:
    latency_ms: float
    error_ms: float


class Table:
    """Sums of units, stated to be sure to 1 %; cannot be timed."""

    kind: LatencyKind = "table"
    name = "board"
    fixed_ms = 0.1

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        return np.array([0.05 + unit_cost(unit).madds / 1e7 for unit in parts])

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([self.fixed_ms + self.unit_latency_ms(units(a)).sum() for a in architectures])

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return 0.01 * self.latency_ms(architectures)


class Board(Table):
    """The same, timed: ``slower`` gives the true time for one of the table.

    Attributes:
        sessions: what was timed in each session, in order.
    """

    def __init__(self, slower: Callable[[Architecture], float]) -> None:
        self.slower = slower
        self.sessions: list[list[Architecture]] = []

    def truth_ms(self, architecture: Architecture) -> float:
        return float(self.latency_ms([architecture])[0]) * self.slower(architecture)

    def measure(self, architectures: Sequence[Architecture], progress: Progress | None = None) -> list[FakeTime]:
        self.sessions.append(list(architectures))
        return [FakeTime(self.truth_ms(a), TIMED_ERROR * self.truth_ms(a)) for a in architectures]


def five_by_five(architecture: Architecture) -> float:
    """3 % slower than the table says where more than a third of the blocks have kernels of 5."""
    large = sum(block.kernel_size == 5 for block in architecture.blocks)
    return 1.03 if 3 * large > len(architecture.blocks) else 1.0
