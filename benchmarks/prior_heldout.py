"""Held-out figures of the prior: what it says of rows that it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.prior_hyperparameters import Hyperparameters, Sharing, choose_hyperparameters
from benchmarks.prior_model import Changes, Posterior, fit, make_basis
from benchmarks.prior_rows import PUBLISHED, IntArray, Rows, joined
from mnv3search.accuracy.prior import slope, to_top1
from mnv3search.accuracy.prior_features import FloatArray

INDUCING = (75, 85, 40)
FOLDS = 5
BANDS = 3
LEAST_NOISE = 1.4
"""A published figure is never surer than 0.2 points: sources print one network that far apart."""
ONE_DEVIATION, TWO_DEVIATIONS = 0.6827, 0.9545
SHARING = Sharing(linear=0.15, bend=0.7)
"""What ships; ``shared_by`` compares it with more and less."""
COMPARED = (Sharing(0.0, 0.0), Sharing(0.1, 0.4), SHARING, Sharing(0.5, 1.5), Sharing(1.0, 3.0))


@dataclass(frozen=True)
class Calibration:
    """Factors on the deviations of the noise and of the process, as held-out errors ask."""

    noise: float = 1.0
    spread: float = 1.0


@dataclass(frozen=True)
class HeldOut:
    """Predictions of rows by fits that did not see them, on the fitted scale; shapes (n,).

    ``own`` is the process's variance, the distance from the data; ``noise`` that of a figure around it.
    """

    rows: Rows
    mean: FloatArray
    own: FloatArray
    noise: FloatArray

    @property
    def top1(self) -> FloatArray:
        """Predicted top-1 in percent."""
        return to_top1(self.mean)

    @property
    def error(self) -> FloatArray:
        """Predicted minus true, points."""
        return self.top1 - self.rows.top1

    def std(self, calibration: Calibration) -> FloatArray:
        """Stated deviations in points."""
        variance = calibration.noise**2 * self.noise + calibration.spread**2 * self.own
        return slope(self.top1) * np.sqrt(variance)

    def __getitem__(self, index: NDArray[np.bool_] | IntArray) -> HeldOut:
        return HeldOut(self.rows[index], self.mean[index], self.own[index], self.noise[index])

    def summary(self) -> dict[str, float]:
        """Bias, RMSE, mean and largest error in points, Kendall's tau."""
        from scipy.stats import kendalltau

        error = self.error
        tau = float(kendalltau(self.top1, self.rows.top1)[0]) if len(error) > 1 else 0.0
        return {
            "rows": len(error), "bias": round(float(error.mean()), 4),
            "rmse": round(float(np.sqrt((error**2).mean())), 4), "rmse_without_bias": round(float(error.std()), 4),
            "mean_error": round(float(np.abs(error).mean()), 4), "largest_error": round(float(np.abs(error).max()), 3),
            "tau": round(tau, 4),
        }  # fmt: skip

    def bands(self) -> list[NDArray[np.bool_]]:
        """The rows in thirds of their distance from the data, the nearest first."""
        rank = np.argsort(np.argsort(self.own, kind="stable"), kind="stable")
        return [rank * BANDS // len(rank) == band for band in range(BANDS)]

    def coverage(self, std: FloatArray) -> list[dict[str, float]]:
        """In each band: mean deviation stated, and the shares of the errors within one and two of them."""
        ratio = np.abs(self.error) / std
        return [
            {"rows": int(band.sum()), "std": round(float(std[band].mean()), 3),
             "within_one": round(float((ratio[band] <= 1).mean()), 4),
             "within_two": round(float((ratio[band] <= 2).mean()), 4)}
            for band in self.bands()
        ]  # fmt: skip

    def calibration(self) -> Calibration:
        """The factors under which each band's coverage comes nearest to a normal's."""
        bands, best = self.bands(), (np.inf, Calibration())
        least = LEAST_NOISE if (self.rows.source == PUBLISHED).all() else 0.3
        for noise, spread in product(np.geomspace(least, 2.5, 16), np.geomspace(0.2, 4.0, 30)):
            tried = Calibration(round(float(noise), 4), round(float(spread), 4))
            ratio = np.abs(self.error) / self.std(tried)
            misfit = sum(
                ((ratio[band] <= 1).mean() - ONE_DEVIATION) ** 2 + ((ratio[band] <= 2).mean() - TWO_DEVIATIONS) ** 2
                for band in bands
            )
            best = min(best, (float(misfit), tried), key=lambda pair: pair[0])
        return best[1]

    def cross_calibrated(self, part: Sequence[object] | NDArray[Any]) -> FloatArray:
        """Deviations of each part by the calibration that the other parts ask."""
        parts, std = np.asarray(part), np.zeros(len(self.mean))
        for one in np.unique(parts):
            std[parts == one] = self[parts == one].std(self[parts != one].calibration())
        return std


def both(left: HeldOut, right: HeldOut) -> HeldOut:
    """All rows of the two."""
    pairs = ((left.mean, right.mean), (left.own, right.own), (left.noise, right.noise))
    return HeldOut(joined([left.rows, right.rows]), *(np.concatenate(pair) for pair in pairs))


def held_out(posterior: Posterior, rows: Rows, source: int | None = None) -> HeldOut:
    """Rows as a fit without them sees them: in their own source, or all in ``source``."""
    seen_in = rows.source if source is None else np.full(len(rows), source)
    mean, own = posterior.predict(rows.raw, seen_in)
    return HeldOut(rows, mean, own, posterior.frame.noise(rows))


def fitted(rows: Rows, grid: FloatArray, changes: Changes, seed: int, h: Hyperparameters | None = None) -> Posterior:
    """Hyper-parameters, inducing points and coefficients, all from ``rows``."""
    h = h or choose_hyperparameters(rows, SHARING, seed=seed)
    return fit(rows, h, make_basis(rows, h, grid, INDUCING, seed), SHARING, changes)


def fold_of_rows(rows: Rows, seed: int) -> IntArray:
    """A fold for each row of the tables, the same for a whole group; -1 for published rows."""
    rng = np.random.default_rng(seed)
    fold = np.full(len(rows), -1, dtype=np.intp)
    for source in (0, 1):
        of_source = np.flatnonzero(rows.source == source)
        groups, which = np.unique(rows.group[of_source], return_inverse=True)
        fold[of_source] = (rng.permutation(len(groups)) % FOLDS)[which]
    return fold


def cross_validated(
    rows: Rows, fold: IntArray, grid: FloatArray, changes: Changes, seed: int
) -> tuple[HeldOut, HeldOut]:
    """Both tables by 5 folds, everything chosen anew in each: in their own recipe, and as ``evaluate`` answers."""
    found: list[tuple[HeldOut, HeldOut]] = []
    for k in range(FOLDS):
        posterior = fitted(rows[fold != k], grid, changes, seed + k)
        out = rows[fold == k]
        found.append((held_out(posterior, out), held_out(posterior, out, PUBLISHED)))
        print(f"  fold {k + 1} of {FOLDS}: {[found[-1][1][out.source == s].summary() for s in (0, 1)]}", flush=True)
    order = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in range(FOLDS)]))
    own, published = found[0]
    for more_own, more_published in found[1:]:
        own, published = both(own, more_own), both(published, more_published)
    return own[order], published[order]


def leave_one_out(posterior: Posterior, rows: Rows) -> HeldOut:
    """Each published network by the posterior without it; hyper-parameters were chosen with it."""
    published = [rows[np.array([index])] for index in np.flatnonzero(rows.source == PUBLISHED)]
    return _collected([held_out(posterior.without(row), row) for row in published])


def leave_family_out(
    rows: Rows, grid: FloatArray, changes: Changes, seed: int, h: Hyperparameters | None = None
) -> HeldOut:
    """All rows of each family by a fit without them; hyper-parameters too unless ``h`` is given."""
    found = []
    for name in np.unique(rows.family[rows.source == PUBLISHED]):
        out = rows.family == name
        found.append(held_out(fitted(rows[~out], grid, changes, seed, h), rows[out]))
        print(f"  without {name}: {found[-1].summary()}", flush=True)
    return _collected(found)


def _collected(found: list[HeldOut]) -> HeldOut:
    rows = joined([held.rows for held in found])
    return HeldOut(rows, *(np.concatenate([getattr(held, n) for held in found]) for n in ("mean", "own", "noise")))


def shared_by(rows: Rows, h: Hyperparameters, grid: FloatArray, seed: int) -> list[dict[str, float]]:
    """What each amount of sharing makes of one source by the others: tau of the tables, error of published families."""
    basis = make_basis(rows, h, grid, INDUCING, seed)
    published = np.unique(rows.family[rows.source == PUBLISHED])
    found = []
    for sharing in COMPARED:
        line = {"own_linear": sharing.linear, "own_bend": sharing.bend}
        for source, name in ((0, "tau_once_for_all"), (1, "tau_accel_nasbench")):
            out = rows.source == source
            line[name] = held_out(fit(rows[~out], h, basis, sharing), rows[out], PUBLISHED).summary()["tau"]
        whole = fit(rows, h, basis, sharing)
        families = [rows[rows.family == name] for name in published]
        left = _collected([held_out(whole.without(family), family) for family in families])
        alone = leave_one_out(whole, rows)
        line["families_out_mean_error"] = left.summary()["mean_error"]
        line["one_out_mean_error"] = alone.summary()["mean_error"]
        found.append(line)
        print(f"  {line}", flush=True)
    return found


def madds_alone(rows: Rows, fold: IntArray, feature: int) -> Mapping[str, float]:
    """Tau of a line through log-MAdds alone on the same folds, by source."""
    from scipy.stats import kendalltau

    found = {}
    for source in (0, 1):
        top1 = np.zeros(len(rows))
        for k in range(FOLDS):
            train, out = (rows.source == source) & (fold != k), (rows.source == source) & (fold == k)
            top1[out] = np.polyval(np.polyfit(rows.raw[train, feature], rows.top1[train], 1), rows.raw[out, feature])
        of = rows.source == source
        found[str(source)] = round(float(kendalltau(top1[of], rows.top1[of])[0]), 4)
    return found
