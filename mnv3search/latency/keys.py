"""What a time belongs to: a unit or network by its canonical text, and a machine by its fingerprint.

Texts are equal exactly where the running time must be equal.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mnv3search.architecture import (
    Architecture,
    HeadSpec,
    StemSpec,
    from_mapping,
    parse_architecture,
    spec_fields,
    to_mapping,
)
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.errors import ArchitectureError, DeviceError
from mnv3search.latency.remote.agent import cpu_model
from mnv3search.layers import Unit
from mnv3search.reading import parse_json

_PLAIN_SE = SqueezeExciteSpec(1)
_PLAIN_HEAD = HeadSpec(None)


@lru_cache(maxsize=1 << 15)
def unit_key(unit: Unit) -> str:
    """The canonical JSON text of a unit.

    What does not change its time is left out: dropout, initialisation, how a squeeze-excite follows another width.
    """
    shape = {name: getattr(unit, name) for name in ("in_channels", "in_size", "padding", "conv_bias", "classes")}
    return _canonical({"kind": unit.part, "spec": to_mapping(_timed(unit.spec))} | shape)


def network_key(architecture: Architecture) -> str:
    """The canonical JSON text of a whole network; it reads back with :func:`network_of_key`."""
    return _canonical(to_mapping(architecture))


@lru_cache(maxsize=1 << 10)
def network_of_key(key: str) -> Architecture:
    """The network of a :func:`network_key`."""
    return parse_architecture(f'{{"architecture":{key}}}', "a network of the latency table")


def _timed(spec: Any) -> Any:
    """The spec with every field that does not change the running time at one fixed value."""
    if isinstance(spec, HeadSpec):
        spec = replace(spec, dropout=_PLAIN_HEAD.dropout, linear_std=_PLAIN_HEAD.linear_std)
    values = {name: getattr(spec, name) for name in spec_fields(type(spec))}
    plain = {
        name: replace(value, ratio=_PLAIN_SE.ratio, relative_to=_PLAIN_SE.relative_to, divisor=_PLAIN_SE.divisor)
        for name, value in values.items() if isinstance(value, SqueezeExciteSpec)
    }  # fmt: skip
    return replace(spec, **plain) if plain else spec


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


MAX_CHARACTERS = 4000


def unit_of_key(key: str) -> Unit:
    """The unit of a :func:`unit_key`, checked."""
    try:
        if len(key) > MAX_CHARACTERS:
            raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
        unit = _unit(parse_json(key))
        if unit_key(unit) != key:
            raise ValueError("it is not in its canonical form")
    except (ArchitectureError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeviceError(f"{key[:60]!r} is the text of no layer ({error}); take the texts of a manifest") from None
    return unit


def _unit(content: dict[str, Any]) -> Unit:
    """The unit in the smallest network that holds it, by whose rules it is checked."""
    kind, into, spec = content["kind"], content["in_channels"], content["spec"]
    plain = {"kernel_size": 1, "expanded_channels": 1, "out_channels": 1}
    network: dict[str, Any] = {
        "stem": spec if kind == "stem" else {"out_channels": into, "stride": 1},
        "blocks": [spec] if kind == "block" else [plain | ({"out_channels": into} if kind == "head" else {})],
        "head": spec if kind == "head" else {"feature_channels": None},
        "resolution": content["in_size"], "padding": content["padding"], "conv_bias": content["conv_bias"],
    }  # fmt: skip
    if kind == "head":
        network["classes"] = content["classes"]
    built = from_mapping(network)
    specs: dict[str, StemSpec | BlockSpec | HeadSpec] = {
        "stem": built.stem, "block": built.blocks[0], "head": built.head,
    }  # fmt: skip
    return Unit(specs[kind], into, content["in_size"], content["padding"], content["conv_bias"], content["classes"])


CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """CPU model as the system names it, logical cores, and instruction set (``x86_64``, ``aarch64`` …)."""

    cpu: str
    cores: int
    arch: str

    def __str__(self) -> str:
        """One short phrase: ``AMD EPYC 7763, 8 cores, x86_64``."""
        return f"{self.cpu}, {self.cores} cores, {self.arch}"


def this_machine(cpuinfo: Path = CPUINFO) -> Fingerprint:
    """The fingerprint of the machine that this process runs on."""
    return Fingerprint(cpu_model(str(cpuinfo)), os.cpu_count() or 1, platform.machine())


def saturates_in_8_bits(cpuinfo: Path = CPUINFO) -> bool:
    """Whether 8-bit kernels may saturate at 16 bits here: on x86 without VNNI; no elsewhere, or where it is unknown."""
    try:
        return platform.machine().lower() in {"x86_64", "amd64"} and b"vnni" not in cpuinfo.read_bytes()
    except OSError:
        return False
