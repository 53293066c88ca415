"""A space's layers measured into a device's table, and the table checked on whole networks that it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.architecture import Architecture, to_mapping
from mnv3search.candidate import networks_frame
from mnv3search.errors import MeasurementError
from mnv3search.latency.keys import Fingerprint, network_of_key, unit_key
from mnv3search.latency.measured.calibration import networks_of_all_sizes, prepare_for_space
from mnv3search.latency.measured.measuring import MAX_DISAGREEMENT, MeasuringPlan
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.measured.tables_on_disk import TableNote
from mnv3search.latency.measured.whole_networks import disturbed_sentence
from mnv3search.latency.model import Progress
from mnv3search.latency.runtimes.base import machine_of
from mnv3search.space import SearchSpace

FORMAT, VERSION = "mnv3search.profile", 1
MAX_CHECKS = 100
MAX_CALIBRATING = 12  # networks of the calibration that are timed again with the unseen ones
if TYPE_CHECKING:
    from pandas import DataFrame

CHECK_SEED = 20_241
NEAR = 0.05  # a prediction within this share of what is measured is near
MAX_NOISE = 0.10
MAX_DEVIATIONS = 3.0

Stages = Callable[[str], Progress]
"""Called with a stage's name; gives the callback for its steps."""


@dataclass(frozen=True, slots=True)
class CheckedNetwork:
    """A whole network, predicted by the table and timed; milliseconds and one standard deviation of each."""

    architecture: Architecture
    predicted_ms: float
    predicted_error_ms: float
    measured_ms: float
    measured_error_ms: float
    calibrated_on: bool

    @property
    def error(self) -> float:
        """Of the prediction, as a share of the measurement; above 0 where it predicts too much."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What was measured, and how well it predicts.

    Attributes:
        layers: of the space; ``measured_now`` of them had no price before.
        rounds: least calls of each layer.
        seconds: that measuring the layers took, this time.
        noise: one call's deviation as a share, median over the layers.
        drift: clock drift in the table's last session of units: one standard deviation, as a share.
        calibration_networks: how many whole networks the table was fitted on.
        calibration_error: on these, each left out once: one standard deviation, as a share.
        halves: how far the odd rounds' times are from the even ones', as a share, in its last sessions.
        networks: timed whole and predicted; those not calibrated on first.
        measured_at: ISO time, UTC.
        disturbed: a sentence on other programs that ran while the networks were timed; None where none were seen.
    """

    space: str
    device: str
    machine: Fingerprint
    runtime: str
    runtime_version: str
    threads: int
    precision: str
    layers: int
    measured_now: int
    rounds: int
    seconds: float
    noise: float
    drift: float
    calibration_networks: int
    calibration_error: float
    halves: float
    networks: Sequence[CheckedNetwork]
    table: Path
    measured_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    disturbed: str | None = None

    def to_frame(self) -> DataFrame:
        """A row a network: the fields of :class:`CheckedNetwork`, its short line as ``blocks`` before itself."""
        return networks_frame(self.networks, (f.name for f in fields(CheckedNetwork) if f.name != "architecture"))

    @property
    def unseen(self) -> list[CheckedNetwork]:
        """Networks that the table was not calibrated on."""
        return [network for network in self.networks if not network.calibrated_on]

    @property
    def errors(self) -> list[float]:
        """Absolute errors on the unseen networks, as shares."""
        return [abs(network.error) for network in self.unseen]

    @property
    def stated(self) -> float:
        """The deviation that the table states on the unseen networks: mean, as a share."""
        return float(np.mean([n.predicted_error_ms / n.predicted_ms for n in self.unseen])) if self.unseen else math.nan

    def warnings(self) -> list[str]:
        """Caveats of the table, one sentence each."""
        said = [] if self.disturbed is None else [self.disturbed]
        if self.halves > MAX_DISAGREEMENT:
            said.append(
                f"the odd and the even rounds of the table's last session differ by {percent(self.halves)}, more than "
                f"{percent(MAX_DISAGREEMENT)}: the machine was not quiet; close other programs and delete the table to "
                f"measure again"
            )
        if self.noise > MAX_NOISE:
            said.append(f"single calls deviate by {percent(self.noise)}: other programs take the processor; close them")
        errors = self.errors
        if errors and float(np.mean(errors)) > NEAR:
            said.append(
                f"unseen networks are off by {percent(float(np.mean(errors)))} on average, more than {percent(NEAR)}: "
                f"time the networks that you choose whole (mnv3search latency --whole)"
            )
        far = sum(
            abs(n.predicted_ms - n.measured_ms) > MAX_DEVIATIONS * math.hypot(n.predicted_error_ms, n.measured_error_ms)
            for n in self.unseen
        )
        if far:
            said.append(f"{far} of {len(errors)} networks lie further off than {MAX_DEVIATIONS:g} stated deviations")
        return said

    def note(self) -> TableNote | None:
        """What stays with the table; None where no network was checked."""
        if not self.errors:
            return None
        mean, most = float(np.mean(self.errors)), max(self.errors)
        return TableNote(self.device, self.measured_at, len(self.errors), mean, most, self.space, self.layers)


def percent(share: float) -> str:
    """``1.2 %`` for 0.012."""
    return f"{100 * share:.1f} %"


def measuring_plan(rounds: int | None, seconds: float) -> MeasuringPlan:
    """A plan of at least so many rounds of every layer, the usual number where None, within so many seconds."""
    usual = MeasuringPlan()
    rounds = usual.rounds if rounds is None else rounds
    if rounds < 1:
        raise MeasurementError(f"rounds is {rounds}; give at least 1")
    if not (math.isfinite(seconds) and seconds > 0):
        raise MeasurementError(f"seconds is {seconds:g}; give a number above 0")
    return MeasuringPlan(rounds=rounds, max_rounds=max(usual.max_rounds, rounds), max_seconds=seconds)


def profile_device(device: TableDevice, space: SearchSpace, check: int, stages: Stages) -> DeviceProfile:
    """Measure the layers of ``space`` that have no price, then time ``check`` unseen networks of it whole."""
    if not 0 <= check <= MAX_CHECKS:
        raise MeasurementError(f"check is {check}; give 0 to {MAX_CHECKS} networks")
    parts = space.all_units()
    lacking = sum(device.table.rounds_of(unit_key(unit)) < device.plan.rounds for unit in parts)
    start = time.monotonic()
    prepare_for_space(space, device, stages(f"measuring {lacking:,} of {len(parts):,} layers of {space.name}"))
    calibration = device.calibration
    seconds = time.monotonic() - start
    checked, disturbed = _checked(device, space, check, stages) if check else ([], None)
    runtime, table = device.runtime, device.table
    rounds = min(table.rounds_of(unit_key(unit)) for unit in parts)
    noise = float(np.median([table.timing(unit_key(unit)).spread for unit in parts]))
    return DeviceProfile(
        space.name, device.name, machine_of(runtime), runtime.name, runtime.version, runtime.threads, runtime.precision,
        len(parts), lacking, rounds, seconds, noise, table.clock_drift, calibration.networks, calibration.relative_std,
        table.halves_disagreement, checked, device.path, disturbed=disturbed,
    )  # fmt: skip


def unseen_networks(space: SearchSpace, count: int, seen: set[Architecture]) -> list[Architecture]:
    """Up to ``count`` distinct networks of ``space``, of all sizes, not among ``seen``; always the same."""
    found: dict[Architecture, None] = {}
    for batch in range(20):
        for network in networks_of_all_sizes(space, count, CHECK_SEED + batch):
            if network not in seen and len(found) < count:
                found[network] = None
    return list(found)


def _checked(
    device: TableDevice, space: SearchSpace, check: int, stages: Stages
) -> tuple[list[CheckedNetwork], str | None]:
    """The networks that were timed whole, and a sentence on other programs that ran meanwhile."""
    keys = device.table.networks
    seen = {network_of_key(key) for key in keys}
    fitted = [network_of_key(key) for key in keys[-MAX_CALIBRATING:]]
    unseen = unseen_networks(space, check, seen)
    networks = [*unseen, *fitted]
    measured = device.measure(networks, stages(f"timing {len(networks)} whole networks, {len(unseen)} of them unseen"))
    predicted, errors = device.latency_ms(networks), device.latency_error_ms(networks)
    checked = [
        CheckedNetwork(network, float(p), float(e), m.latency_ms, m.error_ms, i >= len(unseen))
        for i, (network, m, p, e) in enumerate(zip(networks, measured, predicted, errors, strict=True))
    ]
    return checked, disturbed_sentence(measured)


def profile_mapping(profile: DeviceProfile) -> dict[str, object]:
    """``profile.json``: every figure, and the networks that were timed."""
    apart = ("machine", "networks", "table", "disturbed")
    plain = {f.name: getattr(profile, f.name) for f in fields(DeviceProfile) if f.name not in apart}
    figures = ("predicted_ms", "predicted_error_ms", "measured_ms", "measured_error_ms", "error", "calibrated_on")
    errors = profile.errors
    return {
        "format": FORMAT, "version": VERSION, **plain, "machine": str(profile.machine), "table": str(profile.table),
        "unseen": {
            "networks": len(errors), "mean_error": float(np.mean(errors)) if errors else None,
            "max_error": max(errors, default=None), "within_5_percent": sum(e <= NEAR for e in errors),
            "stated_deviation": profile.stated if errors else None,
        },
        "networks": [
            {name: getattr(network, name) for name in figures} | {"architecture": to_mapping(network.architecture)}
            for network in profile.networks
        ],
        "warnings": profile.warnings(),
    }  # fmt: skip
