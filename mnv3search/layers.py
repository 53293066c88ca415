"""The layers of an architecture, in the order in which they run, with what each costs.

A network is cut into units: the stem, each block, the head. A unit holds everything that its cost or its running time
depends on, so equal units of different networks share one price. Each unit is a list of layers.

Conventions:
    One fused multiply-add counts one (MAdds). MAdds and activations are those of convolutions and linear layers,
    squeeze-excite's included; norms, activations, pools, scalings and additions count none.
    Parameters are all that a network learns: weights, biases, norms' scales and shifts.
    ``live_elements`` is the sum of the tensors alive while the layer runs at batch 1: its input and output, the
    residual where it waits, the feature map where a squeeze-excite will scale it. Norms, activations, scaling and
    addition work in place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from mnv3search.architecture import (
    Architecture,
    BlockSpec,
    HeadSpec,
    Padding,
    SqueezeExciteSpec,
    StemSpec,
    check_architecture,
    out_size,
)


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


LayerKind = Literal[
    "stem", "expansion", "depthwise", "projection", "shortcut", "feature",
    "squeeze_pool", "squeeze_reduce", "squeeze_expand", "scale", "add", "pool", "hidden", "classifier",
]  # fmt: skip


class Layer(NamedTuple):
    """One operation: a convolution or linear layer with its norm and activation, or a pool, scaling or addition.

    Sizes are sides of square maps in pixels; a linear layer has size 1. ``kernel_size`` is 0 where nothing is learned.
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
    live_elements: int

    @property
    def madds(self) -> int:
        """Multiply-adds at batch 1."""
        return summed((self,))[0]

    @property
    def parameters(self) -> int:
        """Weights, bias, and the norm's scale and shift."""
        return summed((self,))[1]

    @property
    def activations(self) -> int:
        """Elements of the output of a convolution or linear layer; 0 for anything else."""
        return summed((self,))[2]


LayerRow = tuple[str, LayerKind, int, int, int, int, int, int, int, bool, bool, str, int]
"""A :class:`Layer` as a plain tuple, made in a fifth of the time: a search prices thousands of new units."""


def summed(rows: Iterable[LayerRow]) -> tuple[int, int, int, int]:
    """Multiply-adds, parameters and activations of all layers together, and the most elements alive in any."""
    madds = parameters = activations = peak = 0
    for _, _, in_channels, out_channels, kernel_size, _, groups, _, size, bias, norm, _, live in rows:
        if live > peak:  # noqa: PLR1730  (a call to max costs as much as the rest of the loop)
            peak = live
        if kernel_size:
            kernel = kernel_size * kernel_size * (in_channels // groups)
            elements = out_channels * size * size
            madds += kernel * elements
            parameters += (kernel + bias + 2 * norm) * out_channels
            activations += elements
    return madds, parameters, activations, peak


def unit_layers(unit: Unit) -> list[Layer]:
    """The layers of a unit, in the order in which they run."""
    return [Layer(*row) for row in unit_rows(unit)]


def unit_rows(unit: Unit) -> list[LayerRow]:
    """The layers of a unit as plain tuples."""
    spec = unit.spec
    if isinstance(spec, BlockSpec):
        return _block_rows(unit, spec)
    return _stem_rows(unit, spec) if isinstance(spec, StemSpec) else _head_rows(unit, spec)


def _stem_rows(unit: Unit, spec: StemSpec) -> list[LayerRow]:
    size, out = unit.in_size, out_size(unit.in_size, spec.stride)
    live = 3 * size * size + spec.out_channels * out * out
    return [
        ("conv", "stem", 3, spec.out_channels, spec.kernel_size, spec.stride, 1, size, out, unit.conv_bias, True,
         spec.activation, live)
    ]  # fmt: skip


def _block_rows(unit: Unit, spec: BlockSpec) -> list[LayerRow]:
    channels, size, bias = unit.in_channels, unit.in_size, unit.conv_bias
    out, expanded, act = out_size(size, spec.stride), spec.expanded_channels, spec.activation
    has_residual = spec.has_residual(channels)
    entered = channels * size * size
    held = entered if has_residual else 0
    wide, narrow = expanded * out * out, spec.out_channels * out * out
    rows: list[LayerRow] = []
    before, waiting = entered, 0
    if spec.has_expansion(channels):
        before, waiting = expanded * size * size, held
        rows.append(("expansion", "expansion", channels, expanded, 1, 1, 1, size, size, bias, True, act,
                     entered + before))  # fmt: skip
    dw_in = expanded if rows else channels
    rows.append(("depthwise", "depthwise", dw_in, expanded, spec.kernel_size, spec.stride, dw_in, size, out,
                 bias, True, act, before + wide + waiting))  # fmt: skip
    se = spec.squeeze_excite
    if se is not None and se.position == "depthwise":
        rows += _squeeze_excite_rows(se, expanded, out, held)
    rows.append(("projection", "projection", expanded, spec.out_channels, 1, 1, 1, out, out, bias, True,
                 "" if spec.linear_bottleneck else act, wide + narrow + held))  # fmt: skip
    if se is not None and se.position == "projection":
        rows += _squeeze_excite_rows(se, spec.out_channels, out, held)
    if has_residual:
        if channels != spec.out_channels:
            rows.append(("shortcut", "shortcut", channels, spec.out_channels, 1, 1, 1, out, out, bias, True, "",
                         entered + 2 * narrow))  # fmt: skip
        rows.append(("add", "add", spec.out_channels, spec.out_channels, 0, 1, 1, out, out, False, False, "",
                     2 * narrow))  # fmt: skip
    return rows


def _squeeze_excite_rows(se: SqueezeExciteSpec, channels: int, size: int, held: int) -> list[LayerRow]:
    squeeze, bias, norm = se.squeeze_channels, se.use_bias, se.use_norm
    live = channels * size * size + held
    return [
        ("squeeze_excite.pool", "squeeze_pool", channels, channels, 0, 1, 1, size, 1, False, False, "",
         live + channels),
        ("squeeze_excite.reduce", "squeeze_reduce", channels, squeeze, 1, 1, 1, 1, 1, bias, norm, se.activation,
         live + channels + squeeze),
        ("squeeze_excite.expand", "squeeze_expand", squeeze, channels, 1, 1, 1, 1, 1, bias, norm, se.gate,
         live + channels + squeeze),
        ("squeeze_excite.scale", "scale", channels, channels, 0, 1, 1, size, size, False, False, "",
         live + channels),
    ]  # fmt: skip


def _head_rows(unit: Unit, spec: HeadSpec) -> list[LayerRow]:
    channels, size = unit.in_channels, unit.in_size
    rows: list[LayerRow] = []
    if spec.feature_channels is not None:
        live = (channels + spec.feature_channels) * size * size
        rows.append(("feature", "feature", channels, spec.feature_channels, 1, 1, 1, size, size, unit.conv_bias,
                     True, spec.activation, live))  # fmt: skip
        channels = spec.feature_channels
        if spec.squeeze_excite is not None:
            rows += _squeeze_excite_rows(spec.squeeze_excite, channels, size, 0)
    rows.append(("pool", "pool", channels, channels, 0, 1, 1, size, 1, False, False, "",
                 channels * (size * size + 1)))  # fmt: skip
    if spec.hidden_channels is not None:
        rows.append(("hidden", "hidden", channels, spec.hidden_channels, 1, 1, 1, 1, 1, spec.hidden_bias,
                     spec.hidden_norm, spec.activation, channels + spec.hidden_channels))  # fmt: skip
        channels = spec.hidden_channels
    rows.append(("classifier", "classifier", channels, unit.classes, 1, 1, 1, 1, 1, True, False, "",
                 channels + unit.classes))  # fmt: skip
    return rows
