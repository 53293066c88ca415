"""Networks as they are written on the command line: ``NAME[@WIDTH[:torchvision]][/RESOLUTION]`` or ``FILE.json``."""

from __future__ import annotations

import re
from pathlib import Path

from mnv3search.architecture import Architecture
from mnv3search.architecture_json import load_architecture
from mnv3search.errors import UnknownNameError
from mnv3search.families.registry import NETWORKS, published

_PATTERN = re.compile(
    r"(?P<name>[A-Za-z0-9_\-]+)(?:@(?P<width>[0-9]*\.?[0-9]+)(?::(?P<rule>torchvision|paper))?)?(?:/(?P<resolution>[0-9]{1,5}))?"
)


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
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise UnknownNameError(
            "network",
            text,
            NETWORKS,
            "A network is NAME, NAME@WIDTH, NAME/RESOLUTION, NAME@WIDTH:torchvision or FILE.json.",
        )
    width = float(match["width"]) if match["width"] else 1.0
    resolution = int(match["resolution"]) if match["resolution"] else None
    return published(match["name"], width, resolution, match["rule"])  # type: ignore[arg-type]
