"""Fits an estimated device to published latencies: bounded least squares in relative error, with campaign scales.

    latency(network, campaign) = scale(campaign) · (fixed + Σ coefficient · feature),   scale(v5) = 1

A plain non-negative fit zeroes h-swish and squeeze-excite, and a search would then take them as free. So published
*differences* (Table 5's activations, minimalistic against full) are fitted too, and two coefficients have floors that
follow from them. The posterior of the (Gaussian) fit gives each network a standard deviation of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.latency.estimated.features import FEATURE_NAMES, architecture_features

Array = NDArray[np.float64]

REFERENCE_CAMPAIGN = "v5"
PARAMETERS = ("fixed", *FEATURE_NAMES)
_ITERATIONS = 400
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One published latency: ``network`` names it, ``campaign`` says in which series it was measured."""

    network: str
    architecture: Architecture
    campaign: str
    family: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """A published difference within one campaign: ``slower`` takes ``difference_ms`` more than ``faster``."""

    slower: LatencyRow
    faster: LatencyRow

    @property
    def difference_ms(self) -> float:
        """Milliseconds, as printed."""
        return self.slower.latency_ms - self.faster.latency_ms


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What is assumed before the data is seen.

    Attributes:
        prior_mean, prior_std: of each of :data:`PARAMETERS`; the deviation tells how far it may wander.
        difference_std_ms: how exactly a published difference is to come out.
        residual: relative standard deviation of one row about the fit, which weighs rows against the rest.
        outlier: relative error from which a row pulls ever less (pseudo-Huber): a few published rows contradict
            their neighbours by 10 to 20 %.
        reference_weight: how much more a row of the reference campaign counts, for which the profile speaks.
    """

    prior_mean: Mapping[str, float]
    prior_std: Mapping[str, float]
    difference_std_ms: float = 0.5
    residual: float = 0.05
    outlier: float = 0.015
    reference_weight: float = 2.0


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients in the order of :data:`PARAMETERS`, campaign scales, and the inverse normal matrix.

    ``covariance`` is for a relative residual of 1: a network of parameters ``x`` and latency ``p`` has the relative
    variance ``residual² · (1 + x·covariance·x / p²)``.
    """

    coefficients: Array
    scales: Mapping[str, float]
    covariance: Array

    def predict(self, rows: Sequence[LatencyRow]) -> Array:
        """Milliseconds in each row's own campaign; one that was never fitted is taken as the reference."""
        scales = np.array([self.scales.get(row.campaign, 1.0) for row in rows])
        return scales * (design([row.architecture for row in rows]) @ self.coefficients)

    def leverage(self, architectures: Sequence[Architecture]) -> Array:
        """How far each network is from what was fitted: ``x·covariance·x / p²``, 0 for none."""
        x = design(architectures)
        variance = np.einsum("ij,jk,ik->i", x, self.covariance, x)
        return np.asarray(variance / (x @ self.coefficients) ** 2)


def design(architectures: Sequence[Architecture]) -> Array:
    """Parameters' multipliers: a column of ones, then the features; shape (n, parameters)."""
    features = architecture_features(architectures)
    return np.hstack([np.ones((len(features), 1)), features])


def fit(rows: Sequence[LatencyRow], differences: Sequence[DifferenceRow], options: FitOptions) -> Fit:
    """The bounded, robust fit of ``rows``; deterministic.

    Coefficients, scales and the rows' weights are solved in turn until they stand.
    """
    x, y = design([row.architecture for row in rows]), np.array([row.latency_ms for row in rows])
    campaigns = np.array([row.campaign for row in rows])
    extra, extra_target = _fixed_equations(differences, options)
    floors = coefficient_floors(differences)
    importance = np.sqrt(np.where(campaigns == REFERENCE_CAMPAIGN, options.reference_weight, 1.0))
    scales, weight = dict.fromkeys(sorted(set(campaigns.tolist())), 1.0), importance
    previous = np.zeros(len(PARAMETERS))
    for _ in range(_ITERATIONS):
        factor = np.array([scales[c] for c in campaigns]) / y
        a = np.vstack([x * (factor * weight)[:, None], extra])
        coefficients = _bounded(a, np.concatenate([weight, extra_target]), floors)
        ratio = x @ coefficients / y
        scales = _campaign_scales(ratio, campaigns, weight**2)
        error = ratio * np.array([scales[c] for c in campaigns]) - 1
        weight = importance * (1 + (error / options.outlier) ** 2) ** -0.25
        if np.max(np.abs(coefficients - previous)) < _TOLERANCE:
            break
        previous = coefficients
    return Fit(coefficients, scales, _covariance(x, y, campaigns, coefficients, scales, extra))


def coefficient_floors(differences: Sequence[DifferenceRow]) -> Array:
    """The least value of each parameter, so that no fit prices h-swish or squeeze-excite at nothing.

    For h-swish half, for squeeze-excite a quarter (it shares its difference with 5×5 kernels and h-swish) of the
    smallest published difference for a million elements; 0 for all others.
    """
    floors = np.zeros(len(PARAMETERS))
    if not differences:
        return floors
    contrast = _contrasts(differences)
    published = np.array([d.difference_ms for d in differences])
    swish, squeeze = (PARAMETERS.index(n) for n in ("hard_swish_elements", "squeeze_excite_elements"))
    squeezes = contrast[:, squeeze] > 0
    for column, chosen, share in ((swish, ~squeezes, 0.5), (squeeze, squeezes, 0.25)):
        if chosen.any():
            floors[column] = share * max(0.0, float(np.min(published[chosen] / contrast[chosen, column])))
    return floors


def _contrasts(differences: Sequence[DifferenceRow]) -> Array:
    return design([d.slower.architecture for d in differences]) - design([d.faster.architecture for d in differences])


def _fixed_equations(differences: Sequence[DifferenceRow], options: FitOptions) -> tuple[Array, Array]:
    """Differences and prior as rows beside those of the data, weighed by how exact each is."""
    weight = options.residual / options.difference_std_ms
    prior_mean = np.array([options.prior_mean[name] for name in PARAMETERS])
    prior_weight = options.residual / np.array([options.prior_std[name] for name in PARAMETERS])
    rows, targets = [np.diag(prior_weight)], [prior_mean * prior_weight]
    if differences:
        rows.append(weight * _contrasts(differences))
        targets.append(weight * np.array([d.difference_ms for d in differences]))
    return np.vstack(rows), np.concatenate(targets)


def _bounded(a: Array, target: Array, floors: Array) -> Array:
    from scipy.optimize import lsq_linear

    size = np.linalg.norm(a, axis=0)
    solution = lsq_linear(a / size, target, bounds=(floors * size, np.inf), method="bvls")
    return np.asarray(np.maximum(solution.x / size, floors), dtype=np.float64)


def _campaign_scales(ratio: Array, campaigns: NDArray[np.str_], weight: Array) -> dict[str, float]:
    """The scale of least relative error for each campaign but the reference, given unscaled predicted/published."""
    scales = {}
    for campaign in sorted(set(campaigns.tolist())):
        r, w = ratio[campaigns == campaign], weight[campaigns == campaign]
        scales[campaign] = 1.0 if campaign == REFERENCE_CAMPAIGN else float((w @ r) / (w @ r**2))
    return scales


def _covariance(
    x: Array, y: Array, campaigns: NDArray[np.str_], coefficients: Array, scales: Mapping[str, float], extra: Array
) -> Array:
    """The coefficients' block of the inverse normal matrix, the scales being uncertain too."""
    free = [c for c in scales if c != REFERENCE_CAMPAIGN]
    factor = np.array([scales[c] for c in campaigns]) / y
    by_scale = np.column_stack([(campaigns == c) * (x @ coefficients) / y for c in free]) if free else x[:, :0]
    jacobian = np.hstack([x * factor[:, None], by_scale])
    normal = jacobian.T @ jacobian
    n = len(coefficients)
    normal[:n, :n] += extra.T @ extra
    return np.asarray(np.linalg.inv(normal)[:n, :n])
