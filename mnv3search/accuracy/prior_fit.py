"""Fitting the ImageNet prior: hyper-parameters by marginal likelihood, then coefficients in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.prior_features import KIND_OF_FEATURE, FloatArray
from mnv3search.accuracy.prior_kernel import Basis, squared_distances

SOURCES = ("once_for_all", "accel_nasbench", "published")
PUBLISHED = SOURCES.index("published")
OFFSET_VARIANCE = 100.0
_KINDS = tuple(sorted(set(KIND_OF_FEATURE)))
_KIND_INDEX = np.array([_KINDS.index(kind) for kind in KIND_OF_FEATURE])
_TRIL = np.tril_indices(3)
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class Rows:
    """Networks with accuracies: raw features (n, d), source index (n,), top-1 in percent (n,), a group name each."""

    raw: FloatArray
    source: IntArray
    top1: FloatArray
    group: NDArray[np.str_]

    def __getitem__(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Rows:
        return Rows(self.raw[index], self.source[index], self.top1[index], self.group[index])

    def __len__(self) -> int:
        return len(self.top1)


@dataclass(frozen=True)
class Hyperparameters:
    """What the marginal likelihood chooses.

    Attributes:
        log_relevance: of every feature (d,).
        log_linear: prior scale of the linear coefficients of each kind of feature.
        linear_factor, bend_factor: lower-triangular factors of the sources' covariances, (3, 3).
        log_noise: of each source (3,), points.
    """

    log_relevance: FloatArray
    log_linear: FloatArray
    linear_factor: FloatArray
    bend_factor: FloatArray
    log_noise: FloatArray

    @property
    def linear_scale(self) -> FloatArray:
        """Prior scale of each feature's linear coefficient."""
        return np.asarray(np.exp(self.log_linear)[_KIND_INDEX], dtype=np.float64)

    def packed(self) -> FloatArray:
        """All of them as one vector."""
        parts = (self.log_relevance, self.log_linear, self.linear_factor[_TRIL], self.bend_factor[_TRIL])
        return np.concatenate([*parts, self.log_noise])

    def unpacked(self, vector: FloatArray) -> Hyperparameters:
        """The hyper-parameters that ``packed`` gave as ``vector``."""
        d, k = len(self.log_relevance), len(self.log_linear)
        factors = []
        for start in (d + k, d + k + 6):
            factor = np.zeros((3, 3))
            factor[_TRIL] = vector[start : start + 6]
            factors.append(factor)
        return Hyperparameters(vector[:d], vector[d : d + k], factors[0], factors[1], vector[d + k + 12 :])


def initial_hyperparameters() -> Hyperparameters:
    """Where the search for hyper-parameters starts, and the centre of their weak prior."""
    return Hyperparameters(
        np.full(len(KIND_OF_FEATURE), -2.5),
        np.full(len(_KINDS), -1.5),
        np.array([[0.6, 0.0, 0.0], [0.8, 0.8, 0.0], [0.6, 0.2, 0.4]]),
        np.array([[0.8, 0.0, 0.0], [1.0, 1.2, 0.0], [0.8, 0.2, 0.6]]),
        np.log([0.08, 0.5, 0.2]),
    )


def _penalty(vector: FloatArray, start: FloatArray, sizes: tuple[int, int]) -> tuple[float, FloatArray]:
    """Minus the log of a weak normal prior around the start, and its gradient."""
    d, k = sizes
    width = np.concatenate([np.full(d + k, 1.5), np.full(12, 1.5), [1.0, 1.0, 0.3]])
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
    d_lin = 2 * (one_hot.T @ (g * flat) @ one_hot) @ h.linear_factor
    d_bend = 2 * (one_hot.T @ (g * bend) @ one_hot) @ h.bend_factor
    g_lin = g * b_lin[pair]
    by_feature = 2 * linear**2 * np.einsum("nd,nd->d", x, g_lin @ x)
    g_bend = g * b_bend[pair] * bend
    spread = g_bend.sum(axis=1) @ (x * x) - np.einsum("nd,nd->d", x, g_bend @ x)
    gradient = np.concatenate([
        -2 * relevance**2 * spread, np.bincount(_KIND_INDEX, by_feature, len(_KINDS)), d_lin[_TRIL], d_bend[_TRIL],
        2 * noise * np.bincount(source, np.diag(g), 3),
    ])  # fmt: skip
    return value, gradient


def standardisation(rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Centre and scale of the raw features: around the published networks, spread of all rows, rounded to ship."""
    center = rows.raw[rows.source == PUBLISHED].mean(axis=0)
    scale = np.maximum(rows.raw.std(axis=0) + 0.05, 0.15)
    return np.round(center, 3), np.round(scale, 3)


def _subset(rows: Rows, sizes: tuple[int, int], rng: np.random.Generator) -> Rows:
    index = [np.flatnonzero(rows.source == PUBLISHED)]
    for source, size in enumerate(sizes):
        of_source = np.flatnonzero(rows.source == source)
        index.append(rng.permutation(of_source)[:size])
    return rows[np.concatenate(index)]


def source_means(rows: Rows) -> FloatArray:
    """Mean top-1 of each source's rows, 0 where there are none."""
    return np.array([rows.top1[rows.source == s].mean() if (rows.source == s).any() else 0.0 for s in range(3)])


def choose_hyperparameters(
    rows: Rows,
    *,
    subset: tuple[int, int] = (450, 600),
    iterations: int = 80,
    seed: int = 0,
    start: Hyperparameters | None = None,
    progress: Callable[[float], None] | None = None,
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
        if progress is not None:
            progress(value + penalty)
        return value + penalty, gradient + slope

    found = minimize(
        objective, (start or base).packed(), jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 20}
    )
    return base.unpacked(np.asarray(found.x, dtype=np.float64))


def centroids(points: FloatArray, count: int, seed: int, rounds: int = 25) -> FloatArray:
    """k-means centroids of ``points`` (Lloyd's rounds from a k-means++ start)."""
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
        owner = squared_distances(points, centers).argmin(axis=1)
        for k in np.unique(owner):
            centers[k] = points[owner == k].mean(axis=0)
    return centers


def make_basis(rows: Rows, h: Hyperparameters, grid: FloatArray, counts: tuple[int, int, int], seed: int = 0) -> Basis:
    """The basis, its inducing points the centroids of each table's region and of ``grid``.

    ``grid`` holds raw features of the published families over widths and resolutions, (n, d).
    """
    center, scale = standardisation(rows)
    relevance = np.asarray(np.round(np.exp(h.log_relevance), 5), dtype=np.float64)
    regions = [rows.raw[rows.source == 0], rows.raw[rows.source == 1], grid]
    points = [
        centroids((region - center) / scale * relevance, count, seed + i)
        for i, (region, count) in enumerate(zip(regions, counts, strict=True))
        if len(region)
    ]
    return Basis(center, scale, relevance, np.round(h.linear_scale, 5), np.round(np.concatenate(points), 3))


@dataclass(frozen=True)
class Posterior:
    """The fitted process: coefficients in whitened coordinates, all sources together.

    Attributes:
        basis, hyperparameters, means: what it was fitted with; ``means`` are the sources' mean top-1.
        mean: posterior mean of the coefficients (p,).
        precision_factor: lower Cholesky factor of their posterior precision (p, p).
    """

    basis: Basis
    hyperparameters: Hyperparameters
    means: FloatArray
    whitener: FloatArray
    mean: FloatArray
    precision_factor: FloatArray

    def predict(self, raw: FloatArray, source: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (noise included) of top-1 in each row's own source; shapes (n,)."""
        from scipy.linalg import solve_triangular

        design, diagonal = _design(self.basis, self.whitener, self.hyperparameters, raw, source)
        spread = solve_triangular(self.precision_factor, design.T, lower=True)
        variance = (spread * spread).sum(axis=0) + diagonal
        return self.means[source] + design @ self.mean, np.sqrt(variance)

    def without_each(self, rows: Rows, groups: NDArray[np.str_]) -> tuple[FloatArray, FloatArray]:
        """Predictions of fitted rows, each by the posterior without the rows of its group; hyper-parameters stay."""
        from scipy.linalg import solve_triangular

        design, diagonal = _design(self.basis, self.whitener, self.hyperparameters, rows.raw, rows.source)
        spread = solve_triangular(self.precision_factor, design.T, lower=True)
        residual = rows.top1 - self.means[rows.source] - design @ self.mean
        mean, std = np.empty(len(rows)), np.empty(len(rows))
        for group in np.unique(groups):
            index = np.flatnonzero(groups == group)
            left = np.diag(diagonal[index]) - spread[:, index].T @ spread[:, index]
            covariance = np.diag(diagonal[index]) @ np.linalg.inv(left) @ np.diag(diagonal[index])
            without = covariance @ (residual[index] / diagonal[index])
            mean[index] = rows.top1[index] - without
            std[index] = np.sqrt(np.diag(covariance))
        return mean, std


def _design(
    basis: Basis, whitener: FloatArray, h: Hyperparameters, raw: FloatArray, source: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Rows of the design in coefficients of unit prior variance, and the variance that they leave over."""
    linear, bend = basis.coordinates(raw, whitener)
    offsets = np.sqrt(OFFSET_VARIANCE) * np.eye(3)[source]
    parts = [offsets]
    for q in range(3):
        parts.append(linear * h.linear_factor[source, q][:, None])
        parts.append(bend * h.bend_factor[source, q][:, None])
    prior = (h.bend_factor**2).sum(axis=1)[source]
    left_over = prior * np.maximum(1.0 - (bend * bend).sum(axis=1), 0.0)
    return np.concatenate(parts, axis=1), left_over + np.exp(2 * h.log_noise)[source]


def fit(rows: Rows, h: Hyperparameters, basis: Basis) -> Posterior:
    """The posterior of the coefficients given ``rows``, in closed form."""
    from scipy.linalg import cho_solve

    whitener = basis.whitener()
    means = source_means(rows)
    design, diagonal = _design(basis, whitener, h, rows.raw, rows.source)
    weighted = design / diagonal[:, None]
    precision = np.eye(design.shape[1]) + weighted.T @ design
    factor = np.linalg.cholesky(precision)
    mean = cho_solve((factor, True), weighted.T @ (rows.top1 - means[rows.source]))
    return Posterior(basis, h, means, whitener, np.asarray(mean), np.asarray(factor, dtype=np.float64))


def published_head(posterior: Posterior, std_scale: float) -> dict[str, object]:
    """The coefficients that the published scale needs, as the shipped JSON's fields, rounded to ship."""
    h, basis = posterior.hyperparameters, posterior.basis
    d, m = len(basis.center), len(basis.inducing)
    to_head = np.zeros((1 + d + m, len(posterior.mean)))
    to_head[0, PUBLISHED] = np.sqrt(OFFSET_VARIANCE)
    for q in range(3):
        start = 3 + q * (d + m)
        to_head[1 : 1 + d, start : start + d] = h.linear_factor[PUBLISHED, q] * np.eye(d)
        to_head[1 + d :, start + d : start + d + m] = h.bend_factor[PUBLISHED, q] * np.eye(m)
    half = np.linalg.solve(posterior.precision_factor, to_head.T)
    factor = np.linalg.cholesky(half.T @ half + 1e-9 * np.eye(1 + d + m))
    return {
        "center": basis.center.tolist(),
        "scale": basis.scale.tolist(),
        "relevance": basis.relevance.tolist(),
        "linear_scale": basis.linear_scale.tolist(),
        "inducing": basis.inducing.tolist(),
        "offset": round(float(posterior.means[PUBLISHED]), 6),
        "weights": [float(f"{w:.7g}") for w in to_head @ posterior.mean],
        "covariance_factor": [float(f"{c:.4g}") for c in np.round(factor, 6)[np.tril_indices(1 + d + m)]],
        "bend_variance": round(float((h.bend_factor[PUBLISHED] ** 2).sum()), 6),
        "noise_variance": round(float(np.exp(2 * h.log_noise[PUBLISHED])), 6),
        "std_scale": std_scale,
    }
