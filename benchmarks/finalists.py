"""Whether networks that a search chose by the table meet their targets when they are timed whole.

Twenty searches at twenty targets, each by the table alone at the default confidence and at none (0.5), and, with
``--verified``, as a run does it: contenders timed whole before a winner is named, and repaired. All winners are then
timed whole in one interleaved session.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.latency.measured.calibration import prepare_for_space
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Unit
from mnv3search.runs.session import start_run
from mnv3search.runs.settings import RunSettings
from mnv3search.space import load_space

WAYS = {"0.9": (0.9, False), "0.5": (0.5, False), "0.9, verified": (0.9, True)}
SEARCHES = {"mnv3_large": 12, "mnv3_small": 8}
SHARES = (0.1, 0.75)  # of the way from the space's fastest network to its slowest


class TableAlone:
    """A table device that cannot be timed: a search by it verifies nothing."""

    kind: LatencyKind = "table"

    def __init__(self, device: TableDevice) -> None:
        self._device = device
        self.name = device.name
        self.fixed_ms = device.fixed_ms

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        """The table's prices."""
        return self._device.unit_latency_ms(parts)

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """The table's sums."""
        return self._device.latency_ms(architectures)

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Their stated deviations."""
        return self._device.latency_error_ms(architectures)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--verified", action="store_true", help="also let searches time their contenders; minutes more")
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--cache", type=Path, default=Path("runs/latency-benchmark"), help="folder of the tables")
    return parser.parse_args()


def ways(args: argparse.Namespace) -> list[str]:
    """How winners are chosen in this run of the benchmark."""
    return [way for way, (_, verified) in WAYS.items() if args.verified or not verified]


def searched(space_name: str, count: int, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Searches of a space at targets from near its fastest network to near its slowest; winners timed whole."""
    space = load_space(space_name)
    device = TableDevice(args.runtime, cache_dir=args.cache)
    prepare_for_space(space, device)
    spread = device.latency_ms(space.sample(200, 3))
    low, high = np.quantile(spread, [0.02, 0.9])
    rows: list[dict[str, Any]] = []
    for index, share in enumerate(np.linspace(*SHARES, count)):
        target = float(low + share * (high - low))
        for way in ways(args):
            confidence, verified = WAYS[way]
            settings = RunSettings(
                "search", space_name, f"{target:.4f}ms", "host", "prior", trials=args.trials, seed=index,
                confidence=confidence,
            )  # fmt: skip
            chosen = device if verified else TableAlone(device)
            found = start_run(settings, folder / f"{space_name}-{index}-{way}", device=chosen)
            best = found.summary.best
            rows.append(
                {"space": space_name, "target_ms": target, "way": way, "predicted_ms": best.latency_ms,
                 "stated_ms": best.latency_error_ms, "top1": best.top1, "architecture": best.architecture}
            )  # fmt: skip
        print(f"{space_name} {index + 1} of {count}", flush=True)
    for row, one in zip(rows, device.measure([row["architecture"] for row in rows]), strict=True):
        row |= {"measured_ms": one.latency_ms, "measured_error_ms": one.error_ms}
        del row["architecture"]
    return rows


def summary(rows: Sequence[dict[str, Any]], way: str) -> dict[str, float]:
    """How many met their target, and by how much the worst missed."""
    chosen = [row for row in rows if row["way"] == way]
    gap = np.array([100 * (row["measured_ms"] / row["target_ms"] - 1) for row in chosen])
    return {
        "searches": len(chosen),
        "met": float(np.mean(gap <= 0)),
        "worst_miss_percent": float(max(gap.max(), 0)),
        "median_room_percent": float(-np.median(gap)),
        "mean_top1": float(np.mean([row["top1"] for row in chosen])),
    }


def report(rows: Sequence[dict[str, Any]], found: dict[str, dict[str, float]], runtime: str) -> str:
    """The result as Markdown."""
    lines = [
        "# Searches by the table, their winners timed whole", "",
        f"{runtime}, one thread; {', '.join(f'{n} targets in {s}' for s, n in SEARCHES.items())}. The winner of each "
        "search is chosen by the table and its stated error alone, or, verified, as a run does it: its contenders "
        "timed whole first.", "",
        "| confidence | met | worst miss | median room | mean predicted top-1 |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {way} | {100 * one['met']:.0f} % of {one['searches']:.0f} | {one['worst_miss_percent']:.1f} % "
        f"| {one['median_room_percent']:.1f} % | {one['mean_top1']:.2f} |"
        for way, one in found.items()
    ]
    lines += ["", "| space | target, ms | confidence | predicted, ms | timed whole, ms | against the target |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        gap = 100 * (row["measured_ms"] / row["target_ms"] - 1)
        predicted = f"{row['predicted_ms']:.3f} ±{row['stated_ms']:.3f}"
        measured = f"{row['measured_ms']:.3f} ±{row['measured_error_ms']:.3f}"
        asked = f"{row['space']} | {row['target_ms']:.3f} | {row['way']}"
        lines.append(f"| {asked} | {predicted} | {measured} | {gap:+.1f} % |")
    return "\n".join(lines)


def main() -> None:
    """Search, time, keep."""
    args = arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for space, count in SEARCHES.items():
            rows += searched(space, count, args, Path(folder))
    found = {way: summary(rows, way) for way in ways(args)}
    text = report(rows, found, args.runtime)
    write_results("finalists", {"summary": found, "rows": rows}, text, list(range(max(SEARCHES.values()))))
    print(text)


if __name__ == "__main__":
    main()
