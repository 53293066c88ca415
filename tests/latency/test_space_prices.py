"""Devices are calibrated on networks of all sizes that a space has."""

from __future__ import annotations

import numpy as np
import pytest

from mnv3search.cost import count, unit_cost
from mnv3search.latency.measured.calibration import networks_of_all_sizes
from mnv3search.space import load_space


@pytest.mark.parametrize("name", ["mnv3_small_32", "mnv3_large", "mnv2"])
def test_networks_of_all_sizes_reach_down_to_the_smallest(name: str) -> None:
    space = load_space(name)
    found = networks_of_all_sizes(space, 32, 0)
    assert len(set(found)) == len(found) == 32
    assert all(space.contains(network) for network in found)
    madds = np.array([count(network).madds for network in found])
    smallest = space.priced(lambda parts: np.array([unit_cost(unit).madds for unit in parts])).fastest()[1]
    evenly = np.array([count(network).madds for network in space.sample(32, 1)])
    assert (madds <= smallest + 0.35 * (np.median(evenly) - smallest)).sum() >= 5
    assert (madds >= evenly.min()).sum() >= 12  # and as many are as most of the space
    assert found == networks_of_all_sizes(space, 32, 0)
    assert found != networks_of_all_sizes(space, 32, 1)
