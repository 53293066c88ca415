"""What must agree for a saved search to be continued: everything that its answers depend on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mnv3search.accuracy.evaluator import evaluator_identity
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """What must agree for a study to be continued."""

    space: str
    networks: str
    evaluator: str
    device: str
    sampler: str
    seed: int
    target_latency_ms: float
    objectives: int
    reward_exponent: float
    hard: bool

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        latencies: RowLatency,
        evaluator: object,
        sampler: str,
        seed: int,
        objective: Objective,
    ) -> StudyIdentity:
        """The identity of one search; a space is known by its name and a digest of all that makes its networks."""
        return cls(
            space=space.name,
            networks=hashlib.sha256(repr(space.skeleton).encode()).hexdigest()[:16],
            evaluator=evaluator_identity(evaluator),
            device=latencies.identity,
            sampler=sampler,
            seed=seed,
            target_latency_ms=objective.target_latency_ms,
            objectives=objective.objectives,
            reward_exponent=objective.reward_exponent,
            hard=objective.hard,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return {name: getattr(self, name) for name in self.__slots__}
