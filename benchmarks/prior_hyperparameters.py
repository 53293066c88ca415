"""Hyper-parameters of the ImageNet prior, by the marginal likelihood of an exact process over a part of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.prior_rows import PUBLISHED, SOURCES, IntArray, Rows, source_means, standardisation
from mnv3search.accuracy.prior import squared_distances
from mnv3search.accuracy.prior_features import KIND_OF_FEATURE, FloatArray

OFFSET_VARIANCE = 100.0
"""Prior variance of each source's offset from its mean."""
ALIKE_STD = 0.05
"""Of the figures of one ablation, points."""
_KINDS = tuple(sorted(set(KIND_OF_FEATURE)))
_KIND_INDEX = np.array([_KINDS.index(kind) for kind in KIND_OF_FEATURE])
_SOURCES = len(SOURCES)


@dataclass(frozen=True)
class Sharing:
    """How much published networks deviate from what all sources share: scales of their own linear part and bend."""

    linear: float
    bend: float


@dataclass(frozen=True)
class Hyperparameters:
    """What the marginal likelihood chooses.

    Attributes:
        log_relevance: of every feature (d,).
        log_linear: prior scale of the linear coefficients of each kind of feature.
        log_bend: prior scale of the bend (1,).
        log_noise: of each source's figures (3,), points at 75 %.
    """

    log_relevance: FloatArray
    log_linear: FloatArray
    log_bend: FloatArray
    log_noise: FloatArray

    @property
    def linear_scale(self) -> FloatArray:
        """Prior scale of each feature's linear coefficient."""
        return np.asarray(np.exp(self.log_linear)[_KIND_INDEX], dtype=np.float64)

    def packed(self) -> FloatArray:
        """All of them as one vector."""
        return np.concatenate([self.log_relevance, self.log_linear, self.log_bend, self.log_noise])

    def unpacked(self, vector: FloatArray) -> Hyperparameters:
        """The hyper-parameters that ``packed`` gave as ``vector``."""
        return Hyperparameters(*np.split(vector, np.cumsum([len(self.log_relevance), len(self.log_linear), 1])))


def initial_hyperparameters() -> Hyperparameters:
    """Where the search for hyper-parameters starts, and the centre of their weak prior."""
    return Hyperparameters(
        np.full(len(KIND_OF_FEATURE), -2.5), np.full(len(_KINDS), -1.7), np.zeros(1), np.log([0.05, 0.2, 0.15])
    )


def _penalty(vector: FloatArray, start: FloatArray) -> tuple[float, FloatArray]:
    """Minus the log of a normal prior around the start, weak but for bend and noise, and its gradient."""
    width = np.concatenate([np.full(len(start) - 4, 1.5), [0.05, 0.2, 0.2, 0.1]])
    z = (vector - start) / width
    return 0.5 * float(z @ z), z / width


def _negative_evidence(h: Hyperparameters, x: FloatArray, rows: Rows, sharing: Sharing) -> tuple[float, FloatArray]:
    """Minus the log marginal likelihood of an exact process, and its gradient in the packed order."""
    from scipy.linalg import cho_factor, cho_solve

    source, y = rows.source, rows.figure - source_means(rows)[rows.source]
    relevance, linear, bend_variance = np.exp(h.log_relevance), h.linear_scale, float(np.exp(2 * h.log_bend[0]))
    own = (source == PUBLISHED).astype(np.float64)
    both = np.outer(own, own)
    b_lin, b_bend = 1.0 + sharing.linear**2 * both, bend_variance * (1.0 + sharing.bend**2 * both)
    scaled = x * relevance
    bend = b_bend * np.exp(-0.5 * squared_distances(scaled, scaled))
    noise = np.exp(2 * h.log_noise)
    k = b_lin * ((x * linear) @ (x * linear).T) + bend + OFFSET_VARIANCE * (source[:, None] == source[None, :])
    k[np.diag_indices_from(k)] += noise[source] + rows.recipe_std**2 + 1e-6
    factor = cho_factor(k, lower=True, overwrite_a=True)
    alpha = cho_solve(factor, y)
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor[0])).sum())
    g = 0.5 * (cho_solve(factor, np.eye(len(y))) - np.outer(alpha, alpha))
    by_feature = 2 * linear**2 * np.einsum("nd,nd->d", x, (g * b_lin) @ x)
    g_bend = g * bend
    spread = g_bend.sum(axis=1) @ (x * x) - np.einsum("nd,nd->d", x, g_bend @ x)
    gradient = np.concatenate([
        -2 * relevance**2 * spread, np.bincount(_KIND_INDEX, by_feature, len(_KINDS)), [2 * g_bend.sum()],
        2 * noise * np.bincount(source, np.diag(g), _SOURCES),
    ])  # fmt: skip
    return value, gradient


def _sample(rows: Rows, sizes: tuple[int, int], rng: np.random.Generator) -> Rows:
    """All published rows and some of each table."""
    index: list[IntArray] = [np.flatnonzero(rows.source == PUBLISHED)]
    for source, size in enumerate(sizes):
        index.append(rng.permutation(np.flatnonzero(rows.source == source))[:size])
    return rows[np.concatenate(index)]


def choose_hyperparameters(
    rows: Rows, sharing: Sharing, *, subset: tuple[int, int] = (150, 200), iterations: int = 50, seed: int = 0
) -> Hyperparameters:
    """Maximise the marginal likelihood over a seeded subset of the two tables and all published rows."""
    from scipy.optimize import minimize

    sample = _sample(rows, subset, np.random.default_rng(seed))
    center, scale = standardisation(rows)
    x = (sample.raw - center) / scale
    base = initial_hyperparameters()
    start = base.packed()

    def objective(vector: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = _negative_evidence(base.unpacked(vector), x, sample, sharing)
        penalty, slope = _penalty(vector, start)
        return value + penalty, gradient + slope

    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 20})
    return base.unpacked(np.asarray(found.x, dtype=np.float64))
