from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from search_fakes import OpaqueLatency, UnitLatency, small_space

from mnv3search.architecture import Architecture
from mnv3search.block_search.row_latency import RowLatency, latency_range
from mnv3search.errors import DeviceError, InfeasibleError
from mnv3search.latency.model import Progress
from mnv3search.layers import Unit


@pytest.mark.parametrize("name", ["blocks", "widths", "stage choices"])
def test_priced_units_give_the_exact_range(name: str) -> None:
    space = small_space(name)
    every = list(space.enumerate())
    truth = UnitLatency().latency_ms(every)
    found = latency_range(space, UnitLatency())
    assert found.exact
    assert found.fastest_ms == pytest.approx(truth.min())
    assert found.slowest_ms == pytest.approx(truth.max())
    assert UnitLatency().latency_ms([found.fastest, found.slowest]) == pytest.approx([truth.min(), truth.max()])


def test_whole_networks_give_a_sampled_range_so_named() -> None:
    space = small_space("blocks")
    truth = UnitLatency().latency_ms(list(space.enumerate()))
    found = latency_range(space, OpaqueLatency(), seed=3)
    assert not found.exact
    assert truth.min() <= found.fastest_ms < found.slowest_ms <= truth.max()
    with pytest.raises(InfeasibleError, match="of a sample"):
        found.require(found.fastest_ms / 2)


def test_infeasible_carries_both_ends() -> None:
    found = latency_range(small_space("blocks"), UnitLatency())
    found.require(found.fastest_ms)
    with pytest.raises(InfeasibleError) as caught:
        found.require(found.fastest_ms * 0.99)
    assert (caught.value.fastest_ms, caught.value.slowest_ms) == (found.fastest_ms, found.slowest_ms)
    assert caught.value.exact


def test_a_target_binds_below_the_slowest_only() -> None:
    found = latency_range(small_space("blocks"), UnitLatency())
    assert found.binds(found.slowest_ms * 0.999)
    assert not found.binds(found.slowest_ms)


class _Measuring(UnitLatency):
    def __init__(self) -> None:
        self.prepared: list[Unit] = []

    def prepare(self, parts: Sequence[Unit], progress: Progress | None = None) -> None:
        self.prepared += parts
        if progress:
            progress(len(parts), len(parts), "units")


def test_a_model_that_measures_is_prepared_with_every_unit_first() -> None:
    space, model = small_space("blocks"), _Measuring()
    reports: list[tuple[int, int, str]] = []
    latency_range(space, model, progress=lambda *report: reports.append(report))
    assert set(model.prepared) == set(space.all_units())
    assert reports == [(len(space.all_units()), len(space.all_units()), "units")]


def test_whole_networks_are_asked_once_each() -> None:
    space, model = small_space("blocks"), OpaqueLatency()
    latencies = RowLatency(space, model)
    rows = space.sample_indices(20, np.random.default_rng(0))
    first = latencies.of_rows(rows)
    assert (latencies.of_rows(rows[::-1]) == first[::-1]).all()
    assert len(model.asked) == len(set(model.asked))


class _Broken:
    def __init__(self, answer: float) -> None:
        self._answer = answer

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.full(len(architectures), self._answer)


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), 0.0, -1.0])
def test_latencies_that_cannot_be_are_refused(answer: float) -> None:
    with pytest.raises(DeviceError, match="_Broken"):
        latency_range(small_space("blocks"), _Broken(answer))
