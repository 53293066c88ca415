"""The models that lead the batched sampler, fitted to what was evaluated.

:class:`AccuracyModel` is for thousands of answers: a Bayesian ridge over one-hot choices, plus a shrunk mean for every
unit at every position. :class:`GaussianProcess` is for up to a few hundred: over the capacity of a network's stages and
over its choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.cost import unit_cost

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

_SHRINKAGES = np.logspace(-5, 4, 28)


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """A posterior over additive effects: ``value = intercept + Σ effect[column, choice]``.

    Attributes:
        offsets: where each column's effects begin, shape (P,).
        intercept, effects: the mean; effects have shape (F,).
        spread: (F, F), maps standard normal draws to deviations of the effects.
        share: how often each choice was seen, shape (F,): the mean value over what was seen is the same in every draw.
    """

    offsets: NDArray[np.int64]
    intercept: float
    effects: Floats
    spread: Floats
    share: Floats

    def mean(self, rows: Rows) -> Floats:
        """Expected values of ``rows`` (n, P); shape (n,)."""
        return self._sum(self.effects, rows)

    def draw(self, rng: np.random.Generator) -> Belief:
        """One sample of the posterior, itself a belief."""
        deviation = self.spread @ rng.standard_normal(len(self.effects))
        intercept = self.intercept - float(deviation @ self.share)
        return Belief(self.offsets, intercept, self.effects + deviation, self.spread, self.share)

    def _sum(self, effects: Floats, rows: Rows) -> Floats:
        return np.asarray(self.intercept + effects[rows + self.offsets].sum(axis=1), dtype=np.float64)


class AdditiveModel:
    """Sufficient statistics of a ridge regression on one-hot rows; the shrinkage maximises the evidence.

    Source of the evidence: Bishop 2006, section 3.5, with the noise profiled out.
    """

    def __init__(self, sizes: NDArray[np.integer[Any]]) -> None:
        widths = np.asarray(sizes, dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
        self._features = int(widths.sum())
        self._gram = np.zeros((self._features, self._features))
        self._moment = np.zeros(self._features)
        self._total = self._squares = 0.0
        self.count = 0

    def add(self, rows: Rows, values: Floats) -> None:
        """Learn from ``rows`` (n, P) and their ``values`` (n,)."""
        one_hot = np.zeros((len(rows), self._features))
        one_hot[np.arange(len(rows))[:, None], rows + self._offsets] = 1.0
        self._gram += one_hot.T @ one_hot
        self._moment += one_hot.T @ values
        self._total += float(values.sum())
        self._squares += float((values**2).sum())
        self.count += len(rows)

    def fit(self) -> Belief:
        """The posterior given what was added; needs at least two rows."""
        share = np.diag(self._gram) / self.count
        mean = self._total / self.count
        gram = self._gram - self.count * np.outer(share, share)
        moment = self._moment - self._total * share
        variation = max(self._squares - self.count * mean**2, 1e-12)
        values, vectors = np.linalg.eigh(gram)
        values, moment = np.maximum(values, 0.0), vectors.T @ moment
        lam = max(_SHRINKAGES, key=lambda lam: self._evidence(lam, values, moment, variation))
        effects = vectors @ (moment / (values + lam))
        noise = max(variation - float((moment**2 / (values + lam)).sum()), 1e-12 * variation) / self.count
        spread = vectors * np.sqrt(noise / (values + lam))
        return Belief(self._offsets, mean - float(effects @ share), effects, spread, share)

    def _evidence(self, lam: float, values: Floats, moment: Floats, variation: float) -> float:
        rest = max(variation - float((moment**2 / (values + lam)).sum()), 1e-12 * variation)
        flexible = float(np.log(values + lam).sum()) - len(values) * float(np.log(lam))
        return -0.5 * (self.count * float(np.log(rest / self.count)) + flexible)


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


SAMPLES = 512
LEAST_AMPLITUDE = 1e-12  # of answers that are all equal: they tell nothing apart
_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_SHARES_OF_CHOICES = (0.1, 0.4, 0.8)
_NOISES = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])


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
        self._sizes = np.array([len(parameter.choices) for parameter in space.parameters], dtype=np.int64)
        self._offsets = np.concatenate([[0], np.cumsum(self._sizes)[:-1]]).astype(np.int64)
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
        one_hot = np.zeros((len(rows), int(self._sizes.sum())))
        one_hot[np.arange(len(rows))[:, None], rows + self._offsets] = self._tables.used(rows)
        capacity = (self._capacities(rows) - self._mean) * self._scale
        return _Features(capacity, one_hot / np.sqrt(max(1, len(self._sizes))))

    def _capacities(self, rows: Rows) -> Floats:
        ids = self._tables.unit_ids(rows)
        costs = self._costs[ids]
        columns, place = [], 1
        for stage in self._tables.stages:
            own = slice(place, place + len(stage.slots))
            columns += [*np.log1p(costs[:, own].sum(axis=1)).T, (ids[:, own] != self._tables.pad).sum(axis=1)]
            place += len(stage.slots)
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
        optimism = abs(float(rng.standard_normal()))
        return Posterior(
            self.process, self.seen, self.share, self.length, self.offset, self.weights, self.root, self.deviation,
            optimism,
        )  # fmt: skip


def _kernel(a: _Features, b: _Features, share: float, length: float) -> Floats:
    linear = a.capacity @ b.capacity.T
    square = (a.capacity**2).sum(axis=1)[:, None] + (b.capacity**2).sum(axis=1) - 2 * linear
    smooth = np.exp(np.maximum(square, 0.0) / (-2 * length**2))
    return np.asarray(share * (a.choices @ b.choices.T) + (1 - share) * smooth + linear)
