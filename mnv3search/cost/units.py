"""Units: the pieces of a network that are priced one by one — the stem, each block, the head.

A unit holds everything that its cost or its running time depends on, so equal units of different networks share one
price. Counts, latency tables, ONNX graphs and the search's gathers all speak of units.
"""

from __future__ import annotations

from typing import NamedTuple

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, Padding, StemSpec, check_architecture, out_size


class Unit(NamedTuple):
    """A stem, block or head at its place: ``in_channels`` × ``in_size`` × ``in_size`` goes in.

    ``classes`` is 0 but for the head.
    """

    spec: StemSpec | BlockSpec | HeadSpec
    in_channels: int
    in_size: int
    padding: Padding = "symmetric"
    conv_bias: bool = False
    classes: int = 0


def units(architecture: Architecture) -> tuple[Unit, ...]:
    """The stem, every block and the head of ``architecture``, in order.

    Raises:
        ArchitectureError: it is something else, such as a network's name.
    """
    check_architecture(architecture)
    padding, bias = architecture.padding, architecture.conv_bias
    stem = architecture.stem
    found = [Unit(stem, 3, architecture.resolution, padding, bias)]
    channels, size = stem.out_channels, out_size(architecture.resolution, stem.stride)
    for block in architecture.blocks:
        found.append(Unit(block, channels, size, padding, bias))
        channels = block.out_channels
        if block.stride > 1:
            size = out_size(size, block.stride)
    found.append(Unit(architecture.head, channels, size, padding, bias, architecture.classes))
    return tuple(found)


def unit_names(architecture: Architecture) -> tuple[str, ...]:
    """Names in the order of :func:`units`: ``stem``, ``blocks.0`` …, ``head``."""
    return ("stem", *(f"blocks.{i}" for i in range(len(architecture.blocks))), "head")
