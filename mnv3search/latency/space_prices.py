"""Make a device ready for a space: calibrated on networks of all its sizes, and every unit of it priced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.cost import unit_cost
from mnv3search.latency.model import CalibratedOnNetworks, LatencyModel, Preparable, Progress
from mnv3search.layers import Unit
from mnv3search.space import SearchSpace

CALIBRATION_NETWORKS = 32
CALIBRATION_SEED = 1905  # apart from the seeds of searches and checks
NEARLY = 0.5  # standard deviation of the logarithm of a unit's MAdds, by which the smallest networks differ


def prepare_for_space(space: SearchSpace, model: LatencyModel, progress: Progress | None = None) -> None:
    """Let ``model`` measure what it lacks for ``space``; a model that measures nothing is left as it is.

    Raises:
        MeasurementError: it cannot be measured; what was measured before is kept.
        DeviceError: what is measured cannot be kept.
    """
    if isinstance(model, CalibratedOnNetworks):
        model.calibrate_for(networks_of_all_sizes(space, CALIBRATION_NETWORKS, CALIBRATION_SEED))
    if isinstance(model, Preparable):
        model.prepare(space.all_units(), progress)


def networks_of_all_sizes(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Up to ``count`` distinct networks of ``space``; the same for the same seed.

    Half are drawn evenly among all networks: of most spaces these are deep and wide, for there are more such. A quarter
    are drawn evenly by choice, so that depths and widths differ, and a quarter are about the smallest, which tell what
    a network costs that hardly computes.
    """
    rng = np.random.default_rng(seed)
    evenly = space.sample_indices(count, rng)
    found: dict[Architecture, None] = {}
    for rows, wanted in (
        (np.stack([_nearly_smallest(space, rng) for _ in range(count)]), count // 4),
        (space.mutate(evenly, rng, 1.0), count // 2),
        (evenly, count),
    ):
        for network in space.architectures(rows):
            if len(found) < wanted:
                found[network] = None
    return list(found)


def _nearly_smallest(space: SearchSpace, rng: np.random.Generator) -> NDArray[np.int16]:
    """The row of least MAdds, had every unit some more or fewer than it has."""

    def price(parts: Sequence[Unit]) -> NDArray[np.float64]:
        madds = np.array([unit_cost(unit).madds for unit in parts], dtype=np.float64)
        return madds * np.exp(NEARLY * rng.standard_normal(len(parts)))

    return space.priced(price).fastest()[0]
