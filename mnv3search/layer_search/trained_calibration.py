"""Networks to calibrate a latency table on for one network's narrowings: itself, and narrowings at random."""

from __future__ import annotations

import random

from mnv3search.architecture import Architecture
from mnv3search.layer_search.proposals import narrow, sites

CALIBRATION_NETWORKS = 16
CALIBRATION_SEED = 1905  # apart from the seeds of runs


def random_narrowings(architecture: Architecture, count: int, seed: int = CALIBRATION_SEED) -> list[Architecture]:
    """``count`` narrowings, from a few places to most of them, each to any width but the least quarter.

    The same for one seed; where there are few widths to choose from, some may be equal.
    """
    rng = random.Random(seed)  # noqa: S311  # a draw that anyone can repeat, and no secret
    return [_narrowed(architecture, rng) for _ in range(count)]


def _narrowed(network: Architecture, rng: random.Random) -> Architecture:
    share = rng.uniform(0.2, 0.9)
    for place in sites(network):
        count = len(place.widths(8))
        if not count or rng.random() >= share:
            continue
        # found anew: what was narrowed before may have tied or freed it
        now = next((s for s in sites(network) if (s.kind, s.members) == (place.kind, place.members)), None)
        if now is not None and now.widths(8):
            network = narrow(network, now, rng.choice(now.widths(8)[: count * 3 // 4 + 1]))
    return network
