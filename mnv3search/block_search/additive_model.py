"""Bayesian ridge over one-hot choices: what the batched sampler believes about top-1 (and unpriced latency)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
