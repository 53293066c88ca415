"""NAS-Bench-Macro as a space and an evaluator: every one of its networks was trained, so regret is known exactly.

Eight places in three stages, each skipped (in the first place of a stage: a strided 1 × 1 convolution), MB3 3 × 3 or
MB6 5 × 5. Its plain strided convolution is written as the block k1 e1 here; truths and multiply-adds are looked up by
the choices. Rows of the table that make the same network have the same figures, so 3,969 of its 6,561 are distinct.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture
from mnv3search.cost import unit_cost
from mnv3search.layers import Unit, unit_layers, units
from mnv3search.space import SearchSpace, parse_space

FILE = "nas_bench_macro.csv"
_CHOICES = {1: "0", 3: "1", 5: "2"}  # by kernel size
_STAGES = (2, 3, 3)


def _stage(width: int, places: int) -> str:
    first = "[{kernel_size: 1, expansion_ratio: 1}, {kernel_size: 3, expansion_ratio: 3}, {kernel_size: 5, "
    first += "expansion_ratio: 6}]"
    other = "[skip, {kernel_size: 3, expansion_ratio: 3}, {kernel_size: 5, expansion_ratio: 6}]"
    return (
        f"- {{out_channels: {width}, stride: 2, depth: 1, block: {{options: {first}}}}}\n"
        f"- {{out_channels: {width}, stride: 1, depth: {places - 1}, block: {{options: {other}}}}}\n"
    )


def macro_space() -> SearchSpace:
    """The space of 3,969 networks, at 32 pixels and 10 classes."""
    text = "format: mnv3search.space/1\nresolution: 32\nclasses: 10\n"
    text += "stem: {out_channels: 32, stride: 1, activation: relu}\n"
    text += "head: {feature_channels: 1280, activation: relu}\nstages:\n"
    text += "".join(_stage(width, places) for width, places in zip((64, 128, 256), _STAGES, strict=True))
    return parse_space(text, "nas_bench_macro")


def code(architecture: Architecture) -> str:
    """The network's digits in the table: each stage's blocks, then its skipped places."""
    found, stage = "", ""
    blocks = architecture.blocks
    for i, block in enumerate(blocks):
        stage += _CHOICES[block.kernel_size]
        if i + 1 == len(blocks) or blocks[i + 1].stride == 2:
            found += stage.ljust(_STAGES[len([b for b in blocks[: i + 1] if b.stride == 2]) - 1], "0")
            stage = ""
    return found


class MacroTruth:
    """The mean top-1 of the three trainings of each network; answers are looked up."""

    name = "nas_bench_macro"

    def __init__(self, folder: Path) -> None:
        with (folder / FILE).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        self.top1 = {row["arch"]: float(row["top1_mean"]) for row in rows}
        self.seeds = {row["arch"]: [float(row[f"top1_seed{i}"]) for i in (1, 2, 3)] for row in rows}
        self.mmadds = {row["arch"]: float(row["madds"]) / 1e6 for row in rows}

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """The table's mean for each network."""
        return [Evaluation(self.top1[code(architecture)]) for architecture in architectures]

    def best(self, target: float) -> float:
        """The highest top-1 within ``target`` million multiply-adds."""
        return max(top1 for arch, top1 in self.top1.items() if self.mmadds[arch] <= target)


class MacroLatency:
    """The table's multiply-adds in millions, in place of milliseconds; a sum over units."""

    fixed_ms = 0.0

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        """Millions of multiply-adds of each unit; the depthwise half of a strided identity is none of the table's."""
        return np.array([_mmadds(unit) for unit in parts], dtype=np.float64)

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Sums over the units of each network."""
        return np.array([float(self.unit_latency_ms(units(a)).sum()) for a in architectures])


def _mmadds(unit: Unit) -> float:
    if getattr(unit.spec, "kernel_size", 0) == 1:
        return float(unit_cost(unit).madds - unit_layers(unit)[0].madds) / 1e6
    return float(unit_cost(unit).madds) / 1e6
