"""Fitting the prior: the evidence's gradient, the posterior against the exact process, changes, what ships."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import prior_hyperparameters
from benchmarks.prior_heldout import Calibration, held_out
from benchmarks.prior_hyperparameters import (
    OFFSET_VARIANCE,
    Hyperparameters,
    Sharing,
    choose_hyperparameters,
    initial_hyperparameters,
)
from benchmarks.prior_model import Changes, Posterior, centroids, fit, make_basis, shipped
from benchmarks.prior_rows import PUBLISHED, SOURCES, Rows, from_top1
from mnv3search.accuracy.prior import (
    FORMAT,
    VERSION,
    Basis,
    coefficients_from_json,
    slope,
    squared_distances,
    to_top1,
)
from mnv3search.accuracy.prior_features import FEATURE_NAMES

D = len(FEATURE_NAMES)
SHARING = Sharing(0.3, 0.5)


def made_up_rows(count: int = 90, seed: int = 0) -> Rows:
    """Three sources that see one smooth function, each with an offset; three features alone vary."""
    rng = np.random.default_rng(seed)
    raw = np.zeros((count, D))
    raw[:, -3:] = rng.uniform(-1, 1, (count, 3))
    source = np.arange(count) % 3
    truth = 3 * raw[:, -1] - 2 * raw[:, -2] ** 2
    figure = np.array([-5.0, -12.0, 1.0])[source] + truth + rng.normal(0, 0.05, count)
    names = np.array([f"n{i}" for i in range(count)])
    family, alike = np.where(source == PUBLISHED, "made_up", ""), np.zeros(count, dtype=bool)
    return Rows(raw, source, to_top1(figure), names, family, np.zeros(count), alike)


def small_basis(rows: Rows) -> tuple[Hyperparameters, Basis]:
    h = initial_hyperparameters()
    return h, make_basis(rows, h, rows.raw[rows.source == PUBLISHED], (8, 8, 8))


def test_the_scale_is_points_where_the_error_is_25_percent() -> None:
    top1 = np.array([50.0, 74.0, 75.0, 76.0])
    scale = from_top1(top1)
    assert to_top1(scale) == pytest.approx(top1)
    assert scale[2] == 0
    assert scale[3] - scale[1] == pytest.approx(2, abs=0.01)
    assert scale[2] - scale[0] == pytest.approx(25 * np.log(2))


def test_the_scale_keeps_order_and_slope_where_no_network_was_fitted() -> None:
    scale = np.linspace(-120, 60, 3601)
    top1 = to_top1(scale)
    assert (np.diff(top1) > 0).all()
    assert top1[0] > 0
    assert slope(top1)[1:-1] == pytest.approx((top1[2:] - top1[:-2]) / (scale[2:] - scale[:-2]), rel=1e-2)


def test_the_evidence_s_gradient_is_that_of_differences() -> None:
    rows = made_up_rows(45)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(45, D)) * 0.3
    base = initial_hyperparameters()
    vector = base.packed() + rng.normal(0, 0.1, len(base.packed()))

    def evidence(at: np.ndarray) -> tuple[float, np.ndarray]:
        return prior_hyperparameters._negative_evidence(base.unpacked(at), x, rows, SHARING)

    _, gradient = evidence(vector)
    for index in (0, D - 1, D + 3, *range(len(vector) - 8, len(vector))):
        step = np.zeros(len(vector))
        step[index] = 1e-5
        numeric = (evidence(vector + step)[0] - evidence(vector - step)[0]) / 2e-5
        assert gradient[index] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_hyperparameters_pack_and_unpack() -> None:
    base = initial_hyperparameters()
    vector = np.arange(len(base.packed()), dtype=float)
    assert base.unpacked(vector).packed().tolist() == vector.tolist()


def test_enough_inducing_points_give_the_exact_process() -> None:
    rows = made_up_rows(60)
    h, basis = small_basis(rows)
    x = (rows.raw - basis.center) / basis.scale
    posterior = fit(rows, h, replace(basis, inducing=x * basis.relevance), SHARING)
    new = made_up_rows(30, seed=5)
    mean, own = posterior.predict(new.raw, new.source)

    def covariance(left: Rows, right: Rows) -> np.ndarray:
        a, b = ((r.raw - basis.center) / basis.scale for r in (left, right))
        published = np.outer(left.source == PUBLISHED, right.source == PUBLISHED)
        bend = np.exp(-0.5 * squared_distances(a * basis.relevance, b * basis.relevance))
        linear = (a * basis.linear_scale) @ (b * basis.linear_scale).T
        same = left.source[:, None] == right.source[None, :]
        own_linear, own_bend = (1 + scale**2 * published for scale in (SHARING.linear, SHARING.bend))
        return np.asarray(own_linear * linear + own_bend * bend + OFFSET_VARIANCE * same)

    k = covariance(rows, rows) + np.diag(posterior.frame.noise(rows))
    across = covariance(new, rows)
    means = posterior.frame.means
    expected = means[new.source] + across @ np.linalg.solve(k, rows.figure - means[rows.source])
    variance = np.diag(covariance(new, new) - across @ np.linalg.solve(k, across.T))
    assert mean == pytest.approx(expected, abs=0.01)
    assert own == pytest.approx(variance, rel=0.05, abs=1e-3)


def test_leaving_rows_out_is_fitting_without_them() -> None:
    rows = made_up_rows()
    h, basis = small_basis(rows)
    out = np.array([2, 5, 8])
    keep = np.setdiff1d(np.arange(len(rows)), out)
    posterior = fit(rows, h, basis, SHARING)
    again = fit(rows[keep], h, basis, SHARING)
    mean, own = posterior.without(rows[out]).predict(rows.raw[out], rows.source[out])
    expected, expected_own = again.predict(rows.raw[out], rows.source[out])
    assert mean == pytest.approx(expected, abs=0.02)  # the sources' means differ by a little
    assert own == pytest.approx(expected_own, rel=1e-6)


def test_a_source_is_predicted_by_the_others_but_for_its_offset() -> None:
    rows = made_up_rows(150)
    others = rows[rows.source != 0]
    h = choose_hyperparameters(others, SHARING, subset=(0, 40), iterations=15)
    basis = make_basis(others, h, rows.raw[rows.source == PUBLISHED], (12, 12, 12))
    left_out = held_out(fit(others, h, basis, SHARING), rows[rows.source == 0], PUBLISHED)
    summary = left_out.summary()
    assert summary["tau"] > 0.9
    assert summary["rmse_without_bias"] < 0.5


def test_a_change_that_should_not_hurt_moves_the_mean_and_not_the_deviation() -> None:
    rows = made_up_rows()
    h, basis = small_basis(rows)
    before = np.zeros((1, D))
    after = before.copy()
    after[0, -1] = -0.3  # the rows say that this costs about 0.9 points
    free = fit(rows, h, basis, SHARING)
    held = fit(rows, h, basis, SHARING, Changes(before, after, np.array([0.0]), np.array([0.001])))
    idle = fit(rows, h, basis, SHARING, Changes(after, before, np.array([0.0]), np.array([0.001])))
    published = np.full(1, PUBLISHED)

    def gain(posterior: Posterior) -> float:
        return float((posterior.predict(after, published)[0] - posterior.predict(before, published)[0])[0])

    assert gain(free) < -0.3
    assert gain(held) == pytest.approx(0, abs=0.05)
    assert held.binding.tolist() == [True]
    assert idle.binding.tolist() == [False]
    assert gain(idle) == pytest.approx(gain(free))
    assert held.predict(after, published)[1] == pytest.approx(free.predict(after, published)[1])


@pytest.mark.parametrize("source", range(len(SOURCES)))
def test_what_ships_answers_as_the_posterior_does(source: int) -> None:
    rows = made_up_rows()
    h, basis = small_basis(rows)
    posterior = fit(rows, h, basis, SHARING)
    recipes: dict[str, dict[str, object]] = {
        name: {"noise_variance": 0.04, "spread_scale": 1.25, "fitted": {}} for name in SOURCES
    }
    header = {"format": FORMAT, "version": VERSION, "provenance": {}, "features": list(FEATURE_NAMES)}
    coefficients = coefficients_from_json(json.dumps(header | shipped(posterior, recipes)), "made up")
    new = made_up_rows(20, seed=3)
    top1, std = coefficients.predict(new.raw, SOURCES[source])
    mean, own = posterior.predict(new.raw, np.full(20, source))
    assert top1 == pytest.approx(to_top1(mean), abs=2e-3)
    assert std == pytest.approx((100 - top1) / 25 * np.sqrt(0.04 + 1.25**2 * own), rel=1e-2)


def test_deviations_are_calibrated_near_the_data_and_far_from_it() -> None:
    rng = np.random.default_rng(0)
    rows = made_up_rows(3000)
    noise, own = np.full(3000, 0.04), np.geomspace(1e-4, 9.0, 3000)
    said = to_top1(rows.figure + rng.normal(0, np.sqrt(0.25 * noise + 4.0 * own)))  # noise half, spread twice
    found = replace(held_out(fit(rows, *small_basis(rows), SHARING), rows), mean=from_top1(said), own=own, noise=noise)
    assert found.calibration().spread == pytest.approx(2.0, rel=0.15)
    for band in found.coverage(found.std(found.calibration())):
        assert band["within_one"] == pytest.approx(0.68, abs=0.05)
        assert band["within_two"] == pytest.approx(0.95, abs=0.03)
    assert found.std(Calibration()).shape == (3000,)


def test_no_centroid_is_a_point() -> None:
    points = np.random.default_rng(0).normal(size=(40, 5))
    found = centroids(points, 12, seed=0)
    assert found.shape == (12, 5)
    assert squared_distances(found, points).min() > 1e-6
    assert centroids(points, 12, seed=0).tolist() == found.tolist()
