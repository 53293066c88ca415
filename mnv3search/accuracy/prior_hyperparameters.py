"""Hyper-parameters of the ImageNet prior, by the marginal likelihood of an exact process over a part of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnv3search.accuracy.prior_features import KIND_OF_FEATURE, FloatArray
from mnv3search.accuracy.prior_kernel import squared_distances
from mnv3search.accuracy.prior_rows import OFFSET_VARIANCE, PUBLISHED, IntArray, Rows, source_means, standardisation

_KINDS = tuple(sorted(set(KIND_OF_FEATURE)))
_KIND_INDEX = np.array([_KINDS.index(kind) for kind in KIND_OF_FEATURE])


@dataclass(frozen=True)
class Hyperparameters:
    """What the marginal likelihood chooses.

    Attributes:
        log_relevance: of every feature (d,).
        log_linear: prior scale of the linear coefficients of each kind of feature.
        log_linear_share, log_bend_share: of each source, its scale in the process that all share, then the scale of a
            process of its own, (6,) each.
        log_noise: of each source (3,), points.
    """

    log_relevance: FloatArray
    log_linear: FloatArray
    log_linear_share: FloatArray
    log_bend_share: FloatArray
    log_noise: FloatArray

    @property
    def linear_scale(self) -> FloatArray:
        """Prior scale of each feature's linear coefficient."""
        return np.asarray(np.exp(self.log_linear)[_KIND_INDEX], dtype=np.float64)

    @property
    def linear_factor(self) -> FloatArray:
        """Scales of a source's linear part in the four processes: the shared one and each source's own; (3, 4)."""
        return _factor(self.log_linear_share)

    @property
    def bend_factor(self) -> FloatArray:
        """As ``linear_factor``, of the bend."""
        return _factor(self.log_bend_share)

    def packed(self) -> FloatArray:
        """All of them as one vector."""
        return np.concatenate(
            [self.log_relevance, self.log_linear, self.log_linear_share, self.log_bend_share, self.log_noise]
        )

    def unpacked(self, vector: FloatArray) -> Hyperparameters:
        """The hyper-parameters that ``packed`` gave as ``vector``."""
        sizes = np.cumsum([len(self.log_relevance), len(self.log_linear), 6, 6])
        return Hyperparameters(*np.split(vector, sizes))


def _factor(log_share: FloatArray) -> FloatArray:
    share = np.exp(log_share)
    return np.concatenate([share[:3, None], np.diag(share[3:])], axis=1)


def initial_hyperparameters() -> Hyperparameters:
    """Where the search for hyper-parameters starts, and the centre of their weak prior."""
    share = np.log([1.0, 1.0, 1.0, 0.3, 0.3, 0.4])
    return Hyperparameters(
        np.full(len(KIND_OF_FEATURE), -2.5), np.full(len(_KINDS), -1.5), share, share, np.log([0.08, 0.5, 0.2])
    )


def _penalty(vector: FloatArray, start: FloatArray, sizes: tuple[int, int]) -> tuple[float, FloatArray]:
    """Minus the log of a weak normal prior around the start, and its gradient."""
    d, k = sizes
    share = [0.5, 0.7, 0.3, 0.7, 0.7, 0.3]
    width = np.concatenate([np.full(d + k, 1.5), share, share, [1.0, 1.0, 0.3]])
    z = (vector - start) / width
    return 0.5 * float(z @ z), z / width


def _negative_evidence(h: Hyperparameters, x: FloatArray, source: IntArray, y: FloatArray) -> tuple[float, FloatArray]:
    """Minus the log marginal likelihood of an exact process, and its gradient in the packed order."""
    from scipy.linalg import cho_factor, cho_solve

    relevance, linear = np.exp(h.log_relevance), h.linear_scale
    b_lin, b_bend = h.linear_factor @ h.linear_factor.T, h.bend_factor @ h.bend_factor.T
    scaled = x * relevance
    bend = np.exp(-0.5 * squared_distances(scaled, scaled))
    flat = (x * linear) @ (x * linear).T
    pair = np.ix_(source, source)
    noise = np.exp(2 * h.log_noise)
    same = source[:, None] == source[None, :]
    k = b_lin[pair] * flat + b_bend[pair] * bend + OFFSET_VARIANCE * same
    k[np.diag_indices_from(k)] += noise[source] + 1e-6
    factor = cho_factor(k, lower=True, overwrite_a=True)
    alpha = cho_solve(factor, y)
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor[0])).sum())
    g = 0.5 * (cho_solve(factor, np.eye(len(y))) - np.outer(alpha, alpha))
    one_hot = np.eye(3)[source]
    d_lin = _share_gradient(one_hot.T @ (g * flat) @ one_hot, h.linear_factor)
    d_bend = _share_gradient(one_hot.T @ (g * bend) @ one_hot, h.bend_factor)
    g_lin = g * b_lin[pair]
    by_feature = 2 * linear**2 * np.einsum("nd,nd->d", x, g_lin @ x)
    g_bend = g * b_bend[pair] * bend
    spread = g_bend.sum(axis=1) @ (x * x) - np.einsum("nd,nd->d", x, g_bend @ x)
    gradient = np.concatenate([
        -2 * relevance**2 * spread, np.bincount(_KIND_INDEX, by_feature, len(_KINDS)), d_lin, d_bend,
        2 * noise * np.bincount(source, np.diag(g), 3),
    ])  # fmt: skip
    return value, gradient


def _share_gradient(by_pair: FloatArray, factor: FloatArray) -> FloatArray:
    """From the gradient by the sources' covariance (3, 3) to that by the logarithms of the shares (6,)."""
    slope = 2 * by_pair @ factor * factor
    return np.concatenate([slope[:, 0], np.diag(slope[:, 1:])])


def _subset(rows: Rows, sizes: tuple[int, int], rng: np.random.Generator) -> Rows:
    index = [np.flatnonzero(rows.source == PUBLISHED)]
    for source, size in enumerate(sizes):
        of_source = np.flatnonzero(rows.source == source)
        index.append(rng.permutation(of_source)[:size])
    return rows[np.concatenate(index)]


def choose_hyperparameters(
    rows: Rows,
    *,
    subset: tuple[int, int] = (400, 500),
    iterations: int = 60,
    seed: int = 0,
) -> Hyperparameters:
    """Maximise the marginal likelihood over a seeded subset of the two tables and all published rows."""
    from scipy.optimize import minimize

    sample = _subset(rows, subset, np.random.default_rng(seed))
    center, scale = standardisation(rows)
    x = (sample.raw - center) / scale
    y = sample.top1 - source_means(rows)[sample.source]
    base = initial_hyperparameters()
    sizes = (len(base.log_relevance), len(base.log_linear))

    def objective(vector: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = _negative_evidence(base.unpacked(vector), x, sample.source, y)
        penalty, slope = _penalty(vector, base.packed(), sizes)
        return value + penalty, gradient + slope

    found = minimize(
        objective, base.packed(), jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 20}
    )
    return base.unpacked(np.asarray(found.x, dtype=np.float64))
