"""The median polish that parts a measurement into usual times and the machine's drift, against truths by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from mnv3search.latency.measured.measuring import Drift, FloatArray, drift_of

DRIFT = np.array([1.0, 1.3, 0.8, 1.1, 0.9])  # a round each; 1 is its median
USUAL = np.array([0.2, 3.0, 1.0, 0.5, 7.0, 2.0])
SLOTS = np.array([0, 0, 0, 1, 1, 1])
REFERENCE_MS = 10.0


def measured(drift: FloatArray, usual: FloatArray = USUAL, slots: ArrayLike = SLOTS) -> Drift:
    """The drift of items that take ``usual`` at drift 1, and of the reference; ``drift`` has shape (rounds, slots)."""
    where = np.asarray(slots, dtype=np.int64)
    return drift_of(usual * drift[:, where], where, REFERENCE_MS * drift)


def test_a_known_drift_is_recovered_exactly() -> None:
    drift = np.stack([DRIFT, DRIFT], axis=1)
    found = measured(drift)
    np.testing.assert_allclose(found.factors, drift, rtol=1e-12)
    assert found.reference_ms == pytest.approx(REFERENCE_MS, rel=1e-12)


def test_slots_that_differ_in_their_drift_are_told_apart() -> None:
    drift = np.stack([DRIFT, DRIFT[::-1]], axis=1)  # slow in other rounds, at the median alike
    found = measured(drift)
    np.testing.assert_allclose(found.factors, drift, rtol=1e-12)
    assert found.reference_ms == pytest.approx(REFERENCE_MS, rel=1e-12)


def test_drift_is_1_at_the_median_whatever_the_unit_of_time() -> None:
    drift = np.stack([DRIFT, DRIFT], axis=1)
    found = measured(2.5 * drift)  # as a machine that takes 2.5 times as long throughout
    np.testing.assert_allclose(found.factors, drift, rtol=1e-12)
    assert found.reference_ms == pytest.approx(2.5 * REFERENCE_MS)


def test_of_an_even_number_of_paces_the_middle_is_that_of_their_logarithms() -> None:
    found = measured(np.array([[1.0], [1.21]]), USUAL[:3], SLOTS[:3])
    np.testing.assert_allclose(found.factors[:, 0], [1 / 1.1, 1.1])
    assert found.reference_ms == pytest.approx(11.0)


def test_one_spike_in_one_item_changes_no_drift() -> None:
    drift = np.stack([DRIFT, DRIFT], axis=1)
    ms = USUAL * drift[:, SLOTS]
    ms[3, 1] *= 40
    np.testing.assert_allclose(drift_of(ms, SLOTS, REFERENCE_MS * drift).factors, drift, rtol=1e-12)


def test_one_wrong_reading_of_the_reference_changes_nothing() -> None:
    drift = np.stack([DRIFT, DRIFT], axis=1)
    readings = REFERENCE_MS * drift
    readings[2, 0] *= 3
    found = drift_of(USUAL * drift[:, SLOTS], SLOTS, readings)
    np.testing.assert_allclose(found.factors, drift, rtol=1e-12)
    assert found.reference_ms == pytest.approx(REFERENCE_MS)


def test_noise_of_a_slot_is_averaged_over_its_items() -> None:
    rng = np.random.default_rng(0)
    drift = np.exp(0.1 * rng.standard_normal((40, 1)))
    usual, slots = np.geomspace(0.05, 5, 24), np.zeros(24, dtype=np.int64)
    noisy = usual * drift * np.exp(0.03 * rng.standard_normal((40, 24)))
    readings = REFERENCE_MS * drift * np.exp(0.03 * rng.standard_normal((40, 1)))
    by_all, by_reference = (
        drift_of(ms, at, readings).factors for ms, at in ((noisy, slots), (noisy[:, :0], slots[:0]))
    )
    truth = drift / np.median(drift)
    # the median of 25 values: 1.2533 · 3 % / 5 = 0.75 % instead of 3 %
    assert np.std(np.log(by_all / truth)) < 0.012
    assert np.std(np.log(by_reference / truth)) > 0.02


def test_no_items_at_all_leave_the_reference_alone() -> None:
    found = measured(DRIFT[:, None], np.zeros(0), [])
    np.testing.assert_allclose(found.factors, DRIFT[:, None])
    assert found.reference_ms == pytest.approx(REFERENCE_MS)


def test_a_slot_without_items_goes_by_its_reference() -> None:
    drift = np.stack([DRIFT, DRIFT[::-1]], axis=1)
    np.testing.assert_allclose(measured(drift, USUAL[:3], [0, 0, 0]).factors, drift, rtol=1e-12)


def test_in_a_slot_of_one_item_it_and_the_reference_share_a_spike() -> None:
    np.testing.assert_allclose(measured(DRIFT[:, None], USUAL[:1], [0]).factors, DRIFT[:, None])
    ms, readings = np.ones((5, 1)), np.full((5, 1), REFERENCE_MS)
    ms[1] = 4.0
    found = drift_of(ms, np.array([0]), readings)
    np.testing.assert_allclose(found.factors[:, 0], [1, 2, 1, 1, 1])  # the middle of 4 and 1, of their logarithms
    assert found.reference_ms == pytest.approx(REFERENCE_MS)


def test_one_round_is_at_its_own_speed() -> None:
    found = measured(np.array([[3.0, 3.0]]))
    np.testing.assert_allclose(found.factors, [[1, 1]])
    assert found.reference_ms == pytest.approx(3 * REFERENCE_MS)


def test_items_that_missed_their_turn_are_left_out_of_it() -> None:
    drift = np.stack([np.array([1.0, 1.0, 1.3, 0.8, 0.9])] * 2, axis=1)  # 1 is the median without the last as well
    ms = USUAL * drift[:, SLOTS]
    ms[4, 1:] = np.nan  # of the second slot, all
    readings = REFERENCE_MS * drift
    readings[1, 0] *= 3  # which the items outvote
    found = drift_of(ms, SLOTS, readings)
    np.testing.assert_allclose(found.factors, drift, rtol=1e-12)
    assert found.reference_ms == pytest.approx(REFERENCE_MS)
