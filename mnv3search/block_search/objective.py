"""The objective of a block search, as pure functions of top-1 and latency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mnv3search.errors import TargetError

REWARD_EXPONENT_LARGE = -0.07
REWARD_EXPONENT_SMALL = -0.15
UNBOUNDED_MS = 1e9  # the target of a search without one
Direction = Literal["maximize", "minimize"]


def reward(top1: float, latency_ms: float, target_latency_ms: float, exponent: float = REWARD_EXPONENT_LARGE) -> float:
    """``ACC × (LAT / TAR)^w``, in the unit of ``top1``.

    Source: Howard et al. 2019 (MobileNetV3), section 4.1: w = -0.07 for Large (as MnasNet), -0.15 for Small.
    """
    return float(top1 * (latency_ms / target_latency_ms) ** exponent)


@dataclass(frozen=True, slots=True)
class Objective:
    """What one search maximises.

    Attributes:
        target_latency_ms: the budget.
        objectives: 1 for top-1 within the target (or, without ``hard``, the reward), 2 for top-1 and latency.
        reward_exponent: the reward's w.
        hard: the target is a constraint: what exceeds it is refused before it is evaluated, and top-1 alone is
            maximised within it. Otherwise the reward alone decides.
        score: "top-1" is a score of any sign and scale, which the reward cannot multiply as it does an accuracy.
    """

    target_latency_ms: float
    objectives: Literal[1, 2] = 1
    reward_exponent: float = REWARD_EXPONENT_LARGE
    hard: bool = True
    score: bool = False

    def __post_init__(self) -> None:
        if self.score and self.objectives == 1 and not self.hard:
            raise TargetError(
                "the reward ACC × (LAT/TAR)^w is for accuracies in percent, and this evaluator gives a score; search "
                "with the target as a constraint (hard=True) or with objectives=2"
            )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of Optuna, for each of :meth:`values`."""
        return ("maximize",) if self.objectives == 1 else ("maximize", "minimize")

    def __str__(self) -> str:
        """What is maximised, in words."""
        bounded = self.hard and self.target_latency_ms < UNBOUNDED_MS
        within = f" within {self.target_latency_ms:.4g} ms" if bounded else ""
        value = "score" if self.score else "top-1"
        if self.objectives == 2:
            return f"{value} and latency{within}"
        return f"{value}{within}" if self.hard else f"the reward top-1 × (latency / target)^{self.reward_exponent:g}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of :meth:`values`."""
        if self.objectives == 2:
            return ("top1", "latency_ms")
        return ("top1",) if self.hard else ("reward",)

    @property
    def limit_ms(self) -> float:
        """The latency above which a candidate is refused; infinite without the hard constraint."""
        return self.target_latency_ms if self.hard else math.inf

    def values(self, top1: float, latency_ms: float) -> tuple[float, ...]:
        """Optuna's values of a candidate."""
        if self.objectives == 2:
            return (top1, latency_ms)
        if self.hard:
            return (top1,)
        return (reward(top1, latency_ms, self.target_latency_ms, self.reward_exponent),)

    def fitness(self, top1: float, latency_ms: float) -> float:
        """The best candidate's is highest: top-1 under the hard constraint (-inf beyond it), else the reward."""
        if self.hard:
            return top1 if latency_ms <= self.target_latency_ms else -math.inf
        return reward(top1, latency_ms, self.target_latency_ms, self.reward_exponent)

    def excess_ms(self, latency_ms: float) -> float:
        """The constraint's value, milliseconds above the target: met at 0 or below."""
        return latency_ms - self.target_latency_ms
