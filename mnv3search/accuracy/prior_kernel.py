"""The prior's covariance: one structure shared by the sources, and what each source has of its own.

Top-1 of network x in source s is ``offset_s + linear_s(x) + bend_s(x)``, a Gaussian process over networks and sources
(intrinsic coregionalisation, Bonilla et al. 2008): the covariance of ``linear`` is ``B_lin[s, s'] · x·W²·x'``, that of
``bend`` is ``B_bend[s, s'] · exp(-½ |A(x - x')|²)``. ``bend`` is carried by inducing points in feature space
(Snelson and Ghahramani 2006), and what they cannot carry is added to the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnv3search.accuracy.prior_features import FloatArray

JITTER = 1e-6


def squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    """Squared Euclidean distances between the rows of (n, d) and (m, d); shape (n, m)."""
    squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None, :]
    return np.asarray(np.maximum(squares - 2.0 * left @ right.T, 0.0), dtype=np.float64)


def widened(variance: FloatArray, noise_variance: float, far_scale: float) -> FloatArray:
    """A predictive variance (points²) with what is not noise widened, up to ``far_scale``² where it is above a point².

    Near published networks the process knows how wrong it is; a whole family left out shows that far from them it is
    too sure.
    """
    own = np.maximum(variance - noise_variance, 0.0)
    return np.asarray(noise_variance + own * (1.0 + (far_scale**2 - 1.0) * own / (own + 1.0)), dtype=np.float64)


@dataclass(frozen=True)
class Basis:
    """Features of a network as the process's coordinates.

    Attributes:
        center, scale: of the raw features; ``x = (raw - center) / scale``; shape (d,).
        relevance: the diagonal of A, shape (d,).
        linear_scale: the diagonal of W, shape (d,).
        inducing: points in A-scaled coordinates, shape (m, d).
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
