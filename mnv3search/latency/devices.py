"""Devices by name or file: the embedded Pixel profiles, this host, a roofline of two figures, a user's own JSON."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn, cast

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.latency.estimate import EstimatedDevice
from mnv3search.latency.features import FEATURE_NAMES
from mnv3search.latency.model import Device, LatencyKind
from mnv3search.latency.roofline import RooflineDevice

FORMAT, VERSION = "mnv3search.device", 1
MAX_BYTES = 1_000_000
MAX_NAME = 100
PROFILES = ("pixel1", "pixel2", "pixel3")
HOST_RUNTIMES = ("onnxruntime", "torch")
_HINT = "A device is one of these names, roofline:GMADDS,GBYTES (10⁹ MAdds/s, 10⁹ bytes/s) or a profile FILE.json."


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """One line of the list of devices."""

    name: str
    kind: LatencyKind
    summary: str


def device_names() -> tuple[str, ...]:
    """Every name that :func:`load_device` knows, files and rooflines apart."""
    return (*PROFILES, "host", *(f"host:{runtime}" for runtime in HOST_RUNTIMES))


def describe_devices() -> tuple[DeviceDescription, ...]:
    """Names, kinds and one line each; measures nothing."""
    profiles = [DeviceDescription(name, "estimated", _profile_summary(name)) for name in PROFILES]
    host = DeviceDescription("host", "table", "this machine, measured block by block in onnxruntime at one thread")
    hosts = [DeviceDescription(f"host:{r}", "table", f"this machine, measured in {r}") for r in HOST_RUNTIMES]
    roofline = DeviceDescription(
        "roofline:GMADDS,GBYTES", "estimated", "any device, from 10⁹ MAdds/s and 10⁹ bytes/s: a wide error"
    )
    file = DeviceDescription("FILE.json", "estimated", f"your own profile: format {FORMAT}, version {VERSION}")
    return (*profiles, host, *hosts, roofline, file)


def load_device(name_or_path: str) -> Device:
    """The device of this name, roofline or profile file.

    Args:
        name_or_path: ``pixel1``, ``pixel2``, ``pixel3``, ``host``, ``host:torch``, ``host:onnxruntime``,
            ``roofline:GMADDS,GBYTES`` or a path that ends in ``.json``.

    Raises:
        UnknownNameError: none of these; the message names the nearest.
        DeviceError: a profile or roofline that cannot be read or used.
        MissingDependencyError: the host's runtime is not installed.
    """
    if name_or_path in PROFILES:
        return _parse((_profile(name_or_path)).read_bytes(), f"the embedded profile {name_or_path}", name_or_path)
    if name_or_path.endswith(".json"):
        path = Path(name_or_path)
        return _parse(_read(path), str(path), path.stem)
    kind, _, rest = name_or_path.partition(":")
    if kind == "roofline" and rest:
        return _inline_roofline(name_or_path, rest)
    if name_or_path == "host" or (kind == "host" and rest in HOST_RUNTIMES):
        host: Any = importlib.import_module(
            "mnv3search.latency.table_device"
        )  # measuring is loaded only where it is used
        return cast("Device", host.TableDevice(runtime=rest) if rest else host.TableDevice())
    raise UnknownNameError("device", name_or_path, device_names(), _HINT)


def _profile(name: str) -> Any:
    return files("mnv3search.latency") / "profiles" / f"{name}.json"


def _profile_summary(name: str) -> str:
    device = load_device(name)
    return str(device.details.get("summary", "")) if isinstance(device, EstimatedDevice) else ""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeviceError(f"cannot read the device profile {path}: {reason}; check the path") from error


def _inline_roofline(name: str, figures: str) -> RooflineDevice:
    try:
        gmadds, gbytes = (float(text) for text in figures.split(","))
    except ValueError as error:
        raise DeviceError(f"device {name!r} is not roofline:GMADDS,GBYTES, two numbers such as roofline:8,6") from error
    return RooflineDevice(name, gmadds, gbytes)


def _parse(content: bytes, where: str, stem: str) -> Device:
    """A device from a profile's bytes; every fault is a :class:`DeviceError` of one line that begins with ``where``."""
    document = _document(content, where)
    if document.get("format") != FORMAT:
        _refuse(where, f"format is {document.get('format')!r:.80}", f"a device profile has format {FORMAT!r}")
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        _refuse(where, f"version is {document.get('version')!r:.80}", f"this mnv3search reads version {VERSION}")
    name = document.get("name", stem)
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        _refuse(where, "name is not a short text", f"give a name of 1 to {MAX_NAME} printable characters")
    kind = document.get("kind")
    if kind not in ("estimated", "roofline"):
        _refuse(where, f"kind is {kind!r:.80}", "it must be 'estimated' or 'roofline'")
    try:
        return _estimated(document, name) if kind == "estimated" else _roofline(document, name)
    except DeviceError as error:
        raise DeviceError(f"{where}: {error}") from error


def _document(content: bytes, where: str) -> Mapping[str, Any]:
    if len(content) > MAX_BYTES:
        _refuse(where, f"it is larger than {MAX_BYTES} bytes", "a device profile is a few kilobytes")
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"{where} is not a whole JSON file ({error}); a device profile is a JSON object") from error
    if not isinstance(document, dict):
        _refuse(where, f"it holds a {type(document).__name__}", "a device profile is a JSON object")
    return cast("Mapping[str, Any]", document)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that JSON allows")


def _refuse(where: str, fault: str, remedy: str) -> NoReturn:
    raise DeviceError(f"{where}: {fault}; {remedy}")


def _roofline(document: Mapping[str, Any], name: str) -> RooflineDevice:
    overhead = _number(document, "overhead_ms_per_layer") if "overhead_ms_per_layer" in document else 0.0
    return RooflineDevice(name, _number(document, "gmadds_per_s"), _number(document, "gbytes_per_s"), overhead)


def _estimated(document: Mapping[str, Any], name: str) -> EstimatedDevice:
    coefficients, error = _object(document, "coefficients"), _object(document, "error")
    unknown = set(coefficients) - {"fixed", *FEATURE_NAMES}
    if unknown:
        raise DeviceError(
            f"coefficient {min(unknown)!r} is unknown; the known ones are fixed, {', '.join(FEATURE_NAMES)}"
        )
    rows = error.get("covariance")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise DeviceError(
            "error.covariance is missing or no list of rows; give one row of numbers for each coefficient"
        )
    covariance = tuple(tuple(_as_number(value, "error.covariance") for value in row) for row in rows)
    return EstimatedDevice(
        name,
        _number(coefficients, "fixed"),
        tuple(_number(coefficients, feature) for feature in FEATURE_NAMES),
        _number(error, "residual"),
        _number(error, "spread"),
        covariance,
        {k: v for k, v in document.items() if k not in ("format", "version", "kind", "name", "coefficients", "error")},
    )


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise DeviceError(f"{key} is missing or no object; an estimated device needs it")
    return cast("Mapping[str, Any]", value)


def _number(document: Mapping[str, Any], key: str) -> float:
    if key not in document:
        raise DeviceError(f"{key} is missing; give a number")
    return _as_number(document[key], key)


def _as_number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DeviceError(f"{key} is {value!r:.80}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise DeviceError(f"{key} is too large; it must be a finite number") from error
