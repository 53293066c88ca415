"""Whether a target can be met in a space, before anything is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.block_search.row_latency import PrepareProgress, RowLatency, Rows, check_space_and_model
from mnv3search.errors import InfeasibleError
from mnv3search.latency.model import LatencyModel

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

SAMPLED_BOUND = 64


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The range of latencies that a space spans under one latency model.

    Attributes:
        fastest_ms, slowest_ms: of the two networks below.
        exact: the extremes of the whole space; False: of a sample.
        fastest, slowest: the networks at the two ends.
    """

    fastest_ms: float
    slowest_ms: float
    exact: bool
    fastest: Architecture
    slowest: Architecture

    def binds(self, target_latency_ms: float) -> bool:
        """Whether the target excludes anything."""
        return target_latency_ms < self.slowest_ms

    def require(self, target_latency_ms: float) -> None:
        """Pass where some network meets the target.

        Raises:
            InfeasibleError: none does.
        """
        if target_latency_ms < self.fastest_ms:
            raise InfeasibleError(target_latency_ms, self.fastest_ms, self.slowest_ms, exact=self.exact)


def latency_range(
    space: SearchSpace, latency: LatencyModel, seed: int = 0, progress: PrepareProgress | None = None
) -> Feasibility:
    """The range of latencies of ``space`` under ``latency``, which is prepared first where it must measure.

    Raises:
        SpaceError: ``space`` is no search space.
        DeviceError: ``latency`` is no latency model, or gave an answer that is not usable.
    """
    check_space_and_model(space, latency)
    return assess(space, RowLatency(space, latency, progress), seed)


def bound_rows(latencies: RowLatency, seed: int, samples: int = SAMPLED_BOUND) -> tuple[Rows, Rows]:
    """The rows at the two ends; the same for the same seed."""
    return latencies.bounds(np.random.default_rng([seed, 0]), samples)


def assess(space: SearchSpace, latencies: RowLatency, seed: int, samples: int = SAMPLED_BOUND) -> Feasibility:
    """The fastest and the slowest network of ``space``: exact where units are priced, of a seeded sample otherwise."""
    fastest, slowest = bound_rows(latencies, seed, samples)
    low, high = latencies.of_rows(np.stack([fastest, slowest]))
    return Feasibility(
        fastest_ms=float(low),
        slowest_ms=float(high),
        exact=latencies.exact,
        fastest=space.architecture(fastest),
        slowest=space.architecture(slowest),
    )
