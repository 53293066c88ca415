"""What dividing out the machine's drift is worth: odd rounds against even ones, uncorrected and corrected two ways.

Random networks are timed whole in turn. Medians of odd and of even rounds should agree; what is left is noise that no
prediction can beat. Corrected by the reference network's smoothed readings, and by everything in a slot, as the program
does.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks._latency_errors import Numbers, compared
from benchmarks._results import write_results
from mnv3search.families import published
from mnv3search.latency.measured.measuring import MeasuringPlan, drift_of, rounds, slot_of
from mnv3search.latency.runtimes.registry import load_runtime
from mnv3search.space import load_space

WINDOW = 5  # readings of the reference whose median is its drift at the middle one
CASES = [(runtime, space) for runtime in ("onnxruntime", "openvino", "torch") for space in ("mnv3_large", "mnv3_small")]
WAYS = {"none": "uncorrected", "reference": "by the reference", "slot": "by everything in the slot"}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5)
    return parser.parse_args()


def smoothed(readings: Numbers) -> Numbers:
    """A running median over the reference's readings, shape (rounds, slots), in the order in which they were taken."""
    flat, half = readings.reshape(-1), WINDOW // 2
    found = [np.median(flat[max(0, i - half) : i + half + 1]) for i in range(flat.size)]
    return np.array(found).reshape(readings.shape)


def halves(runtime_name: str, space: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """How far odd and even rounds are apart, by each correction."""
    runtime = load_runtime(runtime_name)
    plan = MeasuringPlan(rounds=args.rounds, slot_size=12)
    sessions = [runtime.prepare(a) for a in load_space(space).sample(args.networks, args.seed)]
    kept = list(rounds(sessions, runtime.prepare(published("mobilenet_v3_large")), plan))
    ms, readings = np.stack([one.ms for one in kept]), np.stack([one.reference_ms for one in kept])
    slots = slot_of(ms.shape[1], plan.slot_size)
    corrected = {
        "none": ms,
        "reference": ms / smoothed(readings)[:, slots],
        "slot": ms / drift_of(ms, slots, readings).factors[:, slots],
    }
    return {
        way: compared(np.median(times[::2], axis=0), np.median(times[1::2], axis=0)) for way, times in corrected.items()
    }


def main() -> None:
    """Measure every case, print and keep what was found."""
    args = arguments()
    numbers = {}
    lines = [f"# Odd against even rounds, {args.networks} networks, {args.rounds} rounds", ""]
    lines += [f"| networks timed whole | {' | '.join(WAYS.values())} |", "|---" * (1 + len(WAYS)) + "|"]
    for runtime, space in CASES:
        found = halves(runtime, space, args)
        numbers[f"{runtime}, {space}"] = found
        cells = [f"{found[way]['mean_error_percent']:.2f} %, {found[way]['spearman']:.3f}" for way in WAYS]
        lines.append(f"| {runtime}, {space} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += ["", "Mean difference of the medians, and Spearman's rank correlation between them."]
    write_results("drift", numbers, "\n".join(lines), [args.seed])


if __name__ == "__main__":
    main()
