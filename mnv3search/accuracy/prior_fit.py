"""Fitting the ImageNet prior: inducing points, then the posterior of the coefficients in closed form.

Rows say what networks score. Changes say what is believed beforehand of going from one network to another (a wider
expansion, a larger kernel, a squeeze-excite more): top-1 should not fall. They move the posterior mean where the rows
alone would let it fall, and never narrow the stated deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.prior_features import FloatArray
from mnv3search.accuracy.prior_hyperparameters import Hyperparameters
from mnv3search.accuracy.prior_kernel import Basis, squared_distances
from mnv3search.accuracy.prior_rows import OFFSET_VARIANCE, PUBLISHED, IntArray, Rows, source_means, standardisation

BELIEF_ROUNDS = 12
MIN_CLUSTER = 3


@dataclass(frozen=True)
class Changes:
    """Pairs of networks, and by how much top-1 should at least grow from the first to the second.

    A smaller growth counts as a figure that is off by as much, at a deviation of ``std``; a larger one costs nothing.
    Raw features of both (n, d); ``gain`` and ``std`` in points of the published scale (n,).
    """

    before: FloatArray
    after: FloatArray
    gain: FloatArray
    std: FloatArray


def centroids(points: FloatArray, count: int, seed: int, rounds: int = 25) -> FloatArray:
    """k-means centroids of ``points``, each the mean of at least three: none is itself a row."""
    rng = np.random.default_rng(seed)
    chosen = [points[rng.integers(len(points))]]
    nearest = squared_distances(points, chosen[0][None])[:, 0]
    for _ in range(count - 1):
        total = nearest.sum()
        pick = rng.choice(len(points), p=nearest / total) if total > 0 else rng.integers(len(points))
        chosen.append(points[pick])
        nearest = np.minimum(nearest, squared_distances(points, chosen[-1][None])[:, 0])
    centers = np.array(chosen)
    for _ in range(rounds):
        distance = squared_distances(points, centers)
        owner = distance.argmin(axis=1)
        for k in range(count):
            own = np.flatnonzero(owner == k)
            members = own if len(own) >= MIN_CLUSTER else np.argpartition(distance[:, k], MIN_CLUSTER)[:MIN_CLUSTER]
            centers[k] = points[members].mean(axis=0)
    return centers


def make_basis(rows: Rows, h: Hyperparameters, grid: FloatArray, counts: tuple[int, int, int], seed: int = 0) -> Basis:
    """The basis, its inducing points the centroids of each table's region and of ``grid``; rounded as it ships.

    ``grid`` holds raw features of the published families over widths and resolutions, (n, d).
    """
    center, scale = standardisation(rows)
    relevance = np.asarray(np.round(np.exp(h.log_relevance), 5), dtype=np.float64)
    regions = [rows.raw[rows.source == 0], rows.raw[rows.source == 1], grid]
    points = [
        centroids((region - center) / scale * relevance, count, seed + i)
        for i, (region, count) in enumerate(zip(regions, counts, strict=True))
    ]
    linear = np.asarray(np.round(h.linear_scale, 5), dtype=np.float64)
    inducing = np.asarray(np.round(np.concatenate(points), 3), dtype=np.float64)
    return Basis(center, scale, relevance, linear, inducing)


@dataclass(frozen=True)
class Frame:
    """What a posterior's coefficients refer to: basis, hyper-parameters and the sources' means."""

    basis: Basis
    whitener: FloatArray
    hyperparameters: Hyperparameters
    means: FloatArray

    def design(self, raw: FloatArray, source: IntArray) -> tuple[FloatArray, FloatArray]:
        """Rows in coefficients of unit prior variance (n, p), and the variance that they leave over (n,)."""
        h = self.hyperparameters
        linear, bend = self.basis.coordinates(raw, self.whitener)
        parts = [np.sqrt(OFFSET_VARIANCE) * np.eye(3)[source]]
        for q in range(h.linear_factor.shape[1]):
            parts.append(linear * h.linear_factor[source, q][:, None])
            parts.append(bend * h.bend_factor[source, q][:, None])
        unreached = (h.bend_factor**2).sum(axis=1)[source] * np.maximum(1.0 - (bend * bend).sum(axis=1), 0.0)
        return np.concatenate(parts, axis=1), unreached + np.exp(2 * h.log_noise)[source]


@dataclass(frozen=True)
class Posterior:
    """The fitted process, all sources together.

    Attributes:
        frame: what the coefficients refer to.
        precision, target: what the rows say (p, p), (p,).
        factor: lower Cholesky factor of ``precision``.
        change, changes: the changes' design (n, p), and what is believed of them; or None.
        binding: which changes move the mean (n,).
        mean: posterior mean of the coefficients (p,).
    """

    frame: Frame
    precision: FloatArray
    target: FloatArray
    factor: FloatArray
    change: FloatArray | None
    changes: Changes | None
    binding: NDArray[np.bool_]
    mean: FloatArray

    def predict(self, raw: FloatArray, source: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (noise included) of top-1 in each row's own source; shapes (n,)."""
        from scipy.linalg import solve_triangular

        design, left_over = self.frame.design(raw, source)
        spread = solve_triangular(self.factor, design.T, lower=True)
        variance = (spread * spread).sum(axis=0) + left_over
        return self.frame.means[source] + design @ self.mean, np.sqrt(variance)

    def without(self, rows: Rows) -> Posterior:
        """The posterior as if ``rows``, which it was fitted to, had not been there; hyper-parameters stay."""
        design, left_over = self.frame.design(rows.raw, rows.source)
        weighted = design / left_over[:, None]
        residual = rows.top1 - self.frame.means[rows.source]
        precision, target = self.precision - weighted.T @ design, self.target - weighted.T @ residual
        return _solved(self.frame, precision, target, self.change, self.changes, self.binding)


def fit(rows: Rows, h: Hyperparameters, basis: Basis, changes: Changes | None = None) -> Posterior:
    """The posterior of the coefficients given ``rows`` and ``changes``."""
    frame = Frame(basis, basis.whitener(), h, source_means(rows))
    design, left_over = frame.design(rows.raw, rows.source)
    weighted = design / left_over[:, None]
    precision = np.eye(design.shape[1]) + weighted.T @ design
    target = weighted.T @ (rows.top1 - frame.means[rows.source])
    if changes is None:
        return _solved(frame, precision, target, None, None, np.zeros(0, dtype=bool))
    published = np.full(len(changes.gain), PUBLISHED)
    change = frame.design(changes.after, published)[0] - frame.design(changes.before, published)[0]
    return _solved(frame, precision, target, change, changes, np.zeros(len(change), dtype=bool))


def _solved(
    frame: Frame,
    precision: FloatArray,
    target: FloatArray,
    change: FloatArray | None,
    changes: Changes | None,
    binding: NDArray[np.bool_],
) -> Posterior:
    """The posterior mean, pulled up softly wherever a change gains too little (an active-set iteration)."""
    from scipy.linalg import cho_solve

    factor = np.asarray(np.linalg.cholesky(precision), dtype=np.float64)
    if change is None or changes is None:
        mean = np.asarray(cho_solve((factor, True), target), dtype=np.float64)
        return Posterior(frame, precision, target, factor, change, changes, binding, mean)
    weight = changes.std**-2
    for _ in range(BELIEF_ROUNDS):
        weighted = change[binding] * weight[binding, None]
        believing = np.linalg.cholesky(precision + weighted.T @ change[binding])
        mean = np.asarray(cho_solve((believing, True), target + weighted.T @ changes.gain[binding]), dtype=np.float64)
        short = change @ mean < changes.gain
        if (short == binding).all():
            break
        binding = short
    return Posterior(frame, precision, target, factor, change, changes, binding, mean)


def published_head(posterior: Posterior, far_scale: float, std_scale: float) -> dict[str, object]:
    """The coefficients that the published scale needs, as the shipped JSON's fields, rounded to ship."""
    h, basis = posterior.frame.hyperparameters, posterior.frame.basis
    d, m = len(basis.center), len(basis.inducing)
    size = 1 + d + m
    to_head = np.zeros((size, len(posterior.mean)))
    to_head[0, PUBLISHED] = np.sqrt(OFFSET_VARIANCE)
    for q in range(h.linear_factor.shape[1]):
        start = 3 + q * (d + m)
        to_head[1 : 1 + d, start : start + d] = h.linear_factor[PUBLISHED, q] * np.eye(d)
        to_head[1 + d :, start + d : start + d + m] = h.bend_factor[PUBLISHED, q] * np.eye(m)
    half = np.linalg.solve(posterior.factor, to_head.T)
    factor = np.linalg.cholesky(half.T @ half + 1e-9 * np.eye(size))
    return {
        "center": basis.center.tolist(),
        "scale": basis.scale.tolist(),
        "relevance": basis.relevance.tolist(),
        "linear_scale": basis.linear_scale.tolist(),
        "inducing": basis.inducing.tolist(),
        "offset": round(float(posterior.frame.means[PUBLISHED]), 6),
        "weights": [float(f"{w:.7g}") for w in to_head @ posterior.mean],
        "covariance_factor": [float(f"{c:.4g}") for c in np.round(factor, 6)[np.tril_indices(size)]],
        "bend_variance": round(float((h.bend_factor[PUBLISHED] ** 2).sum()), 6),
        "noise_variance": round(float(np.exp(2 * h.log_noise[PUBLISHED])), 6),
        "far_scale": round(far_scale, 4),
        "std_scale": round(std_scale, 4),
    }
