"""How well a table of this machine's units predicts whole networks that it has never seen.

Fills the table of a whole space, then times unseen random networks of that space whole, and compares the raw sum of the
units, the calibrated prediction by median and by minimum, and MAdds alone. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.cost.counts import count
from mnv3search.cost.units import units
from mnv3search.latency.keys import network_of_key, unit_key
from mnv3search.latency.measure import MeasuringPlan
from mnv3search.latency.table_device import MeasuredLatency, TableDevice
from mnv3search.space import load_space

Numbers = NDArray[np.float64]
LINES = (
    ("madds", "MAdds alone, scaled on the calibration networks"),
    ("raw_sum", "raw sum of the units' medians"),
    ("calibrated", "calibrated table, median against median"),
    ("calibrated_relevelled", "the same, the reference's drift since the table divided out"),
    ("calibrated_minimum", "calibrated table, minimum against minimum"),
    ("calibrated_minimum_relevelled", "the same, the reference's drift of minima divided out"),
)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", default=["onnxruntime", "torch"])
    parser.add_argument("--space", nargs="+", default=["mnv3_large"])
    parser.add_argument("--networks", type=int, default=20, help="unseen networks of each space")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cache", type=Path, help="keep the tables here; a fresh folder where not given")
    return parser.parse_args()


def spearman(a: Numbers, b: Numbers) -> float:
    """Spearman's rank correlation (no ties in measured times)."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def compared(predicted: Numbers, measured: Numbers) -> dict[str, float]:
    """Mean, largest and signed relative error in percent, and the rank correlation."""
    error = 100 * (predicted / measured - 1)
    return {
        "mean_error_percent": float(np.abs(error).mean()),
        "max_error_percent": float(np.abs(error).max()),
        "bias_percent": float(error.mean()),
        "within_5_percent": float(np.mean(np.abs(error) <= 5)),
        "spearman": spearman(predicted, measured),
    }


def filled(device: TableDevice, space_name: str) -> dict[str, float | int]:
    """Fill the device's table for a space, then ask again; how long each took."""
    parts = load_space(space_name).all_units()

    def shown(done: int, total: int, what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{what}: {100 * done // total} %", end="", file=sys.stderr)

    start = time.perf_counter()
    device.prepare(parts, shown)
    first = time.perf_counter() - start
    entries = len(device.table)
    start = time.perf_counter()
    device.prepare(parts)
    timings = [device.table.timing(unit_key(unit)) for unit in parts]
    return {
        "units": len(set(parts)),
        "calibration_networks": device.calibration.networks,
        "entries": entries,
        "seconds": round(first, 1),
        "seconds_again": round(time.perf_counter() - start, 3),
        "rounds": min(timing.rounds for timing in timings),
        "unit_spread_percent": 100 * float(np.median([timing.spread for timing in timings])),
        "unit_error_percent": 100 * float(np.median([timing.error_ms / timing.median_ms for timing in timings])),
    }


def whole_of_table(device: TableDevice, statistic: str) -> tuple[list[Architecture], Numbers]:
    """The table's calibration networks and their times."""
    timings = [device.table.timing(key) for key in device.table.networks]
    times = [t.median_ms if statistic == "median" else t.minimum_ms for t in timings]
    return [network_of_key(key) for key in device.table.networks], np.array(times)


def predictions(device: TableDevice, minimum: TableDevice, networks: Sequence[Architecture]) -> dict[str, Numbers]:
    """Milliseconds by each method, by the table alone."""
    madds = np.array([count(a).madds for a in networks], dtype=np.float64)
    calibrating, times = whole_of_table(device, "median")
    rate = np.median(times / np.array([count(a).madds for a in calibrating]))
    sums = [sum(device.table.timing(unit_key(u)).median_ms for u in units(a)) for a in networks]
    return {
        "madds": madds * rate,
        "raw_sum": np.array(sums),
        "calibrated": device.latency_ms(networks),
        "calibrated_minimum": minimum.latency_ms(networks),
    }


def errors(
    device: TableDevice, found: dict[str, Numbers], measured: Sequence[MeasuredLatency], reference_minimum_ms: float
) -> dict[str, dict[str, float]]:
    """Each method's errors against the networks measured whole."""
    median = np.array([one.latency_ms for one in measured])
    least = np.array([one.minimum_ms for one in measured])
    drift = measured[0].reference_ms / device.table.level_ms
    least_drift = reference_minimum_ms / device.table.timing(device.table.networks[0]).minimum_ms
    return {
        "madds": compared(found["madds"], median),
        "raw_sum": compared(found["raw_sum"], median),
        "calibrated": compared(found["calibrated"], median),
        "calibrated_relevelled": compared(found["calibrated"] * drift, median),
        "calibrated_minimum": compared(found["calibrated_minimum"], least),
        "calibrated_minimum_relevelled": compared(found["calibrated_minimum"] * least_drift, least),
    }


def one_case(runtime: str, space_name: str, args: argparse.Namespace, cache: Path) -> dict[str, object]:
    """Table, prediction and measurement of one runtime and space."""
    plan = MeasuringPlan(rounds=args.rounds)
    device = TableDevice(runtime, args.threads, cache, plan)
    table = filled(device, space_name)
    minimum = TableDevice(runtime, args.threads, cache, plan, statistic="minimum")
    calibrating, _ = whole_of_table(device, "median")
    sampled = load_space(space_name).sample(args.networks + len(calibrating), args.seed)
    networks = [a for a in sampled if a not in set(calibrating)][: args.networks]
    found = predictions(device, minimum, networks)
    stated = device.latency_error_ms(networks)
    # the first calibration network once more, whose own minimum then and now is the drift of the minima
    *measured, again = device.measure([*networks, calibrating[0]])
    error = found["calibrated"] - np.array([one.latency_ms for one in measured])
    return {
        "table": table,
        "calibration": {
            "scale": device.calibration.scale,
            "usual_to_minimum": device.calibration.usual_to_minimum,
            "boundary_ns_per_element": 1e6 * device.calibration.boundary_ms,
            "held_out_error_percent": 100 * device.calibration.relative_std,
        },
        "networks": len(networks),
        "measured_ms": [round(one.latency_ms, 4) for one in measured],
        "measured_error_percent": 100 * float(np.median([one.error_ms / one.latency_ms for one in measured])),
        "reference_ms": {"table": device.table.level_ms, "networks": measured[0].reference_ms},
        "pace_error_percent": 100 * device.table.level_error,
        "stated_error_percent": 100 * float(np.median(stated / found["calibrated"])),
        "within_one_stated_error": float(np.mean(np.abs(error) <= stated)),
        "within_two_stated_errors": float(np.mean(np.abs(error) <= 2 * stated)),
        "errors": errors(device, found, measured, again.minimum_ms),
    }


def report(case: str, numbers: dict[str, object]) -> str:
    """One case as Markdown."""
    table, all_errors = numbers["table"], numbers["errors"]
    assert isinstance(table, dict)
    assert isinstance(all_errors, dict)
    shares = [100 * float(str(numbers[f"within_{n}_stated_error{s}"])) for n, s in (("one", ""), ("two", "s"))]
    lines = [
        f"## {case}",
        "",
        f"{table['units']} units and {table['calibration_networks']} calibration networks, {table['rounds']} rounds, "
        f"in {table['seconds']:.0f} s (asked again: {table['seconds_again']:.2f} s). A single repeat of a unit spreads "
        f"by {table['unit_spread_percent']:.1f} %, its median by {table['unit_error_percent']:.1f} %; a whole "
        f"network's median by {numbers['measured_error_percent']:.1f} %; the machine's pace varied by "
        f"{numbers['pace_error_percent']:.1f} % between moments. "
        f"Stated error {numbers['stated_error_percent']:.1f} %: {shares[0]:.0f} % of the networks lie within one, "
        f"{shares[1]:.0f} % within two.",
        "",
        "| prediction | mean error | largest | bias | within ±5 % | Spearman |",
        "|---|---|---|---|---|---|",
    ]
    for key, label in LINES:
        e = all_errors[key]
        lines.append(
            f"| {label} | {e['mean_error_percent']:.1f} % | {e['max_error_percent']:.1f} % "
            f"| {e['bias_percent']:+.1f} % | {100 * e['within_5_percent']:.0f} % | {e['spearman']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run every case, print and keep what was found."""
    args = arguments()
    texts, numbers = [f"# Tables of this machine against unseen networks, {args.threads} thread(s)"], {}
    with tempfile.TemporaryDirectory() as fresh:
        for runtime in args.runtime:
            for space in args.space:
                case = f"{runtime}, {space}"
                numbers[case] = one_case(runtime, space, args, args.cache or Path(fresh))
                texts.append(report(case, numbers[case]))
                print(f"\n{texts[-1]}", flush=True)
    print(f"\nkept in {write_results('host', numbers, chr(10).join(texts), [args.seed]).name}")


if __name__ == "__main__":
    main()
