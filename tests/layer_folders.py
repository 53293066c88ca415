"""A small space's layers as files, and times of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.latency.devices import load_device
from mnv3search.latency.estimated import EstimatedDevice
from mnv3search.latency.layer_files.exported import LayerFile, LayerFolder, planned_layers
from mnv3search.layers import Unit, units


def small_units() -> list[Unit]:
    """Of a few networks of 16 pixels: a stem, a dozen blocks, a head."""
    found: dict[Unit, None] = {}
    for kernel in (3, 5):
        for expanded in (8, 16, 24):
            blocks = (BlockSpec(kernel, expanded, 8), BlockSpec(kernel, expanded, 12, 2), BlockSpec(3, expanded, 12))
            network = Architecture(StemSpec(8), blocks, HeadSpec(16), resolution=32, classes=10)
            found |= dict.fromkeys(units(network))
    return list(found)


def small_plan(networks: int = 6) -> LayerFolder:
    """The plan of these units' files."""
    return planned_layers("small", small_units(), networks)


def true_ms(entry: LayerFile) -> float:
    """What a made-up device takes: units alone a fifth longer than within a network."""
    device = load_device("pixel1")
    assert isinstance(device, EstimatedDevice)
    if isinstance(entry.subject, Architecture):
        return float(device.latency_ms([entry.subject])[0])
    return 1.2 * float(device.unit_latency_ms([entry.subject])[0])


def write_times(
    path: Path, plan: LayerFolder, keep: Callable[[LayerFile], bool] = lambda _: True,
    header: str = "file,ms", form: str = "{file},{ms:.6f}", change: Mapping[str, float] | None = None,
) -> Path:  # fmt: skip
    """A CSV of the kept files' times; ``change`` multiplies those of some files."""
    lines = [
        form.format(file=e.file, ms=true_ms(e) * (change or {}).get(e.file, 1.0), us=1e3 * true_ms(e))
        for e in plan.files
        if keep(e)
    ]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path
