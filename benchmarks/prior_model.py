"""The prior's process: rows of three sources, the posterior of the coefficients, and what ships of it.

On the scale of ``prior_rows.from_top1`` a figure is ``offset of its source + f(network)``, and for a published
network ``+ g(network)``: ``f`` is shared by all sources, ``g`` is what publication changes (Gaussian processes with
one set of coordinates; Bonilla et al. 2008). How large ``g`` may be was chosen by predicting sources from each other.

Rows say what networks score. Changes say what is believed beforehand of going from one network to another (a wider
expansion, a larger kernel, a squeeze-excite more): top-1 should not fall. They move the posterior mean where the rows
alone would let it fall, and never narrow the stated deviation.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.prior_hyperparameters import ALIKE_STD, OFFSET_VARIANCE, Hyperparameters, Sharing
from benchmarks.prior_rows import PUBLISHED, SOURCES, IntArray, Rows, source_means, standardisation
from mnv3search.accuracy.prior import Basis, squared_distances
from mnv3search.accuracy.prior_features import FloatArray

BELIEF_ROUNDS = 12
MIN_CLUSTER = 3


@dataclass(frozen=True)
class Changes:
    """Pairs of networks, and by how much top-1 should at least grow from the first to the second.

    A smaller growth counts as a figure that is off by as much, at a deviation of ``std``; a larger one costs nothing.
    Raw features of both (n, d); ``gain`` and ``std`` in points at 75 % (n,).
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
    """The basis; inducing points are the published networks and centroids of each table and of ``grid``; rounded.

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
    points.append((rows.raw[rows.source == PUBLISHED] - center) / scale * relevance)
    linear = np.asarray(np.round(h.linear_scale, 5), dtype=np.float64)
    inducing = np.asarray(np.round(np.concatenate(points), 3), dtype=np.float64)
    return Basis(center, scale, relevance, linear, inducing)


@dataclass(frozen=True)
class Frame:
    """What a posterior's coefficients refer to: basis, hyper-parameters, what is shared, and the sources' means."""

    basis: Basis
    whitener: FloatArray
    hyperparameters: Hyperparameters
    sharing: Sharing
    means: FloatArray

    def design(self, raw: FloatArray, source: IntArray) -> tuple[FloatArray, FloatArray]:
        """Rows in coefficients of unit prior variance (n, p), and the variance unreached by inducing points (n,)."""
        linear, bend = self.basis.coordinates(raw, self.whitener)
        own = (source == PUBLISHED)[:, None]
        bend_scale = np.exp(self.hyperparameters.log_bend)
        parts = [
            np.sqrt(OFFSET_VARIANCE) * np.eye(len(SOURCES))[source], linear, bend_scale * bend,
            own * self.sharing.linear * linear, own * self.sharing.bend * bend_scale * bend,
        ]  # fmt: skip
        unreached = self.bend_variance(source) * np.maximum(1.0 - (bend * bend).sum(axis=1), 0.0)
        return np.concatenate(parts, axis=1), unreached

    def bend_variance(self, source: IntArray) -> FloatArray:
        """Prior variance of the bend for each source's rows."""
        own = np.where(source == PUBLISHED, self.sharing.bend**2, 0.0)
        return np.asarray(np.exp(2 * self.hyperparameters.log_bend) * (1 + own), dtype=np.float64)

    def noise(self, rows: Rows) -> FloatArray:
        """Variance of each row's figure."""
        noise = np.exp(2 * self.hyperparameters.log_noise)[rows.source] + rows.recipe_std**2
        return np.where(rows.alike, ALIKE_STD**2, noise)


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
        """Mean and the process's own variance (no noise) in each row's source, on the fitted scale; shapes (n,)."""
        from scipy.linalg import solve_triangular

        design, unreached = self.frame.design(raw, source)
        spread = solve_triangular(self.factor, design.T, lower=True)
        return self.frame.means[source] + design @ self.mean, (spread * spread).sum(axis=0) + unreached

    def without(self, rows: Rows) -> Posterior:
        """The posterior as if ``rows``, which it was fitted to, had not been there; hyper-parameters stay."""
        precision, target = _evidence(self.frame, rows)
        return _solved(
            self.frame, self.precision - precision, self.target - target, self.change, self.changes, self.binding
        )


def _evidence(frame: Frame, rows: Rows) -> tuple[FloatArray, FloatArray]:
    design, unreached = frame.design(rows.raw, rows.source)
    weighted = design / (unreached + frame.noise(rows))[:, None]
    return weighted.T @ design, weighted.T @ (rows.figure - frame.means[rows.source])


def fit(rows: Rows, h: Hyperparameters, basis: Basis, sharing: Sharing, changes: Changes | None = None) -> Posterior:
    """The posterior of the coefficients given ``rows`` and ``changes``."""
    frame = Frame(basis, basis.whitener(), h, sharing, source_means(rows))
    precision, target = _evidence(frame, rows)
    precision += np.eye(len(precision))
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


def _head(posterior: Posterior, source: int) -> FloatArray:
    """From the coefficients to those of [1, linear, bend] in one source, (1 + d + m, p)."""
    frame = posterior.frame
    d, m, k = len(frame.basis.center), len(frame.basis.inducing), len(SOURCES)
    bend_scale = np.exp(frame.hyperparameters.log_bend)
    head = np.zeros((1 + d + m, len(posterior.mean)))
    head[0, source] = np.sqrt(OFFSET_VARIANCE)
    parts = [(k, 1.0, 1.0)]
    if source == PUBLISHED:
        parts.append((k + d + m, frame.sharing.linear, frame.sharing.bend))
    for start, linear, bend in parts:
        head[1 : 1 + d, start : start + d] = linear * np.eye(d)
        head[1 + d :, start + d : start + d + m] = bend * bend_scale * np.eye(m)
    return head


def _packed_triangle(factor: FloatArray) -> str:
    """The lower triangle of ``factor`` as the file holds it: half precision, base64."""
    return base64.b64encode(factor[np.tril_indices(len(factor))].astype("<f2").tobytes()).decode()


def shipped(posterior: Posterior, recipes: dict[str, dict[str, object]]) -> dict[str, object]:
    """The shipped file's fields, rounded to ship; ``recipes`` holds what each adds of its own, by source."""
    frame = posterior.frame
    described: dict[str, object] = {}
    for source, name in enumerate(SOURCES):
        head = _head(posterior, source)
        weights = head @ posterior.mean
        half = np.linalg.solve(posterior.factor, head.T)
        factor = np.asarray(np.linalg.cholesky(half.T @ half + 1e-9 * np.eye(len(head))), dtype=np.float64)
        described[name] = {
            "offset": round(float(frame.means[source] + weights[0]), 6),
            "weights": [0.0, *(float(f"{w:.7g}") for w in weights[1:])],
            "covariance_factor": _packed_triangle(factor),
            "bend_variance": round(float(frame.bend_variance(np.array([source]))[0]), 6),
        } | recipes[name]
    return {
        "center": frame.basis.center.tolist(),
        "scale": frame.basis.scale.tolist(),
        "relevance": frame.basis.relevance.tolist(),
        "linear_scale": frame.basis.linear_scale.tolist(),
        "inducing": frame.basis.inducing.tolist(),
        "recipes": described,
    }
