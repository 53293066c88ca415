"""What NetAdapt with weights keeps as it goes: the seed, and each step's plan, scores, winner and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnv3search.layer_search.proposals import Plan
from mnv3search.layer_search.result import Step, Steps
from mnv3search.layer_search.scoring import Choice, Score

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
    score = scores[choice.number]
    step = plan.step(number, choice.number, score.top1, score.top1_std, before)
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


class Journal:
    """What a narrowing needs to go on at any proposal, in memory; a run's is also in its folder."""

    def __init__(self, trained: TrainedNetwork) -> None:
        self._networks = [trained]
        self._seed: tuple[Score, float] | None = None
        self._plans: dict[int, Plan] = {}
        self._scores: dict[int, dict[int, Score]] = {}
        self._best: tuple[int, int, TrainedNetwork] | None = None
        self._steps: list[TrainedStep] = []

    def seed(self) -> tuple[Score, float] | None:
        """The seed's score and its latency in milliseconds, once they are known."""
        return self._seed

    def keep_seed(self, score: Score, latency_ms: float) -> None:
        """Keep them."""
        self._seed = (score, latency_ms)

    def steps(self) -> Sequence[TrainedStep]:
        """The steps that are finished, in order."""
        return self._steps

    def network(self, number: int) -> TrainedNetwork:
        """The network after step ``number``; 0 for the seed."""
        return self._networks[number]

    def plan(self, number: int) -> Plan | None:
        """What step ``number`` tries, once it is planned."""
        return self._plans.get(number)

    def keep_plan(self, number: int, plan: Plan) -> None:
        """Keep it."""
        self._plans[number] = plan

    def scores(self, number: int) -> Mapping[int, Score]:
        """The proposals of step ``number`` that are scored, by their numbers."""
        return self._scores.get(number, {})

    def keep_score(self, number: int, proposal: int, score: Score, best: TrainedNetwork | None) -> None:
        """Keep a score, and the proposal's network where it is the best of the step so far."""
        self._scores.setdefault(number, {})[proposal] = score
        if best is not None:
            self._best = (number, proposal, best)

    def best(self, number: int, proposal: int) -> TrainedNetwork | None:
        """The network of the step's best proposal so far where it is this one, and was kept."""
        return self._best[2] if self._best is not None and self._best[:2] == (number, proposal) else None

    def keep_step(self, step: TrainedStep, proposal: int, network: TrainedNetwork) -> None:
        """Keep a finished step, which kept ``proposal``."""
        self._steps.append(step)
        self._networks.append(network)
