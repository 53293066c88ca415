"""What a run aims at: networks whose latency is within the target with the confidence that was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.block_search.feasibility import Feasibility
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.candidate import Candidate
from mnv3search.errors import InfeasibleError
from mnv3search.latency.confidence import LEAST_CONFIDENCE, limits_ms, probability_within, stated_errors_ms, z_of
from mnv3search.latency.model import LatencyModel

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

ASKED_AT_ONCE = 64
MOST_ASKED = 8_192  # errors are dear beside latencies: so many of the best are asked for theirs, and no more
SAMPLED_ROWS, SAMPLED_NETWORKS, NEAR_TARGET = 4_096, 64, 64
INCLUSIVE_QUANTILE = 0.1
ROUNDING = 1e-9
LARGEST_ERRORS = 10.0  # a stated error is a part of the latency, and so are a few of them


@dataclass(frozen=True, slots=True)
class Aim:
    """A target, and how surely it is to be met by what ``device`` states.

    Attributes:
        device: prices networks; may state their errors.
        target_ms: milliseconds.
        confidence: from 0.5, where the latency itself is aimed at, to below 1.
    """

    device: LatencyModel
    target_ms: float
    confidence: float

    @property
    def z(self) -> float:
        """Deviations that a latency must stay below the target."""
        return z_of(self.confidence)

    def limits_range_ms(self, slack: float = 0.0) -> tuple[float, float]:
        """The least and the most that the latency of networks can have to come to, aimed (1 + ``slack``) higher."""
        return self.target_ms / LARGEST_ERRORS, (1 + slack) * self.target_ms * (1 + ROUNDING)

    def limit_of(self, architecture: Architecture) -> float:
        """What the network's latency must come to, in milliseconds, if its relative error stays as it is."""
        return float(limits_ms(self.device, [architecture], self.target_ms, self.confidence)[0])

    def holds(self, network: Candidate) -> bool:
        """Whether the network is within the target by its own error."""
        error = float(stated_errors_ms(self.device, [network.architecture])[0]) if self.z else 0.0
        return network.latency_ms + self.z * error <= self.target_ms * (1 + ROUNDING)

    def best_within(self, ranked: Sequence[Candidate], count: int, slack: float = 0.0) -> list[Candidate]:
        """The first ``count`` of ``ranked`` that are within (1 + slack) times the limit of each, in their order."""
        near = [c for c in ranked if c.latency_ms <= (1 + slack) * self.target_ms]
        if self.z == 0:
            return near[:count]
        found: list[Candidate] = []
        for first in range(0, min(len(near), MOST_ASKED), ASKED_AT_ONCE):
            if len(found) >= count:
                break
            some = near[first : first + ASKED_AT_ONCE]
            latency = np.array([c.latency_ms for c in some])
            error = stated_errors_ms(self.device, [c.architecture for c in some])
            fits = latency + self.z * error <= (1 + slack) * self.target_ms
            found += [c for c, fit in zip(some, fits, strict=True) if fit]
        return found[:count]

    def search_limit_ms(self, space: SearchSpace, rows: RowLatency, seed: int, fastest_ms: float) -> float:
        """The target less the margin of the space's surer networks near it: what a block search is bounded by.

        The margin is the lower tenth of a seeded sample's, so that hardly a network is lost that is within the target
        by its own error; each is asked for that before it is named.
        """
        if self.z == 0 or not hasattr(self.device, "latency_error_ms"):
            return self.target_ms
        sampled = space.sample_indices(
            SAMPLED_ROWS if rows.exact else SAMPLED_NETWORKS, np.random.default_rng([seed, 1])
        )
        latency = rows.of_rows(sampled)
        near = np.argsort(np.abs(latency - self.target_ms), kind="stable")[:NEAR_TARGET]
        errors = stated_errors_ms(self.device, space.architectures(sampled[near]))
        relative = float(np.quantile(errors / latency[near], INCLUSIVE_QUANTILE))
        return max(self.target_ms / (1 + self.z * relative), fastest_ms)

    def require(self, bounds: Feasibility) -> None:
        """Pass where the space's fastest network is within the target by its own error.

        Raises:
            InfeasibleError: it is not; the message says at what confidence it would be.
        """
        error = float(stated_errors_ms(self.device, [bounds.fastest])[0]) if self.z else 0.0
        if bounds.fastest_ms + self.z * error <= self.target_ms:
            return
        raise self.infeasible(bounds.fastest_ms, error, bounds.slowest_ms, exact=bounds.exact)

    def infeasible(
        self, fastest_ms: float, error_ms: float, slowest_ms: float, *, exact: bool, narrowing: bool = False
    ) -> InfeasibleError:
        """The error of a target that even the fastest network, of that error, does not meet."""
        feasible = math.floor(100 * probability_within(fastest_ms, error_ms, self.target_ms)) / 100
        return InfeasibleError(
            self.target_ms, fastest_ms, slowest_ms, exact=exact, narrowing=narrowing,
            needed_ms=fastest_ms + self.z * error_ms,
            feasible_confidence=feasible if LEAST_CONFIDENCE <= feasible < self.confidence else None,
        )  # fmt: skip

    def never_binds(self, bounds: Feasibility) -> bool:
        """Whether even the space's slowest network is within the target."""
        error = float(stated_errors_ms(self.device, [bounds.slowest])[0]) if self.z else 0.0
        return bounds.slowest_ms + self.z * error <= self.target_ms
