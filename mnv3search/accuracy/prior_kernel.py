"""The prior's scale and coordinates: what a network's features become before coefficients are applied.

Effects of structure add up in the logarithm of the error, not in top-1: half as many channels cost three times as many
points at 50 % as at 75 %. Coordinates are linear ones and those of a Gaussian process's bends, carried by inducing
points in feature space (Snelson and Ghahramani 2006); what these cannot carry is added to the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnv3search.accuracy.prior_features import FloatArray

JITTER = 1e-6
REFERENCE_ERROR = 25.0
"""Percent of error at which a unit of the scale is a point of top-1: MobileNetV3-Large's."""

LOWEST = 40.0
"""Percent of top-1 below which no network was fitted."""


def from_top1(top1: FloatArray) -> FloatArray:
    """Top-1 in percent on the scale on which effects add: ``-25 ln(error / 25)``."""
    return np.asarray(-REFERENCE_ERROR * np.log((100.0 - top1) / REFERENCE_ERROR), dtype=np.float64)


def to_top1(scale: FloatArray) -> FloatArray:
    """The inverse of :func:`from_top1` from 40 % on; below, where no network was fitted, it falls slower and to 0."""
    error = REFERENCE_ERROR * np.exp(-scale / REFERENCE_ERROR)
    tail = LOWEST * (np.maximum(error, 100.0 - LOWEST) / (100.0 - LOWEST)) ** ((LOWEST - 100.0) / LOWEST)
    return np.asarray(np.where(error > 100.0 - LOWEST, tail, 100.0 - error), dtype=np.float64)


def slope(top1: FloatArray) -> FloatArray:
    """Points of top-1 for a unit of the scale, at ``top1``."""
    steepness = np.where(top1 < LOWEST, top1 * (100.0 - LOWEST) / LOWEST, 100.0 - top1)
    return np.asarray(steepness / REFERENCE_ERROR, dtype=np.float64)


def squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    """Squared Euclidean distances between the rows of (n, d) and (m, d); shape (n, m)."""
    squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None, :]
    return np.asarray(np.maximum(squares - 2.0 * left @ right.T, 0.0), dtype=np.float64)


@dataclass(frozen=True)
class Basis:
    """Features of a network as the process's coordinates.

    Attributes:
        center, scale: of the raw features; ``x = (raw - center) / scale``; shape (d,).
        relevance: by which distances between networks are measured, shape (d,).
        linear_scale: prior scale of each linear coefficient, shape (d,).
        inducing: points in coordinates scaled by relevance, shape (m, d).
    """

    center: FloatArray
    scale: FloatArray
    relevance: FloatArray
    linear_scale: FloatArray
    inducing: FloatArray

    def whitener(self) -> FloatArray:
        """The inverse Cholesky factor of the inducing points' covariance, transposed; shape (m, m)."""
        covariance = np.exp(-0.5 * squared_distances(self.inducing, self.inducing))
        factor = np.linalg.cholesky(covariance + JITTER * np.eye(len(covariance)))
        return np.asarray(np.linalg.inv(factor).T, dtype=np.float64)

    def coordinates(self, raw: FloatArray, whitener: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Linear coordinates (n, d) and bend coordinates (n, m); both have unit prior variance per coefficient."""
        x = (raw - self.center) / self.scale
        bend = np.exp(-0.5 * squared_distances(x * self.relevance, self.inducing)) @ whitener
        return x * self.linear_scale, bend
