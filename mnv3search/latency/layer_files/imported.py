"""A table of layers that were timed elsewhere, by whatever tool: a phone, a board, a chip's own profiler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.fitted.unit_prices import MAX_FIGURE, UnitPrices
from mnv3search.latency.keys import unit_key
from mnv3search.latency.measured.calibration import MIN_NETWORKS, Calibration, fit
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Unit, units

Array = NDArray[np.float64]

UNCALIBRATED_ERROR = 0.3
"""One relative deviation of a plain sum of layers: on machines where both were timed it was 10 to 35 % off."""


@dataclass(frozen=True, slots=True)
class WholeTime:
    """A network that was timed whole, in milliseconds."""

    architecture: Architecture
    ms: float


@dataclass(eq=False)
class ImportedDevice:
    """A sum of timed layers, calibrated on whole networks where at least five were timed.

    A layer that was not timed is priced like those near it, and the stated error grows by what is unknown of it.

    Attributes:
        name: of the device.
        layers_ms: milliseconds of units alone, by :func:`~mnv3search.latency.keys.unit_key`.
        whole: networks timed whole whose units are all in ``layers_ms``.
        near: what was learnt of units from timed ones, each alone.
        near_error_scale: of the error of a price that ``near`` gives, so that it covers units held out.
        details: what else is told of the device.

    Raises:
        DeviceError: a time that is not positive and finite, or a whole network with a unit that was not timed.
        MeasurementError: the whole networks' times do not fit their units'.
    """

    name: str
    layers_ms: Mapping[str, float]
    whole: tuple[WholeTime, ...]
    near: UnitPrices
    near_error_scale: float
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in (*self.layers_ms.values(), *(whole.ms for whole in self.whole), self.near_error_scale):
            if not (math.isfinite(value) and 0 < value < MAX_FIGURE):
                raise DeviceError(f"device {self.name} has a time of {value} ms; times are finite and above 0")
        self.calibration = self._calibrated() if len(self.whole) >= MIN_NETWORKS else None

    def _calibrated(self) -> Calibration:
        parts = [units(whole.architecture) for whole in self.whole]
        missing = {unit for network in parts for unit in network if not self.is_timed(unit)}
        if missing:
            raise DeviceError(
                f"the whole networks of device {self.name} have {len(missing)} layers that were not timed"
            )
        times = np.array([whole.ms for whole in self.whole], dtype=np.float64)
        return fit(parts, [self._alone_ms(network) for network in parts], times)

    @property
    def kind(self) -> LatencyKind:
        """Always ``table``."""
        return "table"

    @property
    def fixed_ms(self) -> float:
        """What a call takes beside its layers; 0 where no whole networks tell."""
        return 0.0 if self.calibration is None else self.calibration.fixed_ms

    def is_timed(self, unit: Unit) -> bool:
        """Whether the table has a time of this unit; others are priced like those near it."""
        return unit_key(unit) in self.layers_ms

    def _alone(self, unit: Unit) -> float:
        known = self.layers_ms.get(unit_key(unit))
        return self.near.fixed_ms + self.near.unit_ms(unit) if known is None else known

    def _alone_ms(self, parts: Sequence[Unit]) -> Array:
        return np.array([self._alone(unit) for unit in parts], dtype=np.float64)

    def unit_latency_ms(self, parts: Sequence[Unit]) -> Array:
        """Milliseconds of units inside a network, shape (n,); at least 0."""
        alone = self._alone_ms(parts)
        return alone if self.calibration is None or not parts else self.calibration.price(parts, alone)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Milliseconds at batch 1, shape (n,): the sum over their units."""
        prices = [self.unit_latency_ms(units(a)).tolist() for a in architectures]
        return np.array([self.fixed_ms + sum(found) for found in prices], dtype=np.float64)

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> Array:
        """One standard deviation, shape (n,).

        The calibration's on networks left out, and what is unknown of units that were not timed.
        """
        errors = [self._error_ms(a, ms) for a, ms in zip(architectures, self.latency_ms(architectures), strict=True)]
        return np.array(errors, dtype=np.float64)

    def _error_ms(self, architecture: Architecture, latency_ms: float) -> float:
        parts = units(architecture)
        unknown = [unit for unit in parts if not self.is_timed(unit)]
        untimed = self.near_error_scale * self.near.error_ms(unknown) if unknown else 0.0
        if self.calibration is None:
            return math.hypot(UNCALIBRATED_ERROR * latency_ms, untimed)
        model = self.calibration.relative_error(parts, self._alone_ms(parts), latency_ms) * latency_ms
        return math.hypot(model, self.calibration.scale * untimed)
