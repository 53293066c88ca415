"""What NetAdapt with weights keeps as it goes: the seed, and each step's plan, scores, winner and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mnv3search.layer_search.result import Step, Steps
from mnv3search.layer_search.scoring import Choice, Plan, Score

if TYPE_CHECKING:
    from pandas import DataFrame

    from mnv3search.training.trained import TrainedNetwork


@dataclass(frozen=True, slots=True)
class TrainedStep:
    """One narrowing that was kept, with what it cost to find.

    Attributes:
        step: as NetAdapt without weights keeps it; its top-1 is of the held-out images.
        loss: mean cross-entropy on them.
        rivals: proposals that would have won had their top-1 been one standard deviation higher.
        trained: images that the fine-tunes of all proposals of the step saw, repeats counted.
        seconds: of all fine-tunes and scores, added up over processes.
    """

    step: Step
    loss: float
    rivals: int
    trained: int
    seconds: float


def finished_step(
    number: int, plan: Plan, scores: Mapping[int, Score], choice: Choice, before: tuple[float, float]
) -> TrainedStep:
    """Step ``number``, which kept ``choice``; ``before`` is top-1 and milliseconds of the network that it narrowed."""
    kept, score, (top1, latency_ms) = plan.proposals[choice.number], scores[choice.number], before
    step = Step(
        number, kept.kind, kept.change, kept.architecture, score.top1, score.top1_std, kept.latency_ms,
        score.top1 - top1, kept.latency_ms - latency_ms, len(plan.proposals), plan.required_ms,
    )  # fmt: skip
    trained, seconds = sum(s.trained for s in scores.values()), sum(s.seconds for s in scores.values())
    return TrainedStep(step, score.loss, choice.rivals, trained, seconds)


class TrainedSteps(tuple[TrainedStep, ...]):
    """Steps in order, which a notebook shows as a table."""

    __slots__ = ()

    def to_frame(self) -> DataFrame:
        """A row a step, as :meth:`Steps.to_frame`, and ``loss``, ``rivals``, ``trained``, ``seconds``."""
        frame = self._plain().to_frame()
        for name in ("loss", "rivals", "trained", "seconds"):
            frame[name] = [getattr(step, name) for step in self]
        return frame

    def __repr__(self) -> str:
        return repr(self._plain())

    def _repr_html_(self) -> str:
        return self._plain()._repr_html_()

    def _plain(self) -> Steps:
        return Steps(found.step for found in self)


class Journal(Protocol):
    """What a narrowing keeps as it goes, so that it can go on at any proposal."""

    def seed(self) -> tuple[Score, float] | None:
        """The seed's score and its latency in milliseconds, once they are known."""
        ...

    def keep_seed(self, score: Score, latency_ms: float) -> None:
        """Keep them."""
        ...

    def steps(self) -> Sequence[TrainedStep]:
        """The steps that are finished, in order."""
        ...

    def network(self, number: int) -> TrainedNetwork:
        """The network after step ``number``; 0 for the seed."""
        ...

    def plan(self, number: int) -> Plan | None:
        """What step ``number`` tries, once it is planned."""
        ...

    def keep_plan(self, number: int, plan: Plan) -> None:
        """Keep it."""
        ...

    def scores(self, number: int) -> Mapping[int, Score]:
        """The proposals of step ``number`` that are scored, by their numbers."""
        ...

    def keep_score(self, number: int, proposal: int, score: Score, best: TrainedNetwork | None) -> None:
        """Keep a score, and the proposal's network where it is the best of the step so far."""
        ...

    def best(self, number: int, proposal: int) -> TrainedNetwork | None:
        """The network of the step's best proposal so far where it is this one, and was kept."""
        ...

    def keep_step(self, step: TrainedStep, proposal: int, network: TrainedNetwork) -> None:
        """Keep a finished step, which kept ``proposal``."""
        ...


class Memory:
    """A journal that is kept nowhere: for a narrowing in Python that nobody means to go on with."""

    def __init__(self, trained: TrainedNetwork) -> None:
        self._networks = [trained]
        self._seed: tuple[Score, float] | None = None
        self._steps: list[TrainedStep] = []
        self._plan: Plan | None = None
        self._scores: dict[int, Score] = {}
        self._best: tuple[int, TrainedNetwork] | None = None

    def seed(self) -> tuple[Score, float] | None:
        """As :class:`Journal`."""
        return self._seed

    def keep_seed(self, score: Score, latency_ms: float) -> None:
        """As :class:`Journal`."""
        self._seed = (score, latency_ms)

    def steps(self) -> Sequence[TrainedStep]:
        """As :class:`Journal`."""
        return self._steps

    def network(self, number: int) -> TrainedNetwork:
        """As :class:`Journal`."""
        return self._networks[number]

    def plan(self, number: int) -> Plan | None:
        """As :class:`Journal`."""
        return self._plan if number == len(self._steps) + 1 else None

    def keep_plan(self, number: int, plan: Plan) -> None:
        """As :class:`Journal`."""
        self._plan, self._scores, self._best = plan, {}, None

    def scores(self, number: int) -> Mapping[int, Score]:
        """As :class:`Journal`."""
        return self._scores

    def keep_score(self, number: int, proposal: int, score: Score, best: TrainedNetwork | None) -> None:
        """As :class:`Journal`."""
        self._scores[proposal] = score
        if best is not None:
            self._best = (proposal, best)

    def best(self, number: int, proposal: int) -> TrainedNetwork | None:
        """As :class:`Journal`."""
        return self._best[1] if self._best is not None and self._best[0] == proposal else None

    def keep_step(self, step: TrainedStep, proposal: int, network: TrainedNetwork) -> None:
        """As :class:`Journal`."""
        self._steps.append(step)
        self._networks.append(network)
        self._plan = None
