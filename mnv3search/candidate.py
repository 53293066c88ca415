"""A network that a search has judged, and the front of the best of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mnv3search.architecture import Architecture

Origin = Literal["block_search", "netadapt", "reference"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One judged network.

    Attributes:
        top1, top1_std: percent, from the run's evaluator; the deviation is None where the evaluator states none.
        latency_ms: by the run's latency model.
        madds, parameters: exact counts.
        origin: which stage made it.
        number: Optuna's trial number in a block search; after NetAdapt the last step's, or in a run the finalist's
            from 0.
    """

    architecture: Architecture
    top1: float
    top1_std: float | None
    latency_ms: float
    madds: int
    parameters: int
    origin: Origin
    number: int


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that no other beats in both top-1 and latency, fastest first; of equals the first stays."""
    front: list[Candidate] = []
    best = float("-inf")
    for candidate in sorted(candidates, key=lambda c: (c.latency_ms, -c.top1, c.number)):
        if candidate.top1 > best:
            front.append(candidate)
            best = candidate.top1
    return front
