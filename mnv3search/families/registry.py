"""The published networks: by name, and as ``NAME[@WIDTH][:torchvision][/RESOLUTION]`` or ``FILE.json``.

Users' arguments also name trained networks and spaces' references: :mod:`mnv3search.naming`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mnv3search.architecture import Architecture, load_architecture
from mnv3search.errors import UnknownNameError
from mnv3search.families import efficientnet, mnasnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, searched
from mnv3search.families.scaling import WidthRule, scale_width


@dataclass(frozen=True, slots=True)
class PublishedNetwork:
    """One network of the literature: how to build it at 1.0 and 224, and how its width is scaled by default."""

    build: Callable[[], Architecture]
    family: str
    width_rule: WidthRule = "paper"

    @property
    def summary(self) -> str:
        """The first line of the builder's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


_FAMILIES = (mobilenet_v1, mobilenet_v2, mobilenet_v3, mnasnet, efficientnet, searched)

NETWORKS: Mapping[str, PublishedNetwork] = MappingProxyType(
    {
        build.__name__: PublishedNetwork(
            build, family.__name__.rsplit(".", 1)[-1],
            "out_channels" if build is mobilenet_v3.mobilenet_v3_small_fanrencli else "paper",
        )
        for family in _FAMILIES for build in family.NETWORKS
    }
)  # fmt: skip


def published(
    name: str, width_mult: float = 1.0, resolution: int | None = None, width_rule: WidthRule | None = None
) -> Architecture:
    """A published network by name.

    Args:
        name: as listed in :data:`NETWORKS`.
        width_mult: multiplier of its channels.
        resolution: side of the input in pixels; 224 where not given.
        width_rule: ``paper``, ``torchvision`` or ``out_channels``; the network's own where not given.

    Raises:
        UnknownNameError: no such network; the message names the nearest.
        ArchitectureError: a width or resolution out of range.
    """
    entry = NETWORKS.get(name)
    if entry is None:
        raise UnknownNameError("network", name, NETWORKS)
    architecture = scale_width(entry.build(), width_mult, width_rule or entry.width_rule)
    return architecture if resolution is None else architecture.with_resolution(resolution)


_PATTERN = re.compile(
    r"(?P<name>[A-Za-z0-9_\-]+)(?:@(?P<width>[0-9]*\.?[0-9]+))?(?::(?P<rule>torchvision|paper))?(?:/(?P<resolution>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class NetworkName:
    """A name taken apart; ``resolution`` and ``rule`` are None where they are not written."""

    name: str
    width: float
    resolution: int | None
    rule: WidthRule | None

    def published(self) -> Architecture:
        """The published network of this name; raises as :func:`published`."""
        return published(self.name, self.width, self.resolution, self.rule)

    def of(self, base: Architecture) -> Architecture:
        """``base`` at the width and resolution that are written."""
        wide = scale_width(base, self.width, self.rule or "paper")
        return wide if self.resolution is None else wide.with_resolution(self.resolution)


def network_name(text: str) -> NetworkName | None:
    """``text`` taken apart; None where it has another form."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    width = float(match["width"]) if match["width"] else 1.0
    resolution = int(match["resolution"]) if match["resolution"] else None
    return NetworkName(match["name"], width, resolution, match["rule"])  # type: ignore[arg-type]


def parse_network(text: str) -> Architecture:
    """The architecture that ``text`` names.

    Examples: ``mobilenet_v3_large``, ``mobilenet_v2@0.75``, ``mobilenet_v3_small/160``,
    ``mobilenet_v3_large@0.75:torchvision/192``, ``runs/today/best.json``.

    Raises:
        UnknownNameError: no such network, or a form that is none of these.
        ArchitectureError: a width, resolution or file that cannot be.
    """
    if text.endswith(".json"):
        return load_architecture(Path(text))
    name = network_name(text)
    if name is None:
        remedy = "A network is NAME[@WIDTH][:torchvision][/RESOLUTION] or FILE.json."
        raise UnknownNameError("network", text, NETWORKS, remedy)
    return name.published()
