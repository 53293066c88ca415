"""Which network a run names as its result: a pure decision over what its stages found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mnv3search.candidate import Candidate
from mnv3search.errors import InfeasibleError
from mnv3search.layer_search import NetAdaptResult
from mnv3search.runs.blocks import BlockStage


def choose_winner(
    stage: BlockStage, adapted: Sequence[NetAdaptResult], target_ms: float
) -> tuple[Candidate, list[str]]:
    """The highest top-1 within the target, and what the reader should know of how it won.

    A winner that NetAdapt made bears the index of its finalist as its number. Of equals the direct candidate wins: it
    is the simpler network.

    Raises:
        InfeasibleError: neither stage found a network within the target.
    """
    finals = [replace(result.final, number=i) for i, result in enumerate(adapted) if result.reached]
    narrowed = max(finals, key=lambda c: c.top1, default=None)
    best = max([c for c in (stage.direct, narrowed) if c is not None], key=lambda c: c.top1, default=None)
    if best is None:
        bounds = stage.feasibility
        raise InfeasibleError(target_ms, bounds.fastest_ms, bounds.slowest_ms, exact=bounds.exact)
    notes = list(stage.notes)
    if stage.direct and narrowed:
        notes.append(_margin(narrowed.top1 - stage.direct.top1, best.top1_std))
    if best.origin == "netadapt":
        steps = len(adapted[best.number].steps)
        taken = "1 step" if steps == 1 else f"{steps} steps"
        notes.append(f"the winner is finalist {best.number + 1} of the block search, narrowed in {taken}")
    return best, notes


def _margin(margin: float, top1_std: float | None) -> str:
    if margin == 0:
        return "NetAdapt found nothing better within the target than the best direct candidate"
    names = ["NetAdapt's best", "the best direct candidate"]
    first, second = names if margin > 0 else names[::-1]
    sure = f"; one deviation is {top1_std:.2f}" if top1_std is not None else ""
    return f"{first} beats {second} within the target by {abs(margin):.2f} points of top-1{sure}"
