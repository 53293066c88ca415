"""How well a table of this machine's units predicts whole networks, in another process and at another time.

Two steps, the second at least half an hour after the first and in a process of its own:

    python -m benchmarks.latency tables        fill the tables, and ask again
    python -m benchmarks.latency networks      time unseen networks whole, and write the results

Run both on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._latency_errors import Numbers, compared, report
from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.families import parse_network
from mnv3search.latency.keys import network_of_key, unit_key
from mnv3search.latency.measured.calibration import prepare_for_space
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.layers import units
from mnv3search.space import load_space

RUNTIMES = ("onnxruntime", "openvino", "torch")
SPACES = ("mnv3_large", "mnv3_small")
FAMILIES = (
    "mobilenet_v1", "mobilenet_v1@0.5", "mobilenet_v2", "mobilenet_v2@0.5", "mnasnet_a1", "mnasnet_b1", "mnasnet_small",
    "efficientnet_lite0",
)  # fmt: skip
WHOLE_ROUNDS = 80
APART_MINUTES = 30


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["tables", "networks"])
    parser.add_argument("--cache", type=Path, default=Path("runs/latency-benchmark"), help="folder of the tables")
    parser.add_argument("--runtime", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--space", nargs="+", default=list(SPACES))
    parser.add_argument("--networks", type=int, default=50, help="unseen networks of each space")
    parser.add_argument("--seed", type=int, default=11)
    return parser.parse_args()


def filled(runtime: str, space: str, cache: Path) -> dict[str, object]:
    """Fill a table for a space, then ask for it again in a new device; how long each took."""
    searched = load_space(space)
    parts = searched.all_units()
    device = TableDevice(runtime, cache_dir=cache)
    start = time.perf_counter()
    prepare_for_space(searched, device)
    seconds = time.perf_counter() - start
    entries = len(device.table)
    again = TableDevice(runtime, cache_dir=cache)
    start = time.perf_counter()
    prepare_for_space(searched, again)
    timings = [device.table.timing(unit_key(unit)) for unit in parts]
    return {
        "units": len(set(parts)),
        "seconds": seconds,
        "seconds_again": time.perf_counter() - start,
        "entries_measured_again": len(again.table) - entries,
        "rounds": min(timing.rounds for timing in timings),
        "unit_spread_percent": 100 * float(np.median([timing.spread for timing in timings])),
        "halves_disagree_percent": 100 * device.table.halves_disagreement,
        "pace_varied_percent": 100 * device.table.clock_drift,
        "calibration_networks": device.calibration.networks,
        "held_out_percent": 100 * device.calibration.relative_std,
        "output_difference": device.table.output_difference,
        "finished": time.time(),
    }


def against_truth(device: TableDevice, networks: Sequence[Architecture]) -> dict[str, object]:
    """Predict, then time whole; errors of every way to predict, and what was stated."""
    device.prepare([unit for a in networks for unit in units(a)])
    predicted, stated = device.latency_ms(networks), device.latency_error_ms(networks)
    measured = device.measure(networks)
    truth = np.array([one.latency_ms for one in measured])
    halves = [np.array([np.median(one.times_ms[half::2]) for one in measured]) for half in (0, 1)]
    at_table = predicted / device.session_scale.factor
    assert device.session_reference is not None
    by_reference = at_table * device.session_reference.reference_ms / device.table.network_reference_ms
    return {
        "networks": len(networks),
        "measured_ms": [round(float(ms), 4) for ms in truth],
        "predicted_ms": [round(float(ms), 4) for ms in predicted],
        "truth_halves": compared(halves[0], halves[1]),
        "truth_error_percent": 100 * float(np.median([one.error_ms / one.latency_ms for one in measured])),
        "truth_rounds": measured[0].rounds,
        "level": {
            "factor": device.session_scale.factor,
            "error": device.session_scale.error,
            "networks": device.session_scale.networks,
        },
        "reference_ms": {"level": device.session_reference.reference_ms, "networks": measured[0].reference_ms},
        "stated_error_percent": 100 * float(np.median(stated / predicted)),
        "within_one_stated": float(np.mean(np.abs(predicted - truth) <= stated)),
        "within_two_stated": float(np.mean(np.abs(predicted - truth) <= 2 * stated)),
        "errors": {
            "levelled": compared(predicted, truth),
            "by_reference": compared(by_reference, truth),
            "at_table": compared(at_table, truth),
            "raw_sum": compared(raw_sum(device, networks), truth),
            "madds": compared(by_madds(device, networks), truth),
        },
    }


def raw_sum(device: TableDevice, networks: Sequence[Architecture]) -> Numbers:
    """The medians of the units alone, added up, at this session's speed."""
    sums = [sum(device.table.timing(unit_key(u)).median_ms for u in units(a)) for a in networks]
    return np.array(sums) * device.session_scale.factor


def by_madds(device: TableDevice, networks: Sequence[Architecture]) -> Numbers:
    """MAdds alone, at the median rate of the table's calibration networks in this session."""
    keys = device.table.networks
    rates = [device.table.timing(key).median_ms / count(network_of_key(key)).madds for key in keys]
    return np.array([count(a).madds for a in networks]) * float(np.median(rates)) * device.session_scale.factor


def unseen(space: str, networks: int, seed: int, device: TableDevice) -> list[Architecture]:
    """Random networks of a space that the table was not calibrated on."""
    known = {network_of_key(key) for key in device.table.networks}
    sampled = load_space(space).sample(networks + len(known), seed)
    return [a for a in sampled if a not in known][:networks]


def tables(args: argparse.Namespace) -> None:
    """The first step."""
    args.cache.mkdir(parents=True, exist_ok=True)
    kept = args.cache / "tables.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for runtime in args.runtime:
        for space in args.space:
            found[f"{runtime}, {space}"] = filled(runtime, space, args.cache)
            print(runtime, space, json.dumps(found[f"{runtime}, {space}"]), flush=True)
            kept.write_text(json.dumps(found), encoding="utf-8")


def networks(args: argparse.Namespace) -> None:
    """The second step."""
    made = json.loads((args.cache / "tables.json").read_text(encoding="utf-8"))
    numbers: dict[str, dict[str, object]] = {}
    for runtime in args.runtime:
        for space in (*args.space, "other families"):
            device = TableDevice(runtime, cache_dir=args.cache)
            device.whole_plan = replace(device.whole_plan, rounds=WHOLE_ROUNDS, tolerance=None)
            if space in args.space:
                case = f"{runtime}, {space}"
                numbers[case] = dict(made[case])
                numbers[case]["minutes_apart"] = (time.time() - made[case]["finished"]) / 60
                prepare_for_space(load_space(space), device)
                some = unseen(space, args.networks, args.seed, device)
                numbers[case] |= against_truth(device, some)
            else:
                case = f"{runtime}, other families"
                others = [parse_network(name) for name in FAMILIES]
                for network in others:  # one by one, so that no networks assembled of them calibrate the table
                    device.prepare(units(network))
                numbers[case] = against_truth(device, others)
                numbers[case]["names"] = list(FAMILIES)
            text = report(numbers)
            write_results("latency", numbers, text, [args.seed])
            print(text.splitlines()[-1] if space == "other families" else case, flush=True)
    print(text)


def main() -> None:
    """One of the two steps."""
    args = arguments()
    (tables if args.step == "tables" else networks)(args)


if __name__ == "__main__":
    main()
