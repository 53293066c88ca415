"""Aiming at a confidence: who counts as within the target, what that costs, and what cannot be met."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fake_board import Table
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.block_search import latency_range
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.candidate import Candidate
from mnv3search.errors import InfeasibleError
from mnv3search.families import published
from mnv3search.latency.confidence import z_of
from mnv3search.runs.target import MAX_ERRORS_ASKED, LatencyConstraint
from mnv3search.space import load_space

LARGE, SMALL = published("mobilenet_v3_large"), published("mobilenet_v3_small")


class Unsure(Table):
    """Errors of 10 % for V3-Small, 1 % for all others; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        self.asked += len(architectures)
        return self.latency_ms(architectures) * [0.1 if a == SMALL else 0.01 for a in architectures]


def candidate(architecture: Architecture, latency_ms: float, top1: float = 70.0, number: int = 0) -> Candidate:
    return Candidate(architecture, top1, None, latency_ms, 1, 2, "block_search", number)


def test_each_network_is_held_against_the_target_by_its_own_error() -> None:
    device = Unsure()
    small, large = (float(ms) for ms in device.latency_ms([SMALL, LARGE]))
    ranked = [candidate(SMALL, small, 72), candidate(LARGE, large, 71)]
    target = 1.05 * large  # 1.28 · 1 % fits the large one
    assert LatencyConstraint(device, target, 0.9).best_within(ranked, 5) == ranked, (
        "the small one has room for any error"
    )
    tight = LatencyConstraint(device, 1.05 * small, 0.9)
    assert tight.best_within(ranked[:1], 5) == []
    assert LatencyConstraint(device, 1.05 * small, 0.5).best_within(ranked[:1], 5) == ranked[:1]
    assert tight.best_within(ranked[:1], 5, slack=0.1) == ranked[:1], "1.05 · 1.1 is above 1.128"
    assert tight.holds(ranked[0]) is False
    assert tight.limit_of(SMALL) == pytest.approx(1.05 * small / (1 + z_of(0.9) * 0.1))


def test_errors_are_asked_of_no_more_networks_than_are_needed() -> None:
    device = Unsure()
    ranked = [candidate(LARGE, 1.0, 70.0, i) for i in range(3 * MAX_ERRORS_ASKED)]
    constraint = LatencyConstraint(device, 100.0, 0.9)
    assert len(constraint.best_within(ranked, 6)) == 6
    assert device.asked < 200
    device.asked = 0
    close = [candidate(SMALL, 99.0, 70.0, i) for i in range(3 * MAX_ERRORS_ASKED)]
    device.latency_ms = lambda architectures: np.full(len(architectures), 99.0)  # type: ignore[method-assign]
    assert constraint.best_within(close, 6) == []
    assert device.asked == MAX_ERRORS_ASKED
    device.asked = 0
    assert len(LatencyConstraint(device, 100.0, 0.5).best_within(close, 6)) == 6
    assert device.asked == 0


def test_a_block_search_is_bounded_below_the_target_by_a_usual_error() -> None:
    space, device = load_space("mnv3_small"), Table()
    rows, bounds = RowLatency(space, device), latency_range(space, device)
    limit = LatencyConstraint(device, 6.0, 0.9).search_limit_ms(space, rows, 0, bounds.fastest_ms)
    assert limit == pytest.approx(6.0 / (1 + z_of(0.9) * 0.01))
    assert LatencyConstraint(device, 6.0, 0.5).search_limit_ms(space, rows, 0, bounds.fastest_ms) == 6.0


def test_what_only_the_confidence_forbids_names_the_confidence_that_does_not() -> None:
    space, device = load_space("mnv3_small"), Table()
    bounds = latency_range(space, device)
    target = 1.01 * bounds.fastest_ms  # one deviation: 84 %
    LatencyConstraint(device, target, 0.8).require(bounds)
    with pytest.raises(InfeasibleError, match=r"--confidence 0\.84 or less makes it feasible") as caught:
        LatencyConstraint(device, target, 0.9).require(bounds)
    assert caught.value.fastest_ms == bounds.fastest_ms
    with pytest.raises(InfeasibleError) as refused:
        LatencyConstraint(device, 0.9 * bounds.fastest_ms, 0.9).require(bounds)
    assert "--confidence" not in str(refused.value)
    assert f"above {bounds.fastest_ms * (1 + z_of(0.9) * 0.01):.2f} ms" in str(refused.value)
    assert LatencyConstraint(device, 100.0, 0.9).never_binds(bounds)
    assert not LatencyConstraint(device, 1.01 * bounds.slowest_ms, 0.9).never_binds(bounds)
