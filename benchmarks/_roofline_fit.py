"""How far a roofline of two figures is from published and measured latencies; part of benchmarks/pixel.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._pixel_fit import FITTED_DEVICES, LatencyRow, latency_rows
from mnv3search.blocks import BlockSpec, Shortcut, SqueezeExciteSpec, make_divisible
from mnv3search.latency.estimated import COMPUTE_ERROR, MEMORY_ERROR, RooflineDevice
from mnv3search.layers import Unit, units

Array = NDArray[np.float64]
TABLE = "i7-8700K_lut.yaml"
_KEY = re.compile(
    r"MBConv-input:(\d+)x\d+x(\d+)-output:(\d+)x\d+x(\d+)-expand:([\d.]+)-kernel:(\d)-stride:(\d)-idskip:(\d)-se:(\d)"
)
Parts = Sequence[Sequence[Unit]]


def judge(data: str | None) -> tuple[dict[str, object], str]:
    """Held-out errors by device and family, and the two shares of error that follow from them."""
    table: list[dict[str, object]] = []
    shares, squares = [], []
    for device in FITTED_DEVICES:
        rows = [row for row in latency_rows(device) if row.campaign == "v5"]
        for family in dict.fromkeys(row.family for row in rows):
            bounds, latency = _hold_out(rows, family)
            error = bounds.sum(axis=1) / latency - 1
            table.append(_line(device, family, error))
            shares.append(bounds / bounds.sum(axis=1, keepdims=True))
            squares.append(error**2)
    compute, memory = _two_shares(np.vstack(shares), np.concatenate(squares))
    numbers: dict[str, object] = {
        "family_left_out": table,
        "error_of_compute_bound_time": round(compute, 3),
        "error_of_memory_bound_time": round(memory, 3),
        "stated": {"compute": COMPUTE_ERROR, "memory": MEMORY_ERROR},
        "i7_8700K": _measured_blocks(Path(data) / TABLE) if data and (Path(data) / TABLE).is_file() else None,
    }
    return numbers, _page(numbers)


def _line(device: str, family: str, error: Array) -> dict[str, object]:
    return {
        "device": device,
        "family": family,
        "rows": len(error),
        "rms_percent": round(float(100 * np.sqrt(np.mean(error**2))), 1),
        "mean_percent": round(float(100 * np.mean(error)), 1),
    }


def _hold_out(rows: Sequence[LatencyRow], family: str) -> tuple[Array, Array]:
    """(compute, memory) milliseconds of a family by the roofline fitted to the others, and the published ones."""
    kept = [row for row in rows if row.family != family]
    out = [row for row in rows if row.family == family]
    best = fit_roofline([units(row.architecture) for row in kept], np.array([row.latency_ms for row in kept]))
    return bounds_ms(best, [units(row.architecture) for row in out]), np.array([row.latency_ms for row in out])


def bounds_ms(device: RooflineDevice, parts: Parts) -> Array:
    """Compute-bound and memory-bound milliseconds of each list of units; shape (n, 2)."""
    return np.array([np.sum([device.bound_ms(unit) for unit in units_], axis=0) for units_ in parts])


def fit_roofline(parts: Parts, latency_ms: Array) -> RooflineDevice:
    """The two figures of least mean square relative error: a grid of their ratio, the scale solved exactly."""

    def candidate(ridge: float) -> tuple[float, RooflineDevice]:
        ratio = bounds_ms(RooflineDevice("grid", ridge, 1.0), parts).sum(axis=1) / latency_ms
        speed = float((ratio @ ratio) / ratio.sum())
        error = float(np.mean((ratio / speed - 1) ** 2))
        return error, RooflineDevice("fitted", ridge * speed, speed)

    found = [candidate(float(ridge)) for ridge in np.geomspace(0.05, 50, 61)]
    return min(found, key=lambda item: item[0])[1]


def _two_shares(shares: Array, squares: Array) -> tuple[float, float]:
    """Relative deviations (a, b) with error² ≈ (a·compute share)² + (b·memory share)², by least squares."""
    from scipy.optimize import nnls

    solution, _ = nnls(shares**2, squares)
    return float(np.sqrt(solution[0])), float(np.sqrt(solution[1]))


def _measured_blocks(path: Path) -> dict[str, object]:
    """The roofline against blocks measured on a desktop CPU: fitted to half of them, judged on the other half."""
    keyed = _read(path)
    parts = [[unit] for unit, _ in keyed]
    latency = np.array([ms for _, ms in keyed])
    fitted = fit_roofline(parts[::2], latency[::2])
    bounds = bounds_ms(fitted, parts[1::2])
    total = bounds.sum(axis=1)
    error = total / latency[1::2] - 1
    compute, memory = _two_shares(bounds / total[:, None], error**2)
    return {
        "blocks": len(keyed),
        "gmadds_per_s": round(fitted.gmadds_per_s, 1),
        "gbytes_per_s": round(fitted.gbytes_per_s, 1),
        "held_out_rms_percent": round(float(100 * np.sqrt(np.mean(error**2))), 1),
        "held_out_median_absolute_percent": round(float(100 * np.median(np.abs(error))), 1),
        "error_of_compute_bound_time": round(compute, 3),
        "error_of_memory_bound_time": round(memory, 3),
        "mean_share_of_memory_bound_time": round(float(np.mean(bounds[:, 1] / total)), 3),
    }


def _read(path: Path) -> list[tuple[Unit, float]]:
    """Blocks and their mean milliseconds; the file is two levels of ``key: value``, read line by line."""
    found = []
    unit: Unit | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _KEY.match(line)
        if match:
            unit = _unit(*match.groups())
        elif line.startswith("MBConv") or (line and not line.startswith(" ")):
            unit = None
        elif unit is not None and line.strip().startswith("mean:"):
            found.append((unit, float(line.partition(":")[2])))
    return found


def _unit(
    size: str, channels: str, _out_size: str, out: str, ratio: str, kernel: str, stride: str, skip: str, se: str
) -> Unit:
    expanded = make_divisible(int(channels) * float(ratio))
    squeeze = SqueezeExciteSpec(make_divisible(expanded / 4)) if se == "1" else None
    shortcut: Shortcut = "identity" if skip == "1" else "none"
    block = BlockSpec(int(kernel), expanded, int(out), int(stride), "relu", squeeze, shortcut=shortcut)
    return Unit(block, int(channels), int(size))


def _page(numbers: dict[str, object]) -> str:
    rows = numbers["family_left_out"]
    assert isinstance(rows, list)
    lines = ["## roofline", "", "two figures fitted to the other families of v5, errors in percent", ""]
    lines += ["| device | family | rows | rms | mean |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['device']} | {r['family']} | {r['rows']} | {r['rms_percent']} | {r['mean_percent']} |" for r in rows
    ]
    compute, memory = numbers["error_of_compute_bound_time"], numbers["error_of_memory_bound_time"]
    lines += ["", f"relative error of compute-bound time {compute}, of memory-bound time {memory}; "]
    lines += [
        f"stated by the package: {numbers['stated']}",
        "",
        f"i7-8700K, measured blocks: {numbers['i7_8700K']}",
        "",
    ]
    return "\n".join(lines)
