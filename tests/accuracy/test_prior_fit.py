"""Fitting the prior: the evidence's gradient, the posterior against the exact process, changes, what ships."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mnv3search.accuracy import prior_hyperparameters
from mnv3search.accuracy.prior import FORMAT, VERSION, coefficients_from_json
from mnv3search.accuracy.prior_features import FEATURE_NAMES
from mnv3search.accuracy.prior_fit import Changes, Posterior, centroids, fit, make_basis, published_head
from mnv3search.accuracy.prior_hyperparameters import Hyperparameters, choose_hyperparameters, initial_hyperparameters
from mnv3search.accuracy.prior_kernel import Basis, squared_distances, widened
from mnv3search.accuracy.prior_rows import OFFSET_VARIANCE, PUBLISHED, Rows

D = len(FEATURE_NAMES)


def made_up_rows(count: int = 90, seed: int = 0) -> Rows:
    """Three sources that see one smooth function on scales of their own; three features alone vary."""
    rng = np.random.default_rng(seed)
    raw = np.zeros((count, D))
    raw[:, -3:] = rng.uniform(-1, 1, (count, 3))
    source = np.arange(count) % 3
    truth = 3 * raw[:, -1] - 2 * raw[:, -2] ** 2
    top1 = np.array([70.0, 60.0, 72.0])[source] + np.array([0.8, 1.2, 1.0])[source] * truth
    noise = rng.normal(0, 0.05, count)
    return Rows(raw, source, top1 + noise, np.array([f"n{i}" for i in range(count)]))


def small_basis(rows: Rows) -> tuple[Hyperparameters, Basis]:
    h = initial_hyperparameters()
    return h, make_basis(rows, h, rows.raw[rows.source == PUBLISHED], (8, 8, 8))


def test_the_evidence_s_gradient_is_that_of_differences() -> None:
    rows = made_up_rows(45)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(45, D)) * 0.3
    base = initial_hyperparameters()
    vector = base.packed() + rng.normal(0, 0.1, len(base.packed()))
    y = rows.top1 - np.array([70.0, 60.0, 72.0])[rows.source]

    def evidence(at: np.ndarray) -> tuple[float, np.ndarray]:
        return prior_hyperparameters._negative_evidence(base.unpacked(at), x, rows.source, y)

    _, gradient = evidence(vector)
    for index in (0, D - 1, D + 3, *range(len(vector) - 15, len(vector))):
        step = np.zeros(len(vector))
        step[index] = 1e-5
        numeric = (evidence(vector + step)[0] - evidence(vector - step)[0]) / 2e-5
        assert gradient[index] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_hyperparameters_pack_and_unpack() -> None:
    base = initial_hyperparameters()
    vector = np.arange(len(base.packed()), dtype=float)
    assert base.unpacked(vector).packed().tolist() == vector.tolist()
    assert base.linear_factor.shape == (3, 4)


def test_enough_inducing_points_give_the_exact_process() -> None:
    rows = made_up_rows(60)
    h, basis = small_basis(rows)
    x = (rows.raw - basis.center) / basis.scale
    posterior = fit(rows, h, replace(basis, inducing=x * basis.relevance))
    new = made_up_rows(30, seed=5)
    mean, std = posterior.predict(new.raw, new.source)

    def covariance(left: Rows, right: Rows) -> np.ndarray:
        a, b = ((r.raw - basis.center) / basis.scale for r in (left, right))
        pair = np.ix_(left.source, right.source)
        bend = np.exp(-0.5 * squared_distances(a * basis.relevance, b * basis.relevance))
        linear = (a * basis.linear_scale) @ (b * basis.linear_scale).T
        shared = [f @ f.T for f in (h.linear_factor, h.bend_factor)]
        same = left.source[:, None] == right.source[None, :]
        return np.asarray(shared[0][pair] * linear + shared[1][pair] * bend + OFFSET_VARIANCE * same)

    noise = np.exp(2 * h.log_noise)
    k = covariance(rows, rows) + np.diag(noise[rows.source])
    across = covariance(new, rows)
    means = posterior.frame.means
    expected = means[new.source] + across @ np.linalg.solve(k, rows.top1 - means[rows.source])
    variance = np.diag(covariance(new, new) - across @ np.linalg.solve(k, across.T)) + noise[new.source]
    assert mean == pytest.approx(expected, abs=0.01)
    assert std == pytest.approx(np.sqrt(variance), rel=0.02)


def test_leaving_rows_out_is_fitting_without_them() -> None:
    rows = made_up_rows()
    h, basis = small_basis(rows)
    out = np.array([2, 5, 8])
    keep = np.setdiff1d(np.arange(len(rows)), out)
    posterior = fit(rows, h, basis)
    again = fit(rows[keep], h, basis)
    mean, std = posterior.without(rows[out]).predict(rows.raw[out], rows.source[out])
    expected, expected_std = again.predict(rows.raw[out], rows.source[out])
    assert mean == pytest.approx(expected, abs=0.01)  # the sources' means differ by a little
    assert std == pytest.approx(expected_std, rel=1e-6)


def test_held_out_rows_are_predicted_across_sources() -> None:
    rows = made_up_rows(150)
    h = choose_hyperparameters(rows, subset=(40, 40), iterations=15)
    new = made_up_rows(60, seed=7)
    posterior = fit(rows, h, make_basis(rows, h, rows.raw[rows.source == PUBLISHED], (12, 12, 12)))
    mean, std = posterior.predict(new.raw, new.source)
    assert np.abs(mean - new.top1).mean() < 0.3
    assert (std > 0).all()


def test_a_change_that_should_not_hurt_moves_the_mean_and_not_the_deviation() -> None:
    rows = made_up_rows()
    h, basis = small_basis(rows)
    before = np.zeros((1, D))
    after = before.copy()
    after[0, -1] = -0.3  # the rows say that this costs about 0.9 points
    free = fit(rows, h, basis)
    held = fit(rows, h, basis, Changes(before, after, np.array([0.0]), np.array([0.001])))
    idle = fit(rows, h, basis, Changes(after, before, np.array([0.0]), np.array([0.001])))
    published = np.full(1, PUBLISHED)

    def gain(posterior: Posterior) -> float:
        return float((posterior.predict(after, published)[0] - posterior.predict(before, published)[0])[0])

    assert gain(free) < -0.3
    assert gain(held) == pytest.approx(0, abs=0.05)
    assert held.binding.tolist() == [True]
    assert idle.binding.tolist() == [False]
    assert gain(idle) == pytest.approx(gain(free))
    assert held.predict(after, published)[1] == pytest.approx(free.predict(after, published)[1])


def test_what_ships_answers_as_the_posterior_does() -> None:
    rows = made_up_rows()
    h, basis = small_basis(rows)
    posterior = fit(rows, h, basis)
    text = json.dumps(
        {"format": FORMAT, "version": VERSION, "provenance": {}, "features": list(FEATURE_NAMES)}
        | published_head(posterior, 1.0, 1.25)
    )
    coefficients = coefficients_from_json(text, "made up")
    new = made_up_rows(20, seed=3)
    mean, std = coefficients.predict(new.raw)
    expected, expected_std = posterior.predict(new.raw, np.full(20, PUBLISHED))
    assert mean == pytest.approx(expected, abs=1e-3)
    assert std == pytest.approx(1.25 * expected_std, rel=1e-2)


def test_far_from_the_data_the_deviation_is_widened_and_the_noise_is_not() -> None:
    variance = np.array([0.04, 0.05, 1.04, 100.04])
    wide = widened(variance, 0.04, 2.0)
    assert wide[0] == pytest.approx(0.04)
    assert wide[2] == pytest.approx(0.04 + 1 * (1 + 3 / 2))
    assert wide[3] == pytest.approx(0.04 + 400, rel=0.01)
    assert widened(variance, 0.04, 1.0) == pytest.approx(variance)


def test_no_centroid_is_a_point() -> None:
    points = np.random.default_rng(0).normal(size=(40, 5))
    found = centroids(points, 12, seed=0)
    assert found.shape == (12, 5)
    assert squared_distances(found, points).min() > 1e-6
    assert centroids(points, 12, seed=0).tolist() == found.tolist()
