"""What tests of the search stand on: small spaces, latencies that are counts, evaluators whose truth is known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.architecture import Architecture
from mnv3search.cost import unit_cost
from mnv3search.layers import Unit, units
from mnv3search.space import SearchSpace, parse_space

_HEAD = """format: mnv3search.space/1
resolution: 32
stem: {out_channels: 16}
head: {feature_channels: null}
stages:
"""
TEXTS = {
    "blocks": "- {out_channels: 24, stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: [2, 3],"
    " squeeze_excite: [false, true]}}\n"
    "- {out_channels: 32, stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: [2, 4]}}\n",
    "widths": "- {out_channels: [24, 32], stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: 2}}\n"
    "- {out_channels: [32, 40], stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: 3}}\n",
    "stage choices": "- {out_channels: [24, 32], stride: 2, depth: [1, 2, 3], choices: stage, block: {kernel_size: "
    "[3, 5], expansion_ratio: [2, 4]}}\n"
    "- {out_channels: [40, 48], stride: 2, depth: [1, 2], choices: stage, block: {kernel_size: [3, 5], "
    "expansion_ratio: [2, 3]}}\n",
    "large": "".join(
        f"- {{out_channels: {width}, stride: 2, depth: [1, 2, 3], block: {{kernel_size: [3, 5, 7], "
        "expansion_ratio: [2, 3, 4, 6], squeeze_excite: [false, true]}}\n"
        for width in (24, 40, 80)
    ),
}


@cache
def small_space(name: str) -> SearchSpace:
    """One of the spaces above: ``blocks`` has 1,440 networks and ``large`` about 10¹²."""
    return parse_space(_HEAD + TEXTS[name], name.replace(" ", "_"))


class UnitLatency:
    """1 ms and 1 ms for each 100,000 multiply-adds, unit by unit."""

    fixed_ms = 1.0

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        return np.array([unit_cost(unit).madds / 1e5 for unit in parts], dtype=np.float64)

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([1.0 + float(self.unit_latency_ms(units(a)).sum()) for a in architectures])


class OpaqueLatency:
    """The same figures from a model that tells whole networks only; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Architecture] = []

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        self.asked += architectures
        return UnitLatency().latency_ms(architectures)


class EffectEvaluator:
    """60 plus an effect of every unit that grows with its cost, with a fixed pseudo-random part; keeps what it saw."""

    capabilities = Capabilities(cheap=True)

    def __init__(self) -> None:
        self.seen: list[Architecture] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        self.seen += architectures
        return [Evaluation(self.top1(architecture), 0.5) for architecture in architectures]

    @staticmethod
    def top1(architecture: Architecture) -> float:
        """The truth."""
        return 60.0 + sum(unit_effect(unit) for unit in units(architecture))


class CostlyEvaluator(EffectEvaluator):
    """The same answers from one that does not call itself cheap."""

    capabilities = Capabilities(cheap=False)


@cache
def unit_effect(unit: Unit) -> float:
    """Points that a unit adds."""
    noise = zlib.crc32(repr(unit).encode()) / 2**32
    return float((unit_cost(unit).madds / 1e5) ** 0.5 * 0.5 + 0.4 * noise)
