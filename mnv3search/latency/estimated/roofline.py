"""A device from two figures: how fast it multiplies and how fast it reads memory (Williams et al. 2009)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Layer, Unit, unit_layers, units

Array = NDArray[np.float64]

COMPUTE_ERROR = 0.35
MEMORY_ERROR = 0.5
"""Relative standard deviations of the time of compute-bound and of memory-bound layers (benchmarks/pixel.py).

With both figures fitted to other families, phones come out at 0.11 and 0.10, the blocks of a desktop CPU at 0.35 and,
hardly any being bound by memory, unknown; so the wider one is stated, and more where nothing is known.
"""

_BYTES = 4
_PER_MS = 1e6


@dataclass(frozen=True)
class RooflineDevice:
    """Each layer takes the longer of its arithmetic and its memory traffic, and an overhead.

    Traffic is input, output and weights at 4 bytes. Residual additions are taken as part of the convolution before
    them. The stated error adds that of compute-bound and that of memory-bound layers as independent, so its share
    depends on the network; both were calibrated on published phone latencies with the two figures fitted to other
    families. Figures from a data sheet are peaks, which no network reaches: better take them from a measurement.

    Attributes:
        name: of the device.
        gmadds_per_s: 10⁹ multiply-adds a second.
        gbytes_per_s: 10⁹ bytes a second.
        overhead_ms_per_layer: milliseconds.

    Raises:
        DeviceError: a figure that is not a positive, finite number (overhead: at least 0).
    """

    name: str
    gmadds_per_s: float
    gbytes_per_s: float
    overhead_ms_per_layer: float = 0.0

    def __post_init__(self) -> None:
        for field_name in ("gmadds_per_s", "gbytes_per_s"):
            value = getattr(self, field_name)
            if not (math.isfinite(value) and value > 0):
                raise DeviceError(f"device {self.name}: {field_name} is {value}; it must be a finite number above 0")
        if not (math.isfinite(self.overhead_ms_per_layer) and self.overhead_ms_per_layer >= 0):
            raise DeviceError(
                f"device {self.name}: overhead_ms_per_layer is {self.overhead_ms_per_layer}; "
                "it must be a finite number, at least 0"
            )

    @property
    def kind(self) -> LatencyKind:
        """Always ``estimated``."""
        return "estimated"

    @property
    def fixed_ms(self) -> float:
        """0: everything belongs to a layer."""
        return 0.0

    def unit_latency_ms(self, parts: Sequence[Unit]) -> Array:
        """Milliseconds of each unit, shape (n,); at least 0."""
        return np.array([sum(self.bound_ms(unit)) for unit in parts], dtype=np.float64)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Milliseconds at batch 1; shape (n,)."""
        return np.asarray(self._bound_ms(architectures).sum(axis=1))

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> Array:
        """One standard deviation in milliseconds; shape (n,)."""
        return np.asarray(np.hypot(*(self._bound_ms(architectures) * (COMPUTE_ERROR, MEMORY_ERROR)).T))

    def bound_ms(self, unit: Unit) -> tuple[float, float]:
        """Milliseconds of the unit's compute-bound layers, and of its memory-bound ones with all overheads."""
        compute = memory = 0.0
        for madds, moved in unit_work(unit):
            arithmetic, traffic = madds / (self.gmadds_per_s * _PER_MS), moved / (self.gbytes_per_s * _PER_MS)
            if arithmetic >= traffic:
                compute += arithmetic
            else:
                memory += traffic
            memory += self.overhead_ms_per_layer
        return compute, memory

    def _bound_ms(self, architectures: Sequence[Architecture]) -> Array:
        rows = [np.sum([self.bound_ms(unit) for unit in units(a)], axis=0) for a in architectures]
        return np.array(rows, dtype=np.float64).reshape(len(architectures), 2)


@lru_cache(maxsize=1 << 17)
def unit_work(unit: Unit) -> tuple[tuple[int, int], ...]:
    """(MAdds, bytes moved) of each layer of a unit; equal units are counted once."""
    return tuple((layer.madds, _bytes_moved(layer)) for layer in unit_layers(unit) if layer.kind != "add")


def _bytes_moved(layer: Layer) -> int:
    read, written = layer.in_channels * layer.in_size**2, layer.out_channels * layer.out_size**2
    return _BYTES * (read + written + layer.parameters)
