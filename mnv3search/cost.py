"""MAdds, parameters, activations and peak activation memory: analytic, exact (conventions in :mod:`.layers`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mnv3search.architecture import Architecture, check_architecture
from mnv3search.layers import Layer, Unit, live_elements, network_layers, sum_counts, unit_rows, units

BYTES_PER_ELEMENT = 4


class UnitCost(NamedTuple):
    """What one unit adds to a network's counts."""

    madds: int
    parameters: int
    activations: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of one architecture.

    Attributes:
        madds: multiply-adds of convolutions and linear layers at batch 1.
        parameters: all learned numbers.
        activations: elements of the outputs of convolutions and linear layers.
    """

    architecture: Architecture
    madds: int
    parameters: int
    activations: int

    @property
    def peak_memory_bytes(self) -> int:
        """Of fp32 at batch 1: the largest sum of live tensors over the operations."""
        return max(map(unit_peak_elements, units(self.architecture))) * BYTES_PER_ELEMENT

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with its own counts, named ``stem.conv``, ``blocks.3.depthwise`` and so on."""
        return tuple(network_layers(self.architecture))


@lru_cache(maxsize=1 << 17)
def unit_cost(unit: Unit) -> UnitCost:
    """The cost of one unit."""
    return UnitCost(*sum_counts(unit_rows(unit)))


@lru_cache(maxsize=1 << 17)
def unit_peak_elements(unit: Unit) -> int:
    """The most elements alive while any layer of a unit runs at batch 1."""
    return max(live_elements(unit_rows(unit)))


def total_cost(parts: Iterable[Unit]) -> UnitCost:
    """The sum over units."""
    madds = parameters = activations = 0
    for unit in parts:
        cost = unit_cost(unit)
        madds += cost[0]
        parameters += cost[1]
        activations += cost[2]
    return UnitCost(madds, parameters, activations)


def count(architecture: Architecture) -> Counts:
    """MAdds, parameters, activations and, where asked for, peak activation memory, exact, without torch.

    Raises:
        ArchitectureError: it is no architecture, but a name or a list, say.
    """
    check_architecture(architecture)
    return Counts(architecture, *total_cost(units(architecture)))
