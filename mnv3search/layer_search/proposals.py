"""NetAdapt's proposals: narrow one expansion layer, or one bottleneck in every block that shares it; and their choice.

Source: MobileNetV3 (Howard et al. 2019), section 4.2; the residual must hold, so a bottleneck is narrowed in its whole
residual group at once. Everything here is a pure function of values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from mnv3search.architecture import Architecture
from mnv3search.blocks import Block
from mnv3search.layer_search.result import Step
from mnv3search.layers import free_widths

STEM = -1

SiteKind = Literal["expansion", "bottleneck"]
SelectionRule = Literal["ratio", "accuracy"]
SELECTION_RULES: tuple[SelectionRule, ...] = get_args(SelectionRule)


@dataclass(frozen=True, slots=True)
class Site:
    """A place where a network can be narrowed.

    Attributes:
        kind: ``expansion`` (one block's expanded channels) or ``bottleneck`` (a residual group's output channels).
        members: block indices; -1 stands for the stem.
        channels: today's width there.
    """

    kind: SiteKind
    members: tuple[int, ...]
    channels: int

    def describe(self, new_channels: int) -> str:
        """Such as ``expansion of block 4: 240 → 200`` or ``bottleneck of blocks 3–5: 40 → 32``."""
        parts = ["the stem"] if self.members[0] == STEM else []
        blocks = [member for member in self.members if member != STEM]
        if blocks:
            parts.append(f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]}–{blocks[-1]}")
        return f"{self.kind} of {' and '.join(parts)}: {self.channels} → {new_channels}"

    def widths(self, divisor: int) -> tuple[int, ...]:
        """Narrower widths, all multiples of ``divisor``, widest first."""
        top = (self.channels - 1) // divisor * divisor
        return tuple(range(top, 0, -divisor))


def sites(architecture: Architecture) -> tuple[Site, ...]:
    """Every place where ``architecture`` can be narrowed: expansions first, then bottlenecks, in order."""
    return tuple(Site(*width) for width in free_widths(architecture))


def narrow(architecture: Architecture, site: Site, channels: int) -> Architecture:
    """``architecture`` with ``channels`` at ``site``; squeeze-excite and unexpanded depthwise widths follow."""
    stem = architecture.stem
    if site.kind == "bottleneck" and STEM in site.members:
        stem = replace(stem, out_channels=channels)
    blocks: list[Block] = []
    new_in = stem.out_channels
    for index, (block, old_in) in enumerate(zip(architecture.blocks, architecture.in_channels(), strict=True)):
        expanded, out = block.expanded_channels, block.out_channels
        if index in site.members:
            expanded, out = (channels, out) if site.kind == "expansion" else (expanded, channels)
        if (new_in, expanded, out) != (old_in, block.expanded_channels, block.out_channels):
            blocks.append(block.narrowed(old_in, new_in, expanded, out))
        else:
            blocks.append(block)
        new_in = out
    return replace(architecture, stem=stem, blocks=tuple(blocks))


def narrowest(architecture: Architecture, divisor: int) -> Architecture:
    """The network with every site at its least width: the bound of what narrowing can reach."""
    # sites are found anew each time: equal widths can join two groups through a projected shortcut that falls away
    while (site := next((s for s in sites(architecture) if s.widths(divisor)), None)) is not None:
        architecture = narrow(architecture, site, site.widths(divisor)[-1])
    return architecture


@dataclass(frozen=True, slots=True)
class Proposal:
    """A narrowing that a step tries.

    Attributes:
        kind: ``expansion`` or ``bottleneck``.
        change: what is narrowed, in words.
        latency_ms: of the whole network.
    """

    kind: str
    change: str
    architecture: Architecture
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step tries.

    Attributes:
        required_ms: the cut that every proposal makes.
        proposals: in the order of the layers; a proposal's number is its position, from 0.
    """

    required_ms: float
    proposals: tuple[Proposal, ...]

    def step(self, number: int, chosen: int, top1: float, top1_std: float | None, before: tuple[float, float]) -> Step:
        """Step ``number``, which keeps proposal ``chosen``; ``before``: top-1 and milliseconds of what it narrows."""
        kept = self.proposals[chosen]
        return Step(
            number, kept.kind, kept.change, kept.architecture, top1, top1_std, kept.latency_ms, top1 - before[0],
            kept.latency_ms - before[1], len(self.proposals), self.required_ms,
        )  # fmt: skip


def selection_value(rule: SelectionRule, top1: float, latency_ms: float, before: tuple[float, float]) -> float:
    """What a step maximises; ``before``: top-1 and milliseconds of the network that the proposal narrows.

    ``ratio`` is ΔAcc / |ΔLat| (MobileNetV3, section 4.2), ``accuracy`` the proposal's (NetAdapt, Yang et al. 2018).
    """
    return top1 if rule == "accuracy" else (top1 - before[0]) / (before[1] - latency_ms)
