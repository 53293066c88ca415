"""Time the networks behind MobileNetV3's claims about latency on this machine, and set the ratios beside the paper's.

    python -m benchmarks.v3_claims

Takes a minute or two a runtime. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import ROOT, write_results
from benchmarks._v3_latency_claims import Claim, architecture_of, claims, networks_of
from benchmarks._v3_latency_page import disagreements, judged, page, verdict
from mnv3search.cost import count
from mnv3search.latency.measured.measuring import INTERVAL_95, MeasuringPlan
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.measured.whole_networks import Ratio, paired_ratio

Times = NDArray[np.float64]

RUNTIMES = ("onnxruntime", "openvino", "torch")
SEED = 0  # of the order within the rounds
MIN_ROUNDS, MAX_ROUNDS = 20, 1000


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds in each runtime")
    return parser.parse_args()


def timed(runtime: str, names: Sequence[str], seconds: float) -> tuple[dict[str, Times], dict[str, object]]:
    """All networks in turn in one session of a runtime: each one's times by round, and the session itself."""
    with tempfile.TemporaryDirectory() as folder:
        device = TableDevice(runtime, cache_dir=Path(folder))
        device.whole_plan = MeasuringPlan(rounds=MIN_ROUNDS, min_seconds=seconds, max_rounds=MAX_ROUNDS, seed=SEED)
        found = device.measure([architecture_of(name) for name in (*names, *names)])
    pairs = [
        (one.times_ms, other.times_ms) for one, other in zip(found[: len(names)], found[len(names) :], strict=True)
    ]
    times = {name: np.sqrt(one * other) for name, (one, other) in zip(names, pairs, strict=True)}
    session: dict[str, object] = {
        "version": device.runtime.version,
        "threads": device.runtime.threads,
        "rounds": found[0].rounds,
        "preparation_std": preparation_std([(float(np.median(a)), float(np.median(b))) for a, b in pairs]),
        "output_difference": device.table.output_difference,
        "latency_ms": {name: round(float(np.median(ms)), 4) for name, ms in times.items()},
    }
    return times, session


def preparation_std(pairs: Sequence[tuple[float, float]]) -> float:
    """One standard deviation, as a share, of a network's latency from one preparation to another.

    Args:
        pairs: the medians of each network's two preparations.
    """
    return float(np.sqrt(np.mean([math.log(one / other) ** 2 / 2 for one, other in pairs])))


def widened(ratio: Ratio, std: float) -> Ratio:
    """The ratio with an interval that also holds an error of ``std``, a share of it."""
    middle, more = math.log(ratio.value), INTERVAL_95 * std
    below = math.hypot(middle - math.log(ratio.low), more) if ratio.low > 0 else math.inf
    above = math.hypot(math.log(ratio.high) - middle, more)
    return Ratio(ratio.value, math.exp(middle - below), math.exp(middle + above))


def compared(claim: Claim, measured: Mapping[str, dict[str, Times]], stds: Mapping[str, float]) -> dict[str, object]:
    """A claim with its published ratios and those of every runtime.

    ``stds`` are the runtimes' :func:`preparation_std`: of a ratio of two networks, each the mean of two preparations,
    as much as of one preparation of one.
    """
    here = {}
    for runtime, times in measured.items():
        ratio = widened(paired_ratio(times[claim.network], times[claim.base]), stds[runtime])
        here[runtime] = {
            "ratio": ratio.value,
            "low": ratio.low,
            "high": ratio.high,
            "verdict": verdict(ratio, judged(claim)),
        }
    return {
        "group": claim.group,
        "claim": claim.text,
        "network": claim.network,
        "base": claim.base,
        "madds": count(architecture_of(claim.network)).madds,
        "base_madds": count(architecture_of(claim.base)).madds,
        "paper_says": claim.said,
        "paper": [{"device": one.device, "version": one.version, "ratio": one.value} for one in claim.paper],
        "here": here,
    }


def main() -> None:
    """Measure, compare, write."""
    args = arguments()
    some = claims()
    names = networks_of(some)
    measured, sessions = {}, {}
    for runtime in args.runtime:
        measured[runtime], sessions[runtime] = timed(runtime, names, args.seconds)
        print(runtime, f"{sessions[runtime]['rounds']} rounds", flush=True)
    stds = {runtime: float(str(one["preparation_std"])) for runtime, one in sessions.items()}
    numbers = {
        "networks": len(names),
        "madds": {name: count(architecture_of(name)).madds for name in names},
        "runtimes": sessions,
        "claims": [compared(claim, measured, stds) for claim in some],
    }
    print("\n".join(disagreements(some, numbers)))
    folder = write_results("v3-claims", numbers, page(some, numbers), [SEED])
    print(f"written to {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
