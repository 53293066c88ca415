"""The published Pixel latencies by campaign, as rows to fit, and how a network is held out of such a fit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.families import parse_network
from mnv3search.families.figures import published_figures
from mnv3search.latency.estimated.fit import PARAMETERS, Array, DifferenceRow, Fit, FitOptions, LatencyRow, fit

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
