"""Devices by name or file: the embedded Pixel profiles, this host or another machine, a roofline, a user's JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.latency.device_spec import DeviceSpec
from mnv3search.latency.estimated import FEATURE_NAMES, EstimatedDevice, RooflineDevice
from mnv3search.latency.model import Device, LatencyKind
from mnv3search.latency.runtimes.registry import installed_version, plug_in, runtime_names
from mnv3search.reading import parse_json, read_bounded
from mnv3search.records import Record

FORMAT, VERSION = "mnv3search.device", 1
MAX_BYTES = 10_000_000  # a device fitted to hundreds of networks holds them all
MAX_NAME = 100
PROFILES = ("pixel1", "pixel2", "pixel3")
_HINT = (
    "A device is one of these names, host:RUNTIME,int8,threads=N, ssh://USER@BOARD:PORT,threads=N, "
    "roofline:GMADDS,GBYTES (10⁹ MAdds/s, 10⁹ bytes/s) or a profile FILE.json."
)


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """One line of the list of devices; ``held_out`` says how well it predicts networks that it was not fitted to."""

    name: str
    kind: LatencyKind
    summary: str
    held_out: str = ""


def device_names() -> tuple[str, ...]:
    """Every name that :func:`load_device` knows; files, rooflines, other machines and options apart."""
    return (*PROFILES, "host", *(f"host:{runtime}" for runtime in runtime_names()))


def describe_devices() -> tuple[DeviceDescription, ...]:
    """Names, kinds and one line each; measures nothing."""
    measured = {
        "host": "this machine, measured block by block in onnxruntime at one thread",
        **{f"host:{runtime}": f"this machine, measured in {_installed(runtime)}" for runtime in runtime_names()},
        "host:RUNTIME,int8,threads=N": "this machine with 8-bit weights and activations, or at N threads",
        "ssh://USER@BOARD:PORT": "another machine over SSH; ,int8 and ,threads=N and ,python=PATH may follow",
    }
    given = {
        "roofline:GMADDS,GBYTES": "any device, from 10⁹ MAdds/s and 10⁹ bytes/s: a wide error",
        "FILE.json": "your own profile, or what mnv3search device made of your own times: a table where layers were "
        f"timed (format {FORMAT}, version {VERSION})",
    }
    return (
        *map(_described_profile, PROFILES),
        *(DeviceDescription(name, "table", summary) for name, summary in measured.items()),
        *(DeviceDescription(name, "estimated", summary) for name, summary in given.items()),
    )


def _installed(runtime: str) -> str:
    if (package := plug_in(runtime)) is not None:
        return f"{runtime}, of the package {package}"
    version = installed_version(runtime)
    return f"{runtime}, which is not installed" if version is None else f"{runtime} {version}"


def _described_profile(name: str) -> DeviceDescription:
    device = load_device(name)
    assert isinstance(device, EstimatedDevice)
    return DeviceDescription(name, "estimated", str(device.details.get("summary", "")), _held_out(device.details))


def _held_out(details: Mapping[str, object]) -> str:
    """A fitted profile's errors on held-out networks, the least and the most over campaigns and families."""
    found = details.get("held_out")
    lines = found.get("leave_one_network_out") if isinstance(found, dict) else None
    errors = [line["mean_absolute_percent"] for line in lines or ()]
    return f"mean {min(errors):.0f} to {max(errors):.0f} % by family" if errors else ""


def load_device(text: str | Path) -> Device:
    """The device of this name, roofline, profile file or machine.

    Args:
        text: ``pixel1``, ``pixel2``, ``pixel3``, ``host``, ``host:torch``, ``host:openvino,int8,threads=2``,
            ``ssh://user@board:2222,threads=4``, ``host,stale`` (see
            :class:`~mnv3search.latency.device_spec.DeviceSpec`), ``roofline:GMADDS,GBYTES`` or a path that ends in
            ``.json``.

    Raises:
        UnknownNameError: none of these; the message names the nearest.
        DeviceError: a profile, roofline or machine that cannot be read, reached or used.
        MissingDependencyError: the runtime is not installed.
    """
    text = str(text)
    if text in PROFILES:
        embedded = files("mnv3search.latency") / "profiles" / f"{text}.json"
        return _parse(embedded.read_bytes(), f"the embedded profile {text}", text)
    if DeviceSpec.names(text):
        from mnv3search.latency.measured.table_device import measured_device  # loaded only where it is used

        return measured_device(DeviceSpec.parse(text))
    if text.endswith(".json"):
        path = Path(text)
        try:
            content = read_bounded(path, MAX_BYTES)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DeviceError(f"cannot read the device profile {path}: {reason}; check the path") from error
        return _parse(content, str(path), path.stem)
    kind, _, rest = text.partition(":")
    if kind == "roofline" and rest:
        return _inline_roofline(text, rest)
    raise UnknownNameError("device", text, device_names(), _HINT)


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
    if not isinstance(kind, str) or kind not in _KINDS:
        _refuse(where, f"kind is {kind!r:.80}", f"it must be {' or '.join(map(repr, _KINDS))}")
    try:
        return _KINDS[kind](document, name)
    except (DeviceError, ValueError) as error:
        raise DeviceError(f"{where}: {error}") from error


def _document(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        document = parse_json(content)
    except ValueError as error:
        raise DeviceError(f"{where} is not a whole JSON file ({error}); a device profile is a JSON object") from error
    if not isinstance(document, dict):
        _refuse(where, f"it holds a {type(document).__name__}", "a device profile is a JSON object")
    return document


def _refuse(where: str, fault: str, remedy: str) -> NoReturn:
    raise DeviceError(f"{where}: {fault}; {remedy}")


def _roofline(document: Mapping[str, Any], name: str) -> RooflineDevice:
    record = Record(document)
    overhead = record.number("overhead_ms_per_layer") if "overhead_ms_per_layer" in record else 0.0
    return RooflineDevice(name, record.number("gmadds_per_s"), record.number("gbytes_per_s"), overhead)


def _estimated(document: Mapping[str, Any], name: str) -> EstimatedDevice:
    coefficients, error = _object(document, "coefficients"), _object(document, "error")
    unknown = set(coefficients.names()) - {"fixed", *FEATURE_NAMES}
    if unknown:
        raise DeviceError(
            f"coefficient {min(unknown)!r} is unknown; the known ones are fixed, {', '.join(FEATURE_NAMES)}"
        )
    rows = error.content.get("covariance")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise DeviceError(
            "error.covariance is missing or no list of rows; give one row of numbers for each coefficient"
        )
    covariance = tuple(tuple(Record({"error.covariance": v}).number("error.covariance") for v in row) for row in rows)
    read = ("format", "version", "kind", "name", "coefficients", "error")
    return EstimatedDevice(
        name, coefficients.number("fixed"), tuple(map(coefficients.number, FEATURE_NAMES)),
        error.number("residual"), error.number("spread"), covariance,
        {key: value for key, value in document.items() if key not in read},
    )  # fmt: skip


def _of_own_times(document: Mapping[str, Any], name: str) -> Device:
    from mnv3search.latency.device_documents import read_document  # loaded only where it is used

    return read_document(document, name)


_KINDS: Mapping[str, Callable[[Mapping[str, Any], str], Device]] = {
    "estimated": _estimated, "roofline": _roofline, "fitted": _of_own_times, "layers": _of_own_times,
}  # fmt: skip


def _object(document: Mapping[str, Any], key: str) -> Record:
    value = document.get(key)
    if not isinstance(value, dict):
        raise DeviceError(f"{key} is missing or no object; an estimated device needs it")
    return Record(value)
