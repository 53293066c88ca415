"""A device fitted to the times of whole networks: a price for each unit, and an error that grows with the unknown.

The fit is cross-validated on networks that it did not see; the scales of the prices are chosen in every fold anew.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.latency.fitted.times import network_times
from mnv3search.latency.fitted.unit_prices import MAX_FIGURE, UnitPrices, fit_prices
from mnv3search.latency.model import LatencyKind, Progress
from mnv3search.layers import Unit, units

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]


@dataclass(eq=False)
class FittedDevice:
    """``latency = fixed + Σ unit``, each unit priced from the times of sums of units.

    The stated error is one deviation of a timing of a network that was not fitted: what is unknown of its units, what
    is no sum over units, and the noise of the timings, which cannot be separated from the latter.

    Attributes:
        name: of the device.
        networks: that were timed.
        prices: what the fit found; ``timed`` are the units of ``networks``, in order.
        error_scale: of the stated error, so that it covers networks held out of the fit.
        details: provenance and held-out errors, for people.
    """

    name: str
    networks: tuple[Architecture, ...]
    prices: UnitPrices
    error_scale: float
    details: Mapping[str, object] = field(default_factory=dict)
    kind: ClassVar[LatencyKind] = "estimated"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.error_scale) and 0 < self.error_scale < MAX_FIGURE):
            raise DeviceError(f"error_scale is {self.error_scale}; it must be finite and above 0")

    @property
    def fixed_ms(self) -> float:
        """Milliseconds of every network without its units; at least 0."""
        return self.prices.fixed_ms

    def unit_latency_ms(self, parts: Sequence[Unit]) -> Array:
        """Milliseconds of each unit, shape (n,); above 0."""
        return np.array([self.prices.unit_ms(unit) for unit in parts], dtype=np.float64)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Milliseconds at batch 1; shape (n,)."""
        prices = [map(self.prices.unit_ms, units(a)) for a in architectures]
        return np.array([self.fixed_ms + sum(found) for found in prices], dtype=np.float64)

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> Array:
        """One standard deviation in milliseconds; shape (n,)."""
        errors = [self.prices.error_ms(units(a)) for a in architectures]
        return self.error_scale * np.array(errors, dtype=np.float64)


FOLDS = 5
MANY, FEW = 100, 25  # with fewer than many networks twice the folds; with fewer than few, each is left out alone
FAR_OUT = 5.0  # deviations from what the others predict, from which a row is pointed out


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What fits predicted for networks that they did not see, one stated deviation of it, and the times; shape (n,)."""

    predicted_ms: Array
    error_ms: Array
    measured_ms: Array

    @property
    def relative(self) -> Array:
        """Predicted over measured, less 1; shape (n,)."""
        return np.asarray(self.predicted_ms / self.measured_ms - 1)

    @property
    def deviations(self) -> Array:
        """By how many stated deviations predicted and measured differ; shape (n,), at least 0."""
        return np.asarray(np.abs(self.predicted_ms - self.measured_ms) / self.error_ms)

    def summary(self) -> dict[str, float]:
        """Mean and median absolute and root-mean-square relative error in percent, and coverage by deviations."""
        relative, z = 100 * np.abs(self.relative), self.deviations
        return {
            "networks": len(z),
            "mean_percent": round(float(relative.mean()), 3),
            "median_percent": round(float(np.median(relative)), 3),
            "rms_percent": round(float(np.sqrt(np.mean(relative**2))), 3),
            "within_one_deviation": round(float(np.mean(z <= 1)), 3),
            "within_two_deviations": round(float(np.mean(z <= 2)), 3),
        }


@dataclass(frozen=True, slots=True)
class WholeFit:
    """A fitted device and its held-out networks, in the order in which they were given."""

    device: FittedDevice
    held_out: HeldOut

    def suspects(self) -> list[int]:
        """Positions of the networks whose times lie far from what the others predict, worst first."""
        z = self.held_out.deviations
        return [int(i) for i in np.argsort(-z) if z[i] > FAR_OUT]


def fit_whole_networks(
    networks: Sequence[Architecture], times_ms: Sequence[float], name: str = "fitted", progress: Progress | None = None
) -> WholeFit:
    """Fit a device to the times of distinct networks, 5 or more, cross-validated; deterministic."""
    networks, times = tuple(networks), np.array(times_ms, dtype=np.float64)
    n = len(networks)
    fold = np.random.default_rng(0).permutation(n) % (n if n < FEW else FOLDS if n >= MANY else 2 * FOLDS)
    count = int(fold.max()) + 1
    predicted, deviation = np.zeros(n), np.zeros(n)
    for part in range(count):
        if progress is not None:
            progress(part, count + 1, f"fold {part + 1} of {count}")
        kept, out = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        device = _fitted(name, [networks[i] for i in kept], times[kept])
        unseen = [networks[i] for i in out]
        predicted[out], deviation[out] = device.latency_ms(unseen), device.latency_error_ms(unseen)
    if progress is not None:
        progress(count, count + 1, "all networks")
    scale = _error_scale(predicted, deviation, times)
    held_out = HeldOut(predicted, deviation * scale, times)
    device = replace(_fitted(name, networks, times), error_scale=scale, details={"held_out": held_out.summary()})
    return WholeFit(device, held_out)


def fit_device(
    timings: Iterable[tuple[Architecture | str | Path, float]] | DataFrame, name: str = "fitted"
) -> FittedDevice:
    """A device fitted to the times of whole networks, as ``mnv3search device fit`` makes it; deterministic.

    Args:
        timings: pairs of an architecture (or a network's name, or a path) and its milliseconds; or a DataFrame with
            the columns ``architecture`` and ``ms`` (or ``us``, or ``s``). 5 to 1000 distinct networks; the times of
            one network that agree within 10 % are averaged.
        name: of the device.

    Returns:
        A device for :func:`mnv3search.search` and :func:`mnv3search.netadapt`. ``details["held_out"]`` says how far
        it is off on networks left out.

    Raises:
        MeasurementError: an unknown network, too few networks, or times that are not positive, contradict each other
            or are of different units; the message names the item.
    """
    timed = network_times(timings)
    for notice in timed.notices:
        warnings.warn(notice, stacklevel=2)
    return fit_whole_networks(timed.networks, timed.times_ms, name).device


def _fitted(name: str, networks: Sequence[Architecture], times: Array) -> FittedDevice:
    """The fit itself, without held-out networks, so with an error scale of 1."""
    return FittedDevice(name, tuple(networks), fit_prices([units(a) for a in networks], times), 1.0)


def _error_scale(predicted: Array, deviation: Array, times: Array) -> float:
    """By what stated deviations must be multiplied to cover held-out networks.

    From few networks it is shrunk towards 1 and widened, as by Student's distribution.
    """
    z = (predicted - times) / deviation
    n = len(z)
    return math.sqrt(float(z @ z + 4) / (n + 4) * n / (n - 3))
