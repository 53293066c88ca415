"""The samplers of a block search: what one is, Optuna's behind ask and tell, and which of them ``auto`` means."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mnv3search.block_search.evolution import Variation
from mnv3search.block_search.row_latency import Rows, row_key
from mnv3search.block_search.study import Outcome, StudyStorage, quiet_optuna
from mnv3search.errors import MissingDependencyError, UnknownNameError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

    from mnv3search.space import SearchSpace

OPTUNA_SAMPLERS = ("gp", "nsga2", "random", "tpe")
SAMPLERS = ("auto", "evolution", *OPTUNA_SAMPLERS)


class Sampler(Protocol):
    """Decides what is evaluated next.

    Attributes:
        name: as in :data:`SAMPLERS`.
        replays: given the same answers it asks for the same rows, so that a resumed search begins anew and takes
            known answers from the study. Otherwise it asks the study itself.
    """

    name: str
    replays: bool

    def ask(self) -> Rows:
        """Canonical rows to evaluate next, shape (n, P); none where there is nothing left to ask."""
        ...

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """The outcomes of the rows of the last :meth:`ask`; fewer than asked where the search ended."""
        ...

    @property
    def trial(self) -> Trial | None:
        """The study's trial of the last asked row; None where the sampler asks no study."""
        ...


def resolved_sampler(name: str) -> str:
    """The sampler that ``name`` stands for: ``auto`` is ``evolution``."""
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    missing = [package for package in ("torch", "scipy") if importlib.util.find_spec(package) is None]
    if name == "gp" and missing:
        raise MissingDependencyError(missing[0], "the sampler gp")
    return "evolution" if name == "auto" else name


class OptunaSampler:
    """One of Optuna's samplers, one row at a time, by ask and tell over the search's study."""

    replays = False

    def __init__(
        self, name: str, space: SearchSpace, storage: StudyStorage, seed: int, first: Rows, earlier: Sequence[Outcome]
    ) -> None:
        """``first`` (k, P): rows to ask for first; ``earlier``: what earlier sessions found."""
        self.name = name
        self.trial: Trial | None = None
        self._space, self._study, self._codec = space, storage.study, storage.codec
        self._variation, self._rng = Variation(space), np.random.default_rng([seed, 2, len(earlier)])
        self._seen = {row_key(outcome.row) for outcome in earlier}
        with quiet_optuna():
            self._study.sampler = _optuna_sampler(name, (seed + len(earlier)) % 2**32, storage.planned)
            for row in first if not earlier else ():
                self._study.enqueue_trial(self._codec.params(row))

    def ask(self) -> Rows:
        """One canonical row, shape (1, P)."""
        with quiet_optuna():
            self.trial = self._study.ask(self._codec.distributions)
        return self._space.canonical(self._codec.rows([self.trial.params]))

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """As :class:`Sampler`; the study has the outcome already. After one that was known, ask for a new neighbour."""
        self.trial = None
        for outcome in outcomes:
            self._seen.add(row_key(outcome.row))
            if outcome.status == "duplicate" and self.name == "gp":  # its maximum may be the same row again
                self._enqueue_neighbour(outcome.row)

    def _enqueue_neighbour(self, row: Rows) -> None:
        """Have a row asked next that was not yet; a sampler may want one and the same row again and again."""
        rows = self._rng.permutation(self._variation.neighbours(row))
        unseen = next((other for other in rows if row_key(other) not in self._seen), None)
        if unseen is not None:
            with quiet_optuna():
                self._study.enqueue_trial(self._codec.params(unseen))


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
