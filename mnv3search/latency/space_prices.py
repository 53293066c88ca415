"""Make a device ready for a space: calibrated on networks of it, and every unit of it priced."""

from __future__ import annotations

from mnv3search.latency.model import CalibratedOnNetworks, LatencyModel, Preparable, Progress
from mnv3search.space import SearchSpace

CALIBRATION_NETWORKS = 32
CALIBRATION_SEED = 1905  # apart from the seeds of searches and checks


def prepare_for_space(space: SearchSpace, model: LatencyModel, progress: Progress | None = None) -> None:
    """Let ``model`` measure what it lacks for ``space``; a model that measures nothing is left as it is.

    Raises:
        MeasurementError: it cannot be measured; what was measured before is kept.
        DeviceError: what is measured cannot be kept.
    """
    if isinstance(model, CalibratedOnNetworks):
        model.calibrate_for(space.sample(CALIBRATION_NETWORKS, CALIBRATION_SEED))
    if isinstance(model, Preparable):
        model.prepare(space.all_units(), progress)
