"""Chooses how far units' prices may be from those by counts: by the marginal likelihood of the times of their sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from mnv3search.latency.fitted.timed_sums import Array, TimedSums
from mnv3search.latency.fitted.unit_prices import PriceScales, UnitPrices
from mnv3search.layers import Unit
from mnv3search.threads import on_one_blas_thread

SCALE_SUMS = 200  # by which the scales are chosen; a thousand would tell little more
_START = PriceScales(own=0.1, kind=0.1, counts=1.0, noise=0.02)
_WIDTH = np.array([1.5, 1.5, 0.8, 1.0])  # of the weak prior on the logarithms of the scales


@on_one_blas_thread
def fit_prices(timed: Sequence[Sequence[Unit]], times_ms: Array, seed: int = 0) -> UnitPrices:
    """Prices of units from the times of their sums; deterministic.

    Args:
        timed: the units of each thing that was timed, such as a network.
        times_ms: of each, above 0; shape (n,).
        seed: of the things by which the scales are chosen where there are over :data:`SCALE_SUMS`.
    """
    part = np.sort(np.random.default_rng(seed).permutation(len(timed))[:SCALE_SUMS])
    scales = _likeliest(TimedSums([timed[i] for i in part], times_ms[part]), times_ms[part])
    return UnitPrices(timed, times_ms.tolist(), scales)


def _likeliest(sums: TimedSums, times: Array) -> PriceScales:
    """The scales of greatest marginal likelihood, under a weak prior about :data:`_START`; bounds are left out."""
    from scipy.optimize import minimize

    gap = (times - sums.usual_ms) / sums.usual_ms
    own = sums.occurrences * (sums.counts @ sums.usual)
    kind = sums.occurrences @ sums.kind_counts * np.tile(sums.usual, len(sums.kinds))
    spreads = (own, kind, sums.totals * sums.stds)
    shares = [(spread @ spread.T) / np.outer(sums.usual_ms, sums.usual_ms) for spread in spreads]
    shares.append(np.eye(len(times)))
    start = np.log(astuple(_START))

    def loss(logs: Array) -> float:
        covariance = np.sum([np.exp(2 * a) * share for a, share in zip(logs, shares, strict=True)], axis=0)
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e10
        told = np.linalg.solve(factor, gap)
        likely = 0.5 * float(told @ told) + float(np.log(np.diag(factor)).sum())
        return likely + 0.5 * float((((logs - start) / _WIDTH) ** 2).sum())

    bounds = [(a - 4 * w, a + 4 * w) for a, w in zip(start, _WIDTH, strict=True)]
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40, "eps": 1e-4})
    return PriceScales(*np.exp(found.x).tolist())
