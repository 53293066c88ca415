"""What the prior is told beforehand: pairs of networks of which the second is not, or not much, the worse one.

The networks are the published ones, random ones of the search spaces, and those that a search presses out of a first
fit; no row of any table is among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from benchmarks.prior_model import Changes, Posterior
from benchmarks.prior_rows import PUBLISHED
from mnv3search.accuracy.prior_features import FloatArray, features
from mnv3search.architecture import Architecture
from mnv3search.blocks import Activation, BlockSpec, SqueezeExciteSpec, make_divisible
from mnv3search.cost import count
from mnv3search.families import parse_network
from mnv3search.layer_search import narrow, sites
from mnv3search.space import load_space

BASES = (
    "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1", "mnasnet_b1", "mobilenet_v3_large@0.75",
    "mobilenet_v3_large@1.25", "mobilenet_v2@0.5", "mobilenet_v3_small@0.75", "mobilenet_v3_large_minimalistic",
)  # fmt: skip
SPACES = ("mnv3_large", "mnv3_small", "mnasnet", "mnv2", "ofa_mbv3")
ACTIVATIONS: tuple[Activation, ...] = ("relu", "hard_swish")
MOST_SITES = 40
BROKEN = 0.01
"""Points by which a narrowing may raise top-1 before it is ruled out."""
ABOVE_LARGE = 1.0
"""Points that a network may be better than V3-Large of its MAdds: the best once-for-all rows are by about as much."""


class Change(NamedTuple):
    """From ``before`` to ``after`` top-1 should grow by ``gain`` or more, softly to ``std`` points."""

    before: Architecture
    after: Architecture
    gain: float
    std: float


def _with_block(architecture: Architecture, index: int, block: BlockSpec) -> Architecture:
    return replace(architecture, blocks=(*architecture.blocks[:index], block, *architecture.blocks[index + 1 :]))


def _squeeze(block: BlockSpec) -> SqueezeExciteSpec:
    return SqueezeExciteSpec(make_divisible(block.expanded_channels / 4))


def _narrowings(a: Architecture, rng: np.random.Generator, most: int) -> Iterator[Change]:
    """By 8 channels, which must not help, and by up to half, which must cost something."""
    found = [site for site in sites(a) if site.widths(8)]
    for at in rng.permutation(len(found))[:most]:
        site = found[at]
        widths = site.widths(8)
        yield Change(narrow(a, site, widths[0]), a, 0.003, 0.02)
        much = next((w for w in widths if w <= site.channels * float(rng.uniform(0.5, 0.85))), widths[0])
        octaves = float(np.log2(site.channels / much))
        least, std = (0.03, 0.03) if site.kind == "expansion" else (0.06, 0.05)
        yield Change(narrow(a, site, much), a, least * octaves, std)
        if site.kind == "bottleneck" and site.members[0] >= 0 and a.blocks[site.members[0]].stride == 1:
            before = list(a.in_channels())[site.members[0]]  # where the stage merges with the one before it
            for width in range(before - 8, before + 24, 8):
                if width >= 8 and width + 8 <= site.channels:
                    yield Change(narrow(a, site, width), narrow(a, site, width + 8), 0.003, 0.01)


def _choices(a: Architecture, rng: np.random.Generator) -> Iterator[Change]:
    """A larger kernel, a squeeze-excite, h-swish, one block more."""
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


@lru_cache(maxsize=1)
def _large_by_madds() -> tuple[FloatArray, tuple[Architecture, ...]]:
    """V3-Large at many widths, and its MAdds."""
    networks = tuple(parse_network(f"mobilenet_v3_large@{width:.2f}") for width in np.arange(0.3, 2.0, 0.05))
    return np.array([count(network).madds for network in networks], dtype=np.float64), networks


def equal_large(a: Architecture) -> Architecture:
    """V3-Large at the width whose MAdds come nearest to the network's."""
    madds, networks = _large_by_madds()
    return networks[int(np.abs(np.log(madds / count(a.with_resolution(224)).madds)).argmin())]


def _ceiling(a: Architecture) -> Change:
    return Change(a, equal_large(a).with_resolution(a.resolution), -ABOVE_LARGE, 0.15)


def _of_network(a: Architecture, rng: np.random.Generator) -> Iterator[Change]:
    yield from _narrowings(a, rng, 4)
    yield from _choices(a, rng)
    yield _ceiling(a)


def starting_changes(seed: int, each: int = 70) -> list[Change]:
    """Changes of the published networks and of random networks of every space."""
    rng = np.random.default_rng(seed)
    networks = [parse_network(name) for name in BASES] * 3
    for name in SPACES:
        networks += load_space(name).sample(each, seed + 1000)
    return [change for network in networks for change in _of_network(network, rng)]


def pressed_changes(posterior: Posterior, seed: int, keep: int = 40) -> list[Change]:
    """Changes of the networks that an evolution finds best for their MAdds by ``posterior``."""
    rng = np.random.default_rng(seed)
    found: list[Change] = []
    for name in SPACES:
        space = load_space(name)
        rows = space.sample_indices(300, rng)
        for _ in range(10):
            children = space.mutate(np.concatenate([rows[:80]] * 3), rng, 0.08)
            rows = np.concatenate([rows[:80], children, space.crossover(rows[:80], rows[rng.permutation(80)], rng)])
            rows = rows[np.argsort(-_excess(posterior, space.architectures(rows)))]
        for network in dict.fromkeys(space.architectures(rows[:keep])):
            found += [*_narrowings(network, rng, 3), _ceiling(network)]
    return found


def broken_changes(posterior: Posterior, seed: int, each: int = 40) -> list[Change]:
    """Narrowings of random networks, and down the published ones' sites, that raise top-1 by ``posterior``."""
    rng = np.random.default_rng(seed + 2000)
    asked: list[Change] = []
    for name in SPACES:
        for network in load_space(name).sample(each, seed + 2000):
            asked += _narrowings(network, rng, MOST_SITES)
            asked += [
                Change(narrow(network, site, width), network, 0.003, 0.01)
                for site in sites(network) for width in site.widths(8)[:2]
            ]  # fmt: skip
    for network in map(parse_network, BASES):
        for site in sites(network):
            down = [network, *(narrow(network, site, w) for w in site.widths(8) if w >= site.channels // 3)]
            asked += [Change(less, more, 0.003, 0.01) for more, less in pairwise(down)]
    found = as_changes(asked)
    published = np.full(len(asked), PUBLISHED)
    gain = posterior.predict(found.after, published)[0] - posterior.predict(found.before, published)[0]
    return [asked[at] for at in np.flatnonzero(gain < -BROKEN)]


def _excess(posterior: Posterior, networks: Sequence[Architecture]) -> FloatArray:
    """How much better each network is predicted than V3-Large of its MAdds, points."""
    own = posterior.predict(features(networks), np.full(len(networks), PUBLISHED))[0]
    large = features([equal_large(network) for network in networks])
    return own - posterior.predict(large, np.full(len(networks), PUBLISHED))[0]


def as_changes(found: Iterable[Change]) -> Changes:
    """The changes as features."""
    before, after, gain, std = zip(*found, strict=True)
    return Changes(features(before), features(after), np.array(gain), np.array(std))
