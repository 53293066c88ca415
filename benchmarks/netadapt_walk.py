"""How much more than asked a step of NetAdapt cuts: every width tried, against the bisection that was used before.

    python -m benchmarks.netadapt_walk

Two parts, without any training. ``widths``: units that were timed over their widths in two runtimes
(``results/2026-11-22-interpolation``); from every width, cuts of several sizes. ``walks``: NetAdapt with the prior from
published networks to a share of their latency, on an estimated phone and on that phone with the stairs that were timed.
The bisection is kept here alone, to be compared with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import ROOT, write_results
from mnv3search.accuracy.registry import load_evaluator
from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.families import published
from mnv3search.latency.devices import load_device
from mnv3search.layer_search import NetAdaptOptions, NetAdaptResult, Proposal, narrow, netadapt, sites
from mnv3search.layers import Unit, units

loop: Any = import_module("mnv3search.layer_search.netadapt")  # the package has a function of the same name
TIMED = ROOT / "results" / "2026-11-22-interpolation" / "numbers.json"
CUTS = (0.02, 0.05, 0.1, 0.2)  # of a unit's time
NETWORKS = ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1")
STEPS = (0.01, 0.025)
TARGET = 0.75
Curve = Mapping[int, float]
Search = Callable[..., Any]


def widest(curve: Curve, start: int, limit_ms: float) -> int | None:
    """The widest timed width below ``start`` within the limit."""
    return max((width for width, ms in curve.items() if width < start and ms <= limit_ms), default=None)


def bisected(curve: Curve, start: int, limit_ms: float) -> int | None:
    """What a bisection over the timed widths takes for it."""
    widths = sorted((width for width in curve if width < start), reverse=True)
    low, high, found = 0, len(widths), None
    while low < high:
        middle = (low + high) // 2
        if curve[widths[middle]] <= limit_ms:
            found, high = widths[middle], middle
        else:
            low = middle + 1
    return found


def on_curves(curves: Mapping[str, Curve]) -> dict[str, float]:
    """Cuts from every timed width of every unit: how often the bisection takes fewer channels, or finds none."""
    asked = missed = narrower = 0
    lost: list[float] = []
    over: dict[str, list[float]] = {"bisected": [], "widest": []}
    for curve in curves.values():
        for start, now in curve.items():
            for cut in CUTS:
                limit = (1 - cut) * now
                best, other = widest(curve, start, limit), bisected(curve, start, limit)
                if best is None:
                    continue
                asked, missed = asked + 1, missed + (other is None)
                if other is not None:
                    narrower += other < best
                    lost.append((best - other) / start)
                    over["widest"].append((now - curve[best]) / (cut * now))
                    over["bisected"].append((now - curve[other]) / (cut * now))
    return {
        "cuts": asked, "none_found_percent": 100 * missed / asked, "narrower_percent": 100 * narrower / len(lost),
        "channels_lost_percent": 100 * float(np.mean(lost)), "over_widest": float(np.mean(over["widest"])),
        "over_bisected": float(np.mean(over["bisected"])),
    }  # fmt: skip


def odd_penalty(curves: Mapping[str, Curve]) -> float:
    """By how much odd multiples of 8 are slower than the line between their even neighbours: the median, a share."""
    found = [
        2 * ms / (curve[width - 8] + curve[width + 8]) - 1
        for curve in curves.values()
        for width, ms in curve.items()
        if width % 16 == 8 and width - 8 in curve and width + 8 in curve
    ]
    return float(np.median(found))


class Stairs:
    """A device on which blocks with an odd multiple of 8 expanded channels take more than the device says."""

    def __init__(self, device: str, penalty: float) -> None:
        self._device, self._penalty, self._priced = load_device(device), penalty, dict[Unit, float]()

    @property
    def priced(self) -> int:
        """Different units that were asked for."""
        return len(self._priced)

    @property
    def fixed_ms(self) -> float:
        """What every network takes beside its units."""
        return float(getattr(self._device, "fixed_ms", 0.0))

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        """Milliseconds of each unit."""
        new = [part for part in dict.fromkeys(parts) if part not in self._priced]
        asked: Any = self._device
        for part, ms in zip(new, asked.unit_latency_ms(new).tolist() if new else (), strict=True):
            odd = isinstance(part.spec, BlockSpec) and part.spec.expanded_channels % 16 == 8
            self._priced[part] = ms * (1 + self._penalty * odd)
        return np.array([self._priced[part] for part in parts])

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Milliseconds of each network."""
        return np.array([self.fixed_ms + float(self.unit_latency_ms(units(a)).sum()) for a in architectures])


def bisecting(architecture: Architecture, latency: Any, limit_ms: float, divisor: int, _: object = None) -> list[Any]:
    """``widest_within`` as it was: widths bisected for all sites side by side."""
    places = [(site, widths) for site in sites(architecture) if (widths := site.widths(divisor))]
    low, high = [0] * len(places), [len(widths) for _, widths in places]
    found: dict[int, Any] = {}
    while active := [i for i in range(len(places)) if low[i] < high[i]]:
        middle = [(low[i] + high[i]) // 2 for i in active]
        tried = [narrow(architecture, places[i][0], places[i][1][m]) for i, m in zip(active, middle, strict=True)]
        times = loop.latencies_ms(latency, tried)
        for i, m, network, ms in zip(active, middle, tried, times, strict=True):
            if ms <= limit_ms:
                site, widths = places[i]
                found[i], high[i] = Proposal(site.kind, site.describe(widths[m]), network, ms), m
            else:
                low[i] = m + 1
    return [found[i] for i in sorted(found)]


@dataclass(frozen=True, slots=True)
class Walk:
    """One narrowing: where it ended, and what it asked of its device."""

    result: NetAdaptResult
    priced: int

    def figures(self) -> dict[str, float]:
        """Of all steps but the last, which asks for what is missing: the cut that was made over the one asked for."""
        steps = self.result.steps[:-1] or self.result.steps
        return {
            "steps": len(self.result.steps), "proposals": sum(s.proposals for s in self.result.steps),
            "over": float(np.mean([-s.delta_latency_ms / s.required_ms for s in steps])),
            "share": self.result.final.latency_ms / self.result.seed.latency_ms, "top1": self.result.final.top1,
            "units": self.priced,
        }  # fmt: skip


def walked(network: str, step: float, penalty: float, search: Search) -> Walk:
    """NetAdapt by ``search`` from ``network`` to a share of its latency."""
    device, before = Stairs("pixel1", penalty), loop.widest_within
    loop.widest_within = search
    try:
        seed = published(network)
        target = TARGET * float(device.latency_ms([seed])[0])
        found = netadapt(seed, device, load_evaluator("prior"), target, options=NetAdaptOptions(step))
    finally:
        loop.widest_within = before
    return Walk(found, device.priced)


def walks(penalty: float) -> Iterator[dict[str, Any]]:
    """Every network and step, by both."""
    for network in NETWORKS:
        for step in STEPS:
            yield {
                "network": network, "step": step, "stairs": penalty,
                "bisected": walked(network, step, penalty, bisecting).figures(),
                "widest": walked(network, step, penalty, loop.widest_within).figures(),
            }  # fmt: skip


def main() -> None:
    """Find the figures and write the page."""
    timed = json.loads(TIMED.read_text(encoding="utf-8"))["widths"]
    curves = {
        runtime: {name: {int(width): ms for width, ms in found.items()} for name, found in one["ms"].items()}
        for runtime, one in timed.items()
    }
    widths = {runtime: on_curves(found) for runtime, found in curves.items()}
    penalties = {runtime: odd_penalty(found) for runtime, found in curves.items()}
    rows = [row for penalty in (0.0, *penalties.values()) for row in walks(max(penalty, 0.0))]
    folder = write_results(
        "netadapt-walk", {"widths": widths, "odd_penalty": penalties, "walks": rows}, _page(widths, penalties, rows)
    )
    print(folder.relative_to(ROOT), Path(folder / "README.md").read_text(encoding="utf-8"), sep="\n")


def _page(widths: Mapping[str, Mapping[str, float]], penalties: Mapping[str, float], rows: Sequence[Any]) -> str:
    kept = [row for row in rows if math.isfinite(row["widest"]["over"])]
    cells = [
        f"| {r['network']} | {r['step']:g} | {100 * r['stairs']:.1f} % | "
        + " | ".join(
            f"{r['bisected'][k]:{form}} → {r['widest'][k]:{form}}"
            for k, form in (("steps", "d"), ("proposals", "d"), ("over", ".2f"), ("top1", ".2f"), ("units", "d"))
        )
        + " |"
        for r in kept
    ]
    timed = [
        f"| {runtime} | {100 * penalties[runtime]:+.1f} % | {f['cuts']:.0f} | {f['none_found_percent']:.1f} % | "
        f"{f['narrower_percent']:.1f} % | {f['channels_lost_percent']:.1f} % | "
        f"{f['over_bisected']:.2f} → {f['over_widest']:.2f} |"
        for runtime, f in widths.items()
    ]
    most = max(row["widest"]["units"] / row["bisected"]["units"] for row in kept)
    return "\n".join(
        [
            "# What a step of NetAdapt cuts, against what it asks for", "",
            "A step takes for each layer the widest narrowing that meets the cut. It was bisected, which is right only "
            "where fewer channels are never slower; now every width is tried, widest first, and only layers that could "
            "not meet the cut if they vanished are left out. No training: the accuracy is the prior's.", "",
            "## Timed units", "",
            f"Units timed over their widths on an idle host (`results/2026-11-22-interpolation`); from every width, "
            f"cuts of {', '.join(f'{cut:.0%}' for cut in CUTS)} of its time. Odd: by how much odd multiples of 8 are "
            "slower than the mean of their neighbours (median). Over: mean of the cut that is made over the one asked "
            "for, where both find a width.", "",
            "| runtime | odd | cuts | bisection finds none | takes fewer channels | channels lost, mean | over |",
            "|---|---|---|---|---|---|---|", *timed, "",
            "## Walks", "",
            f"To {TARGET:g} of the seed's latency on `pixel1`, whose estimate is smooth, and on the same with the "
            "measured penalty on blocks of an odd multiple of 8 expanded channels. Bisected → every width. Over: mean "
            "of made over asked cut, the last step, which asks for what is missing, left out. Units: different ones "
            "that were priced; on a device that measures each costs a measurement once.", "",
            "| network | δ | odd | steps | proposals | over | top-1 (prior) | units |",
            "|---|---|---|---|---|---|---|---|", *cells, "",
            f"With large steps more units are priced, up to {most:.1f} times as many: layers that must lose much are "
            "looked through to the end. A device that measures does so once for each unit.", "",
            "The trainings of `benchmarks/netadapt` were not run again, as they take many hours: the steps of "
            "`results/2026-11-22-netadapt*` were found by the bisection.",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
