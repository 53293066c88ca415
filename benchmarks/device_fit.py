"""How well a device fitted to whole-network timings predicts other networks: a desktop CPU's table as the device.

The device is the sum of an i7-8700K's measured blocks (once-for-all's table, in the folder that ``MNV3SEARCH_DATA``
names). Timings of random once-for-all MobileNetV3 subnets get 3 % of noise each; a device is fitted to some of them as
``mnv3search device fit`` does and asked for 1,000 others. Nothing is chosen by these: all scales are found within the
timed networks.

    python -m benchmarks.device_fit
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import write_results
from benchmarks.row_data import DATA_VARIABLE, data_folder, ofa_architecture
from mnv3search.architecture import Architecture, HeadSpec, StemSpec, make_divisible, out_size
from mnv3search.cost.counts import count
from mnv3search.cost.units import Unit, units
from mnv3search.latency.estimated.fit import PARAMETERS, FitOptions, LatencyRow, design
from mnv3search.latency.estimated.fit import fit as fit_features
from mnv3search.latency.fitted.whole_fit import fit_whole_networks

_INTRODUCTION = """# A device fitted to whole-network timings

The device is the sum of an i7-8700K's measured blocks. {tested:,} random once-for-all networks that were not timed are
predicted from some that were, each timing with {noise:.0%} of noise; {draws} draws. Errors are relative, in percent:
mean over draws [least, most]. `of noise` is against timings as noisy as those fitted, which no model can predict better
than {least:.1f} %. `stated` is the held-out error that the fit itself tells its user (of noisy timings). Coverage is of
noisy timings, by one and two stated deviations. `MAdds alone`: a fixed time and one rate. `counts alone`: the bounded
fit of counts that the Pixel profiles come from.
"""
Array = NDArray[np.float64]
TABLE = "i7-8700K_lut.yaml"
SEEDS = (0, 1, 2, 3, 4)
TIMED = (10, 25, 50, 100, 200)
TESTED = 1000
NOISE = 0.03
GOAL_PERCENT = 2.0
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


def by_madds(networks: Sequence[Architecture], times: Array, asked: Sequence[Architecture]) -> Array:
    """A fixed time and one rate for all MAdds, least squares in relative error."""
    x, new = (np.array([[1.0, count(a).madds / 1e6] for a in group]) for group in (networks, asked))
    return np.asarray(new @ np.linalg.lstsq(x / times[:, None], np.ones(len(times)), rcond=None)[0])


def by_counts(networks: Sequence[Architecture], times: Array, asked: Sequence[Architecture]) -> Array:
    """The bounded fit of counts that the Pixel profiles come from, under a wide prior."""
    share = times.mean() / np.maximum(design(networks).mean(axis=0), 1e-9)  # each count may take all of a network
    options = FitOptions(dict.fromkeys(PARAMETERS, 0.0), dict(zip(PARAMETERS, share.tolist(), strict=True)))
    options_of_noise = FitOptions(options.prior_mean, options.prior_std, residual=NOISE, outlier=2 * NOISE)
    rows = [LatencyRow(str(i), a, "v5", "", ms) for i, (a, ms) in enumerate(zip(networks, times.tolist(), strict=True))]
    return np.asarray(design(asked) @ fit_features(rows, [], options_of_noise).coefficients)


BASELINES: Mapping[str, Callable[[Sequence[Architecture], Array, Sequence[Architecture]], Array]] = {
    "madds": by_madds,
    "counts": by_counts,
}


def judged(networks: Sequence[Architecture], exact: Array, noisy: Array, timed: int) -> dict[str, float]:
    """Figures of one fit to the first ``timed`` networks, asked for the last :data:`TESTED`."""
    start = time.perf_counter()
    found = fit_whole_networks(networks[:timed], noisy[:timed].tolist())
    seconds = time.perf_counter() - start
    asked, true, told = networks[-TESTED:], exact[-TESTED:], noisy[-TESTED:]
    predicted, error = found.device.latency_ms(asked), found.device.latency_error_ms(asked)
    relative = 100 * np.abs(predicted / true - 1)
    figures = {
        "mean_percent": float(relative.mean()),
        "median_percent": float(np.median(relative)),
        "largest_percent": float(relative.max()),
        "mean_percent_of_noisy": float(100 * np.mean(np.abs(predicted / told - 1))),
        "stated_held_out_mean_percent": found.held_out.summary()["mean_percent"],
        "within_one_deviation_of_noisy": float(np.mean(np.abs(predicted - told) <= error)),
        "within_two_deviations_of_noisy": float(np.mean(np.abs(predicted - told) <= 2 * error)),
        "seconds": seconds,
    }
    for name, baseline in BASELINES.items():
        figures[f"{name}_mean_percent"] = float(
            100 * np.mean(np.abs(baseline(networks[:timed], noisy[:timed], asked) / true - 1))
        )
    return {name: round(value, 3) for name, value in figures.items()}


def page(rows: Sequence[Mapping[str, float]]) -> str:
    """The figures for people: means over seeds, with the least and the most."""
    lines = [_INTRODUCTION.format(tested=TESTED, noise=NOISE, draws=len(SEEDS), least=100 * NOISE * (2 / np.pi) ** 0.5)]
    lines += ["| timed | mean | median | of noise | stated | covered by 1, 2 | MAdds alone | counts alone | seconds |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for timed in TIMED:
        of = [row for row in rows if row["timed"] == timed]
        cells = [
            _range(of, "mean_percent"), _range(of, "median_percent"), _range(of, "mean_percent_of_noisy"),
            _range(of, "stated_held_out_mean_percent"),
            f"{_mean(of, 'within_one_deviation_of_noisy'):.2f}, {_mean(of, 'within_two_deviations_of_noisy'):.3f}",
            _range(of, "madds_mean_percent"), _range(of, "counts_mean_percent"), f"{_mean(of, 'seconds'):.1f}",
        ]  # fmt: skip
        lines.append(f"| {timed} | {' | '.join(cells)} |")
    worst = max(row["mean_percent"] for row in rows if row["timed"] == max(TIMED))
    verdict = "met" if worst <= GOAL_PERCENT else "missed"
    lines += [
        "",
        f"Goal: at most {GOAL_PERCENT} % from {max(TIMED)} timings; {verdict}, the worst draw has {worst:.2f} %.",
    ]
    return "\n".join(lines)


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _range(rows: Sequence[Mapping[str, float]], name: str) -> str:
    values = [row[name] for row in rows]
    return f"{np.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def main() -> None:
    """Fit, judge, print and keep."""
    folder = data_folder()
    if folder is None or not (folder / TABLE).is_file():
        sys.exit(f"set {DATA_VARIABLE} to the folder that holds {TABLE}")
    table = read_table(folder / TABLE)
    rows = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        networks = random_networks(max(TIMED) + TESTED, rng)
        exact = np.array([sum(table[key] for unit in units(a) for key in table_keys(unit)) for a in networks])
        noisy = exact * (1 + NOISE * rng.standard_normal(len(exact)))
        for timed in TIMED:
            rows.append({"seed": seed, "timed": timed, **judged(networks, exact, noisy, timed)})
            print(rows[-1], flush=True)
    text = page(rows)
    print(text)
    print(write_results("device-fit", {"noise": NOISE, "tested": TESTED, "fits": rows}, text, SEEDS))


if __name__ == "__main__":
    main()
