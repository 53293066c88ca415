"""Whether units between measured widths need to be measured: how times depend on widths, and what a run would save.

Each step is short; run them on a quiet machine, the last one after the others:

    python -m benchmarks.interpolation widths --runtime onnxruntime     times families of units over their widths
    python -m benchmarks.interpolation run --runtime onnxruntime        NetAdapt, every unit measured
    python -m benchmarks.interpolation run --runtime onnxruntime --interpolated
    python -m benchmarks.interpolation finals --runtime onnxruntime     the two final networks, all measured and whole
    python -m benchmarks.interpolation report                           writes the results
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import write_results
from mnv3search.accuracy.registry import load_evaluator
from mnv3search.architecture import Architecture, BlockSpec, SqueezeExciteSpec
from mnv3search.cost.units import Unit, units
from mnv3search.families import published
from mnv3search.latency.keys import network_key, network_of_key
from mnv3search.latency.measured.interpolation import UNIT_ERROR, Axis, Families, at_width, grid_neighbours, width_of
from mnv3search.latency.measured.measure import MeasuringPlan, levelled, rounds
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.runtimes import Session, Subject, load_runtime
from mnv3search.layer_search import Step, netadapt
from mnv3search.space import load_space

RUNTIMES = ("onnxruntime", "openvino", "torch")
SPACE, POOL, SEED = "mnv3_large", 300, 3
GRIDS, COMB = (16, 32, 64), 16
_SE = SqueezeExciteSpec
FAMILIES: dict[str, tuple[Unit, Axis, range]] = {
    "24 channels, 56×56, 3×3, expanded": (Unit(BlockSpec(3, 72, 24), 24, 56), "expanded", range(32, 200, 8)),
    "40 channels, 28×28, 5×5, SE, expanded": (
        Unit(BlockSpec(5, 120, 40, squeeze_excite=_SE(32)), 40, 28), "expanded", range(48, 264, 8),
    ),
    "80 channels, 14×14, 3×3, h-swish, expanded": (
        Unit(BlockSpec(3, 200, 80, activation="hard_swish"), 80, 14), "expanded", range(88, 264, 8),
    ),
    "160 channels, 7×7, 5×5, h-swish, SE, expanded": (
        Unit(BlockSpec(5, 960, 160, activation="hard_swish", squeeze_excite=_SE(240)), 160, 7),
        "expanded", range(512, 664, 8),
    ),
    "expanded 240, 14×14, 3×3, bottleneck": (
        Unit(BlockSpec(3, 240, 80, activation="hard_swish"), 80, 14), "bottleneck", range(16, 136, 8),
    ),
    "80 into 112 channels, 14×14, 3×3, out": (
        Unit(BlockSpec(3, 480, 112, activation="hard_swish"), 80, 14), "out", range(88, 168, 8),
    ),
    "112 from 80 channels, 14×14, 3×3, in": (
        Unit(BlockSpec(3, 480, 112, activation="hard_swish"), 80, 14), "in", range(16, 112, 8),
    ),
}  # fmt: skip
Times = dict[int, float]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["widths", "run", "finals", "report"])
    parser.add_argument("--cache", type=Path, default=Path("runs/interpolation-benchmark"), help="tables and answers")
    parser.add_argument("--runtime", default="onnxruntime", choices=RUNTIMES)
    parser.add_argument("--interpolated", action="store_true")
    parser.add_argument("--target", type=float, default=0.8, help="of the seed's latency")
    return parser.parse_args()


class Counted:
    """A runtime that counts what it prepares."""

    def __init__(self, name: str, reference: Architecture) -> None:
        self._runtime, self._reference = load_runtime(name, 1), reference
        self.name, self.version, self.threads = self._runtime.name, self._runtime.version, self._runtime.threads
        self.precision = self._runtime.precision
        self.parts = self.sittings = 0

    def prepare(self, subject: Subject) -> Session:
        """A session, counted."""
        self.parts += isinstance(subject, Unit)
        self.sittings += subject == self._reference  # once at the beginning of each
        return self._runtime.prepare(subject)


def keep(cache: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write one step's answer."""
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def kept(cache: Path, name: str) -> Any:
    """One step's answer; None where the step was not made."""
    path = cache / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def time_widths(runtime_name: str) -> dict[str, Any]:
    """Milliseconds of every family at every width, interleaved, and how far odd rounds are from even ones."""
    runtime = load_runtime(runtime_name, 1)
    asked = [
        (name, width, unit)
        for name, (base, axis, widths) in FAMILIES.items()
        for width in widths
        if (unit := at_width(base, axis, width)) is not None
    ]
    start = time.perf_counter()
    sessions = [runtime.prepare(unit) for _, _, unit in asked]
    preparing = time.perf_counter() - start
    plan = MeasuringPlan()
    reference = runtime.prepare(published("mobilenet_v3_large"))
    times = levelled(list(rounds(sessions, reference, plan)), plan.slot_size).ms
    found: dict[str, Times] = {name: {} for name in FAMILIES}
    for column, (name, width, _) in enumerate(asked):
        found[name][width] = math.sqrt(float(times[:, column].min()) * float(np.median(times[:, column])))
    halves = np.median(times[::2], axis=0) / np.median(times[1::2], axis=0) - 1
    return {
        "units": len(asked),
        "prepare_ms": 1e3 * preparing / len(asked),
        "halves_percent": 100 * float(np.sqrt(np.mean(halves**2))),
        "ms": {name: {str(width): round(ms, 5) for width, ms in times.items()} for name, times in found.items()},
    }


def grid_errors(name: str, times: Times, step: int) -> Iterator[float]:
    """Of lines between multiples of ``step``, as shares."""
    base, axis, _ = FAMILIES[name]
    for width, ms in times.items():
        unit = at_width(base, axis, width)
        edges = grid_neighbours(unit, step, axis) if unit is not None and width % step else None
        low, high = (width_of(edge, axis) for edge in edges) if edges is not None else (0, 0)
        if low in times and high in times:
            yield (times[low] + (width - low) / (high - low) * (times[high] - times[low])) / ms - 1


def comb_errors(times: Times, by: int) -> Iterator[float]:
    """Of lines between the widths ``by`` below and above, as shares."""
    for width, ms in times.items():
        if width - by in times and width + by in times:
            yield (times[width - by] + times[width + by]) / 2 / ms - 1


def rule_errors(name: str, times: Times, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """(error, stated) of what the program would interpolate where a random half of the widths is measured; shares."""
    base, axis, _ = FAMILIES[name]
    of = {width: unit for width in times if (unit := at_width(base, axis, width)) is not None}
    for _ in range(20):
        known = {unit: times[width] for width, unit in of.items() if rng.random() < 0.5}
        families = Families(known)
        for width, unit in of.items():
            line = families.interpolated(unit) if unit not in known else None
            if line is not None:
                yield line.ms / times[width] - 1, line.error


def summary(errors: Sequence[float]) -> dict[str, float]:
    """Bias, root mean square and the largest, in percent."""
    found = 100 * np.array(errors)
    largest = float(np.abs(found).max())
    return {"bias": float(found.mean()), "rms": float(np.sqrt(np.mean(found**2))), "largest": largest}


def judge_widths(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every way to interpolate, over all families of one runtime."""
    families: dict[str, Times] = {
        name: {int(width): ms for width, ms in times.items()} for name, times in content["ms"].items()
    }
    each = families.items()
    found: dict[str, Any] = {
        f"grid of {step}": summary([e for name, times in each for e in grid_errors(name, times, step)])
        for step in GRIDS
    }
    for by in (COMB, 2 * COMB):
        found[f"equal modulo {COMB}, ±{by}"] = summary(
            [e for times in families.values() for e in comb_errors(times, by)]
        )
    rng = np.random.default_rng(SEED)
    ruled = [pair for name, times in each for pair in rule_errors(name, times, rng)]
    taken = [error for error, stated in ruled if stated <= UNIT_ERROR]
    found["rule"] = summary(taken) | {
        "offered": len(ruled), "taken": len(taken), "stated_rms": _rms([s for _, s in ruled if s <= UNIT_ERROR]),
    }  # fmt: skip
    return found


def _rms(shares: Sequence[float]) -> float:
    return 100 * float(np.sqrt(np.mean(np.square(shares))))


def seed_network() -> Architecture:
    """The most accurate of some random networks of the space, by the prior: a stand-in for a finalist."""
    pool = load_space(SPACE).sample(POOL, SEED)
    answers = load_evaluator("prior").evaluate(pool)
    return max(zip(pool, answers, strict=True), key=lambda pair: pair[1].top1)[0]


def open_device(cache: Path, runtime_name: str, folder: str) -> tuple[TableDevice, Counted]:
    """A device on its own copy of the space's table, which is filled first where it is not."""
    reference = published("mobilenet_v3_large")
    space_cache, own = cache / "space", cache / folder
    runtime = Counted(runtime_name, reference)
    TableDevice(runtime, cache_dir=space_cache).prepare(load_space(SPACE).all_units())
    shutil.copytree(space_cache, own, dirs_exist_ok=True)
    device = TableDevice(runtime, cache_dir=own, interpolates="interpolated" in folder)
    parts = load_space(SPACE).all_units()
    device.prepare(parts)
    device.unit_latency_ms(parts)
    runtime.parts = runtime.sittings = 0
    return device, runtime


def run(args: argparse.Namespace) -> dict[str, Any]:
    """NetAdapt from the seed to the target; how long it took, and what it measured."""
    device, runtime = open_device(args.cache, args.runtime, "interpolated" if args.interpolated else "measured")
    seed = seed_network()
    seed_ms = float(device.latency_ms([seed])[0])
    steps: list[Step] = []
    start = time.perf_counter()
    result = netadapt(seed, device, load_evaluator("prior"), args.target * seed_ms, on_step=steps.append)
    seconds = time.perf_counter() - start
    error_ms = float(device.latency_error_ms([result.final.architecture])[0])
    return {
        "seconds": seconds, "steps": len(steps), "parts": runtime.parts,
        "sittings": runtime.sittings, "interpolated": len(device.between), "target": args.target, "seed_ms": seed_ms,
        "latency_ms": result.final.latency_ms, "error_ms": error_ms,
        "interpolated_in_final": sum(unit in device.between for unit in units(result.final.architecture)),
        "top1": result.final.top1, "final": network_key(result.final.architecture),
    }  # fmt: skip


def finals(args: argparse.Namespace) -> dict[str, Any]:
    """Both final networks: the latency relative to the seed's with every unit measured, and timed whole."""
    names = [name for name in ("measured", "interpolated") if kept(args.cache, f"run-{args.runtime}-{name}")]
    networks = [network_of_key(kept(args.cache, f"run-{args.runtime}-{name}")["final"]) for name in names]
    device, _ = open_device(args.cache, args.runtime, "finals")
    everything = [seed_network(), *networks]
    device.prepare([unit for a in everything for unit in units(a)])
    table = device.latency_ms(everything)
    whole = np.array([one.latency_ms for one in device.measure(everything)])
    shares = zip(names, (table[1:] / table[0]).tolist(), (whole[1:] / whole[0]).tolist(), strict=True)
    return {name: {"of_seed_by_table": by_table, "of_seed_whole": by_whole} for name, by_table, by_whole in shares}


def report(args: argparse.Namespace) -> None:
    """Gather what the steps found, and write the results."""
    numbers: dict[str, Any] = {"widths": {}, "runs": {}}
    for name in RUNTIMES:
        if (content := kept(args.cache, f"widths-{name}")) is not None:
            numbers["widths"][name] = content | {"errors": judge_widths(content)}
        runs = {how: kept(args.cache, f"run-{name}-{how}") for how in ("measured", "interpolated")}
        if all(runs.values()):
            numbers["runs"][name] = runs | {"finals": kept(args.cache, f"finals-{name}") or {}}
    text = as_markdown(numbers)
    write_results("interpolation", numbers, text, [SEED])
    print(text)


def as_markdown(numbers: Mapping[str, Any]) -> str:
    """The tables of the README."""
    lines = [
        "# Units between measured widths", "",
        "Errors of straight lines over widths (percent of a unit's own measured time), 7 families of units at every",
        "multiple of 8 channels, 60 rounds, one thread. *Rule*: what the program would interpolate where a random half",
        "of the widths is measured, where the error stated for a line is within 3 %. The program uses none of them on",
        "a machine where they miss by more than that.", "",
        "| runtime | line | bias | rms | largest |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, content in numbers["widths"].items():
        for way, error in content["errors"].items():
            more = f" ({error['taken']} taken of {error['offered']} told)" if "taken" in error else ""
            row = f"{error['bias']:+.1f} | {error['rms']:.1f} | {error['largest']:.1f}"
            lines.append(f"| {name} | {way}{more} | {row} |")
        lines.append(f"| {name} | *odd rounds against even ones* | | {content['halves_percent']:.1f} | |")
    if not numbers["runs"]:
        return "\n".join(lines)
    lines += [
        "", f"NetAdapt from one network of `{SPACE}` whose space is measured:", "",
        "| runtime | target | units | seconds | sittings | units measured | interpolated | steps "
        "| final, of the seed's latency: told | every unit measured | timed whole |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, found in numbers["runs"].items():
        for how in ("measured", "interpolated"):
            one, final = found[how], found["finals"].get(how, {})
            shares = [
                one["latency_ms"] / one["seed_ms"],
                *(final.get(k) for k in ("of_seed_by_table", "of_seed_whole")),
            ]
            told = " | ".join("" if share is None else f"{share:.4f}" for share in shares)
            lines.append(
                f"| {name} | {one['target']:g}× | {how} | {one['seconds']:.0f} | {one['sittings']} | {one['parts']} "
                f"| {one['interpolated']} | {one['steps']} | {told} |"
            )
    return "\n".join(lines)


def main() -> None:
    """One of the steps."""
    args = arguments()
    how = "interpolated" if args.interpolated else "measured"
    steps: dict[str, tuple[str, Callable[[], Mapping[str, Any]]]] = {
        "widths": (f"widths-{args.runtime}", lambda: time_widths(args.runtime)),
        "run": (f"run-{args.runtime}-{how}", lambda: run(args)),
        "finals": (f"finals-{args.runtime}", lambda: finals(args)),
    }
    if args.step == "report":
        report(args)
        return
    name, step = steps[args.step]
    found = step()
    keep(args.cache, name, found)
    print({key: value for key, value in found.items() if key not in ("ms", "final")})


if __name__ == "__main__":
    main()
