"""From the times of units alone to the time of a network: what networks timed whole say of the units' sum.

A unit that is timed alone reads its input from cold memory and, in some runtimes, re-orders it into the runtime's own
layout; inside a network the layer before has left it warm and in order. So what a unit takes alone is too much by a
share of the elements that enter it, and the rest is a scale. Beyond these two, kinds of units (by kernel, size, stride,
activation, squeeze-excite) and single units may differ by a few percent; whole networks tell, each a little, so these
corrections are held near 0 by a prior: Bayesian linear regression on relative errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnv3search.architecture import BlockSpec, StemSpec
from mnv3search.cost.units import Unit
from mnv3search.errors import MeasurementError
from mnv3search.latency.measured.measure import FloatArray

MIN_NETWORKS = 5
FLAT = 10.0  # standard deviation of the scale and of the boundary term: nothing is assumed of them
KIND_STD, UNIT_STD = 0.04, 0.05  # of the corrections, as shares of a unit's time
NOISE_STD = 0.008  # of a network timed whole beside the units that are known; held-out errors correct the sum
MOST_SAVED = 0.75  # of a unit's scaled time that its boundary can save: no unit costs nothing, and all are summed
CAP_STEPS = 8
ELEMENTS = 1e-6  # the boundary is counted in millions, so that its prior is as flat as the scale's


@dataclass(frozen=True, slots=True)
class Calibration:
    """``price(unit) = alone · (scale + Σ corrections of its kinds + its own) − boundary · elements``.

    The elements are those that enter it, as far as they save at most :data:`MOST_SAVED` of its scaled time.

    Attributes:
        scale: milliseconds in a network for one of units alone.
        boundary_ms: milliseconds for each element that enters a unit.
        relative_std: of whole networks, each predicted by a fit without it (leave-one-out), as a share.
        networks: how many were fitted.
        elements_per_ms: at most so many elements count for each millisecond that a unit takes alone.
    """

    scale: float
    boundary_ms: float
    relative_std: float
    networks: int
    elements_per_ms: float
    _columns: dict[str | Unit, int]
    _weights: FloatArray
    _covariance: FloatArray
    _widening: float

    def price(self, parts: Sequence[Unit], alone_ms: FloatArray) -> FloatArray:
        """Milliseconds of units inside a network, shape (n,), from their times alone."""
        share = np.full(len(parts), self.scale)
        for row, unit in enumerate(parts):
            for column, std in _corrections(unit):
                if column in self._columns:
                    share[row] += std * self._weights[self._columns[column]]
        price: FloatArray = np.maximum(
            alone_ms * share - self.boundary_ms * _saving(parts, alone_ms, self.elements_per_ms), 0.0
        )
        return price

    def relative_error(self, parts: Sequence[Unit], alone_ms: FloatArray, latency_ms: float) -> float:
        """One standard deviation of a network's latency, as a share; it grows away from the networks of the fit."""
        row, unseen = _row(self._columns, parts, alone_ms, self.elements_per_ms)
        row /= latency_ms
        variance = NOISE_STD**2 + float(row @ self._covariance @ row) + unseen / latency_ms**2
        return self._widening * float(np.sqrt(variance))


def entering_elements(parts: Sequence[Unit]) -> FloatArray:
    """Elements of each unit's input where another unit made it, shape (n,); 0 for a stem, which reads the image."""
    return np.array(
        [0 if isinstance(u.spec, StemSpec) else u.in_channels * u.in_size**2 for u in parts], dtype=np.float64
    )


def fit(networks: Sequence[Sequence[Unit]], alone_ms: Sequence[FloatArray], latency_ms: FloatArray) -> Calibration:
    """Least squares on relative errors, the corrections held near 0.

    Args:
        networks: the units of each network.
        alone_ms: what each of these takes alone.
        latency_ms: of the networks, timed whole, shape (n,).

    Raises:
        MeasurementError: fewer than :data:`MIN_NETWORKS` networks, or times that do not add up.
    """
    if len(networks) < MIN_NETWORKS:
        raise MeasurementError(
            f"{len(networks)} whole networks cannot calibrate a latency table; measure at least {MIN_NETWORKS}"
        )
    names = dict.fromkeys(column for parts in networks for unit in parts for column, _ in _corrections(unit))
    columns: dict[str | Unit, int] = {name: 2 + index for index, name in enumerate(names)}
    prior = np.ones(2 + len(columns))
    prior[:2] = FLAT**2
    cap = math.inf
    for _ in range(CAP_STEPS):
        pairs = zip(networks, alone_ms, strict=True)
        rows = np.stack([_row(columns, parts, alone, cap)[0] for parts, alone in pairs]) / latency_ms[:, None]
        scale, boundary = _solve(rows, prior)[0][:2]
        if boundary <= 0:
            prior[1] = 0.0  # no boundary to be seen
            break
        cap = MOST_SAVED * float(scale) / (float(boundary) * ELEMENTS)
    weights, covariance, held_out, spread = _solve(rows, prior)
    if weights[0] <= 0:
        raise MeasurementError("the networks' times do not grow with their units'; measure the table again")
    # a boundary term that could not be seen is still not known to be 0, and few networks must not look exact
    widening = max(1.0, float(np.sqrt(np.mean((held_out / spread) ** 2))))
    return Calibration(
        float(weights[0]), float(weights[1]) * ELEMENTS, float(np.sqrt(np.mean(held_out**2))), len(rows), cap,
        columns, weights, covariance, widening,
    )  # fmt: skip


def _corrections(unit: Unit) -> list[tuple[str | Unit, float]]:
    """The columns that correct a unit, and the prior's deviation of each."""
    spec = unit.spec
    if isinstance(spec, BlockSpec):
        se = "squeeze-excite" if spec.squeeze_excite else "plain"
        named = ["block", f"{spec.kernel_size}x{spec.kernel_size}", f"size {unit.in_size}", f"stride {spec.stride}",
                 spec.activation, se]  # fmt: skip
    else:
        named = ["stem" if isinstance(spec, StemSpec) else "head"]
    return [*((name, KIND_STD) for name in named), (unit, UNIT_STD)]


def _saving(parts: Sequence[Unit], alone_ms: FloatArray, elements_per_ms: float) -> FloatArray:
    """The entering elements that count, shape (n,)."""
    found: FloatArray = np.minimum(entering_elements(parts), elements_per_ms * alone_ms)
    return found


def _row(
    columns: dict[str | Unit, int], parts: Sequence[Unit], alone_ms: FloatArray, elements_per_ms: float
) -> tuple[FloatArray, float]:
    """A network's row before it is divided by its latency, and the prior variance of what has no column."""
    row = np.zeros(2 + len(columns))
    unseen: dict[str | Unit, float] = {}
    row[0], row[1] = alone_ms.sum(), -_saving(parts, alone_ms, elements_per_ms).sum() * ELEMENTS
    for unit, ms in zip(parts, alone_ms.tolist(), strict=True):
        for column, std in _corrections(unit):
            if column in columns:
                row[columns[column]] += std * ms
            else:
                unseen[column] = unseen.get(column, 0.0) + std * ms
    return row, sum(share**2 for share in unseen.values())


def _solve(rows: FloatArray, prior: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Weights that bring every row to 1, their covariance, and the leave-one-out errors with their deviations."""
    spread = rows * prior
    inverse = np.linalg.inv(rows @ spread.T + NOISE_STD**2 * np.eye(len(rows)))
    expected = np.zeros(rows.shape[1])
    expected[0] = 1.0
    dual = inverse @ (1 - rows @ expected)
    weights = expected + spread.T @ dual
    covariance = np.diag(prior) - spread.T @ inverse @ spread
    return weights, covariance, dual / np.diag(inverse), 1 / np.sqrt(np.diag(inverse))
