"""What whole blocks add beyond the sum of their choices, place by place; fitted by backfitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.block_search.additive_model import AdditiveModel, Belief

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

WINDOW = 6000
PASSES = 2
SHRINKAGE = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyBelief:
    """Expected top-1: additive over choices, plus an effect of the unit that stands at each place (places, units)."""

    space: SearchSpace
    choices: Belief
    effects: Floats
    deviations: Floats

    def mean(self, rows: Rows) -> Floats:
        """Expected values of ``rows`` (n, P); shape (n,)."""
        ids = self.space.tables.unit_ids(rows)
        return np.asarray(self.choices.mean(rows) + self.effects[np.arange(ids.shape[1]), ids].sum(axis=1))

    def draw(self, rng: np.random.Generator) -> AccuracyBelief:
        """One sample of what is believed; little seen units vary most."""
        effects = self.effects + self.deviations * rng.standard_normal(self.effects.shape)
        return AccuracyBelief(self.space, self.choices.draw(rng), effects, self.deviations)


class AccuracyModel:
    """Ridge regression on choices, and on its residuals a shrunk mean for every unit at every place.

    The second part holds how kernel, ratio, squeeze-excite and activation act together in one block. It is refined by
    two passes of backfitting a generation, from where the last generation left it, over the latest answers.
    """

    def __init__(self, space: SearchSpace, sizes: NDArray[np.integer[Any]]) -> None:
        self._space = space
        self._choices = AdditiveModel(sizes)
        self._rows: list[Rows] = []
        self._values: list[Floats] = []
        self._effects: Floats | None = None

    def add(self, rows: Rows, values: Floats) -> None:
        """Learn from ``rows`` (n, P) and their ``values`` (n,)."""
        self._choices.add(rows, values)
        self._rows.append(rows)
        self._values.append(values)
        while sum(map(len, self._values)) - len(self._values[0]) > WINDOW:
            del self._rows[0], self._values[0]

    def fit(self) -> AccuracyBelief:
        """The belief given what was added; needs at least two rows."""
        choices = self._choices.fit()
        rows, values = np.concatenate(self._rows), np.concatenate(self._values)
        ids = self._space.tables.unit_ids(rows)
        places, kinds = ids.shape[1], self._space.tables.pad + 1
        effects = np.zeros((places, kinds)) if self._effects is None else self._effects
        counts = np.stack([np.bincount(ids[:, place], minlength=kinds) for place in range(places)])
        rest = values - choices.mean(rows) - effects[np.arange(places), ids].sum(axis=1)
        for _ in range(PASSES):
            for place in range(places):
                here = ids[:, place]
                rest = rest + effects[place, here]
                effects[place] = np.bincount(here, rest, kinds) / (counts[place] + SHRINKAGE)
                rest = rest - effects[place, here]
        self._effects = effects
        spread = float(np.sqrt(np.mean(rest**2)))
        return AccuracyBelief(self._space, choices, effects.copy(), spread / np.sqrt(counts + SHRINKAGE))
