"""From the sum of units to the network: a scale and a boundary term, fitted on networks measured whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnv3search.architecture import StemSpec
from mnv3search.cost.units import Unit
from mnv3search.errors import MeasurementError
from mnv3search.latency.measure import FloatArray

MIN_NETWORKS = 5
MIN_FREEDOM = 0.05  # 1 - leverage, at least: a network that alone fixes a coefficient says nothing held out


@dataclass(frozen=True, slots=True)
class Calibration:
    """``latency = scale · Σ unit − boundary · Σ elements``, all non-negative.

    A unit that is timed alone reads its input from cold memory and, in some runtimes, re-orders it into the runtime's
    own layout; inside a network the layer before has left it warm and in order. So what a unit takes alone is too much
    by a share of the elements that enter it.

    Attributes:
        scale: milliseconds in a network for one of units alone.
        boundary_ms: milliseconds for each element that enters a unit.
        relative_std: of whole networks, each predicted by a fit without it (leave-one-out), as a share.
        networks: how many were fitted.
        usual_to_minimum: the reported time (a median) for a minimum of 1; part of both coefficients already.
    """

    scale: float
    boundary_ms: float
    relative_std: float
    networks: int
    usual_to_minimum: float
    _covariance: tuple[tuple[float, ...], ...]
    _mean_leverage: float

    def price(self, unit_ms: FloatArray, elements: FloatArray) -> FloatArray:
        """Milliseconds of units inside a network, at least 0."""
        return np.maximum(self.scale * unit_ms - self.boundary_ms * elements, 0.0)

    def relative_error(self, sums_ms: FloatArray, elements: FloatArray, latency_ms: FloatArray) -> FloatArray:
        """One standard deviation as a share of ``latency_ms``, growing away from the networks of the fit."""
        # a boundary term that could not be seen is still not known to be 0, so both columns count
        rows = _rows(sums_ms, elements, latency_ms / self.usual_to_minimum)
        leverage = _leverage(rows, np.array(self._covariance))
        error: FloatArray = self.relative_std * np.sqrt((1 + leverage) / (1 + self._mean_leverage))
        return error


def entering_elements(parts: Sequence[Unit]) -> FloatArray:
    """Elements of each unit's input where another unit made it, shape (n,); 0 for a stem, which reads the image."""
    return np.array(
        [0 if isinstance(u.spec, StemSpec) else u.in_channels * u.in_size**2 for u in parts], dtype=np.float64
    )


def fit(
    sums_ms: FloatArray, elements: FloatArray, minimum_ms: FloatArray, reported_ms: FloatArray | None = None
) -> Calibration:
    """Least squares on relative errors of the networks' minima, then one factor from these to what is reported.

    Minima are least disturbed by what else a machine does, so they tell networks apart; how much slower a usual call
    is than the fastest is about the same for all of them.

    Args:
        sums_ms: of the units of each network, timed alone; shape (n,).
        elements: sums of the elements entering those units, shape (n,).
        minimum_ms: of the networks, timed whole, shape (n,).
        reported_ms: the times to predict (medians), shape (n,); the minima where not given.

    Raises:
        MeasurementError: fewer than :data:`MIN_NETWORKS` networks, or times that no such model fits.
    """
    if len(minimum_ms) < MIN_NETWORKS:
        raise MeasurementError(
            f"{len(minimum_ms)} whole networks cannot calibrate a latency table; measure at least {MIN_NETWORKS}"
        )
    rows = _rows(sums_ms, elements, minimum_ms)
    _, covariance = _solve(rows)
    coefficients, leverage = _constrained(rows)
    ratio = np.ones(len(rows)) if reported_ms is None else reported_ms / minimum_ms
    factor = float(np.median(ratio))
    without_itself = 1 + (rows @ coefficients - 1) / np.maximum(1 - leverage, MIN_FREEDOM)
    held_out = without_itself * factor / ratio - 1
    return Calibration(
        factor * float(coefficients[0]), factor * float(coefficients[1]), float(np.sqrt(np.mean(held_out**2))),
        len(rows), factor, tuple(map(tuple, covariance.tolist())), float(_leverage(rows, covariance).mean()),
    )  # fmt: skip


def _constrained(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scale and boundary, neither below 0, and each row's leverage on them."""
    coefficients, covariance = _solve(rows)
    if coefficients[0] > 0 and coefficients[1] >= 0:
        return coefficients, _leverage(rows, covariance)
    (scale,), alone = _solve(rows[:, :1])  # no boundary to be seen: the scale alone
    return np.array([scale, 0.0]), _leverage(rows[:, :1], alone)


def _rows(sums_ms: FloatArray, elements: FloatArray, latency_ms: FloatArray) -> FloatArray:
    return np.stack([sums_ms / latency_ms, -elements / latency_ms], axis=1)


def _leverage(rows: FloatArray, covariance: FloatArray) -> FloatArray:
    found: FloatArray = np.einsum("ij,jk,ik->i", rows, covariance, rows)
    return found


def _solve(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients that bring every row to 1, and (XᵀX)⁻¹, columns first brought to one size."""
    size = np.linalg.norm(rows, axis=0)
    inverse = np.linalg.pinv((rows / size).T @ (rows / size)) / np.outer(size, size)
    return inverse @ rows.T @ np.ones(len(rows)), inverse
