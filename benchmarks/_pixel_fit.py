"""Fits the estimated Pixel devices to published latencies: bounded least squares in relative error.

    latency(network, campaign) = scale(campaign) · (fixed + Σ coefficient · feature),   scale(v5) = 1

A plain non-negative fit zeroes h-swish and squeeze-excite, and a search would then take them as free. So published
*differences* (Table 5's activations, minimalistic against full) are fitted too, and two coefficients have floors that
follow from them. The posterior of the (Gaussian) fit gives each network a standard deviation of its own. The shipped
coefficients are mnv3search/latency/profiles; ``python -m benchmarks.pixel`` makes them again from the published rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.families import parse_network
from mnv3search.families.figures import published_figures
from mnv3search.latency.estimated import FEATURE_NAMES, architecture_features

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


FITTED_DEVICES = ("pixel1", "pixel2", "pixel3")
CAMPAIGNS = ("v5", "v1", "zoo")
_CONTRADICTED = {("pixel3", "mobilenet_v3_large@0.75", 40.0): "the model zoo's README prints 34 ms for it"}
_LARGE, _SMALL = "mobilenet_v3_large", "mobilenet_v3_small"
_PRIOR_STD = {
    "fixed": 2.0,
    "madds": 0.3,
    "stem_madds": 0.3,
    "depthwise_madds": 0.3,
    "wide_depthwise_madds": 0.3,
    "linear_madds": 0.5,
    "elements": 2.0,
    "weights": 1.0,
    "channels": 1.0,
    "squeeze_excite_elements": 3.0,
    "squeeze_excites": 0.2,
    "hard_swish_elements": 1.0,
    "layers": 0.1,
}
_SHRINKAGE = 0.3
Keep = Callable[[LatencyRow], bool]


def measured_network(network: str) -> str:
    """The network that a preprint row was measured on.

    Its multiplier tables print the final networks' MAdds, to the last digit, in all ten rows of Large and in eight of
    Small (not at 1.0 and 0.5); no row of Large prints those of the preprint's own layer table. So its latencies are
    taken as the final networks'; taken as the preprint's, v1 came out 5.3 % off in place of 3.6 %.
    """
    return network.replace("_preprint", "")


def _family(network: str) -> str:
    return "mnasnet" if network.startswith("mnasnet") else network[: len("mobilenet_v3")]


@lru_cache(maxsize=8)
def latency_rows(device: str) -> tuple[LatencyRow, ...]:
    """Every distinct published float latency of ``device`` in the three campaigns whose network can be built."""
    found: dict[Hashable, LatencyRow] = {}
    for figure in published_figures():
        latency: float | None = getattr(figure, f"{device}_ms")
        network = measured_network(figure.network)
        if latency is None or not network or figure.version not in CAMPAIGNS:
            continue
        if (device, network, latency) in _CONTRADICTED:
            continue
        row = LatencyRow(network, parse_network(network), figure.version, _family(network), latency)
        found.setdefault((network, figure.version, latency), row)
    return tuple(found.values())


def difference_rows(device: str) -> tuple[DifferenceRow, ...]:
    """Published differences: Table 5's activations (Pixel 1 alone) and full against minimalistic.

    Each is taken within one table: Table 5 within itself, the minimalistic networks within the model zoo's README.
    """
    found = {(r.network, r.latency_ms): r for r in latency_rows(device) if r.campaign == "v5"}
    pairs = {
        "pixel1": (
            ((f"{_LARGE}_hswish16", 53.4), (f"{_LARGE}_relu", 50.5)),
            ((_LARGE, 51.4), (f"{_LARGE}_relu", 50.5)),
            ((f"{_LARGE}_hswish112", 51.0), (f"{_LARGE}_relu", 50.5)),
            ((_LARGE, 51.2), (f"{_LARGE}_minimalistic", 44.1)),
            ((_SMALL, 15.8), (f"{_SMALL}_minimalistic", 12.2)),
        ),
        "pixel2": (
            ((_LARGE, 61.0), (f"{_LARGE}_minimalistic", 51.0)),
            ((_SMALL, 19.4), (f"{_SMALL}_minimalistic", 15.1)),
        ),
        "pixel3": (
            ((_LARGE, 44.0), (f"{_LARGE}_minimalistic", 35.0)),
            ((_SMALL, 14.4), (f"{_SMALL}_minimalistic", 11.0)),
        ),
    }
    return tuple(DifferenceRow(found[slower], found[faster]) for slower, faster in pairs[device])


def everything(_row: LatencyRow) -> bool:
    """Keeps all rows."""
    return True


def fit_device(device: str, keep: Keep = everything) -> Fit:
    """The fit of one device to its rows that ``keep`` lets through.

    Pixel 2 and 3 have a third of Pixel 1's rows and no Table 5: theirs are shrunk towards a multiple of Pixel 1's
    coefficients, fitted without the same rows.
    """
    rows = [row for row in latency_rows(device) if keep(row)]
    differences = [d for d in difference_rows(device) if keep(d.slower) and keep(d.faster)]
    if device == "pixel1":
        return fit(rows, differences, FitOptions(dict.fromkeys(PARAMETERS, 0.0), _PRIOR_STD))
    base = fit_device("pixel1", keep)
    ratio = float(np.median(np.array([r.latency_ms for r in rows]) / base.predict(rows)))
    mean = dict(zip(PARAMETERS, (ratio * base.coefficients).tolist(), strict=True))
    std = {name: _SHRINKAGE * max(mean[name], 0.2 * _PRIOR_STD[name]) for name in PARAMETERS}
    return fit(rows, differences, FitOptions(mean, std))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A row and what a fit that never saw its group says of it; ``leverage`` as in :meth:`Fit.leverage`."""

    row: LatencyRow
    predicted_ms: float
    leverage: float

    @property
    def error(self) -> float:
        """Predicted over published, less 1."""
        return self.predicted_ms / self.row.latency_ms - 1


def shape(architecture: Architecture) -> Architecture:
    """The network without its activations: Table 5's ablations are one shape, and held out together."""
    plain = architecture.map_blocks(lambda b: replace(b, activation="relu"))
    return replace(plain, stem=replace(plain.stem, activation="relu"), head=replace(plain.head, activation="relu"))


def one_out(row: LatencyRow) -> Hashable:
    """Leave-one-out: a network in one campaign, with its repeats and its activation ablations."""
    return shape(row.architecture), row.campaign


def network_out(row: LatencyRow) -> Hashable:
    """Leave-one-network-out: in all campaigns at once."""
    return shape(row.architecture)


def family_out(row: LatencyRow) -> Hashable:
    """Leave-one-family-out: MobileNetV2, MobileNetV3 (Large and Small) or MnasNet."""
    return row.family


def held_out(device: str, group: Callable[[LatencyRow], Hashable]) -> tuple[HeldOut, ...]:
    """Every row judged by a fit without its group; rows of a campaign that then has no scale are left out."""
    rows = latency_rows(device)
    found = []
    for key in dict.fromkeys(group(row) for row in rows):
        kept = fit_device(device, lambda row, key=key: group(row) != key)  # type: ignore[misc]
        out = [row for row in rows if group(row) == key and row.campaign in kept.scales]
        if not out:
            continue
        leverage = kept.leverage([row.architecture for row in out])
        found += [HeldOut(*item) for item in zip(out, kept.predict(out).tolist(), leverage.tolist(), strict=True)]
    return tuple(found)


def calibrate(near: Sequence[HeldOut], far: Sequence[HeldOut]) -> tuple[float, float]:
    """``(residual, spread)`` of the stated error ``latency · residual · sqrt(1 + spread · leverage)``.

    Such that the standardised errors of single networks held out (``near``) and of whole families (``far``) both have
    a mean square of 1.
    """

    def mean_square(found: Sequence[HeldOut], spread: float) -> float:
        error, leverage = (np.array([getattr(f, name) for f in found]) for name in ("error", "leverage"))
        return float(np.mean(error**2 / (1 + spread * leverage)))

    grid: Array = np.concatenate([[0.0], np.geomspace(0.01, 100, 401)])
    gap = [abs(np.log(mean_square(near, s) / mean_square(far, s))) for s in grid]
    spread = float(grid[int(np.argmin(gap))])
    return float(np.sqrt(mean_square(near, spread))), spread


def error_table(found: Sequence[HeldOut]) -> list[dict[str, object]]:
    """Errors in percent for each campaign and family by itself: families are never put into one figure."""
    table: list[dict[str, object]] = []
    for campaign, family in sorted({(f.row.campaign, f.row.family) for f in found}):
        error = 100 * np.array([f.error for f in found if (f.row.campaign, f.row.family) == (campaign, family)])
        table.append(
            {
                "campaign": campaign,
                "family": family,
                "rows": len(error),
                "mean_absolute_percent": round(float(np.mean(np.abs(error))), 2),
                "rms_percent": round(float(np.sqrt(np.mean(error**2))), 2),
                "mean_percent": round(float(np.mean(error)), 2),
                "worst_percent": round(float(error[np.argmax(np.abs(error))]), 1),
            }
        )
    return table
