"""Canonical texts of units and networks: equal exactly where the running time must be equal."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

from mnv3search.architecture import (
    Architecture,
    BlockSpec,
    HeadSpec,
    SqueezeExciteSpec,
    StemSpec,
    parse_architecture,
    to_mapping,
)
from mnv3search.layers import Unit

_PLAIN_SE = SqueezeExciteSpec(1)
_PLAIN_HEAD = HeadSpec(None)


@lru_cache(maxsize=1 << 15)
def unit_key(unit: Unit) -> str:
    """The canonical JSON text of a unit.

    What does not change its time is left out: dropout, initialisation, how a squeeze-excite follows another width.
    """
    content: dict[str, Any] = {
        "kind": {StemSpec: "stem", BlockSpec: "block", HeadSpec: "head"}[type(unit.spec)],
        "in_channels": unit.in_channels,
        "in_size": unit.in_size,
        "padding": unit.padding,
        "conv_bias": unit.conv_bias,
        "classes": unit.classes,
        "spec": to_mapping(_timed(unit.spec)),
    }
    return _canonical(content)


def network_key(architecture: Architecture) -> str:
    """The canonical JSON text of a whole network; it reads back with :func:`network_of_key`."""
    return _canonical(to_mapping(architecture))


@lru_cache(maxsize=1 << 10)
def network_of_key(key: str) -> Architecture:
    """The network of a :func:`network_key`.

    Raises:
        ArchitectureError: the text is of no network.
    """
    return parse_architecture(f'{{"architecture":{key}}}', "a network of the latency table")


def _timed(spec: StemSpec | BlockSpec | HeadSpec) -> StemSpec | BlockSpec | HeadSpec:
    """The spec with the fields that no running time depends on at one fixed value."""
    if isinstance(spec, StemSpec):
        return spec
    if isinstance(spec, HeadSpec):
        spec = replace(spec, dropout=_PLAIN_HEAD.dropout, linear_std=_PLAIN_HEAD.linear_std)
    se = spec.squeeze_excite
    if se is None:
        return spec
    plain = replace(se, ratio=_PLAIN_SE.ratio, relative_to=_PLAIN_SE.relative_to, divisor=_PLAIN_SE.divisor)
    return replace(spec, squeeze_excite=plain)


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
