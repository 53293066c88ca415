"""Small networks: what a table says of them, what they take whole, and what other processes say of both.

    python -m benchmarks.small_networks

Fills a table of each space, then starts processes one after another, each of which prices the same unseen networks of
all sizes and times them whole: all together, and the smallest alone. About 15 minutes; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.latency.measured.calibration import networks_of_all_sizes, prepare_for_space
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.space import SearchSpace, load_space

SPACES = ("mnv3_small_32", str(Path(__file__).with_name("tiny_space.yaml")))
SEED = 77
Session = Mapping[str, Any]
Numbers = NDArray[np.float64]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/small-networks-benchmark"), help="folder of the tables"
    )
    parser.add_argument("--space", nargs="+", default=list(SPACES))
    parser.add_argument("--networks", type=int, default=24, help="unseen networks of each space")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--session", action="store_true", help=argparse.SUPPRESS)  # one process's part
    return parser.parse_args()


def unseen(space: SearchSpace, networks: int) -> list[Architecture]:
    """Networks of all sizes, the smallest first."""
    return sorted(networks_of_all_sizes(space, networks, SEED), key=lambda a: count(a).madds)


def session(name: str, args: argparse.Namespace) -> Session:
    """What this process says of the unseen networks of a space."""
    space, device = load_space(name), TableDevice(cache_dir=args.cache)
    prepare_for_space(space, device)
    networks = unseen(space, args.networks)
    measured, alone = device.measure(networks), device.measure(networks[:1])[0]
    return {
        "predicted_ms": device.latency_ms(networks).tolist(),
        "predicted_error_ms": device.latency_error_ms(networks).tolist(),
        "whole_ms": [one.latency_ms for one in measured],
        "whole_error_ms": [one.error_ms for one in measured],
        "smallest_alone_ms": alone.latency_ms,
        "smallest_alone_error_ms": alone.error_ms,
        "waited": measured[0].waited,
        "drift_error": device.drift_error,
        "fixed_ms": device.fixed_ms,
    }


def column(sessions: Sequence[Session], name: str) -> Numbers:
    """A figure of all processes: (processes, networks)."""
    return np.array([one[name] for one in sessions], dtype=np.float64)


def judged(sessions: Sequence[Session], networks: slice) -> dict[str, float]:
    """How tables and whole measurements stand to one another, and to other processes' whole measurements."""
    predicted, whole = (column(sessions, f"{name}_ms")[:, networks] for name in ("predicted", "whole"))
    stated, own = (column(sessions, f"{name}_error_ms")[:, networks] for name in ("predicted", "whole"))
    across = whole.std(axis=0, ddof=1) / whole.mean(axis=0) if len(sessions) > 1 else np.zeros(whole.shape[1])
    off = np.abs(predicted - whole) / np.hypot(stated, own)
    return {
        "whole_ms": float(np.median(whole)),
        "table_mean_error_percent": 100 * float(np.abs(predicted / whole - 1).mean()),
        "table_bias_percent": 100 * float((predicted / whole - 1).mean()),
        "table_stated_percent": 100 * float((stated / predicted).mean()),
        "table_within_one": float((off <= 1).mean()),
        "table_within_two": float((off <= 2).mean()),
        "whole_stated_percent": 100 * float((own / whole).mean()),
        "whole_spread_between_processes_percent": 100 * float(across.mean()),
    }


def figures(name: str, sessions: Sequence[Session], args: argparse.Namespace) -> dict[str, object]:
    """Every figure of a space."""
    quarter = max(1, args.networks // 4)
    alone, among = column(sessions, "smallest_alone_ms"), column(sessions, "whole_ms")[:, 0]
    return {
        "madds": [count(a).madds for a in unseen(load_space(name), args.networks)],
        "smallest_quarter": judged(sessions, slice(quarter)),
        "largest_half": judged(sessions, slice(args.networks // 2, None)),
        "smallest_alone_over_among_others": float(np.median(alone / among)),
        "waited": float(np.median(column(sessions, "waited"))),
        "processes": list(sessions),
    }


HEADS = (
    "case", "ms", "table: mean error", "bias", "stated", "within 1 σ", "within 2 σ", "whole: stated",
    "whole: spread of processes",
)  # fmt: skip


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Small networks: tables, whole measurements, and other processes",
        "",
        "Unseen networks of all sizes, one thread, batch 1. *Within*: of the joint stated deviation of table and",
        "whole. *Spread*: standard deviation of the same network's whole measurements in several processes; the stated",
        "one should be about as large.",
        "",
        f"| {' | '.join(HEADS)} |",
        "|---" * len(HEADS) + "|",
    ]
    for name, figure in found.items():
        for part in ("smallest_quarter", "largest_half"):
            one = figure[part]
            lines.append(
                f"| {name}, {part.replace('_', ' ')} | {one['whole_ms']:.3f} | {one['table_mean_error_percent']:.1f} % "
                f"| {one['table_bias_percent']:+.1f} % | ±{one['table_stated_percent']:.1f} % "
                f"| {one['table_within_one']:.0%} | {one['table_within_two']:.0%} "
                f"| ±{one['whole_stated_percent']:.1f} % | {one['whole_spread_between_processes_percent']:.1f} % |"
            )
    lines.append("")
    for name, figure in found.items():
        lines.append(
            f"{name}: the smallest network timed alone takes {figure['smallest_alone_over_among_others']:.3f} of what "
            f"it takes among others; calls waited {figure['waited']:.0%} of the time for a core."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fill the tables, start the processes, write what they say."""
    args = arguments()
    if args.session:
        print(json.dumps({name: session(name, args) for name in args.space}))
        return
    for name in args.space:
        prepare_for_space(load_space(name), TableDevice(cache_dir=args.cache))
        print(f"{name}: table filled", flush=True)
    command = [sys.executable, "-m", "benchmarks.small_networks", "--session", "--cache", str(args.cache)]
    command += ["--networks", str(args.networks), "--space", *args.space]
    sessions = []
    for number in range(args.processes):
        sessions.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"process {number + 1} of {args.processes}", flush=True)
    found = {Path(name).stem: figures(name, [one[name] for one in sessions], args) for name in args.space}
    text = page(found)
    write_results("small-networks", found, text, [SEED])
    print(text)


if __name__ == "__main__":
    main()
