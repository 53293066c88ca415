"""Networks assembled from a set of units: what a table of these units is calibrated on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, StemSpec
from mnv3search.layers import Unit, unit_layers

MAX_REPEATS = 3  # blocks in a row that keep width and size: about what stages have
MAX_STEPS = 64
TRIES = 50

_Place = tuple[int, int, str, bool]


def assembled_networks(parts: Iterable[Unit], count: int, seed: int = 0) -> list[Architecture]:
    """Up to ``count`` distinct networks, each a random walk over ``parts`` from a stem to a head.

    Where the units are those of a search space, the walks are networks of about that space. Where no walk arrives
    (units of blocks alone, say) there are none.
    """
    rng = random.Random(seed)  # noqa: S311 - draws networks, keeps no secret
    stems, blocks, heads = _sorted_by_place(parts)
    found: dict[Architecture, None] = {}
    for _ in range(count * TRIES):
        if not stems or len(found) == count:
            break
        network = _walk(rng, rng.choice(stems), blocks, heads)
        if network is not None:
            found[network] = None
    return list(found)


def _sorted_by_place(
    parts: Iterable[Unit],
) -> tuple[list[Unit], Mapping[_Place, list[Unit]], Mapping[_Place, list[Unit]]]:
    stems: list[Unit] = []
    blocks: dict[_Place, list[Unit]] = defaultdict(list)
    heads: dict[_Place, list[Unit]] = defaultdict(list)
    for unit in dict.fromkeys(parts):
        if isinstance(unit.spec, StemSpec):
            stems.append(unit)
        else:
            place = (unit.in_channels, unit.in_size, unit.padding, unit.conv_bias)
            (blocks if isinstance(unit.spec, BlockSpec) else heads)[place].append(unit)
    return stems, blocks, heads


def _after(unit: Unit) -> _Place:
    last = unit_layers(unit)[-1]
    return last.out_channels, last.out_size, unit.padding, unit.conv_bias


def _walk(
    rng: random.Random, stem: Unit, blocks: Mapping[_Place, list[Unit]], heads: Mapping[_Place, list[Unit]]
) -> Architecture | None:
    place, repeats = _after(stem), 0
    passed: list[Unit] = []
    for _ in range(MAX_STEPS):
        staying = [u for u in blocks.get(place, ()) if _after(u) == place]
        leaving = [u for u in blocks.get(place, ()) if _after(u) != place]
        at_end = passed and heads.get(place)
        if repeats == MAX_REPEATS or not staying or (rng.random() < 1 / (MAX_REPEATS + 1) and (leaving or at_end)):
            if at_end and (not leaving or rng.random() < 0.5):
                return _network(stem, passed, rng.choice(heads[place]))
            if not leaving:
                return None
            unit, repeats = rng.choice(leaving), 0
        else:
            unit, repeats = rng.choice(staying), repeats + 1
        passed.append(unit)
        place = _after(unit)
    return None


def _network(stem: Unit, passed: list[Unit], head: Unit) -> Architecture | None:
    blocks = tuple(unit.spec for unit in passed if isinstance(unit.spec, BlockSpec))
    if not isinstance(stem.spec, StemSpec) or not isinstance(head.spec, HeadSpec):
        return None
    return Architecture(
        stem.spec, blocks, head.spec, resolution=stem.in_size, classes=head.classes, padding=stem.padding,
        conv_bias=stem.conv_bias,
    )  # fmt: skip
