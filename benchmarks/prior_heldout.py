"""Held-out figures of the prior: what it says of rows that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.prior_features import FloatArray
from mnv3search.accuracy.prior_fit import Changes, Posterior, fit, make_basis
from mnv3search.accuracy.prior_hyperparameters import choose_hyperparameters
from mnv3search.accuracy.prior_kernel import widened
from mnv3search.accuracy.prior_rows import PUBLISHED, Rows

INDUCING = (80, 90, 90)
FOLDS = 5
FEW = 200
ONE_DEVIATION, TWO_DEVIATIONS = 0.6827, 0.9545


@dataclass(frozen=True)
class HeldOut:
    """Predictions of rows by fits that did not see them: percent and points, shapes (n,)."""

    rows: Rows
    top1: FloatArray
    std: FloatArray

    @property
    def error(self) -> FloatArray:
        """Predicted minus true."""
        return self.top1 - self.rows.top1

    def select(self, index: NDArray[np.bool_]) -> HeldOut:
        """Some of the rows."""
        return HeldOut(self.rows[index], self.top1[index], self.std[index])

    def scaled(self, scale: FloatArray | float) -> HeldOut:
        """The same with the deviations times ``scale``."""
        return HeldOut(self.rows, self.top1, self.std * scale)

    def widened(self, noise_variance: float, far_scale: float) -> HeldOut:
        """The same with the deviations widened far from the data, as the shipped prior does."""
        return HeldOut(self.rows, self.top1, np.sqrt(widened(self.std**2, noise_variance, far_scale)))

    def summary(self) -> dict[str, float]:
        """RMSE, mean and largest error in points, Kendall's tau, and coverage by one and two deviations."""
        from scipy.stats import kendalltau

        error = np.abs(self.error)
        tau = float(kendalltau(self.top1, self.rows.top1)[0]) if len(error) > 1 else 0.0
        return {
            "rows": len(error),
            "rmse": round(float(np.sqrt(np.mean(error**2))), 4),
            "mean_error": round(float(error.mean()), 4),
            "largest_error": round(float(error.max()), 3),
            "tau": round(tau, 4),
            "mean_std": round(float(self.std.mean()), 4),
            "within_one": round(float(np.mean(error <= self.std)), 4),
            "within_two": round(float(np.mean(error <= 2 * self.std)), 4),
        }


def fitted(rows: Rows, grid: FloatArray, changes: Changes, seed: int) -> Posterior:
    """Hyper-parameters, inducing points and coefficients, all from ``rows``."""
    h = choose_hyperparameters(rows, seed=seed)
    return fit(rows, h, make_basis(rows, h, grid, INDUCING, seed), changes)


def fold_of_rows(rows: Rows, seed: int) -> NDArray[np.intp]:
    """A fold for each row of the tables, the same for a whole group; -1 for published rows."""
    rng = np.random.default_rng(seed)
    fold = np.full(len(rows), -1, dtype=np.intp)
    for source in (0, 1):
        of_source = np.flatnonzero(rows.source == source)
        groups, which = np.unique(rows.group[of_source], return_inverse=True)
        fold[of_source] = (rng.permutation(len(groups)) % FOLDS)[which]
    return fold


def scale_from(held: HeldOut) -> float:
    """The factor on the deviations that suits these errors.

    Between what 68 % within one deviation and 95 % within two ask; the root mean square where rows are too few for
    such quantiles.
    """
    ratio = np.abs(held.error) / held.std
    if len(ratio) < FEW:
        return float(np.sqrt(np.mean(ratio**2)))
    return float(np.sqrt(np.quantile(ratio, ONE_DEVIATION) * np.quantile(ratio, TWO_DEVIATIONS) / 2))


def cross_validated(rows: Rows, grid: FloatArray, changes: Changes, seed: int) -> HeldOut:
    """Both tables by 5 folds, everything chosen anew in each; deviations scaled by the other folds' errors."""
    fold = fold_of_rows(rows, seed)
    top1, std = np.zeros(len(rows)), np.zeros(len(rows))
    for k in range(FOLDS):
        posterior = fitted(rows[fold != k], grid, changes, seed + k)
        out = fold == k
        top1[out], std[out] = posterior.predict(rows.raw[out], rows.source[out])
        print(f"  fold {k + 1} of {FOLDS} done", flush=True)
    scale = np.ones(len(rows))
    raw = HeldOut(rows, top1, std)
    for source in (0, 1):
        for k in range(FOLDS):
            others = (rows.source == source) & (fold != k)
            scale[(rows.source == source) & (fold == k)] = scale_from(raw.select(others))
    tables = fold >= 0
    return raw.scaled(scale).select(tables)


def leave_one_out(posterior: Posterior, rows: Rows) -> HeldOut:
    """Each published network by the posterior without it; hyper-parameters were chosen with it."""
    published = rows[rows.source == PUBLISHED]
    top1, std = np.zeros(len(published)), np.zeros(len(published))
    for index in range(len(published)):
        row = published[np.array([index])]
        mean, deviation = posterior.without(row).predict(row.raw, row.source)
        top1[index], std[index] = mean[0], deviation[0]
    return HeldOut(published, top1, std)


def leave_others_scale(held: HeldOut) -> FloatArray:
    """For each row the factor that the other rows' errors give; shape (n,)."""
    index = np.arange(len(held.top1))
    return np.array([scale_from(held.select(index != i)) for i in index])


def leave_family_out(
    rows: Rows, families: Sequence[str], name: str, grid: FloatArray, changes: Changes, seed: int
) -> HeldOut:
    """All published rows of a family by a fit without them, hyper-parameters too.

    ``families`` names the family of each published row.
    """
    out = np.zeros(len(rows), dtype=bool)
    out[np.flatnonzero(rows.source == PUBLISHED)] = np.array([f == name for f in families])
    posterior = fitted(rows[~out], grid, changes, seed)
    return HeldOut(rows[out], *posterior.predict(rows.raw[out], rows.source[out]))


def far_scale_from(families: Sequence[HeldOut], noise_variance: float) -> float:
    """The widening by which the squared errors of families left out are what is stated, each row counting once."""

    def excess(scale: float) -> float:
        wide = [held.widened(noise_variance, scale) for held in families]
        return float(np.mean(np.concatenate([(held.error / held.std) ** 2 for held in wide]))) - 1.0

    low, high = 1.0, 5.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def madds_alone(rows: Rows, feature: int, seed: int) -> dict[str, dict[str, float]]:
    """What a line through log-MAdds alone reaches on the same folds."""
    fold = fold_of_rows(rows, seed)
    top1 = np.zeros(len(rows))
    for source in (0, 1):
        for k in range(FOLDS):
            train, out = (rows.source == source) & (fold != k), (rows.source == source) & (fold == k)
            line = np.polyfit(rows.raw[train, feature], rows.top1[train], 1)
            top1[out] = np.polyval(line, rows.raw[out, feature])
    held = HeldOut(rows, top1, np.ones(len(rows)))
    return {str(source): held.select(rows.source == source).summary() for source in (0, 1)}
