"""Which proposal a step keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mnv3search.architecture import Architecture

SelectionRule = Literal["ratio", "accuracy"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A narrowed network, judged.

    Attributes:
        change: what was narrowed, in words.
        top1, top1_std: percent; the deviation is None where the evaluator states none.
        latency_ms: of the whole network.
    """

    architecture: Architecture
    kind: str
    change: str
    top1: float
    top1_std: float | None
    latency_ms: float


def by_ratio(proposals: Sequence[Proposal], top1: float, latency_ms: float) -> Proposal:
    """The largest ΔAcc / |ΔLat| (MobileNetV3, section 4.2); of equals the first."""
    return max(proposals, key=lambda p: (p.top1 - top1) / (latency_ms - p.latency_ms))


def by_accuracy(proposals: Sequence[Proposal], top1: float, latency_ms: float) -> Proposal:
    """The most accurate (NetAdapt, Yang et al. 2018); of equals the first."""
    return max(proposals, key=lambda p: p.top1)


SELECTION_RULES: Mapping[SelectionRule, Callable[[Sequence[Proposal], float, float], Proposal]] = MappingProxyType(
    {"ratio": by_ratio, "accuracy": by_accuracy}
)
