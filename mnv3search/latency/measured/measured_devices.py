"""From a device's text to a device that measures: this machine's runtimes, and another machine over SSH."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mnv3search.architecture import Architecture
from mnv3search.errors import MeasurementError
from mnv3search.latency.device_spec import DeviceSpec
from mnv3search.latency.fingerprint import Fingerprint
from mnv3search.latency.measured.busy import load_of
from mnv3search.latency.measured.measure import MeasuringPlan
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.measured.tables_on_disk import stale_table_for
from mnv3search.latency.runtimes import Runtime, Session, Subject, load_runtime
from mnv3search.latency.runtimes.base import Precision, TakesTurns, machine_of


def measured_device(
    spec: DeviceSpec, *, cache_dir: Path | None = None, plan: MeasuringPlan | None = None
) -> TableDevice:
    """The device of ``spec``, under its canonical text.

    Args:
        spec: what is timed where; where it is ``stale`` and the runtime's present version has no table, the newest of
            another version answers, and the name says so; it is never added to, as times of two versions are not to be
            mixed.
        cache_dir: where the tables lie; the default one where not given.
        plan: how much is measured.

    Raises:
        DeviceError: the machine cannot be reached or the table is damaged.
        MissingDependencyError: the runtime is not installed.
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
    """The runtime of ``spec``, here or on its machine.

    Raises:
        DeviceError: the machine cannot be reached, or the runtime cannot work so.
        MissingDependencyError: the runtime is not installed.
    """
    if spec.address is None:
        return load_runtime(spec.runtime, spec.threads, spec.precision)
    remote: Any = importlib.import_module("mnv3search.latency.remote")  # SSH is loaded only where it is used
    python = {} if spec.python is None else {"python": spec.python}
    return cast("Runtime", remote.open_remote(spec.place, threads=spec.threads, precision=spec.precision, **python))


class FormerVersion:
    """A runtime under the version that it had: its table is read, and no unit is timed into it.

    Whole networks may be timed, as those times are this version's own and stand in no table.
    """

    def __init__(self, runtime: Runtime, version: str) -> None:
        self._runtime, self.version = runtime, version
        self.name, self.threads = runtime.name, runtime.threads
        self.precision: Precision = runtime.precision
        if isinstance(runtime, TakesTurns):
            self.time_in_turn = runtime.time_in_turn

    @property
    def load_average(self) -> float | None:
        """Of the machine on which it works."""
        return load_of(self._runtime)

    @property
    def machine(self) -> Fingerprint:
        """Where the runtime works."""
        return machine_of(self._runtime)

    def prepare(self, subject: Subject) -> Session:
        """A session of a whole network.

        Raises:
            MeasurementError: ``subject`` is a unit, which the table of the former version lacks.
        """
        if not isinstance(subject, Architecture):
            raise MeasurementError(
                f"the table of {self.name} {self.version} lacks some of these layers, and {self.name} "
                f"{self._runtime.version} would time them otherwise; leave --allow-stale away to measure anew"
            )
        return self._runtime.prepare(subject)
