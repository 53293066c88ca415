"""Devices fitted to or imported from a user's times, as JSON documents and back; every value is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import ArchitectureError, DeviceError
from mnv3search.files import write_text
from mnv3search.latency.fitted.device import FittedDevice
from mnv3search.latency.fitted.unit_prices import MAX_SUMS, MIN_NETWORKS, PriceScales, UnitPrices
from mnv3search.latency.keys import unit_key, unit_of_key
from mnv3search.latency.layer_files.imported import ImportedDevice, WholeTime
from mnv3search.layers import units
from mnv3search.reading import open_regular
from mnv3search.records import Record

FORMAT, VERSION = "mnv3search.device", 1
MAX_LAYERS = 20_000
_START_OF_FILE = 200


def device_document(device: FittedDevice | ImportedDevice) -> dict[str, object]:
    """What a device's file holds, all in milliseconds; :func:`read_document` gives the same device back."""
    head = {"format": FORMAT, "version": VERSION, "name": device.name, "details": dict(device.details)}
    if isinstance(device, FittedDevice):
        pairs = zip(device.networks, device.prices.times_ms, strict=True)
        return head | {
            "kind": "fitted", "error_scale": device.error_scale, "scales": asdict(device.prices.scales),
            "networks": [{"ms": ms, "architecture": to_mapping(a)} for a, ms in pairs],
        }  # fmt: skip
    return head | {
        "kind": "layers", "near_error_scale": device.near_error_scale, "scales": asdict(device.near.scales),
        "near": [unit_key(parts[0]) for parts in device.near.timed],
        "networks": [{"ms": w.ms, "architecture": to_mapping(w.architecture)} for w in device.whole],
        "layers": dict(device.layers_ms),
    }  # fmt: skip


def write_device(path: Path, device: FittedDevice | ImportedDevice) -> None:
    """Write a device's file, whole or not at all; a file that is no device is never overwritten."""
    check_writable(path)
    write_text(path, json.dumps(device_document(device), separators=(",", ":")) + "\n")


def check_writable(path: Path) -> None:
    """Refuse a name that cannot be a device's file, before the work is done."""
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
    """The device of a document of kind ``fitted`` or ``layers``; raises DeviceError where it cannot be read."""
    if "scale_prices" in document:
        raise DeviceError(
            f"an earlier mnv3search made it, and its prices may be some percent too high; make it again from the same "
            f"times: mnv3search device {'fit' if document['kind'] == 'fitted' else 'import'}"
        )
    record = Record(document)
    try:
        details = record.record("details").content if "details" in record else {}
        scales, names = record.record("scales"), [field.name for field in fields(PriceScales)]
        if set(scales.names()) != set(names):
            raise ValueError(f"scales must have the figures {', '.join(names)} and no others")
        price_scales = PriceScales(*map(scales.number, names))
        networks = _networks(record)
        if document["kind"] == "layers":
            return _imported(record, name, networks, price_scales, details)
        if not MIN_NETWORKS <= len(networks) <= MAX_SUMS:
            raise ValueError(f"it has {len(networks)} networks; a fitted device has {MIN_NETWORKS} to {MAX_SUMS}")
        architectures, times = zip(*networks, strict=True)
        prices = UnitPrices([units(a) for a in architectures], times, price_scales)
        return FittedDevice(name, architectures, prices, record.number("error_scale"), details)
    except ArchitectureError as error:
        raise DeviceError(f"a network of it cannot be: {error}") from None
    except ValueError as error:
        raise DeviceError(f"{error}; make the device's file again") from None


def _networks(record: Record) -> list[tuple[Architecture, float]]:
    entries = [Record(entry) for entry in record.list("networks")]
    return [(from_mapping(entry.value("architecture")), entry.number("ms")) for entry in entries]


def _imported(
    record: Record, name: str, networks: list[tuple[Architecture, float]], scales: PriceScales, details: Any
) -> ImportedDevice:
    timed, near = record.record("layers"), record.list("near")
    if not all(isinstance(key, str) and key in timed for key in near) or len(timed.names()) > MAX_LAYERS:
        raise ValueError(f"near names layers without times, or there are over {MAX_LAYERS} layers")
    layers = {key: timed.number(key) for key in timed.names()}
    prices = UnitPrices([(unit_of_key(key),) for key in near], [layers[key] for key in near], scales)
    whole = tuple(WholeTime(architecture, ms) for architecture, ms in networks)
    return ImportedDevice(name, layers, whole, prices, record.number("near_error_scale"), details)
