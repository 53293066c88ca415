"""Bounds from stated errors, against hand-computed truths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, TargetError
from mnv3search.families import published
from mnv3search.latency.confidence import limits_ms, probability_within, stated_errors_ms, z_of

NETWORKS = [published("mobilenet_v3_large"), published("mobilenet_v3_small")]


class Plain:
    """50 and 20 ms, without errors."""

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([50.0, 20.0])[: len(architectures)]


class Stating(Plain):
    """The same with errors of 5 and 1 ms."""

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([5.0, 1.0])[: len(architectures)]


class Wrong(Plain):
    def __init__(self, errors: object) -> None:
        self.errors = errors

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> object:
        return self.errors


def test_deviations_of_the_normal_distribution() -> None:
    assert z_of(0.5) == 0
    assert z_of(0.9) == pytest.approx(1.2816, abs=1e-4)
    assert z_of(0.975) == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize("confidence", [0.49, 1.0, -1, float("nan"), 90])
def test_a_confidence_out_of_range_names_itself(confidence: float) -> None:
    with pytest.raises(TargetError, match=r"at least 0\.5"):
        z_of(confidence)


def test_errors_are_those_that_a_model_states() -> None:
    assert stated_errors_ms(Stating(), NETWORKS).tolist() == [5, 1]
    assert stated_errors_ms(Stating(), []).shape == (0,)
    assert stated_errors_ms(Plain(), NETWORKS).tolist() == [0, 0]


def test_a_limit_keeps_the_relative_error() -> None:
    # an error of a tenth and 1.2816 deviations: 50 / 1.12816
    assert limits_ms(Stating(), NETWORKS, 50.0, 0.9)[0] == pytest.approx(44.320, abs=1e-3)
    assert limits_ms(Plain(), NETWORKS, 50.0, 0.9).tolist() == [50, 50]


@pytest.mark.parametrize("errors", [[1.0], [1.0, -1.0], [1.0, float("nan")]])
def test_unusable_errors_are_named(errors: list[float]) -> None:
    with pytest.raises(DeviceError, match="no usable errors"):
        stated_errors_ms(Wrong(errors), NETWORKS)


def test_the_probability_is_half_at_the_target() -> None:
    assert probability_within(50.0, 4.0, 50.0) == pytest.approx(0.5)
    assert probability_within(46.0, 4.0, 50.0) == pytest.approx(0.8413, abs=1e-4)
    assert (probability_within(49.0, None, 50.0), probability_within(51.0, 0.0, 50.0)) == (1, 0)
