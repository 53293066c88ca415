"""MAdds, parameters, activations and peak activation memory: analytic, exact (conventions in :mod:`.layers`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mnv3search.architecture import Architecture, check_architecture
from mnv3search.layers import Layer, Unit, live_elements, network_layers, summed, unit_rows, units

BYTES_PER_ELEMENT = 4


class UnitCost(NamedTuple):
    """What one unit adds to a network's counts; ``peak_elements`` is a maximum, the others are sums."""

    madds: int
    parameters: int
    activations: int
    peak_elements: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of one architecture.

    Attributes:
        madds: multiply-adds of convolutions and linear layers at batch 1.
        parameters: all learned numbers.
        activations: elements of the outputs of convolutions and linear layers.
        peak_memory_bytes: fp32, batch 1: the largest sum of live tensors over the operations.
    """

    architecture: Architecture
    madds: int
    parameters: int
    activations: int
    peak_memory_bytes: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with its own counts, named ``stem.conv``, ``blocks.3.depthwise`` and so on."""
        return tuple(network_layers(self.architecture))


@lru_cache(maxsize=1 << 17)
def unit_cost(unit: Unit) -> UnitCost:
    """The cost of one unit; equal units are priced once."""
    rows = unit_rows(unit)
    return UnitCost(*summed(rows), max(live_elements(rows)))


def total_cost(parts: Iterable[Unit]) -> UnitCost:
    """The sum (and the largest peak) over units."""
    madds = parameters = activations = peak = 0
    for unit in parts:
        cost = unit_cost(unit)
        madds += cost[0]
        parameters += cost[1]
        activations += cost[2]
        peak = max(peak, cost[3])
    return UnitCost(madds, parameters, activations, peak)


def count(architecture: Architecture) -> Counts:
    """MAdds, parameters, activations and peak activation memory of ``architecture``, exact, without torch.

    Raises:
        ArchitectureError: it is no architecture, but a name or a list, say.
    """
    check_architecture(architecture)
    cost = total_cost(units(architecture))
    return Counts(architecture, cost.madds, cost.parameters, cost.activations, cost.peak_elements * BYTES_PER_ELEMENT)
