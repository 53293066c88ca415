"""The price of any unit, from the times of sums of units: a Gaussian process that was told these sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnv3search.cost.units import Unit
from mnv3search.errors import DeviceError
from mnv3search.latency.fitted.unit_kernel import (
    PARAMETERS,
    Array,
    KernelScales,
    Support,
    departure_variance,
    design,
    parameter_row,
)
from mnv3search.threads import on_one_blas_thread

MAX_SUMS = 1000
MAX_UNITS = 10_000
MAX_FIGURE = 1e12
LEAST_SHARE = 0.1  # of its price by counts: what a unit costs at least, whatever the process says
_KEPT = 20_000  # units whose covariances are remembered
_MADDS = PARAMETERS.index("madds")


@dataclass(frozen=True, slots=True)
class ProcessValues:
    """All that a fit found; what else is needed follows from it.

    Attributes:
        timed: the units of each thing that was timed.
        times_ms: of these.
        scale_prices: milliseconds for one of each of ``PARAMETERS``; units' departures are shares of these prices.
        prices: the same, as fitted; at least 0.
        price_stds: how uncertain each was before the times were seen.
        scales: of the process.

    Raises:
        DeviceError: too many things or units, or a figure that is not finite, negative or, for times and scales, 0.
    """

    timed: tuple[tuple[Unit, ...], ...]
    times_ms: tuple[float, ...]
    scale_prices: tuple[float, ...]
    prices: tuple[float, ...]
    price_stds: tuple[float, ...]
    scales: KernelScales

    def __post_init__(self) -> None:
        if not 0 < len(self.timed) <= MAX_SUMS:
            raise DeviceError(f"{len(self.timed)} timed networks or layers; a device is fitted to 1 to {MAX_SUMS}")
        if len(self.times_ms) != len(self.timed):
            raise DeviceError(f"{len(self.times_ms)} times for {len(self.timed)} networks or layers; give one for each")
        for value in (*self.times_ms, *self.scales.as_array().tolist()):
            if not (math.isfinite(value) and 0 < value < MAX_FIGURE):
                raise DeviceError(f"{value} is no time or scale of a fitted device; these are finite and above 0")
        for name in ("scale_prices", "prices", "price_stds"):
            _check_prices(name, getattr(self, name))
        if not (self.prices[_MADDS] > 0 and self.scale_prices[_MADDS] > 0):
            raise DeviceError("the price of madds is 0; it must be above 0, or some networks would cost nothing")
        if len({unit for parts in self.timed for unit in parts}) > MAX_UNITS:
            raise DeviceError(f"the timed networks have over {MAX_UNITS} distinct units; fit to fewer networks")


def _check_prices(name: str, row: Sequence[float]) -> None:
    if len(row) != len(PARAMETERS):
        raise DeviceError(f"{name} has {len(row)} figures; give {len(PARAMETERS)}: {', '.join(PARAMETERS)}")
    wrong = [value for value in row if not (math.isfinite(value) and 0 <= value < MAX_FIGURE)]
    if wrong:
        raise DeviceError(f"{name} holds {wrong[0]}; prices are finite and at least 0")


class UnitProcess:
    """Prices of units, known or not, and how uncertain their sums are.

    Raises:
        DeviceError: values of which no process can be made.
    """

    @on_one_blas_thread
    def __init__(self, values: ProcessValues) -> None:
        self.values = values
        self._prices, self._stds = np.array(values.prices), np.array(values.price_stds)
        self._known: dict[Unit, float] = {}
        self._rows: dict[Unit, Array] = {}
        self._support = support = Support(values.timed, np.array(values.scale_prices))
        departures = support.sum_covariance(values.scales)
        departures[np.diag_indices_from(departures)] += (values.scales.noise * support.sums_ms) ** 2
        self._spread = support.design * self._stds
        try:
            factor = np.linalg.cholesky(departures)
            self._inverse_factor = np.linalg.inv(np.linalg.cholesky(departures + self._spread @ self._spread.T))
        except np.linalg.LinAlgError:
            raise DeviceError("the scales give no covariance of the timed networks; fit the device again") from None
        gap = np.array(values.times_ms) - support.design @ self._prices
        weights = np.linalg.solve(factor.T, np.linalg.solve(factor, gap))
        self._unit_weights = np.asarray(support.counts.T @ weights, dtype=np.float64)

    @property
    def fixed_ms(self) -> float:
        """Milliseconds of every timed thing beside its units; at least 0."""
        return float(self._prices[0])

    def unit_ms(self, unit: Unit) -> float:
        """Milliseconds of a unit, above 0."""
        known = self._known.get(unit)
        if known is None:  # one unit at a time, so that no price depends on what else is asked
            covariance = self._support.covariance_with(unit, self.values.scales)
            by_counts = float((np.array(parameter_row(unit)) * self._prices).sum())
            known = max(by_counts + float((covariance * self._unit_weights).sum()), LEAST_SHARE * by_counts)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[unit] = known
        return known

    @on_one_blas_thread
    def error_ms(self, parts: Sequence[Unit]) -> float:
        """One deviation of a timing of these units together: what is unknown of them, and the noise."""
        scales, scale_prices = self.values.scales, np.array(self.values.scale_prices)
        row = design([parts])[0]
        spread = row * self._stds
        before = departure_variance(parts, scale_prices, scales) + float(spread @ spread)
        shared = np.sum([self._shared(unit) for unit in parts], axis=0) + self._spread @ spread
        told = self._inverse_factor @ shared
        return math.hypot(math.sqrt(max(before - float(told @ told), 0.0)), scales.noise * float(row @ scale_prices))

    def _shared(self, unit: Unit) -> Array:
        """Covariance of one unit's departure with that of each thing that was timed; shape (n,)."""
        row = self._rows.get(unit)
        if row is None:
            row = np.asarray(self._support.counts @ self._support.covariance_with(unit, self.values.scales))
            if len(self._rows) >= _KEPT:
                self._rows.clear()
            self._rows[unit] = row
        return row
