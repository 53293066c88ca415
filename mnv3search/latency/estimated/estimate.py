"""An estimated device: a price for each kind of work, fitted to published latencies, with an error of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.estimated.features import FEATURE_NAMES, architecture_features, unit_features
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Unit, units

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EstimatedDevice:
    """``latency = fixed + Σ coefficient · feature``: linear in the counts, so smooth, and never lower for more work.

    The stated error is the posterior predictive deviation of the fit behind the coefficients,
    ``residual · sqrt(latency² + spread · x·covariance·x)`` with ``x = (1, features)``: it grows for networks unlike
    those that were fitted.

    Attributes:
        name: of the device.
        fixed_ms: milliseconds of every network.
        coefficients: milliseconds for one of each of ``latency.features.FEATURES``, in that order; at least 0.
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

    @property
    def kind(self) -> LatencyKind:
        """Always ``estimated``."""
        return "estimated"

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
