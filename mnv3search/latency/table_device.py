"""This machine as a device: a measured table of units, calibrated on whole networks, and networks timed whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.cost.units import Unit, units
from mnv3search.errors import DeviceError
from mnv3search.families import published
from mnv3search.latency.assembled import assembled_networks
from mnv3search.latency.calibration import MIN_NETWORKS, Calibration, entering_elements, fit
from mnv3search.latency.keys import network_key, network_of_key, unit_key
from mnv3search.latency.measure import FloatArray, MeasuringPlan, at_level, pace, slot_of, summarise
from mnv3search.latency.model import LatencyKind, Progress
from mnv3search.latency.runtimes import Runtime, Subject, load_runtime
from mnv3search.latency.runtimes.base import machine_of
from mnv3search.latency.sitting import MAX_SESSIONS, Steps, measure_into, whole_rounds
from mnv3search.latency.table import LatencyTable, TableKey, table_path

Statistic = Literal["median", "minimum"]

DEFAULT_RUNTIME = "onnxruntime"
REFERENCE = "mobilenet_v3_large"
SPACE_UNITS = 100  # from so many unknown units on, the table is calibrated anew on networks made of them
CALIBRATION_NETWORKS = 12
UNIT_SECONDS = 1.5  # least duration of a sitting of units: a layer search asks for a few new ones in every step
FALLBACK_NETWORKS = (
    "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v3_large_minimalistic", "mobilenet_v2", "mnasnet_a1",
    "mnasnet_small", "mobilenet_v3_small_minimalistic", "mobilenet_v3_large_reduced_tail",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredLatency:
    """One network timed whole, interleaved with the others and the reference.

    Attributes:
        latency_ms: median, the reference's drift divided out.
        error_ms: one standard deviation of that median.
        minimum_ms: the fastest call.
        rounds: how many calls.
        reference_ms: the reference network's median in the same session.
        times_ms: every call, in order, the reference's drift divided out; call i of all networks is of one round.
    """

    architecture: Architecture
    latency_ms: float
    error_ms: float
    minimum_ms: float
    rounds: int
    reference_ms: float
    times_ms: FloatArray


class TableDevice:
    """The machine that this process runs on: a :class:`~mnv3search.latency.model.UnitLatencyModel`.

    Units are measured when they are first asked for (or all at once by :meth:`prepare`) and kept on disk; a
    measurement that was interrupted goes on where it stopped.

    Args:
        runtime: ``onnxruntime``, ``torch``, or any :class:`~mnv3search.latency.runtimes.Runtime`.
        threads: of one call, where ``runtime`` is a name.
        cache_dir: where the table lies; ``$MNV3SEARCH_CACHE`` or the user's cache folder where not given.
        plan: how much is measured.
        reference: the network that runs in every round; V3-Large where not given.
        statistic: of whole networks, to which the table is calibrated: ``median``, what a call takes as the machine
            was while measuring, or ``minimum``, what it takes undisturbed, which holds better from day to day.
        calibrate_on: whole networks for the calibration; where none are given, networks assembled from a space's units,
            or published ones.

    Raises:
        UnknownNameError: no such runtime.
        MissingDependencyError: the runtime's package is not installed.
        DeviceError: the table on disk is damaged or of another version or machine.
    """

    kind: LatencyKind = "table"

    def __init__(
        self,
        runtime: str | Runtime = DEFAULT_RUNTIME,
        threads: int = 1,
        cache_dir: Path | None = None,
        plan: MeasuringPlan | None = None,
        reference: Architecture | None = None,
        statistic: Statistic = "median",
        calibrate_on: Sequence[Architecture] = (),
    ) -> None:
        self.runtime = load_runtime(runtime, threads) if isinstance(runtime, str) else runtime
        default = (self.runtime.name, self.runtime.threads) == (DEFAULT_RUNTIME, 1)
        self.name = "host" if default else f"host:{self.runtime.name}"
        self.statistic = statistic
        self.calibrate_on = tuple(calibrate_on)
        self.plan = plan or MeasuringPlan()
        self.reference = reference or published(REFERENCE)
        key = TableKey(
            machine_of(self.runtime), self.runtime.name, self.runtime.version, self.runtime.threads,
            self.runtime.precision, network_key(self.reference),
        )  # fmt: skip
        self.path = table_path(key, cache_dir)
        self.table = LatencyTable.load(self.path, key)
        self._calibration: Calibration | None = None
        self._alone: dict[Unit, tuple[float, float]] = {}

    def prepare(self, parts: Sequence[Unit], progress: Progress | None = None) -> None:
        """Measure the units that have no price, and the networks that calibrate them.

        Raises:
            MeasurementError: time ran out or a session failed; what was measured is kept.
            DeviceError: the table cannot be written.
        """
        unknown = [u for u in dict.fromkeys(parts) if u not in self._alone and not self._is_measured(unit_key(u))]
        if not unknown and self._calibration is not None:
            return
        networks = self._calibrating(parts, len(unknown))
        subjects: dict[str, Subject] = {network_key(a): a for a in networks}
        subjects |= {unit_key(unit): unit for a in networks for unit in units(a)}
        subjects |= {unit_key(unit): unit for unit in unknown}
        missing = {key: subject for key, subject in subjects.items() if not self._is_measured(key)}
        if missing:
            self._measure(missing, progress)

    def _is_measured(self, key: str) -> bool:
        return self.table.rounds_of(key) >= self.plan.rounds

    def _calibrating(self, parts: Sequence[Unit], unknown: int) -> list[Architecture]:
        """The networks that are to be measured with so many unknown units of ``parts``."""
        if self.calibrate_on:
            return list(self.calibrate_on)
        assembled = assembled_networks(parts, CALIBRATION_NETWORKS) if unknown >= SPACE_UNITS else []
        if len(assembled) >= MIN_NETWORKS:
            return assembled
        enough = len(self._whole_networks()) >= MIN_NETWORKS
        return [] if enough else [published(name) for name in FALLBACK_NETWORKS]

    def _whole_networks(self) -> list[str]:
        """Networks measured to the end, their units as well (an interrupted measurement may have only the former)."""
        return [
            key
            for key in self.table.networks
            if self._is_measured(key) and all(self._is_measured(unit_key(u)) for u in units(network_of_key(key)))
        ]

    def _measure(self, subjects: dict[str, Subject], progress: Progress | None) -> None:
        self._calibration = None
        plan = replace(self.plan, min_seconds=min(self.plan.min_seconds, UNIT_SECONDS))
        save = partial(self.table.save, self.path)
        measure_into(self.table, subjects, self.reference, self.runtime, plan, save, progress)

    @property
    def calibration(self) -> Calibration:
        """From units to networks, fitted on the table's whole networks.

        Raises:
            MeasurementError: fewer than five networks are measured, or the times do not add up.
        """
        if self._calibration is None:
            if len(self._whole_networks()) < MIN_NETWORKS:
                self.prepare([])
            rows = [self._calibration_row(key) for key in self._whole_networks()]
            sums, elements, minimum, median = np.array(rows, dtype=np.float64).reshape(-1, 4).T
            self._calibration = fit(sums, elements, minimum, median if self.statistic == "median" else None)
        return self._calibration

    def _calibration_row(self, key: str) -> tuple[float, float, float, float]:
        parts = units(network_of_key(key))
        alone, _ = self._unit_times(parts)
        timing = self.table.timing(key)
        return float(alone.sum()), float(entering_elements(parts).sum()), timing.minimum_ms, timing.median_ms

    def _unit_times(self, parts: Sequence[Unit]) -> tuple[FloatArray, FloatArray]:
        """Milliseconds of units alone (their minima) and the errors of these, shape (n,) each."""
        for unit in parts:
            if unit not in self._alone:
                timing = self.table.timing(unit_key(unit))
                self._alone[unit] = timing.minimum_ms, timing.error_ms
        times = np.array([self._alone[unit] for unit in parts], dtype=np.float64).reshape(-1, 2)
        return times[:, 0], times[:, 1]

    @property
    def fixed_ms(self) -> float:
        """0: what a call takes beside its units is part of the stem's and the head's own times."""
        return 0.0

    def unit_latency_ms(self, parts: Sequence[Unit]) -> FloatArray:
        """Milliseconds of units inside a network, shape (n,); unknown ones are measured first."""
        self.prepare(parts)
        alone, _ = self._unit_times(parts)
        return self.calibration.price(alone, entering_elements(parts))

    def latency_ms(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Milliseconds of networks, shape (n,): the sum over their units; unknown units are measured first."""
        price = self._prices(architectures)
        return np.array([self.fixed_ms + sum(price[u] for u in units(a)) for a in architectures], dtype=np.float64)

    def _prices(self, architectures: Iterable[Architecture]) -> dict[Unit, float]:
        parts = list(dict.fromkeys(unit for a in architectures for unit in units(a)))
        return dict(zip(parts, self.unit_latency_ms(parts).tolist(), strict=True))

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> FloatArray:
        """One standard deviation, shape (n,).

        It joins the calibration's on networks left out (growing away from these), the noise of the network's own
        units, and how much the machine's pace varied between the moments of the measurement.
        """
        latency = self.latency_ms(architectures)
        calibration = self.calibration
        pace_error = self.table.level_error if architectures else 0.0
        found = []
        for architecture, ms in zip(architectures, latency, strict=True):
            parts = units(architecture)
            alone, errors = self._unit_times(parts)
            sums, elements = alone.sum(keepdims=True), entering_elements(parts).sum(keepdims=True)
            model = float(calibration.relative_error(sums, elements, np.array([ms]))[0]) * ms
            noise = calibration.scale * float(np.linalg.norm(errors))
            found.append(math.hypot(model, noise, pace_error * ms))
        return np.array(found, dtype=np.float64)

    def measure(self, architectures: Sequence[Architecture], progress: Progress | None = None) -> list[MeasuredLatency]:
        """Time whole networks, interleaved with one another and the reference.

        Raises:
            MeasurementError: time ran out, or the runtime refuses a network.
            DeviceError: there are more networks than can be held at once.
        """
        if len(architectures) > MAX_SESSIONS:
            raise DeviceError(f"{len(architectures)} networks cannot be interleaved; give at most {MAX_SESSIONS}")
        if not architectures:
            return []
        what = f"measuring {len(architectures)} networks on {self.runtime.name}"
        steps = Steps(len(architectures) * (1 + self.plan.rounds), what, progress)
        found = whole_rounds(list(architectures), self.reference, self.runtime, self.plan, steps)
        ms, readings = np.stack([one.ms for one in found]), np.stack([one.reference_ms for one in found])
        level, paces = float(np.median(readings)), pace(readings)
        slots = slot_of(len(architectures), self.plan.slot_size).tolist()
        measured = []
        for index, (architecture, slot) in enumerate(zip(architectures, slots, strict=True)):
            times = at_level(ms[:, index], paces[:, slot], level)
            timing = summarise(times, float(ms[:, index].min()))
            measured.append(
                MeasuredLatency(
                    architecture, timing.median_ms, timing.error_ms, timing.minimum_ms, timing.rounds, level, times
                )
            )
        return measured
