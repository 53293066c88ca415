"""The price of any unit, from the times of sums of units: a regularised regression on counts, and units of their own.

    time = fixed + Σ price(unit),   price(unit) ≈ rates(kind) · counts(unit),   rates(kind) ≈ rates ≈ a usual device's

Each ``≈`` is a normal distribution whose width is one of :class:`PriceScales`, chosen by the marginal likelihood of the
times (:func:`fit_prices`). What the times say of a unit that was timed decides its own price; one that was not is
priced by the rates of its kind. Rates are at least 0 and prices at least a floor *in* the solution, so the other prices
make up for what a bound holds up, and no sum is lifted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DeviceError
from mnv3search.latency.estimated import FEATURE_NAMES, unit_features
from mnv3search.latency.keys import unit_key
from mnv3search.layers import Unit
from mnv3search.threads import on_one_blas_thread

Array = NDArray[np.float64]

PARAMETERS = ("fixed", *FEATURE_NAMES)
_USUAL = {  # proportions, as on phones' CPUs; a fit moves them freely
    "fixed": 0.0, "madds": 0.16, "stem_madds": 0.0, "depthwise_madds": 0.0, "wide_depthwise_madds": 0.07,
    "linear_madds": 0.0, "elements": 1.0, "weights": 0.15, "channels": 0.07, "squeeze_excite_elements": 2.7,
    "squeeze_excites": 0.07, "hard_swish_elements": 0.7, "layers": 0.0,
}  # fmt: skip
_MADDS = PARAMETERS.index("madds")
_SHARE = 0.1  # of a mean network, that each count may cost before the times are seen


@lru_cache(maxsize=1 << 15)
def counts_row(unit: Unit) -> tuple[float, ...]:
    """A unit's counts by :data:`PARAMETERS`: 0 for what is fixed."""
    return (0.0, *unit_features(unit))


@lru_cache(maxsize=1 << 15)
def unit_kind(unit: Unit) -> tuple[str, bool, int]:
    """Units that may have rates of their own: stems, blocks or heads, squeeze-excite or not, of one octave of MAdds."""
    spec, madds = unit.spec, counts_row(unit)[_MADDS]
    return type(spec).__name__, getattr(spec, "squeeze_excite", None) is not None, round(log2(max(madds, 1e-6)))


class TimedSums:
    """The u distinct units of n timed sums, and usual rates scaled to these times.

    Attributes:
        index: of each unit, by its :func:`~mnv3search.latency.keys.unit_key`.
        occurrences: of the units in the sums; shape (n, u).
        counts: of the units, by :data:`PARAMETERS`; shape (u, parameters).
        totals: of the sums, 1 for what is fixed; shape (n, parameters).
        kinds: the kinds of units, in order.
        kind_counts: ``counts`` with columns for each kind apart, shape (u, kinds · parameters).
        usual, stds: milliseconds for one of each parameter on a usual device, and how far from it one may be.
        usual_ms: of the sums by ``usual``; shape (n,).
    """

    def __init__(self, timed: Sequence[Sequence[Unit]], times_ms: Array) -> None:
        self.index: dict[str, int] = {}
        found: list[Unit] = []
        for unit in (u for parts in timed for u in parts):
            if self.index.setdefault(unit_key(unit), len(found)) == len(found):
                found.append(unit)
        self.occurrences = np.array([self.occurrences_in(parts) for parts in timed])
        self.counts = np.array([counts_row(unit) for unit in found])
        self.totals = self.occurrences @ self.counts
        self.totals[:, 0] = 1.0
        self.kinds = tuple(dict.fromkeys(map(unit_kind, found)))
        self.kind_counts = np.array([self.by_kind([unit]) for unit in found])
        self.usual, self.stds = _usual_rates(self.totals, times_ms)
        self.usual_ms = self.totals @ self.usual

    def by_kind(self, parts: Sequence[Unit]) -> Array:
        """The counts of a sum of units in columns for each kind apart; those of other kinds are left out."""
        found = np.zeros((len(self.kinds), len(PARAMETERS)))
        for unit in parts:
            if unit_kind(unit) in self.kinds:
                found[self.kinds.index(unit_kind(unit))] += counts_row(unit)
        return found.ravel()

    def occurrences_in(self, parts: Sequence[Unit]) -> Array:
        """How often each unit of the timed sums stands in another sum; shape (u,)."""
        found = np.zeros(len(self.index))
        for unit in parts:
            at = self.index.get(unit_key(unit))
            if at is not None:
                found[at] += 1
        return found


def _usual_rates(totals: Array, times: Array) -> tuple[Array, Array]:
    """Rates in the usual proportions, scaled to these times, and how far each may be from that."""
    usual = np.array([_USUAL[name] for name in PARAMETERS])
    usual = usual * float(np.median(times / (totals @ usual)))
    mean_count = totals.mean(axis=0)
    share = np.divide(_SHARE * times.mean(), mean_count, out=np.zeros_like(usual), where=mean_count > 0)
    return usual, usual + share


MIN_NETWORKS, MAX_SUMS = 5, 1000
MAX_UNITS = 10_000
MAX_FIGURE = 1e12
LEAST_SHARE = 0.01  # of its usual price: what a unit and a MAdd cost at least, so that no network is free
_ROUNDS = 50
Places = NDArray[Any]


@dataclass(frozen=True, slots=True)
class PriceScales:
    """What the marginal likelihood chooses, as shares, all above 0.

    Attributes:
        own: how far each unit's price is from that by its counts.
        kind: how far the rates of one kind of units are from those of all.
        counts: how far the rates are from a usual device's.
        noise: of one timing, and of what is no sum over units.
    """

    own: float
    kind: float
    counts: float
    noise: float


class UnitPrices:
    """Prices of units, timed or not, and how uncertain their sums are; all follows from these values.

    Attributes:
        timed: the units of each of n timed sums, such as networks.
        times_ms: of each.
        scales: as :func:`fit_prices` chose them.
        fixed_ms: milliseconds of every timed sum without its units; at least 0.

    Raises:
        DeviceError: too many sums or units, or a time or scale that is not finite and above 0.
    """

    @on_one_blas_thread
    def __init__(self, timed: Sequence[Sequence[Unit]], times_ms: Sequence[float], scales: PriceScales) -> None:
        self.timed, self.times_ms, self.scales = tuple(map(tuple, timed)), tuple(map(float, times_ms)), scales
        _check(self.timed, self.times_ms, scales)
        self._sums = sums = TimedSums(self.timed, np.array(self.times_ms))
        self._own_variance = (scales.own * (sums.counts @ sums.usual)) ** 2
        self._kind_stds = np.tile(scales.kind * sums.usual, len(sums.kinds))
        self._solve()
        self._prepare_errors()

    def _solve(self) -> None:
        """The most likely rates and prices within their bounds, by a primal-dual active set.

        Units are free or fixed at their floor; one is freed where its multiplier says that it rises above the floor.
        """
        floor = LEAST_SHARE * (self._sums.counts @ self._sums.usual)
        used, prior, prior_target = self._rate_equations()
        free = np.ones(len(floor), dtype=bool)
        for attempt in range(_ROUNDS):
            rates, prices = self._most_likely(free, floor, used, prior, prior_target)
            above = prices >= floor
            if np.array_equal(above, free):
                break
            free = above if attempt < _ROUNDS // 2 else free & above  # which ends by itself
        self._known = np.where(free, prices, floor)
        self.fixed_ms = float(rates[0])
        self._rates, n = rates[: len(PARAMETERS)], len(PARAMETERS)
        by_kind = np.tile(self._rates, len(self._sums.kinds))
        by_kind[used] = rates[n:]
        self._kind_rates = dict(zip(self._sums.kinds, by_kind.reshape(-1, n), strict=True))

    def _most_likely(
        self, free: Places, floor: Array, used: Places, prior: Array, prior_target: Array
    ) -> tuple[Array, Array]:
        """Rates, and prices as they would be if no unit had a floor but those fixed there.

        Free units' departures are integrated out, and the rates are then a non-negative least-squares problem.
        """
        sums, variance, scales = self._sums, self._own_variance, self.scales
        design = np.hstack([sums.counts * (sums.usual == 0), sums.kind_counts[:, used]])
        inside = sums.occurrences[:, free]
        covariance = (inside * variance[free]) @ inside.T
        covariance[np.diag_indices_from(covariance)] += (scales.noise * sums.usual_ms) ** 2
        factor = np.linalg.cholesky(covariance)
        of_rates = inside @ design[free]
        of_rates[:, 0] = 1.0
        target = np.array(self.times_ms) - sums.occurrences[:, ~free] @ floor[~free]
        whitened = np.linalg.solve(factor, np.column_stack([of_rates, target]))
        weight = 1 / np.sqrt(variance[~free])
        rates = _bounded(
            np.vstack([whitened[:, :-1], design[~free] * weight[:, None], prior]),
            np.concatenate([whitened[:, -1], floor[~free] * weight, prior_target]),
            self._least_rates(used),
        )
        multipliers = np.linalg.solve(factor.T, whitened @ np.append(-rates, 1.0))
        return rates, design @ rates + variance * (sums.occurrences.T @ multipliers)

    def _rate_equations(self) -> tuple[Places, Array, Array]:
        """Kinds' rates that any unit has a count of, and the prior of all rates as rows of least squares."""
        sums, n = self._sums, len(PARAMETERS)
        used = np.flatnonzero(sums.kind_counts.any(axis=0) & (self._kind_stds > 0))
        stds = self.scales.counts * np.where(sums.stds > 0, sums.stds, 1.0)  # what nothing has a count of stays at 0
        of_kinds = np.zeros((len(used), n + len(used)))
        rows = np.arange(len(used))
        of_kinds[rows, n + rows] = 1 / self._kind_stds[used]
        of_kinds[rows, used % n] = -1 / self._kind_stds[used]
        of_all = np.hstack([np.diag(1 / stds), np.zeros((n, len(used)))])
        return used, np.vstack([of_all, of_kinds]), np.concatenate([sums.usual / stds, np.zeros(len(used))])

    def _least_rates(self, used: Places) -> Array:
        """The floors of rates: above 0 for MAdds alone."""
        usual, n = self._sums.usual, len(PARAMETERS)
        parameters = np.concatenate([np.arange(n), used % n])
        return np.where(parameters == _MADDS, LEAST_SHARE * usual[_MADDS], 0.0)

    def unit_ms(self, unit: Unit) -> float:
        """Milliseconds of a unit, above 0."""
        at = self._sums.index.get(unit_key(unit))
        if at is not None:
            return float(self._known[at])
        rates = self._kind_rates.get(unit_kind(unit), self._rates)
        return float((np.array(counts_row(unit)) * rates).sum())

    def _prepare_errors(self) -> None:
        """The covariance of the timed sums before they are seen, bounds left out."""
        sums, scales = self._sums, self.scales
        self._own_shared = sums.occurrences * self._own_variance
        self._count_spread = scales.counts * sums.totals * sums.stds
        self._kind_spread = sums.occurrences @ sums.kind_counts * self._kind_stds
        covariance = self._own_shared @ sums.occurrences.T
        covariance += self._count_spread @ self._count_spread.T + self._kind_spread @ self._kind_spread.T
        covariance[np.diag_indices_from(covariance)] += (scales.noise * sums.usual_ms) ** 2
        self._inverse_factor = np.linalg.inv(np.linalg.cholesky(covariance))

    @on_one_blas_thread
    def error_ms(self, parts: Sequence[Unit]) -> float:
        """One deviation of a timing of these units together: what is unknown of them, and the noise."""
        sums, scales = self._sums, self.scales
        counts = np.sum([counts_row(unit) for unit in parts], axis=0)
        counts[0] = 1.0
        usual_ms = float(counts @ sums.usual)
        of_counts = scales.counts * sums.stds * counts
        of_kinds = self._kind_stds * sums.by_kind(parts)
        occurrences = sums.occurrences_in(parts)
        before = float(of_counts @ of_counts + of_kinds @ of_kinds + self._own_variance @ occurrences**2)
        for unit in parts:
            if unit_key(unit) not in sums.index:
                before += (scales.own * float(np.dot(counts_row(unit), sums.usual))) ** 2
            if unit_kind(unit) not in self._kind_rates:
                before += (scales.kind * float(np.dot(counts_row(unit), sums.usual))) ** 2
        shared = self._own_shared @ occurrences + self._count_spread @ of_counts + self._kind_spread @ of_kinds
        explained = self._inverse_factor @ shared
        return math.hypot(math.sqrt(max(before - float(explained @ explained), 0.0)), scales.noise * usual_ms)


def _bounded(rows: Array, target: Array, least: Array) -> Array:
    """Least squares of ``rows @ x = target`` with every ``x`` at least ``least``."""
    from scipy.optimize import nnls

    size = np.linalg.norm(rows, axis=0)
    found, _ = nnls(rows / size, target - rows @ least)
    return np.asarray(found / size + least, dtype=np.float64)


def _check(timed: Sequence[Sequence[Unit]], times_ms: Sequence[float], scales: PriceScales) -> None:
    if not 0 < len(timed) <= MAX_SUMS:
        raise DeviceError(f"{len(timed)} timed networks or layers; a device is fitted to 1 to {MAX_SUMS}")
    for value in (*times_ms, *astuple(scales)):
        if not (math.isfinite(value) and 1 / MAX_FIGURE < value < MAX_FIGURE):
            raise DeviceError(f"{value} is no time or scale of a fitted device; these are finite and above 0")
    if len({unit for parts in timed for unit in parts}) > MAX_UNITS:
        raise DeviceError(f"the timed networks have over {MAX_UNITS} distinct units; fit to fewer networks")


SCALE_SUMS = 200  # by which the scales are chosen; a thousand would add little
_START = PriceScales(own=0.1, kind=0.1, counts=1.0, noise=0.02)
_WIDTH = np.array([1.5, 1.5, 0.8, 1.0])  # of the weak prior on the logarithms of the scales


@on_one_blas_thread
def fit_prices(timed: Sequence[Sequence[Unit]], times_ms: Array) -> UnitPrices:
    """Prices of units from the times of their sums, such as networks; deterministic. Times above 0, shape (n,)."""
    part = np.sort(np.random.default_rng(0).permutation(len(timed))[:SCALE_SUMS])
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
        whitened = np.linalg.solve(factor, gap)
        likely = 0.5 * float(whitened @ whitened) + float(np.log(np.diag(factor)).sum())
        return likely + 0.5 * float((((logs - start) / _WIDTH) ** 2).sum())

    bounds = [(a - 4 * w, a + 4 * w) for a, w in zip(start, _WIDTH, strict=True)]
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40, "eps": 1e-4})
    return PriceScales(*np.exp(found.x).tolist())
