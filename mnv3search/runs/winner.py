"""Which network a run names as its result: pure decisions over what its stages found and what was timed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.runs.timings import Timed

ROOM = 0.005
"""How far below the target a repair aims, as a share, each time: one session of timing differs from the next."""

Times = Mapping[Architecture, Timed]


def best_of(contenders: Sequence[Candidate]) -> Candidate:
    """The highest top-1; of equals the direct candidate, which is the simpler network, then the faster one."""
    return max(contenders, key=lambda c: (c.top1, c.origin == "block_search", -c.latency_ms))


def passing(contenders: Sequence[Candidate], times: Times, target_ms: float, z: float) -> list[Candidate]:
    """Those whose measured time and ``z`` of its deviations are within the target."""
    return [c for c in contenders if times[c.architecture].upper_ms(z) <= target_ms]


def closest(contenders: Sequence[Candidate], times: Times, z: float) -> Candidate:
    """The one that misses the target by least."""
    return min(contenders, key=lambda c: times[c.architecture].upper_ms(z))


def repaired_limit_ms(contender: Candidate, timed: Timed, target_ms: float, z: float, attempt: int) -> float:
    """What a network must be predicted at to be timed within the target, its measured over predicted time as it was.

    Twice the ``z`` deviations are taken off: those of this time and those of the next; and :data:`ROOM` for each
    attempt, from 1.
    """
    return contender.latency_ms * target_ms / timed.upper_ms(2 * z) * (1 - ROOM * attempt)


def typical_limit_ms(contenders: Sequence[Candidate], times: Times, target_ms: float, z: float, attempt: int) -> float:
    """The same for networks that were not timed, by the median of those that were."""
    return statistics.median(repaired_limit_ms(c, times[c.architecture], target_ms, z, attempt) for c in contenders)


def how_it_won(best: Candidate, within: Sequence[Candidate], steps: int, unit: str = "points of top-1") -> list[str]:
    """What the reader should know of how ``best`` won among those ``within`` the target; ``unit`` of accuracy."""
    narrowed = max((c.top1 for c in within if c.origin == "netadapt"), default=None)
    direct = max((c.top1 for c in within if c.origin == "block_search"), default=None)
    notes = []
    if narrowed is not None and direct is not None:
        notes.append(_margin(narrowed - direct, best.top1_std, unit))
    if best.origin == "netadapt":
        taken = "1 step" if steps == 1 else f"{steps} steps"
        notes.append(f"the winner is finalist {best.number + 1} of the block search, narrowed in {taken}")
    return notes


def _margin(margin: float, top1_std: float | None, unit: str) -> str:
    if margin == 0:
        return "NetAdapt found nothing better within the target than the best direct candidate"
    names = ["NetAdapt's best", "the best direct candidate"]
    first, second = names if margin > 0 else names[::-1]
    sure = f"; one deviation is {top1_std:.2f}" if top1_std is not None else ""
    return f"{first} beats {second} within the target by {abs(margin):.2f} {unit}{sure}"
