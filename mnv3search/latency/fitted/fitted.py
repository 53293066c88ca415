"""A device fitted to the times of whole networks: a price for each unit, and an error that grows with the unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.fitted.unit_prices import MAX_FIGURE, UnitPrices
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Unit, units

Array = NDArray[np.float64]

MIN_NETWORKS = 5


@dataclass(eq=False)
class FittedDevice:
    """``latency = fixed + Σ unit``, each unit priced from the times of sums of units.

    The stated error is one deviation of a timing of a network that was not fitted: what is unknown of its units, what
    is no sum over units, and the noise of the timings, which cannot be told from the latter.

    Attributes:
        name: of the device.
        networks: that were timed.
        prices: what the fit found; ``timed`` are the units of ``networks``, in order.
        error_scale: of the stated error, so that it covers networks held out of the fit.
        details: provenance and held-out errors, for people.

    Raises:
        DeviceError: values of which no device can be made.
    """

    name: str
    networks: tuple[Architecture, ...]
    prices: UnitPrices
    error_scale: float
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prices.timed != tuple(map(units, self.networks)):
            raise DeviceError("the timed units are not those of the networks; fit the device again")
        if not (math.isfinite(self.error_scale) and 0 < self.error_scale < MAX_FIGURE):
            raise DeviceError(f"error_scale is {self.error_scale}; it must be finite and above 0")

    @property
    def kind(self) -> LatencyKind:
        """Always ``estimated``."""
        return "estimated"

    @property
    def fixed_ms(self) -> float:
        """Milliseconds of every network beside its units; at least 0."""
        return self.prices.fixed_ms

    def unit_latency_ms(self, parts: Sequence[Unit]) -> Array:
        """Milliseconds of each unit, shape (n,); above 0."""
        return np.array([self.prices.unit_ms(unit) for unit in parts], dtype=np.float64)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Milliseconds at batch 1; shape (n,)."""
        price = self.prices.unit_ms
        return np.array([self.fixed_ms + sum(map(price, units(a))) for a in architectures], dtype=np.float64)

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> Array:
        """One standard deviation in milliseconds; shape (n,)."""
        errors = [self.prices.error_ms(units(a)) for a in architectures]
        return self.error_scale * np.array(errors, dtype=np.float64)
