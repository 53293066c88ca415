"""When the training of a network that will not win is given up: Optuna's pruners, or a rule for two objectives."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from mnv3search.accuracy.evaluator import Report
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.study import Outcome, intermediate_values, quiet_optuna
from mnv3search.errors import Mnv3SearchError, UnknownNameError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

PRUNERS = ("auto", "none", "median", "halving", "dominated")
STARTUP = 5
"""So many networks are trained to their end before any is given up."""


class StoppingRule(Protocol):
    """Learns from finished trainings, and says of a running one whether to give it up."""

    def should_prune(self, reports: Sequence[Report], latency_ms: float) -> bool:
        """Whether a network of ``latency_ms`` that has come so far should be given up; asked after each epoch."""
        ...

    def learn(self, outcome: Outcome) -> None:
        """A training that ended, given up or not."""
        ...


def stopping_rule(name: str, objective: Objective) -> StoppingRule | None:
    """The rule called ``name``; ``auto`` is ``median`` with one objective and ``dominated`` with two."""
    if name not in PRUNERS:
        raise UnknownNameError("pruner", name, PRUNERS)
    if name == "auto":
        name = "median" if objective.objectives == 1 else "dominated"
    if name == "none":
        return None
    if name == "dominated":
        return Dominated(objective)
    if objective.objectives == 2:
        raise Mnv3SearchError(
            f"pruner {name} compares one value and there are two objectives; give dominated, none or auto"
        )
    return Pruned(name, objective)


class Pruned:
    """One of Optuna's pruners, over a study in memory that holds every training's value by epoch."""

    def __init__(self, name: str, objective: Objective) -> None:
        self._name, self._objective = name, objective
        self._running: Trial | None = None

    @cached_property
    def _study(self) -> Study:
        import optuna

        pruner: optuna.pruners.BasePruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
        if self._name == "halving":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        return optuna.create_study(direction="maximize", pruner=pruner)

    def should_prune(self, reports: Sequence[Report], latency_ms: float) -> bool:
        """What the pruner says after the last of ``reports``."""
        with quiet_optuna():
            if self._running is None:
                self._running = self._study.ask()
            epoch, top1 = reports[-1]
            self._running.report(self._objective.values(top1, latency_ms)[0], epoch)
            return self._running.should_prune()

    def learn(self, outcome: Outcome) -> None:
        """Remember the values of a training by epoch; one of an earlier session is first reported as while it ran."""
        running, self._running = self._running, None
        if not outcome.reports:
            return
        from optuna.trial import TrialState  # a search whose evaluator does not train needs no Optuna

        with quiet_optuna():
            if running is None:
                running = self._study.ask()
                for epoch, value in intermediate_values(self._objective, outcome).items():
                    running.report(value, epoch)
                    running.should_prune()  # halving keeps notes on that
            if outcome.status == "stopped":
                self._study.tell(running, state=TrialState.PRUNED)
            else:
                self._study.tell(running, outcome.values[0])


def expected_top1(outcomes: Sequence[Outcome]) -> list[float | None]:
    """What each network is expected to reach: what it did, or, stopped, with what finished ones gained from there.

    None for a network that was not trained, and for a stopped one before any other went past its last epoch.
    """
    gains: dict[int, list[float]] = {}
    for outcome in outcomes:
        if outcome.status == "evaluated":
            for epoch, reached in outcome.reports:
                gains.setdefault(epoch, []).append(outcome.reports[-1][1] - reached)
    found: list[float | None] = []
    for outcome in outcomes:
        if outcome.status == "stopped" and outcome.reports:
            epoch, reached = outcome.reports[-1]
            found.append(reached + statistics.median(gains[epoch]) if epoch in gains else None)
        else:
            found.append(outcome.top1 if outcome.status == "evaluated" else None)
    return found


class Dominated:
    """Gives a network up where even an optimistic end of its training would be dominated.

    Optimistic is what it has reached and the largest gain from that epoch to the end that any finished network has
    shown. Dominated is what a finished network beats that is as fast or faster.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._finished: list[tuple[dict[int, float], float, float]] = []

    def should_prune(self, reports: Sequence[Report], latency_ms: float) -> bool:
        """Whether the last of ``reports`` and the largest gain seen from there stay below a finished network."""
        epoch, top1 = reports[-1]
        gains = [end - by_epoch[epoch] for by_epoch, end, _ in self._finished if epoch in by_epoch]
        if len(gains) < STARTUP:
            return False
        optimistic = top1 + max(0.0, *gains)
        return any(end > optimistic and ms <= latency_ms for _, end, ms in self._finished)

    def learn(self, outcome: Outcome) -> None:
        """Remember a training that went to its end."""
        if outcome.reports and outcome.status == "evaluated":
            self._finished.append((dict(outcome.reports), outcome.reports[-1][1], outcome.latency_ms))
