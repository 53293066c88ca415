"""The main job as a user runs it, over several seeds: what it finds, how long it takes, how far seeds differ.

    python -m benchmarks.main_job                    # mnv3_large for 50 ms on a Pixel 1, seeds 0, 1 and 2
    python -m benchmarks.main_job --confidence 0.5   # aimed at the prediction itself, and not at 0.9 as well
    python -m benchmarks.main_job --seeds 0 1 2 3 4

Once with the confidence that a run has by default and once aimed at the prediction itself (0.5). Keeps the first run's
pictures and tables beside the figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._results import write_results

KEPT = ("best.json", "manifest.json", "pareto.csv", "netadapt.csv", "pareto.png", "pareto.svg", "report.html")


def run(space: str, target: str, seed: int, confidence: float, out: Path) -> dict[str, Any]:
    """One run in a process of its own, timed from outside."""
    question = ["--space", space, "--target-latency", target, "--seed", str(seed)]
    question += ["--confidence", str(confidence)]
    command = [sys.executable, "-m", "mnv3search", "run", *question, "--out", out.name, "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=out.parent)
    found: dict[str, Any] = json.loads(done.stdout)
    best, reference = found["best"], found["reference"]
    return {
        "seed": seed,
        "confidence": confidence,
        "wall_seconds": round(time.perf_counter() - began, 1),
        "evaluated": found["evaluated"],
        "origin": best["origin"],
        "top1": best["top1"],
        "top1_std": best["top1_std"],
        "reference_top1": reference["top1"],
        "latency_ms": best["latency_ms"],
        "latency_error_ms": best["latency_error_ms"],
        "reference_latency_ms": reference["latency_ms"],
        "madds": best["madds"],
        "parameters": best["parameters"],
        "notes": found["notes"],
    }


def page(space: str, target: str, rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        f"# `mnv3search run --space {space} --target-latency {target}`, seed by seed",
        "",
        "Top-1 is predicted, latency estimated; ± is one standard deviation. Seconds are those of the whole process.",
        "At a confidence of c a network is within the target where its latency and z(c) deviations are: 1.28 for 0.9,",
        "0 for 0.5.",
        "",
        "| confidence | seed | top-1 % | reference % | ms | by | MAdds M | parameters M | evaluated | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['confidence']:g} | {r['seed']} | {r['top1']:.2f} ±{r['top1_std']:.2f} | {r['reference_top1']:.2f} "
        f"| {r['latency_ms']:.2f} ±{r['latency_error_ms']:.2f} | {r['origin']} | {r['madds'] / 1e6:.1f} "
        f"| {r['parameters'] / 1e6:.2f} | {r['evaluated']:,} | {r['wall_seconds']:.0f} |"
        for r in rows
    ]
    lines += [
        "",
        "The files of the first row stand here: `report.html`, `pareto.png`, `best.json` and the tables.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="mnv3_large")
    parser.add_argument("--target-latency", default="50ms")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--confidence", type=float, nargs="+", default=[0.9, 0.5])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = [(confidence, seed) for confidence in arguments.confidence for seed in arguments.seeds]
        runs = [Path(folder) / f"confidence-{confidence}-seed-{seed}" for confidence, seed in asked]
        rows = [
            run(arguments.space, arguments.target_latency, seed, confidence, out)
            for (confidence, seed), out in zip(asked, runs, strict=True)
        ]
        text = page(arguments.space, arguments.target_latency, rows)
        print(text)
        kept = write_results("main-job", {"runs": rows}, text, arguments.seeds)
        (kept / "run").mkdir(exist_ok=True)
        for name in KEPT:
            shutil.copyfile(runs[0] / name, kept / "run" / name)


if __name__ == "__main__":
    main()
