"""Estimated devices: a price for each kind of work, fitted to published latencies; or a roofline of two figures.

An estimate prices counts of a unit by kind of work. Every MAdd pays one rate (``madds``), whatever runs it; stems,
depthwise and linear layers, which run slower per MAdd than a pointwise convolution, pay a surcharge. So a kernel of 7
or a stem is never free, whatever a fit says. A roofline (Williams et al. 2009) needs only how fast a device multiplies
and how fast it reads memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Layer, Unit, unit_layers, units

Array = NDArray[np.float64]

FEATURES: dict[str, str] = {
    "madds": "M MAdds of all convolutions and linear layers",
    "stem_madds": "M MAdds of the stem, on top of the rate for all",
    "depthwise_madds": "M MAdds of depthwise convolutions of kernel 3 or less, on top of the rate for all",
    "wide_depthwise_madds": "M MAdds of depthwise convolutions of kernel 5 or more, on top of the rate for all",
    "linear_madds": "M MAdds of the linear layers after the pool, on top of the rate for all",
    "elements": "M activation elements that convolutions and the last pool read and write (4 bytes each)",
    "weights": "M parameters read (4 bytes each)",
    "channels": "thousands of channels into and out of pointwise convolutions",
    "squeeze_excite_elements": "M elements that a squeeze-excite's pool and scaling read",
    "squeeze_excites": "squeeze-excites",
    "hard_swish_elements": "M elements that go through an h-swish or swish",
    "layers": "convolutions and linear layers, those of squeeze-excites apart",
}
"""The features in their order; the unit is what one of each counts, a coefficient is milliseconds for one."""

FEATURE_NAMES = tuple(FEATURES)
_THOUSAND, _MILLION = 1e3, 1e6


def _elements(layer: Layer) -> tuple[int, int]:
    """Of the activations that a layer reads and writes."""
    return layer.in_channels * layer.in_size**2, layer.out_channels * layer.out_size**2


def _convolution(layer: Layer) -> dict[str, float]:
    madds, (read, written) = layer.madds / _MILLION, _elements(layer)
    found = {"madds": madds, "weights": layer.parameters / _MILLION, "elements": (read + written) / _MILLION}
    found["layers"] = 1.0
    if layer.kind == "stem":
        found["stem_madds"] = madds
    elif layer.kind == "depthwise":
        found["depthwise_madds" if layer.kernel_size <= 3 else "wide_depthwise_madds"] = madds
    elif layer.kind in ("hidden", "classifier"):
        found["linear_madds"] = madds
    else:
        found["channels"] = (layer.in_channels + layer.out_channels) / _THOUSAND
    if layer.activation in ("hard_swish", "swish"):
        found["hard_swish_elements"] = written / _MILLION
    return found


def _layer_features(layer: Layer) -> dict[str, float]:
    elements = _elements(layer)[0] / _MILLION
    if layer.kind == "add":  # not priced: a residual that appears where two widths meet must not raise the latency
        return {}
    if layer.kind == "pool":
        return {"elements": elements}
    if layer.kind == "squeeze_pool":
        return {"squeeze_excites": 1.0, "squeeze_excite_elements": elements}
    if layer.kind == "scale":
        return {"squeeze_excite_elements": elements}
    if layer.kind in ("squeeze_reduce", "squeeze_expand"):
        return {"madds": layer.madds / _MILLION, "weights": layer.parameters / _MILLION}
    return _convolution(layer)


@lru_cache(maxsize=1 << 17)
def unit_features(unit: Unit) -> tuple[float, ...]:
    """The counts of one unit in the order of :data:`FEATURES`; equal units are counted once."""
    total = dict.fromkeys(FEATURE_NAMES, 0.0)
    for layer in unit_layers(unit):
        for name, value in _layer_features(layer).items():
            total[name] += value
    return tuple(total.values())


def architecture_features(architectures: Sequence[Architecture]) -> Array:
    """The counts of whole networks; shape (n, features)."""
    rows = [np.sum([unit_features(unit) for unit in units(a)], axis=0) for a in architectures]
    return np.array(rows, dtype=np.float64).reshape(len(architectures), len(FEATURE_NAMES))


@dataclass(frozen=True, eq=False)
class EstimatedDevice:
    """``latency = fixed + Σ coefficient · feature``: linear in the counts, so smooth, and never lower for more work.

    The stated error is the posterior predictive deviation of the fit behind the coefficients,
    ``residual · sqrt(latency² + spread · x·covariance·x)`` with ``x = (1, features)``: it grows for networks unlike
    those that were fitted.

    Attributes:
        name: of the device.
        fixed_ms: milliseconds of every network.
        coefficients: milliseconds for one of each of :data:`FEATURES`, in that order; at least 0.
        residual, spread: calibrated on networks and families held out of the fit.
        covariance: of (fixed, coefficients) for a relative residual of 1; shape (features + 1, features + 1).
        details: what else the profile says: provenance, campaign scales, held-out errors, published anchors.

    Raises:
        DeviceError: a figure that is negative, not finite or of the wrong number.
    """

    name: str
    fixed_ms: float
    coefficients: tuple[float, ...]
    residual: float
    spread: float
    covariance: tuple[tuple[float, ...], ...]
    details: Mapping[str, object] = field(default_factory=dict)
    kind: ClassVar[LatencyKind] = "estimated"

    def __post_init__(self) -> None:
        size = len(FEATURE_NAMES)
        if len(self.coefficients) != size:
            raise DeviceError(f"device {self.name} has {len(self.coefficients)} coefficients; {size} are needed")
        if len(self.covariance) != size + 1 or any(len(row) != size + 1 for row in self.covariance):
            raise DeviceError(f"the covariance of device {self.name} must have {size + 1} rows of {size + 1} numbers")
        named = {"fixed_ms": self.fixed_ms, "residual": self.residual, "spread": self.spread}
        for name, value in (named | dict(zip(FEATURE_NAMES, self.coefficients, strict=True))).items():
            if not (math.isfinite(value) and value >= 0):
                raise DeviceError(f"device {self.name}: {name} is {value}; it must be a finite number, at least 0")
        if not any(self.coefficients):
            raise DeviceError(f"device {self.name}: all coefficients are 0; at least one must be above 0")
        if not all(map(math.isfinite, itertools.chain.from_iterable(self.covariance))):
            raise DeviceError(f"the covariance of device {self.name} holds a figure that is not finite")

    def unit_latency_ms(self, parts: Sequence[Unit]) -> Array:
        """Milliseconds of each unit, shape (n,); at least 0."""
        features = np.array([unit_features(unit) for unit in parts], dtype=np.float64)
        # summed row by row and not by a matrix product, whose rounding depends on the size of the batch
        return np.asarray((features.reshape(len(parts), len(FEATURE_NAMES)) * self.coefficients).sum(axis=1))

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Milliseconds at batch 1; shape (n,)."""
        parts = [units(architecture) for architecture in architectures]
        if not parts:
            return np.zeros(0)
        prices = self.unit_latency_ms(list(itertools.chain.from_iterable(parts)))
        starts = np.cumsum([0] + [len(p) for p in parts[:-1]])
        return np.asarray(self.fixed_ms + np.add.reduceat(prices, starts))

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> Array:
        """One standard deviation in milliseconds; shape (n,)."""
        features = architecture_features(architectures)
        x = np.hstack([np.ones((len(features), 1)), features])
        unseen = np.maximum(np.einsum("ij,jk,ik->i", x, np.array(self.covariance), x), 0.0)
        return np.asarray(self.residual * np.sqrt(self.latency_ms(architectures) ** 2 + self.spread * unseen))


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
    kind: ClassVar[LatencyKind] = "estimated"
    fixed_ms: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        for name, value in (("gmadds_per_s", self.gmadds_per_s), ("gbytes_per_s", self.gbytes_per_s)):
            if not (math.isfinite(value) and value > 0):
                raise DeviceError(f"device {self.name}: {name} is {value}; it must be a finite number above 0")
        overhead = self.overhead_ms_per_layer
        if not (math.isfinite(overhead) and overhead >= 0):
            raise DeviceError(
                f"device {self.name}: overhead_ms_per_layer is {overhead}; it must be a finite number, at least 0"
            )

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
    layers = [layer for layer in unit_layers(unit) if layer.kind != "add"]
    return tuple((layer.madds, _BYTES * (sum(_elements(layer)) + layer.parameters)) for layer in layers)
