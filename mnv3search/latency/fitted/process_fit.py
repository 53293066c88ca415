"""Fits a process of units (latency/fitted/unit_process.py) to the times of sums of units.

Prices of counts start from the proportions of a usual device, so that five networks are enough to begin with, and
hundreds tell unit from unit. All scales are chosen by the marginal likelihood of what is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnv3search.cost.units import Unit
from mnv3search.latency.fitted.unit_kernel import PARAMETERS, Array, KernelScales, Support, design
from mnv3search.latency.fitted.unit_process import ProcessValues
from mnv3search.threads import on_one_blas_thread

SCALE_SUMS = 200  # by which the scales are chosen; a thousand would tell little more
LEAST_MADDS = 0.1  # of its usual share: what a MAdd costs at least, so that no network is free

_USUAL = {  # proportions, as on phones' CPUs; a fit moves them freely
    "fixed": 0.0, "madds": 0.16, "stem_madds": 0.0, "depthwise_madds": 0.0, "wide_depthwise_madds": 0.07,
    "linear_madds": 0.0, "elements": 1.0, "weights": 0.15, "channels": 0.07, "squeeze_excite_elements": 2.7,
    "squeeze_excites": 0.07, "hard_swish_elements": 0.7, "layers": 0.0,
}  # fmt: skip
_START = KernelScales(smooth=0.2, size_length=3.0, work_length=2.0, own=0.05, counts=1.0, noise=0.02)
_WIDTH = np.array([0.8, 0.6, 0.6, 0.8, 0.6, 0.8])  # of the weak prior on the logarithms of the scales
_SHARE = 0.1  # of a mean network, that each count may cost before the times are seen


@on_one_blas_thread
def fit_process(timed: Sequence[Sequence[Unit]], times_ms: Array, seed: int = 0) -> ProcessValues:
    """What the times of sums of units tell; deterministic.

    Args:
        timed: the units of each thing that was timed, such as a network.
        times_ms: of each, above 0; shape (n,).
        seed: of the things by which the scales are chosen where there are over :data:`SCALE_SUMS`.
    """
    usual, stds = _usual_prices(design(timed), times_ms)
    scale_prices = _priced(Support(timed, usual), times_ms, usual, stds, _START)
    scales = _chosen(timed, times_ms, scale_prices, usual, stds, seed)
    prices = _priced(Support(timed, scale_prices), times_ms, usual, stds, scales)
    return ProcessValues(
        tuple(map(tuple, timed)), _as_row(times_ms), _as_row(scale_prices), _as_row(prices),
        _as_row(scales.counts * stds), scales,
    )  # fmt: skip


def _as_row(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _usual_prices(counts: Array, times: Array) -> tuple[Array, Array]:
    """Prices in the usual proportions, scaled to these times, and how far each may be from that."""
    usual = np.array([_USUAL[name] for name in PARAMETERS])
    usual = usual * float(np.median(times / (counts @ usual)))
    mean_count, mean_ms = counts.mean(axis=0), float(times.mean())
    share = np.divide(_SHARE * mean_ms, mean_count, out=np.zeros_like(usual), where=mean_count > 0)
    return usual, usual + share


def _priced(support: Support, times: Array, usual: Array, stds: Array, scales: KernelScales) -> Array:
    """The most likely prices of counts, none below 0, with units' departures integrated out; shape (parameters,)."""
    from scipy.optimize import lsq_linear

    covariance = support.sum_covariance(scales)
    covariance[np.diag_indices_from(covariance)] += (scales.noise * support.sums_ms) ** 2
    factor = np.linalg.cholesky(covariance)
    rows = np.linalg.solve(factor, np.column_stack([support.design, times]))
    weight = 1 / (scales.counts * stds)
    a = np.vstack([rows[:, :-1], np.diag(weight)])
    target = np.concatenate([rows[:, -1], weight * usual])
    size = np.linalg.norm(a, axis=0)
    floors = np.where(np.array(PARAMETERS) == "madds", LEAST_MADDS * usual, 0.0)
    found = lsq_linear(a / size, target, bounds=(floors * size, np.inf), method="bvls").x / size
    return np.asarray(np.maximum(found, floors), dtype=np.float64)


def _chosen(
    timed: Sequence[Sequence[Unit]], times: Array, scale_prices: Array, usual: Array, stds: Array, seed: int
) -> KernelScales:
    """The scales of greatest marginal likelihood, under a weak prior about :data:`_START`."""
    from scipy.optimize import minimize

    part = np.sort(np.random.default_rng(seed).permutation(len(timed))[:SCALE_SUMS])
    support = Support([timed[i] for i in part], scale_prices)
    distances = support.squared_distances()
    gap = (times[part] - support.design @ usual) / support.sums_ms
    spread = support.design * stds / support.sums_ms[:, None]
    linear, outer = spread @ spread.T, np.outer(support.sums_ms, support.sums_ms)
    start = np.log(_START.as_array())

    def loss(logs: Array) -> float:
        scales = KernelScales(*np.exp(logs).tolist())
        covariance = support.sum_covariance(scales, distances) / outer + scales.counts**2 * linear
        covariance[np.diag_indices_from(covariance)] += scales.noise**2
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e10
        told = np.linalg.solve(factor, gap)
        likely = 0.5 * float(told @ told) + float(np.log(np.diag(factor)).sum())
        return likely + 0.5 * float((((logs - start) / _WIDTH) ** 2).sum())

    bounds = [(a - 5 * w, a + 5 * w) for a, w in zip(start, _WIDTH, strict=True)]
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40, "eps": 1e-4})
    return KernelScales(*np.exp(found.x).tolist())
