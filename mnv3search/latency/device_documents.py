"""Devices that a user's own times made, as JSON documents and back; numbers alone, and all of them checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import ArchitectureError, DeviceError
from mnv3search.files import write_text
from mnv3search.latency.fitted.device import FittedDevice
from mnv3search.latency.fitted.unit_prices import MAX_SUMS, MIN_NETWORKS, PriceScales, UnitPrices
from mnv3search.latency.keys import unit_key, unit_of_key
from mnv3search.latency.layer_files.imported import ImportedDevice, WholeTime
from mnv3search.layers import units
from mnv3search.reading import open_regular

FORMAT, VERSION = "mnv3search.device", 1
MAX_LAYERS = 20_000
_START_OF_FILE = 200


def device_document(device: FittedDevice | ImportedDevice) -> dict[str, object]:
    """What a device's file holds, all in milliseconds; :func:`read_document` gives the same device back."""
    head = {"format": FORMAT, "version": VERSION, "name": device.name}
    if isinstance(device, FittedDevice):
        pairs = zip(device.networks, device.prices.times_ms, strict=True)
        return head | {
            "kind": "fitted", "details": dict(device.details), "error_scale": device.error_scale,
            "scales": asdict(device.prices.scales),
            "networks": [{"ms": ms, "architecture": to_mapping(a)} for a, ms in pairs],
        }  # fmt: skip
    return head | {
        "kind": "layers", "details": dict(device.details), "near_error_scale": device.near_error_scale,
        "scales": asdict(device.near.scales),
        "near": [unit_key(parts[0]) for parts in device.near.timed],
        "networks": [{"ms": w.ms, "architecture": to_mapping(w.architecture)} for w in device.whole],
        "layers": dict(device.layers_ms),
    }  # fmt: skip


def write_device(path: Path, device: FittedDevice | ImportedDevice) -> None:
    """Write a device's file, whole or not at all; a file that is no device is never overwritten.

    Raises:
        DeviceError: the name does not end in ``.json``, or another file has it.
        RunError: the file cannot be written.
    """
    check_writable(path)
    write_text(path, json.dumps(device_document(device), separators=(",", ":")) + "\n")


def check_writable(path: Path) -> None:
    """Refuse a name that cannot be a device's file, before the work is done.

    Raises:
        DeviceError: the name does not end in ``.json``, is a folder's, or is of a file that is no device.
    """
    if path.suffix != ".json":
        raise DeviceError(f"the device's file {path} must end in .json, by which --device knows it")
    if not path.exists():
        return
    try:
        with open_regular(path) as stream:
            start = stream.read(_START_OF_FILE)
    except OSError as error:
        raise DeviceError(f"cannot write {path}: {error.strerror or error}; choose another name") from None
    if f'"{FORMAT}"'.encode() not in start:
        raise DeviceError(f"{path} exists and is no device's file; choose another name, or move it away")


def read_document(document: Mapping[str, Any], name: str) -> FittedDevice | ImportedDevice:
    """The device of a document of kind ``fitted`` or ``layers``.

    Raises:
        DeviceError: something is missing, of the wrong type, negative, not finite or too much; or an earlier version
            wrote it.
    """
    if "scale_prices" in document:
        raise DeviceError(
            f"an earlier mnv3search made it, and its prices may be some percent too high; make it again from the same "
            f"times: mnv3search device {'fit' if document['kind'] == 'fitted' else 'import'}"
        )
    try:
        details = _object(document, "details") if "details" in document else {}
        if document["kind"] == "fitted":
            return _fitted(document, name, details)
        return _imported(document, name, details)
    except KeyError as error:
        raise DeviceError(f"{error.args[0]} is missing; make the device's file again") from None
    except ArchitectureError as error:
        raise DeviceError(f"a network of it cannot be: {error}") from None


def _fitted(document: Mapping[str, Any], name: str, details: Mapping[str, object]) -> FittedDevice:
    timed = _networks(document)
    if not MIN_NETWORKS <= len(timed) <= MAX_SUMS:
        raise DeviceError(f"it has {len(timed)} networks; a fitted device has {MIN_NETWORKS} to {MAX_SUMS}")
    networks, times = zip(*timed, strict=True)
    prices = UnitPrices([units(a) for a in networks], times, _scales(document))
    return FittedDevice(name, networks, prices, _number(document["error_scale"], "error_scale"), details)


def _imported(document: Mapping[str, Any], name: str, details: Mapping[str, object]) -> ImportedDevice:
    layers = {key: _number(ms, "a layer's time") for key, ms in _object(document, "layers").items()}
    near = _list(document, "near", MAX_SUMS)
    if len(layers) > MAX_LAYERS or not all(isinstance(key, str) and key in layers for key in near):
        raise DeviceError(f"near names layers without times, or there are over {MAX_LAYERS} layers")
    prices = UnitPrices([(unit_of_key(key),) for key in near], [layers[key] for key in near], _scales(document))
    whole = tuple(WholeTime(a, ms) for a, ms in _networks(document))
    scale = _number(document["near_error_scale"], "near_error_scale")
    return ImportedDevice(name, layers, whole, prices, scale, details)


def _networks(document: Mapping[str, Any]) -> list[tuple[Architecture, float]]:
    entries = _list(document, "networks", MAX_SUMS)
    if not all(isinstance(entry, dict) for entry in entries):
        raise DeviceError("networks holds what is no object; give each an architecture and its ms")
    return [(from_mapping(entry["architecture"]), _number(entry["ms"], "ms")) for entry in entries]


def _scales(document: Mapping[str, Any]) -> PriceScales:
    found, names = _object(document, "scales"), [f.name for f in fields(PriceScales)]
    if set(found) != set(names):
        raise DeviceError(f"scales must have the figures {', '.join(names)} and no others")
    return PriceScales(*(_number(found[name], f"scales.{name}") for name in names))


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not isinstance(document[key], dict):
        raise DeviceError(f"{key} is {document[key]!r:.80}; it must be an object")
    return cast("Mapping[str, Any]", document[key])


def _list(document: Mapping[str, Any], key: str, most: int) -> Sequence[Any]:
    value = document[key]
    if not isinstance(value, list) or len(value) > most:
        raise DeviceError(f"{key} must be a list of at most {most}")
    return value


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e15:
        raise DeviceError(f"{what} is {value!r:.80}; it must be a number of usual size")
    return float(value)
