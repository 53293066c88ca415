"""A device that is measured: a table of units, calibrated on whole networks, and networks timed whole.

:func:`measured_device` makes one from a device's text: of this machine's runtimes, or of another machine over SSH.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.families import parse_network, published
from mnv3search.graph.model_file import OnnxModel
from mnv3search.latency.device_spec import DeviceSpec
from mnv3search.latency.keys import Fingerprint, network_key, network_of_key, unit_key
from mnv3search.latency.measured.calibration import (
    CALIBRATION_NETWORKS,
    MIN_NETWORKS,
    Calibration,
    assembled_networks,
    fit,
)
from mnv3search.latency.measured.measuring import FloatArray, MeasuringPlan, drift_error
from mnv3search.latency.measured.sessions import MAX_SESSIONS, Steps, measure_into, whole_rounds
from mnv3search.latency.measured.table import TableKey, table_path
from mnv3search.latency.measured.table_file import TableFile, load_table
from mnv3search.latency.measured.tables_on_disk import stale_table_for
from mnv3search.latency.measured.whole_networks import (
    MeasuredLatency,
    SessionReference,
    SessionScale,
    load_of,
    measured_latencies,
)
from mnv3search.latency.model import LatencyKind, Progress
from mnv3search.latency.runtimes.base import Precision, Runtime, Session, Subject, TakesTurns, is_whole_only, machine_of
from mnv3search.latency.runtimes.check import check_outputs
from mnv3search.latency.runtimes.registry import load_runtime
from mnv3search.layers import Unit, units

Statistic = Literal["median", "minimum"]

DEFAULT_RUNTIME = "onnxruntime"
REFERENCE = "mobilenet_v3_large"
SPACE_UNITS = 60  # from so many unknown units on, the table is calibrated anew on networks made of them
WHOLE_TOLERANCE = 0.02  # rounds end where the 95 % interval of every whole network's median is within ± this share
WHOLE_SLOT = 12  # whole networks between two readings of the reference: about a tenth of a second
WHOLE_PAUSE = 1.5  # seconds between bursts of whole networks: a measurement sees ten seconds of the machine, not two
SCALE_NETWORKS = 12  # timed whole in each process: what the table's times have become since it was measured
UNIT_SECONDS = 0.5  # least duration of a session of units: a layer search asks for a few new ones in every step
FALLBACK_NETWORKS = (
    "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v3_large_minimalistic", "mobilenet_v2", "mnasnet_a1",
    "mnasnet_small", "mobilenet_v3_small_minimalistic", "mobilenet_v3_large_reduced_tail", "mobilenet_v3_small@0.5/32",
    "mobilenet_v1@0.25/32", "mobilenet_v2@0.35/32",
)  # the last ones hardly compute, and show what a call costs  # fmt: skip


class TableDevice:
    """A machine that is measured: a :class:`~mnv3search.latency.model.UnitLatencyModel`.

    Units are measured when they are first needed, or all at once by :meth:`prepare`, and kept on disk; an
    interrupted measurement goes on where it stopped. A machine's speed differs from day to day, so each process first
    times a few of the table's networks whole (:attr:`session_scale`); all its latencies are at that speed.

    Args:
        runtime: ``onnxruntime``, ``torch`` … at one thread, or a :class:`~mnv3search.latency.runtimes.base.Runtime`.
        cache_dir: where the table lies; ``$MNV3SEARCH_CACHE`` or the user's cache folder where not given.
        plan: how much is measured; of whole networks (:attr:`whole_plan`), also until every median is within ±2 %.
        reference: the network that runs in every round; V3-Large where not given.
        statistic: of whole networks, to which the table is calibrated: ``median``, what a call usually takes, or
            ``minimum``, what it takes undisturbed.
        calibrate_on: whole networks for the calibration (:meth:`calibrate_for`); where none are given, networks
            assembled from the units to be priced, or published ones.
        name: as the user wrote it; of the runtime where not given.
        check: compares the runtime's outputs with torch's when it is first used, and gives the difference.
    """

    kind: LatencyKind = "table"

    def __init__(
        self,
        runtime: str | Runtime = DEFAULT_RUNTIME,
        cache_dir: Path | None = None,
        plan: MeasuringPlan | None = None,
        reference: Architecture | None = None,
        statistic: Statistic = "median",
        calibrate_on: Sequence[Architecture] = (),
        name: str | None = None,
        check: Callable[[Runtime], float] = check_outputs,
    ) -> None:
        self.runtime = load_runtime(runtime) if isinstance(runtime, str) else runtime
        default = (self.runtime.name, self.runtime.threads) == (DEFAULT_RUNTIME, 1)
        self.name = name or ("host" if default else f"host:{self.runtime.name}")
        self._check = check
        self.statistic = statistic
        self.calibrate_on = _enough(calibrate_on)
        self.plan = plan or MeasuringPlan()
        self.whole_plan = replace(
            self.plan, tolerance=WHOLE_TOLERANCE, slot_size=min(self.plan.slot_size, WHOLE_SLOT),
            pause_seconds=WHOLE_PAUSE if self.plan.min_seconds else 0.0, lead_calls=1, after_reference=True,
        )  # fmt: skip
        self.reference = reference or published(REFERENCE)
        key = TableKey(
            machine_of(self.runtime), self.runtime.name, self.runtime.version, self.runtime.threads,
            self.runtime.precision, network_key(self.reference),
        )  # fmt: skip
        self.path = table_path(key, cache_dir)
        self.table = load_table(self.path, key)
        self.session_reference: SessionReference | None = None
        self._reference: Session | None = None
        self._session_scale: SessionScale | None = None
        self._calibration: Calibration | None = None
        self._alone: dict[Unit, float] = {}

    def calibrate_for(self, architectures: Sequence[Architecture]) -> None:
        """From now on fit the sum over units on these networks, measured when units next are.

        Give networks like those to be predicted: a fit on others is a few percent off.
        """
        self.calibrate_on = _enough(architectures)
        self._calibration = None

    def prepare(self, parts: Sequence[Unit], progress: Progress | None = None) -> None:
        """Measure the units that have no price, and the networks that calibrate them."""
        if is_whole_only(self.runtime):
            raise MeasurementError(
                f"{self.runtime.name} times whole networks alone, so no table of layers can be made with it; "
                f"use mnv3search latency NETWORK... --device {self.name} --whole"
            )
        unknown = [u for u in dict.fromkeys(parts) if u not in self._alone and not self._is_measured(unit_key(u))]
        if not unknown and self._calibration is not None:
            return
        networks = self._calibrating(parts, len(unknown))
        subjects: dict[str, Subject] = {network_key(a): a for a in networks}
        subjects |= {unit_key(unit): unit for a in networks for unit in units(a)}
        subjects |= {unit_key(unit): unit for unit in unknown}
        missing = {key: subject for key, subject in subjects.items() if not self._is_measured(key)}
        done, waited = self._measure(missing, progress) if missing else (set(), 0.0)
        if self._session_scale is None:
            fresh = sum(key in done for key in self._whole_networks())
            if fresh >= MIN_NETWORKS:
                self._session_scale = self._fresh_scale(fresh, waited)
            else:
                self._session_scale = self._timed_scale(set(parts), progress)

    def _is_measured(self, key: str) -> bool:
        return self.table.rounds_of(key) >= self.plan.rounds

    def _calibrating(self, parts: Sequence[Unit], unknown: int) -> list[Architecture]:
        """The networks to be measured with so many unknown units of ``parts``."""
        if self.calibrate_on:
            return list(self.calibrate_on)
        assembled = assembled_networks(parts, CALIBRATION_NETWORKS) if unknown >= SPACE_UNITS else []
        if len(assembled) >= MIN_NETWORKS:
            return assembled
        enough = len(self._whole_networks()) >= MIN_NETWORKS
        return [] if enough else [parse_network(name) for name in FALLBACK_NETWORKS]

    def _whole_networks(self) -> list[str]:
        """Networks measured to the end with all their units; those of :meth:`calibrate_for` alone where enough are."""
        found = [
            key
            for key in self.table.networks
            if self._is_measured(key) and all(self._is_measured(unit_key(u)) for u in units(network_of_key(key)))
        ]
        chosen = set(map(network_key, self.calibrate_on))
        like = [key for key in found if key in chosen]
        return like if len(like) >= MIN_NETWORKS else found

    def _measure(self, subjects: dict[str, Subject], progress: Progress | None) -> tuple[set[str], float]:
        """Measure into the table on disk; gives the keys that this process measured, and how long it waited."""
        difference = self._checked_difference()
        with TableFile(self.path, self.table.key) as file:
            self.table = file.table  # another process may have gone on with it
            if self.table.output_difference is None:
                self.table.output_difference = difference
            missing = {key: subject for key, subject in subjects.items() if not self._is_measured(key)}
            self._calibration = None
            plan = replace(self.plan, min_seconds=min(self.plan.min_seconds, UNIT_SECONDS), tolerance=None)
            whole = replace(self.whole_plan, min_seconds=plan.min_seconds, tolerance=None)
            if not missing:
                return set(), 0.0
            with self._reference_session() as reference:
                waited = measure_into(file, missing, reference, self.runtime, plan, whole, progress)
        return set(missing), waited

    def _checked_difference(self) -> float:
        """The runtime's difference from torch, checked when it is first used."""
        if self.table.output_difference is None:
            self.table.output_difference = self._check(self.runtime)
        return self.table.output_difference

    @contextmanager
    def _reference_session(self) -> Iterator[Session]:
        """The reference, prepared once; anew after a failure, which may have lost it with the line to a board."""
        if self._reference is None:
            self._reference = self.runtime.prepare(self.reference)
        try:
            yield self._reference
        except BaseException:
            self._reference = None
            raise

    def _fresh_scale(self, networks: int, waited: float) -> SessionScale:
        """The session scale where this process has just measured so many of the table's networks."""
        drift = self.table.latest_network_drift
        if self.session_reference is None:
            self.session_reference = SessionReference(
                drift.reference_ms, drift_error(np.median(drift.factors, axis=1), waited)
            )
        return SessionScale(self.session_reference.reference_ms / self.table.network_reference_ms, 0.0, networks)

    def _timed_scale(self, parts: set[Unit], progress: Progress | None) -> SessionScale:
        """Times a few of the table's networks whole, those first that share most units with ``parts``."""
        keys = self._whole_networks()
        keys.sort(key=lambda key: -sum(unit in parts for unit in units(network_of_key(key))))
        keys = keys[:SCALE_NETWORKS]
        then = np.array([self._reported(key) for key in keys])
        found = self._whole([network_of_key(key) for key in keys], replace(self.whole_plan, tolerance=None), progress)
        now = np.array([one.latency_ms if self.statistic == "median" else one.minimum_ms for one in found])
        ratios = np.log(now / then)
        return SessionScale(float(np.exp(ratios.mean())), float(ratios.std(ddof=1)) / math.sqrt(len(keys)), len(keys))

    def _reported(self, key: str) -> float:
        timing = self.table.timing(key)
        return timing.median_ms if self.statistic == "median" else timing.minimum_ms

    @property
    def session_scale(self) -> SessionScale:
        """The speed of this process's session against the table's; measured when it is first needed."""
        if self._session_scale is None:
            self.prepare([])
        assert self._session_scale is not None
        return self._session_scale

    @property
    def drift_error(self) -> float:
        """How well this process knows the machine's speed, one standard deviation as a share; 0 before it measured."""
        return 0.0 if self.session_reference is None else self.session_reference.error

    @property
    def calibration(self) -> Calibration:
        """From units to networks, at the table's speed, fitted on the table's whole networks."""
        if self._calibration is None:
            if len(self._whole_networks()) < MIN_NETWORKS:
                self.prepare([])
            keys = self._whole_networks()
            parts = [units(network_of_key(key)) for key in keys]
            reported = np.array([self._reported(key) for key in keys])
            self._calibration = fit(parts, [self._alone_ms(p) for p in parts], reported)
        return self._calibration

    def _alone_ms(self, parts: Sequence[Unit]) -> FloatArray:
        """Milliseconds of units alone, shape (n,): their lower quartiles, nearly undisturbed and hardly noisy."""
        for unit in parts:
            if unit not in self._alone:
                self._alone[unit] = self.table.timing(unit_key(unit)).lower_ms
        return np.array([self._alone[unit] for unit in parts], dtype=np.float64)

    @property
    def fixed_ms(self) -> float:
        """Milliseconds that a network takes in addition to its units."""
        return self.session_scale.factor * self.calibration.fixed_ms

    def unit_latency_ms(self, parts: Sequence[Unit]) -> FloatArray:
        """Milliseconds of units inside a network, shape (n,); unknown ones are measured first."""
        self.prepare(parts)
        return self.session_scale.factor * self.calibration.price(parts, self._alone_ms(parts))

    def latency_ms(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Milliseconds of networks, shape (n,): the sum over their units; unknown units are measured first."""
        parts = list(dict.fromkeys(unit for a in architectures for unit in units(a)))
        price = dict(zip(parts, self.unit_latency_ms(parts).tolist(), strict=True))
        return np.array([self.fixed_ms + sum(price[u] for u in units(a)) for a in architectures], dtype=np.float64)

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> FloatArray:
        """One standard deviation, shape (n,): the calibration's, the session scale's and the machine's speed's."""
        latency = self.latency_ms(architectures)
        found = []
        for architecture, ms in zip(architectures, latency.tolist(), strict=True):
            parts = units(architecture)
            model = self.calibration.relative_error(parts, self._alone_ms(parts), ms / self.session_scale.factor)
            found.append(math.hypot(ms * model, ms * self.session_scale.error, ms * self.drift_error))
        return np.array(found, dtype=np.float64)

    def measure(
        self, architectures: Sequence[Architecture | OnnxModel], progress: Progress | None = None
    ) -> list[MeasuredLatency]:
        """Time whole networks, or model files, interleaved with one another and the reference."""
        if len(architectures) > MAX_SESSIONS:
            raise DeviceError(f"{len(architectures)} networks cannot be interleaved; give at most {MAX_SESSIONS}")
        if not architectures:
            return []
        self._checked_difference()
        return self._whole(architectures, self.whole_plan, progress)

    def _whole(
        self, architectures: Sequence[Architecture | OnnxModel], plan: MeasuringPlan, progress: Progress | None
    ) -> list[MeasuredLatency]:
        steps = Steps(len(architectures) * (1 + plan.rounds), progress)
        with self._reference_session() as reference:
            found, waited = whole_rounds(architectures, reference, self.runtime, plan, steps)
        measured = measured_latencies(found, plan.slot_size, self.session_reference, waited)
        if self.session_reference is None:
            self.session_reference = SessionReference(measured[0].reference_ms, measured[0].drift_error)
        return measured


def _enough(architectures: Sequence[Architecture]) -> tuple[Architecture, ...]:
    distinct = tuple(dict.fromkeys(architectures))
    if 0 < len(distinct) < MIN_NETWORKS:
        raise DeviceError(
            f"{len(distinct)} different networks cannot calibrate a latency table; give at least {MIN_NETWORKS} to "
            "calibrate on, or none"
        )
    return distinct


def measured_device(
    spec: DeviceSpec, *, cache_dir: Path | None = None, plan: MeasuringPlan | None = None
) -> TableDevice:
    """The device of ``spec``, under its canonical text.

    Where the spec is ``stale`` and the runtime's present version has no table, the newest table of another version
    answers, and the name says so; it is never added to, as times of two versions must not be mixed.
    """
    runtime, name = runtime_of(spec), str(replace(spec, stale=False))
    device = TableDevice(runtime, cache_dir=cache_dir, plan=plan, name=name)
    former = stale_table_for(device.table.key, cache_dir) if spec.stale and not len(device.table) else None
    if former is not None and former.key is not None:
        old = former.key.runtime_version
        stale = f"{name} (table of {runtime.name} {old})"
        device = TableDevice(FormerVersion(runtime, old), cache_dir=cache_dir, plan=plan, name=stale)
        device.plan = replace(device.plan, rounds=1)  # what it holds answers: no more calls can be added
    return device


def runtime_of(spec: DeviceSpec) -> Runtime:
    """The runtime of ``spec``, here or on its machine."""
    if spec.address is None:
        return load_runtime(spec.runtime, spec.threads, spec.precision)
    # SSH is loaded only where it is used
    remote: Any = importlib.import_module("mnv3search.latency.remote.remote_runtime")
    python = {} if spec.python is None else {"python": spec.python}
    return cast("Runtime", remote.open_remote(spec.board, threads=spec.threads, precision=spec.precision, **python))


class FormerVersion:
    """A runtime under its former version: that table is read, no unit is timed into it, but whole networks may be."""

    def __init__(self, runtime: Runtime, version: str) -> None:
        self._runtime, self.version = runtime, version
        self.name, self.threads = runtime.name, runtime.threads
        self.precision: Precision = runtime.precision
        if isinstance(runtime, TakesTurns):
            self.time_in_turn = runtime.time_in_turn

    @property
    def load_average(self) -> float | None:
        """The machine's."""
        return load_of(self._runtime)

    @property
    def machine(self) -> Fingerprint:
        """The machine on which it works."""
        return machine_of(self._runtime)

    def prepare(self, subject: Subject) -> Session:
        """A session of a whole network."""
        if not isinstance(subject, Architecture):
            raise MeasurementError(
                f"the table of {self.name} {self.version} lacks some of these layers, and {self.name} "
                f"{self._runtime.version} would time them otherwise; leave --allow-stale away to measure anew"
            )
        return self._runtime.prepare(subject)
