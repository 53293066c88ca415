"""Time the networks behind MobileNetV3's claims about latency on this machine, and set the ratios beside the paper's.

    python -m benchmarks.v3_claims

Takes about a minute a runtime. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._results import ROOT, write_results
from benchmarks._v3_latency_claims import Claim, architecture_of, claims, networks_of
from benchmarks._v3_latency_page import disagreements, judged, page, verdict
from mnv3search.cost.counts import count
from mnv3search.latency.measure import MeasuringPlan
from mnv3search.latency.ratios import paired_ratio
from mnv3search.latency.table_device import MeasuredLatency, TableDevice

RUNTIMES = ("onnxruntime", "openvino", "torch")
SEED = 0  # of the order within the rounds
MIN_ROUNDS, MAX_ROUNDS = 20, 1000


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds in each runtime")
    return parser.parse_args()


def timed(runtime: str, names: Sequence[str], seconds: float) -> tuple[dict[str, MeasuredLatency], dict[str, object]]:
    """All networks in turn in one session of a runtime: each one's times, and the session itself."""
    with tempfile.TemporaryDirectory() as folder:
        device = TableDevice(runtime, cache_dir=Path(folder))
        device.whole_plan = MeasuringPlan(rounds=MIN_ROUNDS, min_seconds=seconds, max_rounds=MAX_ROUNDS, seed=SEED)
        start = time.monotonic()
        found = device.measure([architecture_of(name) for name in names])
    measured = dict(zip(names, found, strict=True))
    session: dict[str, object] = {
        "version": device.runtime.version,
        "threads": device.runtime.threads,
        "rounds": found[0].rounds,
        "seconds": time.monotonic() - start,
        "output_difference": device.table.output_difference,
        "latency_ms": {name: round(one.latency_ms, 4) for name, one in measured.items()},
        "error_ms": {name: round(one.error_ms, 4) for name, one in measured.items()},
    }
    return measured, session


def compared(claim: Claim, measured: dict[str, dict[str, MeasuredLatency]]) -> dict[str, object]:
    """A claim with its published ratios and those of every runtime."""
    here = {}
    for runtime, found in measured.items():
        ratio = paired_ratio(found[claim.network].times_ms, found[claim.base].times_ms)
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
    numbers = {
        "networks": len(names),
        "madds": {name: count(architecture_of(name)).madds for name in names},
        "runtimes": sessions,
        "claims": [compared(claim, measured) for claim in some],
    }
    print("\n".join(disagreements(some, numbers)))
    folder = write_results("v3-claims", numbers, page(some, numbers), [SEED])
    print(f"written to {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
