"""The surrogate models that lead the batched sampler, fitted to what was evaluated.

:class:`AccuracyModel` is for thousands of answers: a Bayesian ridge over one-hot choices, plus a shrunk mean for every
unit at every position. :class:`GaussianProcess` is for up to a few hundred: over the capacity of a network's stages and
over its choices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.cost import unit_cost

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOW = 6000  # latest answers that the effects of units are fitted to
PASSES = 2  # of backfitting
SHRINKAGE = 2.0
SAMPLES = 512  # random rows that capacities are standardised by
LEAST_AMPLITUDE = 1e-12  # of answers that are all equal: they tell nothing apart
_RIDGES = np.logspace(-5, 4, 28)
_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_SHARES_OF_CHOICES = (0.1, 0.4, 0.8)
_NOISES = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])


def _offsets(sizes: NDArray[np.integer[Any]]) -> Ints:
    """Where each column's entries begin in a one-hot row."""
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _one_hot(rows: Rows, sizes: NDArray[np.integer[Any]], values: Any = 1.0) -> Floats:
    """Rows (n, P) as (n, Σ sizes), ``values`` in place of the ones."""
    found = np.zeros((len(rows), int(sizes.sum())))
    found[np.arange(len(rows))[:, None], rows + _offsets(sizes)] = values
    return found


@dataclass(frozen=True, slots=True, eq=False)
class AdditivePosterior:
    """A posterior over additive effects: ``value = intercept + Σ effect[column, choice]``.

    Attributes:
        offsets: where each column's effects begin, shape (P,).
        intercept, effects: the mean; effects have shape (F,).
        spread: (F, F), maps standard normal numbers to deviations of the effects.
        share: how often each choice was seen, shape (F,): every draw has the same mean over what was seen.
    """

    offsets: Ints
    intercept: float
    effects: Floats
    spread: Floats
    share: Floats

    def mean(self, rows: Rows) -> Floats:
        """Expected values of ``rows`` (n, P); shape (n,)."""
        return np.asarray(self.intercept + self.effects[rows + self.offsets].sum(axis=1), dtype=np.float64)

    def draw(self, rng: np.random.Generator) -> AdditivePosterior:
        """A sample, as the mean of a posterior."""
        deviation = self.spread @ rng.standard_normal(len(self.effects))
        intercept = self.intercept - float(deviation @ self.share)
        return replace(self, intercept=intercept, effects=self.effects + deviation)


class AdditiveModel:
    """Sufficient statistics of a ridge regression on one-hot rows; the ridge maximises the evidence.

    Source of the evidence: Bishop 2006, section 3.5, with the noise profiled out.
    """

    def __init__(self, sizes: NDArray[np.integer[Any]]) -> None:
        self._sizes = np.asarray(sizes, dtype=np.int64)
        features = int(self._sizes.sum())
        self._gram = np.zeros((features, features))
        self._moment = np.zeros(features)
        self._total = self._squares = 0.0
        self.count = 0

    def add(self, rows: Rows, values: Floats) -> None:
        """Learn from ``rows`` (n, P) and their ``values`` (n,)."""
        one_hot = _one_hot(rows, self._sizes)
        self._gram += one_hot.T @ one_hot
        self._moment += one_hot.T @ values
        self._total += float(values.sum())
        self._squares += float((values**2).sum())
        self.count += len(rows)

    def fit(self) -> AdditivePosterior:
        """The posterior given what was added; needs at least two rows."""
        share = np.diag(self._gram) / self.count
        mean = self._total / self.count
        gram = self._gram - self.count * np.outer(share, share)
        moment = self._moment - self._total * share
        variation = max(self._squares - self.count * mean**2, 1e-12)
        values, vectors = np.linalg.eigh(gram)
        values, moment = np.maximum(values, 0.0), vectors.T @ moment

        def unexplained(ridge: float) -> float:
            return max(variation - float((moment**2 / (values + ridge)).sum()), 1e-12 * variation)

        def evidence(ridge: float) -> float:
            flexible = float(np.log(values + ridge).sum()) - len(values) * float(np.log(ridge))
            return -0.5 * (self.count * float(np.log(unexplained(ridge) / self.count)) + flexible)

        ridge = max(_RIDGES, key=evidence)
        effects = vectors @ (moment / (values + ridge))
        spread = vectors * np.sqrt(unexplained(ridge) / self.count / (values + ridge))
        return AdditivePosterior(_offsets(self._sizes), mean - float(effects @ share), effects, spread, share)


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyPosterior:
    """Expected top-1: additive over choices, plus an effect of the unit at each position (positions, units)."""

    space: SearchSpace
    choices: AdditivePosterior
    effects: Floats
    deviations: Floats

    def mean(self, rows: Rows) -> Floats:
        """Expected values of ``rows`` (n, P); shape (n,)."""
        ids = self.space.tables.unit_ids(rows)
        return np.asarray(self.choices.mean(rows) + self.effects[np.arange(ids.shape[1]), ids].sum(axis=1))

    def draw(self, rng: np.random.Generator) -> AccuracyPosterior:
        """A sample, as the mean of a posterior; little seen units vary most."""
        effects = self.effects + self.deviations * rng.standard_normal(self.effects.shape)
        return replace(self, choices=self.choices.draw(rng), effects=effects)


class AccuracyModel:
    """Ridge regression on choices, and on its residuals a shrunk mean for every unit at every position.

    The second part holds how kernel, ratio, squeeze-excite and activation act together in one block. It is refined by
    two passes of backfitting a generation, from the last generation's effects, over the latest answers.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._choices = AdditiveModel(space.tables.sizes)
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

    def fit(self) -> AccuracyPosterior:
        """The posterior given what was added; needs at least two rows."""
        choices = self._choices.fit()
        rows, values = np.concatenate(self._rows), np.concatenate(self._values)
        ids = self._space.tables.unit_ids(rows)
        positions, kinds = ids.shape[1], self._space.tables.pad + 1
        effects = np.zeros((positions, kinds)) if self._effects is None else self._effects
        counts = np.stack([np.bincount(ids[:, position], minlength=kinds) for position in range(positions)])
        rest = values - choices.mean(rows) - effects[np.arange(positions), ids].sum(axis=1)
        for _ in range(PASSES):
            for position in range(positions):
                here = ids[:, position]
                rest = rest + effects[position, here]
                effects[position] = np.bincount(here, rest, kinds) / (counts[position] + SHRINKAGE)
                rest = rest - effects[position, here]
        self._effects = effects
        spread = float(np.sqrt(np.mean(rest**2)))
        return AccuracyPosterior(self._space, choices, effects.copy(), spread / np.sqrt(counts + SHRINKAGE))


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """Of n rows: standardised capacities (n, D), used choices one-hot (n, F); both scaled to a mean square of 1 / n."""

    capacity: Floats
    choices: Floats


class GaussianProcess:
    """Learns a value of rows from a few hundred answers at most; the kernel's shape maximises the evidence.

    The kernel sums a linear and a squared-exponential part over capacities (MAdds, parameters and blocks of each stage
    and of the whole) and the share of choices that two rows have in common. Capacities carry over between choices that
    were never seen together: with fifty answers and dozens of parameters, single choices are not yet known.

    Source: Rasmussen and Williams 2006, sections 2.2 and 5.4, with the amplitude profiled out of the evidence.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._tables = space.tables
        costs = [unit_cost(unit) for unit in self._tables.units]
        self._costs = np.array([*((cost.madds, cost.parameters) for cost in costs), (0, 0)], dtype=np.float64)
        drawn = self._capacities(space.sample_indices(SAMPLES, np.random.default_rng(0)))
        self._mean, deviation = drawn.mean(axis=0), drawn.std(axis=0)
        self._scale = np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0)
        self._scale /= max(1.0, float(np.sqrt((deviation > 1e-9).sum())))

    def fit(self, rows: Rows, values: Floats) -> Posterior:
        """The posterior given the ``values`` (n,) of ``rows`` (n, P), of which there are at least two."""
        seen = self.features(rows)
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        target = (values - mean) / scale
        best: tuple[float, Posterior] | None = None
        for share in _SHARES_OF_CHOICES:
            for length in _LENGTHS:
                eigenvalues, vectors = np.linalg.eigh(_kernel(seen, seen, share, length))
                projected = vectors.T @ target
                total = np.maximum(eigenvalues, 0.0)[:, None] + _NOISES
                amplitude = np.maximum((projected[:, None] ** 2 / total).mean(axis=0), LEAST_AMPLITUDE)
                evidence = -0.5 * (len(values) * np.log(amplitude) + np.log(total).sum(axis=0))
                at = int(evidence.argmax())
                if best is None or evidence[at] > best[0]:
                    weights = vectors @ (projected / total[:, at])
                    root = vectors / np.sqrt(total[:, at])
                    deviation = scale * float(np.sqrt(amplitude[at]))
                    fitted = Posterior(self, seen, share, length, mean, scale * weights, root, deviation)
                    best = float(evidence[at]), fitted
        assert best is not None  # the grid is not empty
        return best[1]

    def features(self, rows: Rows) -> _Features:
        """What the kernel compares."""
        choices = _one_hot(rows, self._tables.sizes, self._tables.used(rows))
        capacity = (self._capacities(rows) - self._mean) * self._scale
        return _Features(capacity, choices / np.sqrt(max(1, len(self._tables.sizes))))

    def _capacities(self, rows: Rows) -> Floats:
        ids = self._tables.unit_ids(rows)
        costs = self._costs[ids]
        columns, position = [], 1
        for stage in self._tables.stages:
            own = slice(position, position + len(stage.slots))
            columns += [*np.log1p(costs[:, own].sum(axis=1)).T, (ids[:, own] != self._tables.pad).sum(axis=1)]
            position += len(stage.slots)
        return np.stack([*columns, *np.log1p(costs.sum(axis=1)).T], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Expected values and their deviations, ``optimism`` deviations of which are added to the mean."""

    process: GaussianProcess
    seen: _Features
    share: float
    length: float
    offset: float
    weights: Floats
    root: Floats
    deviation: float
    optimism: float = 0.0

    def mean(self, rows: Rows) -> Floats:
        """Expected values of ``rows`` (n, P), more by what :meth:`draw` added; shape (n,)."""
        asked = self.process.features(rows)
        kernel = _kernel(asked, self.seen, self.share, self.length)
        found = self.offset + kernel @ self.weights
        if self.optimism:
            own = self.share * (asked.choices**2).sum(axis=1) + 1 - self.share + (asked.capacity**2).sum(axis=1)
            known = ((kernel @ self.root) ** 2).sum(axis=1)
            found = found + self.optimism * self.deviation * np.sqrt(np.maximum(own - known, 0.0))
        return np.asarray(found, dtype=np.float64)

    def draw(self, rng: np.random.Generator) -> Posterior:
        """The same with an optimism drawn anew: an upper confidence bound of random width, to explore."""
        return replace(self, optimism=abs(float(rng.standard_normal())))


def _kernel(a: _Features, b: _Features, share: float, length: float) -> Floats:
    linear = a.capacity @ b.capacity.T
    square = (a.capacity**2).sum(axis=1)[:, None] + (b.capacity**2).sum(axis=1) - 2 * linear
    smooth = np.exp(np.maximum(square, 0.0) / (-2 * length**2))
    return np.asarray(share * (a.choices @ b.choices.T) + (1 - share) * smooth + linear)
