"""Our counts against fvcore's: equal to the integer, and how much faster.

    OMP_NUM_THREADS=1 python benchmarks/counts.py                   200 random architectures a space; writes results/
    OMP_NUM_THREADS=1 python benchmarks/counts.py --per-space 20    a quicker look

For every published network and random architectures of every space the multiply-adds of convolutions and linear layers
are compared. fvcore is timed on a network that is built already; ours on an architecture that was never seen (its cache
emptied) and on one whose units are known, one after the other for each architecture. Then 100,000 rows of each space,
and 1,000 of its architectures one by one, the cache empty before the first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.cost import count, unit_cost
from mnv3search.families import NETWORKS, parse_network
from mnv3search.network.build import blank_network, traced_madds
from mnv3search.space import load_space, space_names

SCALED = (
    "mobilenet_v3_large@0.75",
    "mobilenet_v3_large@0.75:torchvision",
    "mobilenet_v3_small@0.75",
    "mobilenet_v2@1.4/160",
)
REPEATS = 5
ROWS, STREAM = 100_000, 1_000
GOAL_US, GOAL_SECONDS = 100.0, 1.0
T = TypeVar("T")


class Comparison(NamedTuple):
    """One architecture: whether both counts are equal, and the times that they took in microseconds."""

    name: str
    ours: int
    theirs: int
    cold_us: float
    warm_us: float
    fvcore_us: float


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` gives, and its microseconds."""
    start = time.perf_counter()
    found = work()
    return found, (time.perf_counter() - start) * 1e6


def compared(name: str, architecture: Architecture) -> Comparison:
    """Both counters on one architecture; ours repeated around fvcore's single, long run."""
    network = blank_network(architecture)
    cold, warm = [], []
    theirs, fvcore_us = 0, 0.0
    for repeat in range(2 * REPEATS):
        if repeat == REPEATS:
            theirs, fvcore_us = _timed(lambda: traced_madds(network))
        unit_cost.cache_clear()
        cold.append(_timed(lambda: count(architecture))[1])
        warm.append(_timed(lambda: count(architecture))[1])
    ours = count(architecture).madds
    return Comparison(name, ours, theirs, statistics.median(cold), statistics.median(warm), fvcore_us)


def summary(comparisons: Sequence[Comparison]) -> dict[str, object]:
    """Medians over the architectures of one group, and those that differ."""
    cold = statistics.median(c.cold_us for c in comparisons)
    warm = statistics.median(c.warm_us for c in comparisons)
    fvcore = statistics.median(c.fvcore_us for c in comparisons)
    return {
        "architectures": len(comparisons),
        "equal": sum(c.ours == c.theirs for c in comparisons),
        "different": [{"name": c.name, "ours": c.ours, "fvcore": c.theirs} for c in comparisons if c.ours != c.theirs],
        "cold_us": round(cold, 1),
        "warm_us": round(warm, 1),
        "fvcore_us": round(fvcore),
        "times_faster_cold": round(statistics.median(c.fvcore_us / c.cold_us for c in comparisons)),
        "times_faster_warm": round(statistics.median(c.fvcore_us / c.warm_us for c in comparisons)),
    }


def batch(name: str, rows: int, seed: int) -> dict[str, object]:
    """Seconds for ``rows`` rows of a space, first with every choice still to be priced, then again."""
    drawn = load_space(name).sample_indices(rows, np.random.default_rng(seed))
    first, again = [], []
    for _ in range(REPEATS):
        space = load_space(name)
        unit_cost.cache_clear()
        counts, microseconds = _timed(lambda space=space: space.count_batch(drawn))  # type: ignore[misc]
        first.append(microseconds / 1e6)
        again.append(_timed(lambda space=space: space.count_batch(drawn))[1] / 1e6)  # type: ignore[misc]
    checked = list(range(0, rows, max(1, rows // STREAM)))
    stream = space.architectures(drawn[checked])
    unit_cost.cache_clear()
    one_by_one, each = zip(*[_timed(lambda a=a: count(a)) for a in stream], strict=True)  # type: ignore[misc]
    return {
        "rows": rows,
        "first_seconds": round(statistics.median(first), 3),
        "again_seconds": round(statistics.median(again), 3),
        "one_by_one_us": round(statistics.median(each), 1),
        "checked": len(checked),
        "equal": int(np.sum(counts.madds[checked] == [c.madds for c in one_by_one])),
    }


def published_networks() -> Iterable[tuple[str, Architecture]]:
    """Every network by name, and some at other widths and resolutions."""
    return ((name, parse_network(name)) for name in (*NETWORKS, *SCALED))


def sampled(space: str, n: int, seed: int) -> Iterable[tuple[str, Architecture]]:
    """Random architectures of a space, named by what they are."""
    return ((str(architecture), architecture) for architecture in load_space(space).sample(n, seed))


def table(groups: Mapping[str, Mapping[str, object]], batches: Mapping[str, Mapping[str, object]]) -> str:
    """Both tables in Markdown."""
    lines = [
        "| architectures | equal | ours, new (µs) | ours, known (µs) | fvcore (ms) | times faster, new / known |",
        "|---|---|---|---|---|---|",
    ]
    for name, g in groups.items():
        milliseconds = float(str(g["fvcore_us"])) / 1e3
        lines.append(
            f"| {name} | {g['equal']} of {g['architectures']} | {g['cold_us']} | {g['warm_us']} | {milliseconds:.0f} "
            f"| {g['times_faster_cold']} / {g['times_faster_warm']} |"
        )
    lines += ["", "| space | rows | first (s) | again (s) | one by one (µs each) | equal to `count` |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, b in batches.items():
        lines.append(
            f"| {name} | {b['rows']:,} | {b['first_seconds']} | {b['again_seconds']} | {b['one_by_one_us']} "
            f"| {b['equal']} of {b['checked']} |"
        )
    return "\n".join(lines)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-space", type=int, default=200, help="random architectures of each space (200)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


def main() -> None:
    """Compare, print, write."""
    args = _parsed()
    groups: dict[str, dict[str, object]] = {}
    sources = {"published networks": published_networks()}
    sources |= {name: sampled(name, args.per_space, args.seed) for name in space_names()}
    for name, architectures in sources.items():
        groups[name] = summary([compared(label, architecture) for label, architecture in architectures])
        print(name, groups[name], flush=True)
    batches = {name: batch(name, ROWS, args.seed) for name in space_names()}
    page = table(groups, batches)
    print(page)
    if args.no_results:
        return
    readme = (
        "# Counts against fvcore\n\n"
        "Multiply-adds of convolutions and linear layers at batch 1, compared to the integer; times are medians over "
        f"the architectures. Goals: one architecture in {GOAL_US:.0f} µs, {ROWS:,} of a space in {GOAL_SECONDS:.0f} s. "
        "New: none of its units was ever counted; known: all were. First: a space just loaded, every choice still to "
        f"be priced. One by one: {STREAM:,} random architectures of the space, nothing counted before the "
        "first; the median.\n\n"
        f"{page}\n"
    )
    folder = write_results("counts", {"fvcore": groups, "batches": batches}, readme, [args.seed])
    print(f"written to {folder.name}")


if __name__ == "__main__":
    main()
