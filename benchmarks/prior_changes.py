"""What the prior is told beforehand: pairs of networks of which the second is not the worse one.

The networks are the published ones and random variants of them; no row of any table is among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mnv3search.accuracy.prior_features import features
from mnv3search.accuracy.prior_fit import Changes
from mnv3search.architecture import Activation, Architecture, BlockSpec, SqueezeExciteSpec, make_divisible
from mnv3search.families import parse_network

BASES = (
    "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1", "mnasnet_b1", "mobilenet_v3_large@0.75",
    "mobilenet_v3_large@1.25", "mobilenet_v2@0.5", "mobilenet_v3_small@0.75", "mobilenet_v3_large_minimalistic",
)  # fmt: skip
RATIOS = (2, 2.5, 3, 4, 6)
ACTIVATIONS: tuple[Activation, ...] = ("relu", "hard_swish")


class Change(NamedTuple):
    """From ``before`` to ``after`` top-1 should grow by ``gain`` or more, softly to ``std`` points."""

    before: Architecture
    after: Architecture
    gain: float
    std: float


def _with_block(architecture: Architecture, index: int, block: BlockSpec) -> Architecture:
    return replace(architecture, blocks=(*architecture.blocks[:index], block, *architecture.blocks[index + 1 :]))


def with_expanded(architecture: Architecture, index: int, expanded: int) -> Architecture:
    """The network with ``expanded`` channels in block ``index``, its squeeze-excite following."""
    in_channels = list(architecture.in_channels())[index]
    block = architecture.blocks[index]
    return _with_block(architecture, index, block.resized(in_channels, expanded, block.out_channels))


def residual_groups(architecture: Architecture) -> list[list[int]]:
    """Blocks whose outputs are added to one another, in order."""
    found: list[list[int]] = []
    for index, (block, channels) in enumerate(zip(architecture.blocks, architecture.in_channels(), strict=True)):
        if found and block.has_residual(channels):
            found[-1].append(index)
        else:
            found.append([index])
    return found


def with_bottleneck(architecture: Architecture, group: list[int], out: int) -> Architecture:
    """The network with ``out`` output channels in all blocks of ``group``."""
    blocks: list[BlockSpec] = []
    channels = architecture.stem.out_channels
    for index, block in enumerate(architecture.blocks):
        width = out if index in group else block.out_channels
        blocks.append(block.resized(channels, block.expanded_channels, width))
        channels = width
    return replace(architecture, blocks=tuple(blocks))


def _squeeze(block: BlockSpec) -> SqueezeExciteSpec:
    return SqueezeExciteSpec(make_divisible(block.expanded_channels / 4))


def _varied_block(block: BlockSpec, in_channels: int, rng: np.random.Generator) -> BlockSpec:
    if rng.random() < 0.5:
        block = replace(block, kernel_size=int(rng.choice([3, 5, 7])))
    if block.has_expansion(in_channels):
        block = replace(block, expanded_channels=make_divisible(in_channels * float(rng.choice(RATIOS))))
    lot = rng.random()
    if lot < 0.5:
        block = replace(block, squeeze_excite=_squeeze(block) if lot < 0.3 else None)
    if rng.random() < 0.3:
        block = replace(block, activation=ACTIVATIONS[int(rng.integers(2))])
    return block


def varied(architecture: Architecture, rng: np.random.Generator) -> Architecture:
    """The network with half of its blocks changed at random, and some left out or repeated."""
    blocks: list[BlockSpec] = []
    channels = architecture.stem.out_channels
    for block in architecture.blocks:
        new = _varied_block(block, channels, rng) if rng.random() < 0.5 else block
        new = new.resized(channels, new.expanded_channels, new.out_channels)
        lot = rng.random() if new.has_residual(channels) else 0.5
        blocks += [] if lot < 0.12 else [new, new] if lot > 0.9 else [new]
        channels = new.out_channels
    return replace(architecture, blocks=tuple(blocks))


def _expansions(a: Architecture, rng: np.random.Generator) -> Iterator[Change]:
    can = [
        i for i, (b, c) in enumerate(zip(a.blocks, a.in_channels(), strict=True))
        if b.has_expansion(c) and b.expanded_channels >= 32
    ]  # fmt: skip
    for index in rng.permutation(can)[:3]:
        expanded = a.blocks[index].expanded_channels
        smaller = make_divisible(expanded * float(rng.uniform(0.4, 0.85)))
        if smaller < expanded:
            octaves = float(np.log2(expanded / smaller))
            yield Change(with_expanded(a, int(index), smaller), a, 0.03 * octaves, 0.03)


def _bottlenecks(a: Architecture, rng: np.random.Generator) -> Iterator[Change]:
    groups = residual_groups(a)
    for at in rng.permutation(len(groups))[:2]:
        group, out = groups[at], a.blocks[groups[at][0]].out_channels
        before = a.blocks[groups[at - 1][0]].out_channels if at else out
        if a.blocks[group[0]].stride == 1 and before < out:  # a stage that merges with the one before it
            for low in range(before - 8, before + 24, 8):
                if low >= 8 and low + 8 <= out:
                    yield Change(with_bottleneck(a, group, low), with_bottleneck(a, group, low + 8), 0.01, 0.02)
        smaller = make_divisible(out * float(rng.uniform(0.5, 0.9)))
        if smaller < out:
            octaves = float(np.log2(out / smaller))
            yield Change(with_bottleneck(a, group, smaller), a, 0.1 * octaves, 0.05)


def _choices(a: Architecture, rng: np.random.Generator) -> Iterator[Change]:
    kernel = int(rng.choice([3, 5]))
    i, j, k = (int(rng.integers(len(a.blocks))) for _ in range(3))
    small, large = (replace(a.blocks[i], kernel_size=size) for size in (kernel, kernel + 2))
    yield Change(_with_block(a, i, small), _with_block(a, i, large), 0.0, 0.05)
    plain, squeezed = (replace(a.blocks[j], squeeze_excite=se) for se in (None, _squeeze(a.blocks[j])))
    yield Change(_with_block(a, j, plain), _with_block(a, j, squeezed), 0.0, 0.05)
    relu, swish = (replace(a.blocks[k], activation=activation) for activation in ACTIVATIONS)
    yield Change(_with_block(a, k, relu), _with_block(a, k, swish), 0.01, 0.03)
    removable = [i for i, (b, c) in enumerate(zip(a.blocks, a.in_channels(), strict=True)) if b.has_residual(c)]
    if removable:
        gone = int(rng.choice(removable))
        yield Change(replace(a, blocks=a.blocks[:gone] + a.blocks[gone + 1 :]), a, 0.0, 0.1)


def changes(networks: int = 300, seed: int = 0) -> Changes:
    """Changes of the published networks and of random variants of them."""
    rng = np.random.default_rng(seed)
    bases = [parse_network(name) for name in BASES]
    found: list[Change] = []
    for index in range(networks):
        base = bases[index % len(bases)]
        architecture = base if index < len(bases) else varied(base, rng)
        for kind in (_expansions, _bottlenecks, _choices):
            found += kind(architecture, rng)
    return Changes(
        features([change.before for change in found]),
        features([change.after for change in found]),
        np.array([change.gain for change in found]),
        np.array([change.std for change in found]),
    )
