"""The one list of an architecture's layers: kind, shape, what each reads, and which channels stay together.

A network is cut into units: the stem, each block, the head. A unit holds everything that its cost or its running time
depends on, so equal units of different networks share one price. Its spec lists its layers
(:class:`~mnv3search.blocks.LayerBuilder`); everything else is derived from the list.

Conventions:
    One fused multiply-add counts one (MAdds). MAdds and activations are those of convolutions and linear layers,
    squeeze-excite's included; norms, activations, pools, scalings and additions count none.
    Parameters are all that a network learns: weights, biases, norms' scales and shifts.
    ``live_elements`` is the sum of the tensors alive while the layer runs at batch 1: those that it or a later layer
    reads, and its output. Norms and activations work in place, scalings and additions too where nothing later reads
    what they change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from mnv3search.architecture import Architecture, HeadSpec, Padding, StemSpec, check_architecture, out_size
from mnv3search.blocks import Block, LayerBuilder, LayerKind, LayerRow

LINEAR = frozenset({"hidden", "classifier"})
"""Kinds of linear layers, whose weights have two dimensions."""


class Unit(NamedTuple):
    """A stem, block or head at its position: ``in_channels`` × ``in_size`` × ``in_size`` goes in.

    ``classes`` is 0 but for the head.
    """

    spec: StemSpec | Block | HeadSpec
    in_channels: int
    in_size: int
    padding: Padding = "symmetric"
    conv_bias: bool = False
    classes: int = 0

    @property
    def part(self) -> Literal["stem", "block", "head"]:
        """Which part of a network it is."""
        if isinstance(self.spec, StemSpec):
            return "stem"
        return "head" if isinstance(self.spec, HeadSpec) else "block"


def units(architecture: Architecture) -> tuple[Unit, ...]:
    """The stem, every block and the head of ``architecture``, in order."""
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


class Layer(NamedTuple):
    """One operation: a convolution or linear layer with its norm and activation, or a pool, scaling or addition.

    Sizes are sides of square maps in pixels; a linear layer has size 1. ``kernel_size`` is 0 where nothing is learned.
    ``source`` is the number of the tensor that it reads: 0 is the input of the list, ``i`` the output of its ``i``-th
    layer, counted from 1. ``other`` is the second tensor of an addition, or the gate of a scaling; -1 elsewhere.
    """

    name: str
    kind: LayerKind
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    groups: int
    in_size: int
    out_size: int
    bias: bool
    norm: bool
    activation: str
    source: int
    other: int
    live_elements: int

    @property
    def madds(self) -> int:
        """Multiply-adds at batch 1."""
        return sum_counts((self[:14],))[0]

    @property
    def parameters(self) -> int:
        """Weights, bias, and the norm's scale and shift."""
        return sum_counts((self[:14],))[1]

    @property
    def activations(self) -> int:
        """Elements of the output of a convolution or linear layer; 0 for anything else."""
        return sum_counts((self[:14],))[2]


def sum_counts(rows: Iterable[LayerRow]) -> tuple[int, int, int]:
    """Multiply-adds, parameters and activations of all layers together."""
    madds = parameters = activations = 0
    for _, _, in_channels, out_channels, kernel_size, _, groups, _, size, bias, norm, _, _, _ in rows:
        if kernel_size:
            kernel = kernel_size * kernel_size * (in_channels // groups)
            elements = out_channels * size * size
            madds += kernel * elements
            parameters += (kernel + bias + 2 * norm) * out_channels
            activations += elements
    return madds, parameters, activations


def unit_layers(unit: Unit) -> list[Layer]:
    """The layers of a unit, in the order in which they run."""
    rows = unit_rows(unit)
    return [Layer(*row, live) for row, live in zip(rows, live_elements(rows), strict=True)]


def network_layers(architecture: Architecture) -> list[Layer]:
    """All layers of a network, named ``stem.conv``, ``blocks.3.depthwise`` and so on; tensors are numbered through."""
    found: list[Layer] = []
    for name, unit in zip(unit_names(architecture), units(architecture), strict=True):
        before = len(found)
        for layer in unit_layers(unit):
            other = layer.other + before if layer.other >= 0 else -1
            found.append(layer._replace(name=f"{name}.{layer.name}", source=layer.source + before, other=other))
    return found


def unit_rows(unit: Unit) -> list[LayerRow]:
    """The layers of a unit as plain tuples."""
    builder = LayerBuilder(unit.in_channels, unit.in_size, unit.conv_bias, unit.classes)
    unit.spec.add_layers(builder)
    return builder.rows


def last_readers(layers: Iterable[LayerRow | Layer]) -> dict[int, int]:
    """For each tensor that is read the number of the last layer that does, counted from 1."""
    last: dict[int, int] = {}
    for number, layer in enumerate(layers, 1):
        last[layer[12]] = last[layer[13]] = number
    return last


def live_elements(rows: Sequence[LayerRow]) -> list[int]:
    """The elements of all tensors alive while each layer runs.

    A scaling or addition works in place of its source where that is not what enters the list and nothing reads it
    later.
    """
    last, found, elements = last_readers(rows), [], [rows[0][2] * rows[0][7] * rows[0][7]]
    alive = elements[0]
    for number, (_, _, _, channels, _, _, _, _, size, _, _, _, source, other) in enumerate(rows, 1):
        out = channels * size * size
        elements.append(out)
        alive += out
        ends = last[source] == number
        if other >= 0:
            if ends and source:
                alive -= out
            found.append(alive)
            if ends and not source:
                alive -= elements[0]
            if last[other] == number and other != source:
                alive -= elements[other]
        else:
            found.append(alive)
            if ends:
                alive -= elements[source]
    return found


def learned_layers(layers: Iterable[Layer]) -> list[Layer]:
    """Those with weights: convolutions and linear layers."""
    return [layer for layer in layers if layer.kernel_size]


class ChannelGroup(NamedTuple):
    """Channels that must stay together, as they are written or read by several layers.

    Attributes:
        writers: the numbers of the layers whose filters write them, in order; what several write is added up. For the
            outputs of a depthwise convolution that multiplies its channels, that convolution.
        base: the group whose every channel gives ``channels // its channels`` of these, side by side; -1 for none.
    """

    channels: int
    writers: tuple[int, ...]
    base: int = -1


@dataclass(frozen=True, slots=True)
class ChannelGroups:
    """The groups of a list of layers, and the group of each of its tensors by number."""

    groups: tuple[ChannelGroup, ...]
    of_tensor: tuple[int, ...]


def channel_groups(layers: Sequence[Layer]) -> ChannelGroups:
    """Which channels of the tensors of ``layers`` stay together.

    An addition joins its two tensors, a scaling its source and its gate; pools and depthwise convolutions pass the
    channels of their source on. Full convolutions and linear layers start new ones.
    """
    joined = list(range(len(layers) + 1))

    def root(tensor: int) -> int:
        while joined[tensor] != tensor:
            tensor = joined[tensor]
        return tensor

    def join(one: int, another: int) -> None:
        first, second = sorted((root(one), root(another)))
        joined[second] = first

    for number, layer in enumerate(layers, 1):
        if layer.other >= 0:
            join(layer.source, layer.other)
        if _passes_channels_on(layer):
            join(layer.source, number)
    roots = sorted({root(tensor) for tensor in range(len(joined))})
    index = {tensor: group for group, tensor in enumerate(roots)}
    of_tensor = tuple(index[root(tensor)] for tensor in range(len(joined)))
    writers: list[list[int]] = [[] for _ in roots]
    channels, base = [layers[0].in_channels] * len(roots), [-1] * len(roots)
    for number, layer in enumerate(layers, 1):
        group = of_tensor[number]
        channels[group] = layer.out_channels
        if not _passes_channels_on(layer) and layer.kind != "squeeze_expand":
            writers[group].append(number)
            base[group] = of_tensor[layer.source] if layer.kind == "depthwise" else -1
    return ChannelGroups(tuple(map(ChannelGroup, channels, map(tuple, writers), base)), of_tensor)


def _passes_channels_on(layer: Layer) -> bool:
    return not layer.kernel_size or (layer.kind == "depthwise" and layer.in_channels == layer.out_channels)


class FreeWidth(NamedTuple):
    """A width of a network that can be chosen apart from the others.

    An ``expansion`` is the expanded channels of one block, a ``bottleneck`` the outputs of all blocks that are added to
    one another. ``members`` are the indices of the blocks; -1 stands for the stem.
    """

    kind: Literal["expansion", "bottleneck"]
    members: tuple[int, ...]
    channels: int


def free_widths(architecture: Architecture) -> list[FreeWidth]:
    """The widths of stem and blocks that can be chosen: expansions first, then bottlenecks, each in order."""
    layers = network_layers(architecture)
    groups = channel_groups(layers)
    members: dict[int, list[int]] = {}
    expansions: dict[int, FreeWidth] = {}  # by block
    ends = list(accumulate(len(unit_rows(unit)) for unit in units(architecture)[:-1]))
    for index, end in enumerate(ends, -1):
        members.setdefault(groups.of_tensor[end], []).append(index)
    for group_index, group in enumerate(groups.groups):
        if group_index in members or group.base >= 0 or not group.writers:
            continue
        first = group.writers[0]
        block = bisect_left(ends, first) - 1
        if layers[first - 1].kind != "squeeze_reduce" and first <= ends[-1]:
            expansions.setdefault(block, FreeWidth("expansion", (block,), group.channels))
    return [*expansions.values()] + [
        FreeWidth("bottleneck", tuple(blocks), groups.groups[group].channels) for group, blocks in members.items()
    ]


def residual_groups(architecture: Architecture) -> tuple[tuple[int, ...], ...]:
    """The indices of blocks whose outputs are added to one another, and so keep one width; -1 stands for the stem."""
    return tuple(width.members for width in free_widths(architecture) if width.kind == "bottleneck")
