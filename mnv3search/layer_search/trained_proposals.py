"""What a step of NetAdapt with weights may keep: narrowings planned, then scored, then one of them chosen.

Everything here is a pure function of values: no network is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mnv3search.architecture import Architecture
from mnv3search.latency.model import LatencyModel, Progress
from mnv3search.layer_search.loop import widest_within
from mnv3search.layer_search.selection import SelectionRule


@dataclass(frozen=True, slots=True)
class Planned:
    """A narrowing that a step tries.

    Attributes:
        change: what is narrowed, in words; ``kind`` is ``expansion`` or ``bottleneck``.
        latency_ms: of the whole network.
    """

    kind: str
    change: str
    architecture: Architecture
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step tries.

    Attributes:
        required_ms: the cut that every narrowing of it makes.
        proposals: in the order of the layers; a proposal's number is its place here, from 0.
    """

    required_ms: float
    proposals: tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """A network judged on the held-out images.

    Attributes:
        top1: percent.
        loss: mean cross-entropy, nats.
        images: how many judged it.
        trained: images that its fine-tune saw, repeats counted.
        seconds: that both took.
    """

    top1: float
    loss: float
    images: int
    trained: int = 0
    seconds: float = 0.0

    @property
    def top1_std(self) -> float:
        """One standard deviation of ``top1`` in points, binomial: what another draw of as many images would change.

        Of the difference of two networks on the same images it is an upper bound, as most images are right or wrong
        with both.
        """
        share = min(max(self.top1 / 100, 0.5 / self.images), 1 - 0.5 / self.images)
        return 100 * math.sqrt(share * (1 - share) / self.images)


@dataclass(frozen=True, slots=True)
class Choice:
    """The proposal that a step keeps, and how many others the noise of scoring does not part from it."""

    number: int
    rivals: int


def plan_step(
    architecture: Architecture, latency_ms: float, latency: LatencyModel, required_ms: float, divisor: int,
    progress: Progress | None = None,
) -> Plan:  # fmt: skip
    """For each place the widest narrowing that is at least ``required_ms`` faster; none where no place can be.

    Raises:
        DeviceError: a latency that is not positive and finite.
    """
    found = widest_within(architecture, latency, latency_ms - required_ms, divisor, progress)
    return Plan(required_ms, tuple(Planned(site.kind, site.describe(width), a, ms) for site, width, a, ms in found))


def choose(
    plan: Plan, scores: Mapping[int, Score], before: Score, latency_ms: float, rule: SelectionRule
) -> Choice | None:
    """The best of the proposals that are scored; None where none is.

    Equal accuracies are common on few images, so the loss decides between equals: with ``ratio`` by Δloss/|Δlatency|,
    with ``accuracy`` by itself; between equals in that too the first.
    """
    if not scores:
        return None
    keys = {number: _key(plan.proposals[number], score, before, latency_ms, rule) for number, score in scores.items()}
    best = max(sorted(scores), key=keys.__getitem__)
    lucky = {
        n: _value(plan.proposals[n], score.top1 + score.top1_std, before, latency_ms, rule)
        for n, score in scores.items()
    }
    return Choice(best, sum(value >= keys[best][0] for n, value in lucky.items() if n != best))


def _key(planned: Planned, score: Score, before: Score, latency_ms: float, rule: SelectionRule) -> tuple[float, float]:
    gained = before.loss - score.loss
    second = gained if rule == "accuracy" else gained / (latency_ms - planned.latency_ms)
    return _value(planned, score.top1, before, latency_ms, rule), second


def _value(planned: Planned, top1: float, before: Score, latency_ms: float, rule: SelectionRule) -> float:
    return top1 if rule == "accuracy" else (top1 - before.top1) / (latency_ms - planned.latency_ms)
