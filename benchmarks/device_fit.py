"""How well a device fitted to whole-network timings predicts other networks, on devices whose truth is known.

One device is the sum of an i7-8700K's measured blocks (once-for-all's table, in the folder that ``MNV3SEARCH_DATA``
names). The others are the Pixel 1 profile with some units at 1 to 5 % of their price, as pools and
small layers are on accelerators. A device is fitted to noisy timings of random once-for-all MobileNetV3 subnets as
``mnv3search device fit`` does and asked for others.

    python -m benchmarks.device_fit
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._pixel_fit import PARAMETERS, FitOptions, LatencyRow, design
from benchmarks._pixel_fit import fit as fit_features
from benchmarks._results import write_results
from benchmarks.row_data import DATA_VARIABLE, data_folder, ofa_architecture
from mnv3search.architecture import Architecture, HeadSpec, StemSpec, out_size
from mnv3search.blocks import BlockSpec, make_divisible
from mnv3search.latency.devices import load_device
from mnv3search.latency.fitted.device import fit_whole_networks
from mnv3search.latency.model import UnitLatencyModel
from mnv3search.layers import Unit, units

_INTRODUCTION = """# A device fitted to whole-network timings

{tested} random once-for-all networks that were not timed are predicted from some that were, with noise on each timing;
mean over {draws} draws. Devices:

- `i7-8700K`: the sum of that CPU's measured blocks;
- `third`: the Pixel 1 profile with a third of the units, chosen at random, at 1 to 5 % of their price;
- `small`: the same with the third that costs least; `squeeze-excite`: with all blocks that have one.

Errors are relative to the true time, in percent. `bias`: their mean with sign; `total`: all predictions together over
all true times, less 1 (large errors lift the first by themselves). `mean`: of their absolute values; `worst`: that of
the worst draw. `stated`: the held-out error that the fit tells its user (of noisy timings). `covered`: noisy timings
within one and two stated deviations. `counts`: mean error of the bounded fit of counts that the Pixel profiles come
from, which is told the noise and has no price of a unit's own. Goals: bias at most {bias} %, mean at most the noise and
{over:g} point, covered 68 and 95 % with {cover:g} points either way; what misses one is marked by its first letter.
"""
Array = NDArray[np.float64]
TABLE = "i7-8700K_lut.yaml"
SEEDS = (10, 11, 12, 13, 14)
TIMED = (10, 25, 50, 100, 200, 500)
TESTED = 500
NOISES = (0.01, 0.03, 0.05)
CHEAP = 0.01, 0.05
BIAS_GOAL, OVER_NOISE_GOAL, COVERAGE_GOAL = 0.3, 1.0, 0.05
_STEM = "first_conv-input:224x224x3-output:112x112x16"
_HEAD = (
    "final_expand_layer-input:7x7x160-output:7x7x960",
    "feature_mix_layer-input:1x1x960-output:1x1x1280",
    "classifier-input:1280-output:1000",
)


def read_table(path: Path) -> dict[str, float]:
    """Mean milliseconds by the table's own texts; the file is two levels of ``key: value``, read line by line."""
    found: dict[str, float] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(" "):
            key = line.strip().rstrip(":")
        elif line.strip().startswith("mean:"):
            found[key] = float(line.partition(":")[2])
    return found


def table_keys(unit: Unit) -> tuple[str, ...]:
    """The table's texts of a unit of an once-for-all network; the table knows no activations."""
    spec = unit.spec
    if isinstance(spec, StemSpec):
        return (_STEM,)
    if isinstance(spec, HeadSpec):
        return _HEAD
    assert isinstance(spec, BlockSpec)
    into, size, after = unit.in_channels, unit.in_size, out_size(unit.in_size, spec.stride)
    ratio = next(r for r in (1, 3, 4, 6) if make_divisible(into * r) == spec.expanded_channels)
    return (
        f"MBConv-input:{size}x{size}x{into}-output:{after}x{after}x{spec.out_channels}-expand:{ratio}"
        f"-kernel:{spec.kernel_size}-stride:{spec.stride}-idskip:{int(spec.has_residual(into))}"
        f"-se:{int(spec.squeeze_excite is not None)}",
    )


def random_networks(count_: int, rng: np.random.Generator) -> list[Architecture]:
    """Distinct random subnets: every kernel, ratio and depth alike."""
    found: dict[Architecture, None] = {}
    while len(found) < count_:
        kernels, ratios, depths = (
            "".join(rng.choice(list(digits), n)) for digits, n in (("357", 20), ("346", 20), ("234", 5))
        )
        found[ofa_architecture(kernels, ratios, depths)] = None
    return list(found)


def true_prices(device: str, parts: Sequence[Unit], table: Mapping[str, float], rng: np.random.Generator) -> Array:
    """Milliseconds of each unit on one of :data:`DEVICES`."""
    if device == "i7-8700K":
        return np.array([sum(table[key] for key in table_keys(unit)) for unit in parts])
    pixel = load_device("pixel1")
    assert isinstance(pixel, UnitLatencyModel)
    price, third = pixel.unit_latency_ms(parts), len(parts) // 3
    cheap = {
        "third": rng.permutation(len(parts))[:third],
        "small": np.argsort(price)[:third],
        "squeeze-excite": np.flatnonzero([getattr(u.spec, "squeeze_excite", None) is not None for u in parts]),
    }[device]
    price[cheap] *= rng.uniform(*CHEAP, len(cheap))
    return price


def by_counts(networks: Sequence[Architecture], times: Array, asked: Sequence[Architecture], noise: float) -> Array:
    """The bounded fit of counts that the Pixel profiles come from, under a wide prior."""
    share = times.mean() / np.maximum(design(networks).mean(axis=0), 1e-9)  # each count may take all of a network
    options = FitOptions(dict.fromkeys(PARAMETERS, 0.0), dict(zip(PARAMETERS, share.tolist(), strict=True)))
    options_of_noise = FitOptions(options.prior_mean, options.prior_std, residual=noise, outlier=2 * noise)
    rows = [LatencyRow(str(i), a, "v5", "", ms) for i, (a, ms) in enumerate(zip(networks, times.tolist(), strict=True))]
    return np.asarray(design(asked) @ fit_features(rows, [], options_of_noise).coefficients)


DEVICES = ("i7-8700K", "third", "small", "squeeze-excite")


def judged(networks: Sequence[Architecture], exact: Array, noisy: Array, timed: int, noise: float) -> dict[str, float]:
    """Figures of one fit to the first ``timed`` networks, asked for the last :data:`TESTED`."""
    start = time.perf_counter()
    found = fit_whole_networks(networks[:timed], noisy[:timed].tolist())
    seconds = time.perf_counter() - start
    asked, true, told = networks[-TESTED:], exact[-TESTED:], noisy[-TESTED:]
    predicted, error = found.device.latency_ms(asked), found.device.latency_error_ms(asked)
    relative = 100 * (predicted / true - 1)
    counts = by_counts(networks[:timed], noisy[:timed], asked, noise)
    figures = {
        "bias_percent": relative.mean(),
        "total_bias_percent": 100 * (predicted.sum() / true.sum() - 1),
        "mean_percent": np.abs(relative).mean(),
        "largest_percent": np.abs(relative).max(),
        "stated_held_out_mean_percent": found.held_out.summary()["mean_percent"],
        "within_one_deviation_of_noisy": np.mean(np.abs(predicted - told) <= error),
        "within_two_deviations_of_noisy": np.mean(np.abs(predicted - told) <= 2 * error),
        "counts_mean_percent": 100 * np.mean(np.abs(counts / true - 1)),
        "seconds": seconds,
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures for people: means over draws, and which goals they miss."""
    lines = [
        _INTRODUCTION.format(
            tested=TESTED, draws=len(SEEDS), bias=BIAS_GOAL, over=OVER_NOISE_GOAL, cover=100 * COVERAGE_GOAL
        ),
        "| device | timed | noise | bias | total | mean | worst | stated | covered | counts | seconds | misses |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for device, timed, noise in itertools.product(DEVICES, TIMED, NOISES):
        of = [row for row in rows if (row["device"], row["timed"], row["noise"]) == (device, timed, noise)]
        mean = {name: float(np.mean([row[name] for row in of])) for name in of[0] if name != "device"}
        one, two = mean["within_one_deviation_of_noisy"], mean["within_two_deviations_of_noisy"]
        lines.append(
            f"| {device} | {timed} | {noise:.0%} | {mean['bias_percent']:+.2f} | {mean['total_bias_percent']:+.2f} "
            f"| {mean['mean_percent']:.2f} | {max(row['mean_percent'] for row in of):.2f} "
            f"| {mean['stated_held_out_mean_percent']:.2f} | {one:.2f}, {two:.3f} | {mean['counts_mean_percent']:.2f} "
            f"| {mean['seconds']:.1f} | {missed(mean, noise)} |"
        )
    return "\n".join(lines)


def missed(mean: Mapping[str, float], noise: float) -> str:
    """The goals that these means miss, a letter each."""
    one, two = mean["within_one_deviation_of_noisy"], mean["within_two_deviations_of_noisy"]
    faults = {
        "b": abs(mean["bias_percent"]) > BIAS_GOAL,
        "m": mean["mean_percent"] > 100 * noise + OVER_NOISE_GOAL,
        "c": abs(one - 0.68) > COVERAGE_GOAL or abs(two - 0.95) > COVERAGE_GOAL,
    }
    return " ".join(letter for letter, fault in faults.items() if fault)


def main() -> None:
    """Fit, judge, print and keep."""
    folder = data_folder()
    if folder is None or not (folder / TABLE).is_file():
        sys.exit(f"set {DATA_VARIABLE} to the folder that holds {TABLE}")
    table, rows = read_table(folder / TABLE), []
    for device, seed in itertools.product(DEVICES, SEEDS):
        rng = np.random.default_rng(seed)
        networks = random_networks(max(TIMED) + TESTED, rng)
        parts = list(dict.fromkeys(unit for a in networks for unit in units(a)))
        price = dict(zip(parts, true_prices(device, parts, table, rng).tolist(), strict=True))
        exact = np.array([sum(price[unit] for unit in units(a)) for a in networks])
        drawn = rng.standard_normal(len(exact))
        for noise, timed in itertools.product(NOISES, TIMED):
            figures = judged(networks, exact, exact * (1 + noise * drawn), timed, noise)
            rows.append({"device": device, "seed": seed, "noise": noise, "timed": timed, **figures})
            print(rows[-1], flush=True)
    text = page(rows)
    print(text)
    print(write_results("device-fit", {"tested": TESTED, "fits": rows}, text, SEEDS))


if __name__ == "__main__":
    main()
