"""Units read back from their canonical texts, checked: what a file says of a layer is not trusted."""

from __future__ import annotations

from typing import Any

from mnv3search.architecture import BlockSpec, HeadSpec, StemSpec, from_mapping
from mnv3search.errors import ArchitectureError, DeviceError
from mnv3search.latency.keys import unit_key
from mnv3search.layers import Unit
from mnv3search.reading import parse_json

MAX_CHARACTERS = 4000
_BARE_HEAD = {"feature_channels": None}


def unit_of_key(key: str) -> Unit:
    """The unit of a :func:`~mnv3search.latency.keys.unit_key`.

    Raises:
        DeviceError: the text is of no unit.
    """
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
    """The unit at its place in the smallest network that holds it, by whose rules it is checked."""
    kind, into, spec = content["kind"], content["in_channels"], content["spec"]
    plain = {"kernel_size": 1, "expanded_channels": 1, "out_channels": 1}
    network: dict[str, Any] = {
        "stem": spec if kind == "stem" else {"out_channels": into, "stride": 1},
        "blocks": [spec] if kind == "block" else [plain | ({"out_channels": into} if kind == "head" else {})],
        "head": spec if kind == "head" else _BARE_HEAD,
        "resolution": content["in_size"], "padding": content["padding"], "conv_bias": content["conv_bias"],
    }  # fmt: skip
    if kind == "head":
        network["classes"] = content["classes"]
    built = from_mapping(network)
    specs: dict[str, StemSpec | BlockSpec | HeadSpec] = {
        "stem": built.stem, "block": built.blocks[0], "head": built.head,
    }  # fmt: skip
    return Unit(specs[kind], into, content["in_size"], content["padding"], content["conv_bias"], content["classes"])
