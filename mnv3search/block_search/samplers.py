"""The samplers of a block search: what one is, Optuna's behind ask and tell, and which of them ``auto`` means."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mnv3search.block_search.evolution import Variation
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.study import (
    CONSTRAINT,
    Outcome,
    ParameterCodec,
    finished_trials,
    intermediate_values,
    quiet_optuna,
)
from mnv3search.errors import MissingDependencyError, UnknownNameError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]

OPTUNA_SAMPLERS = ("gp", "nsga2", "random", "tpe")
SAMPLERS = ("auto", "evolution", *OPTUNA_SAMPLERS)


class Sampler(Protocol):
    """Decides what is judged next.

    Attributes:
        name: as in :data:`SAMPLERS`.
        replays: given the same answers it asks for the same rows, so that a resumed search goes through it again from
            the start, with what is known answered from the study. Otherwise it is told what the study holds.
    """

    name: str
    replays: bool

    def ask(self) -> Rows:
        """Canonical rows to judge next, shape (n, P); none where there is nothing left to ask."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """What became of the rows of the last :meth:`ask`; fewer than asked where the search ended."""
        ...

    def system_attrs(self) -> dict[str, Any]:
        """What the study must keep with the last asked row for this sampler to be restored."""
        ...


def resolved_sampler(name: str) -> str:
    """The sampler that ``name`` stands for.

    ``auto`` is ``evolution``.

    Raises:
        UnknownNameError: no such sampler.
        MissingDependencyError: ``gp`` was asked for and torch or scipy is not installed.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    missing = [package for package in ("torch", "scipy") if importlib.util.find_spec(package) is None]
    if name == "gp" and missing:
        raise MissingDependencyError(missing[0], "the sampler gp")
    return "evolution" if name == "auto" else name


class OptunaSampler:
    """One of Optuna's samplers, one row at a time, over a study in memory."""

    replays = False

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        objective: Objective,
        seed: int,
        first: Rows,
        told: Sequence[Outcome],
        trials: int,
    ) -> None:
        """``first`` (k, P): rows to ask for first; ``told``: what an earlier session found."""
        import optuna

        self.name = name
        self._space = space
        self._objective = objective
        self._codec = ParameterCodec(space)
        self._trial: Trial | None = None
        self._variation, self._rng = Variation(space), np.random.default_rng([seed, 2, len(told)])
        self._seen = {_key(outcome.row) for outcome in told}
        with quiet_optuna():
            self._study = optuna.create_study(
                sampler=_optuna_sampler(name, (seed + len(told)) % 2**32, trials), directions=list(objective.directions)
            )
            self._study.add_trials(finished_trials(self._codec, objective, told, unused=True))
            for row in first if not told else ():
                self._study.enqueue_trial(self._codec.params(row))

    def ask(self) -> Rows:
        """One canonical row, shape (1, P)."""
        with quiet_optuna():
            self._trial = self._study.ask(self._codec.distributions)
        return self._space.canonical(self._codec.rows([self._trial.params]))

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Tell Optuna the values and the constraint of the asked row; after one that was known, ask a new neighbour."""
        from optuna.trial import TrialState

        if self._trial is None:
            return
        with quiet_optuna():
            for outcome in outcomes:
                if self._objective.hard:
                    self._trial.set_constraint(CONSTRAINT, self._objective.excess_ms(outcome.latency_ms))
                if outcome.pruned and self._objective.objectives == 1:
                    for epoch, value in intermediate_values(self._objective, outcome).items():
                        self._trial.report(value, epoch)
                    self._study.tell(self._trial, state=TrialState.PRUNED)
                else:
                    self._study.tell(self._trial, list(outcome.values))
                self._seen.add(_key(outcome.row))
                if outcome.status == "duplicate" and self.name == "gp":  # its maximum may be the same row again
                    self._enqueue_neighbour(outcome.row)
            if not outcomes:
                self._study.tell(self._trial, state=TrialState.FAIL)
        self._trial = None

    def _enqueue_neighbour(self, row: Rows) -> None:
        """Have a row asked next that was not yet; a sampler may want one and the same row again and again."""
        rows = self._rng.permutation(self._variation.neighbours(row))
        unseen = next((other for other in rows if _key(other) not in self._seen), None)
        if unseen is not None:
            self._study.enqueue_trial(self._codec.params(unseen))

    def system_attrs(self) -> dict[str, Any]:
        """Optuna's own notes on the trial: NSGA-II keeps its generation there."""
        if self._trial is None:
            return {}
        return dict(self._study.get_trials(deepcopy=False)[self._trial.number].system_attrs)


def _key(row: Rows) -> bytes:
    return np.ascontiguousarray(row, dtype=np.int64).tobytes()


def _optuna_sampler(name: str, seed: int, trials: int) -> BaseSampler:
    from optuna import samplers

    match name:
        case "tpe":
            return samplers.TPESampler(seed=seed)
        case "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=min(50, max(4, trials // 5)))
        case "gp":
            return samplers.GPSampler(seed=seed)
        case _:
            return samplers.RandomSampler(seed=seed)
