"""From exported layers and the times that a user took of them to a device: calibrated sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.latency.fitted.times import TimeFile, TimeRow, averaged, check_magnitudes, listed, read_times
from mnv3search.latency.fitted.unit_prices import MAX_FIGURE, MAX_SUMS, UnitPrices, fit_prices
from mnv3search.latency.keys import unit_key
from mnv3search.latency.layer_files.exported import LayerFile, LayerFolder, file_sha256, read_layers
from mnv3search.latency.measured.calibration import MIN_NETWORKS, Calibration, fit
from mnv3search.latency.model import LatencyKind
from mnv3search.layers import Unit, units

Array = NDArray[np.float64]

UNCALIBRATED_ERROR = 0.3
"""One relative deviation of a plain sum of layers: on machines where both were timed it was 10 to 35 % off."""


@dataclass(frozen=True, slots=True)
class WholeTime:
    """A network that was timed whole, in milliseconds."""

    architecture: Architecture
    ms: float


@dataclass(eq=False)
class ImportedDevice:
    """A sum of timed layers, calibrated on whole networks where at least five were timed.

    A layer that was not timed is priced like those near it, and the stated error grows by what is unknown of it.

    Attributes:
        name: of the device.
        layers_ms: milliseconds of units alone, by :func:`~mnv3search.latency.keys.unit_key`.
        whole: networks timed whole whose units are all in ``layers_ms``.
        near: prices fitted to timed units, each alone.
        near_error_scale: of the error of a price that ``near`` gives, so that it covers units left out.
        details: what else the device's file says.
    """

    name: str
    layers_ms: Mapping[str, float]
    whole: tuple[WholeTime, ...]
    near: UnitPrices
    near_error_scale: float
    details: Mapping[str, object] = field(default_factory=dict)
    kind: ClassVar[LatencyKind] = "table"

    def __post_init__(self) -> None:
        for value in (*self.layers_ms.values(), *(whole.ms for whole in self.whole), self.near_error_scale):
            if not (math.isfinite(value) and 0 < value < MAX_FIGURE):
                raise DeviceError(f"device {self.name} has a time of {value} ms; times are finite and above 0")
        self.calibration = self._calibrated() if len(self.whole) >= MIN_NETWORKS else None

    def _calibrated(self) -> Calibration:
        parts = [units(whole.architecture) for whole in self.whole]
        missing = {unit for network in parts for unit in network if not self.is_timed(unit)}
        if missing:
            raise DeviceError(
                f"the whole networks of device {self.name} have {len(missing)} layers that were not timed"
            )
        times = np.array([whole.ms for whole in self.whole], dtype=np.float64)
        return fit(parts, [self._alone_ms(network) for network in parts], times)

    @property
    def fixed_ms(self) -> float:
        """Milliseconds of a call without its layers; 0 without a calibration."""
        return 0.0 if self.calibration is None else self.calibration.fixed_ms

    def is_timed(self, unit: Unit) -> bool:
        """Whether this unit was timed; others are priced like those near it."""
        return unit_key(unit) in self.layers_ms

    def _alone_ms(self, parts: Sequence[Unit]) -> Array:
        timed = [self.layers_ms.get(unit_key(unit)) for unit in parts]
        alone = [
            self.near.fixed_ms + self.near.unit_ms(unit) if ms is None else ms
            for unit, ms in zip(parts, timed, strict=True)
        ]
        return np.array(alone, dtype=np.float64)

    def unit_latency_ms(self, parts: Sequence[Unit]) -> Array:
        """Milliseconds of units inside a network, shape (n,); at least 0."""
        alone = self._alone_ms(parts)
        return alone if self.calibration is None or not parts else self.calibration.price(parts, alone)

    def latency_ms(self, architectures: Sequence[Architecture]) -> Array:
        """Milliseconds at batch 1, shape (n,): the sum over their units."""
        prices = [self.unit_latency_ms(units(a)).tolist() for a in architectures]
        return np.array([self.fixed_ms + sum(found) for found in prices], dtype=np.float64)

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> Array:
        """One deviation, shape (n,): the calibration's on networks left out, and that of units that were not timed."""
        errors = [self._error_ms(a, ms) for a, ms in zip(architectures, self.latency_ms(architectures), strict=True)]
        return np.array(errors, dtype=np.float64)

    def _error_ms(self, architecture: Architecture, latency_ms: float) -> float:
        parts = units(architecture)
        unknown = [unit for unit in parts if not self.is_timed(unit)]
        untimed = self.near_error_scale * self.near.error_ms(unknown) if unknown else 0.0
        if self.calibration is None:
            return math.hypot(UNCALIBRATED_ERROR * latency_ms, untimed)
        model = self.calibration.relative_error(parts, self._alone_ms(parts), latency_ms) * latency_ms
        return math.hypot(model, self.calibration.scale * untimed)


MIN_LAYERS = 5
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Imported:
    """A device, how many exported layers were not timed, and notices for the user."""

    device: ImportedDevice
    missing: int
    notices: tuple[str, ...]


def import_layers(folder: Path, times: Path, name: str, *, partial: bool = False) -> Imported:
    """The device of exported layers' times.

    Args:
        folder: of the exported layers.
        times: a CSV file with the columns ``file`` (or ``name``) and ``ms`` (or ``us``, ``s``), and perhaps
            ``minimum_ms``.
        name: of the device.
        partial: accept that layers were not timed; they are then priced like those near them.
    """
    plan, file = read_layers(folder), read_times(times, ("file", "name"))
    notices = list(file.notices)
    rows = _by_file(file, plan, notices)
    timed = [entry for entry in plan.files if entry.file in rows]
    notices += _check_files(folder, timed)
    missing = [entry.file for entry in plan.layers if entry.file not in rows]
    if missing and not partial:
        raise MeasurementError(
            f"{times} lacks {len(missing)} of {len(plan.layers)} layers: {listed(missing)}; "
            "time them too, or take --partial, which prices them like those near them"
        )
    layers = len(plan.layers) - len(missing)
    if layers < MIN_LAYERS:
        raise MeasurementError(f"{times} has {layers} layers; at least {MIN_LAYERS} must be timed")
    notices += check_magnitudes(str(times), [rows[e.file] for e in timed], [entry.parts for entry in timed])
    device = _device(name, plan.space, [(entry, rows[entry.file]) for entry in timed], notices)
    if missing:
        notices.append(
            f"{len(missing)} of {len(plan.layers)} layers were not timed and are priced like those near them"
        )
    return Imported(device, len(missing), tuple(notices))


def _by_file(file: TimeFile, plan: LayerFolder, notices: list[str]) -> dict[str, TimeRow]:
    """Rows by the file that they are of; folders and the ending may be left out of a name."""
    known = {entry.file for entry in plan.files}
    found: dict[str, list[TimeRow]] = {}
    unknown = []
    for row in file.rows:
        name = PureWindowsPath(row.name).name  # takes both kinds of slashes
        name = name if name.endswith(".onnx") else f"{name}.onnx"
        if name in known:
            found.setdefault(name, []).append(row)
        else:
            unknown.append(f"{row.name} ({row.where})")
    if unknown:
        raise MeasurementError(
            f"{file.path} has {len(unknown)} names that are no exported files: {listed(unknown)}; "
            "the first column must name files of the layers' folder"
        )
    return {name: averaged(str(file.path), rows, notices) for name, rows in found.items()}


def _check_files(folder: Path, timed: Sequence[LayerFile]) -> list[str]:
    """Refuse files that changed since the export; a sentence where some are gone."""
    digests = {entry.file: file_sha256(folder / entry.file) for entry in timed}
    changed = [e.file for e in timed if digests[e.file] not in (None, e.sha256)]
    if changed:
        raise MeasurementError(
            f"{len(changed)} files of {folder} are not as they were exported: {listed(changed)}; "
            "export them to a new folder and time those"
        )
    gone = [name for name, digest in digests.items() if digest is None]
    return [f"{len(gone)} timed files are no longer in {folder} and could not be checked: {listed(gone)}"] * bool(gone)


def _device(name: str, space: str, timed: Sequence[tuple[LayerFile, TimeRow]], notices: list[str]) -> ImportedDevice:
    layers = [(entry.key, entry.parts[0], row) for entry, row in timed if not entry.is_network]
    minima = [row.minimum_ms for _, _, row in layers if row.minimum_ms is not None]
    usual = [row.ms for _, _, row in layers]
    alone = minima if len(minima) == len(layers) else usual  # minima are least disturbed by what else the device does
    times = {key: ms for (key, _, _), ms in zip(layers, alone, strict=True)}
    wholes = [WholeTime(e.subject, row.ms) for e, row in timed if isinstance(e.subject, Architecture)]
    whole = tuple(w for w in wholes if all(unit_key(unit) in times for unit in units(w.architecture)))
    near, scale = _near([unit for _, unit, _ in layers], np.array(alone))
    if len(whole) < MIN_NETWORKS:
        notices.append(
            f"uncalibrated: {len(whole)} whole networks were timed with all their layers, {MIN_NETWORKS} are needed; "
            f"sums of layers are usually 10 to 35 % off, and an error of {UNCALIBRATED_ERROR:.0%} is stated"
        )
        whole = ()
    return ImportedDevice(name, times, whole, near, scale, {"space": space, "calibrated": bool(whole)})


def _near(parts: Sequence[Unit], alone_ms: NDArray[np.float64]) -> tuple[UnitPrices, float]:
    """Prices of units by timed ones, and by how much their deviation must be widened to cover units left out."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(parts))[:MAX_SUMS])
    timed, times = [(parts[i],) for i in chosen], alone_ms[chosen]
    prices = fit_prices(timed, times)
    fold = np.random.default_rng(0).permutation(len(timed)) % min(FOLDS, len(timed))
    z = []
    for part in range(int(fold.max()) + 1):
        kept = np.flatnonzero(fold != part)
        rest = UnitPrices([timed[i] for i in kept], times[kept].tolist(), prices.scales)
        z += [
            (rest.fixed_ms + rest.unit_ms(timed[i][0]) - times[i]) / rest.error_ms(timed[i])
            for i in np.flatnonzero(fold == part)
        ]
    return prices, float(np.sqrt((np.sum(np.square(z)) + 4) / (len(z) + 4)))
