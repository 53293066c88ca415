"""The layers of a unit, in the order in which they run, with what each costs.

Conventions:
    One fused multiply-add counts one (MAdds). MAdds and activations are those of convolutions and linear layers,
    squeeze-excite's included; norms, activations, pools, scalings and additions count none.
    Parameters are all that a network learns: weights, biases, norms' scales and shifts.
    ``live_elements`` is the sum of the tensors alive while the layer runs at batch 1: its input and output, the
    residual where it waits, the feature map where a squeeze-excite will scale it. Norms, activations, scaling and
    addition work in place.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from mnv3search.architecture import BlockSpec, HeadSpec, SqueezeExciteSpec, StemSpec, out_size
from mnv3search.cost.units import Unit

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
        kernel = self.kernel_size * self.kernel_size * (self.in_channels // self.groups)
        return kernel * self.out_channels * self.out_size * self.out_size

    @property
    def parameters(self) -> int:
        """Weights, bias, and the norm's scale and shift."""
        if not self.kernel_size:
            return 0
        kernel = self.kernel_size * self.kernel_size * (self.in_channels // self.groups)
        return (kernel + self.bias + 2 * self.norm) * self.out_channels

    @property
    def activations(self) -> int:
        """Elements of the output of a convolution or linear layer; 0 for anything else."""
        return self.out_channels * self.out_size * self.out_size if self.kernel_size else 0


def unit_layers(unit: Unit) -> list[Layer]:
    """The layers of a unit, in the order in which they run."""
    spec = unit.spec
    if isinstance(spec, BlockSpec):
        return _block_layers(unit, spec)
    return _stem_layers(unit, spec) if isinstance(spec, StemSpec) else _head_layers(unit, spec)


def _stem_layers(unit: Unit, spec: StemSpec) -> list[Layer]:
    size, out = unit.in_size, out_size(unit.in_size, spec.stride)
    live = 3 * size * size + spec.out_channels * out * out
    return [
        Layer("conv", "stem", 3, spec.out_channels, spec.kernel_size, spec.stride, 1, size, out, unit.conv_bias, True,
              spec.activation, live)
    ]  # fmt: skip


def _block_layers(unit: Unit, spec: BlockSpec) -> list[Layer]:
    channels, size, bias = unit.in_channels, unit.in_size, unit.conv_bias
    out, expanded, act = out_size(size, spec.stride), spec.expanded_channels, spec.activation
    has_residual = spec.has_residual(channels)
    entered = channels * size * size
    held = entered if has_residual else 0
    wide, narrow = expanded * out * out, spec.out_channels * out * out
    layers = []
    before, waiting = entered, 0
    if spec.has_expansion(channels):
        before, waiting = expanded * size * size, held
        layers.append(Layer("expansion", "expansion", channels, expanded, 1, 1, 1, size, size, bias, True, act,
                            entered + before))  # fmt: skip
    dw_in = expanded if layers else channels
    layers.append(Layer("depthwise", "depthwise", dw_in, expanded, spec.kernel_size, spec.stride, dw_in, size, out,
                        bias, True, act, before + wide + waiting))  # fmt: skip
    se = spec.squeeze_excite
    if se is not None and se.position == "depthwise":
        layers += _squeeze_excite_layers(se, expanded, out, held)
    layers.append(Layer("projection", "projection", expanded, spec.out_channels, 1, 1, 1, out, out, bias, True,
                        "" if spec.linear_bottleneck else act, wide + narrow + held))  # fmt: skip
    if se is not None and se.position == "projection":
        layers += _squeeze_excite_layers(se, spec.out_channels, out, held)
    if has_residual:
        if channels != spec.out_channels:
            layers.append(Layer("shortcut", "shortcut", channels, spec.out_channels, 1, 1, 1, out, out, bias, True, "",
                                entered + 2 * narrow))  # fmt: skip
        layers.append(Layer("add", "add", spec.out_channels, spec.out_channels, 0, 1, 1, out, out, False, False, "",
                            2 * narrow))  # fmt: skip
    return layers


def _squeeze_excite_layers(se: SqueezeExciteSpec, channels: int, size: int, held: int) -> list[Layer]:
    squeeze, bias, norm = se.squeeze_channels, se.use_bias, se.use_norm
    live = channels * size * size + held
    return [
        Layer("squeeze_excite.pool", "squeeze_pool", channels, channels, 0, 1, 1, size, 1, False, False, "",
              live + channels),
        Layer("squeeze_excite.reduce", "squeeze_reduce", channels, squeeze, 1, 1, 1, 1, 1, bias, norm, se.activation,
              live + channels + squeeze),
        Layer("squeeze_excite.expand", "squeeze_expand", squeeze, channels, 1, 1, 1, 1, 1, bias, norm, se.gate,
              live + channels + squeeze),
        Layer("squeeze_excite.scale", "scale", channels, channels, 0, 1, 1, size, size, False, False, "",
              live + channels),
    ]  # fmt: skip


def _head_layers(unit: Unit, spec: HeadSpec) -> list[Layer]:
    channels, size = unit.in_channels, unit.in_size
    layers = []
    if spec.feature_channels is not None:
        live = (channels + spec.feature_channels) * size * size
        layers.append(Layer("feature", "feature", channels, spec.feature_channels, 1, 1, 1, size, size, unit.conv_bias,
                            True, spec.activation, live))  # fmt: skip
        channels = spec.feature_channels
        if spec.squeeze_excite is not None:
            layers += _squeeze_excite_layers(spec.squeeze_excite, channels, size, 0)
    layers.append(Layer("pool", "pool", channels, channels, 0, 1, 1, size, 1, False, False, "",
                        channels * (size * size + 1)))  # fmt: skip
    if spec.hidden_channels is not None:
        layers.append(Layer("hidden", "hidden", channels, spec.hidden_channels, 1, 1, 1, 1, 1, spec.hidden_bias,
                            spec.hidden_norm, spec.activation, channels + spec.hidden_channels))  # fmt: skip
        channels = spec.hidden_channels
    layers.append(Layer("classifier", "classifier", channels, unit.classes, 1, 1, 1, 1, 1, True, False, "",
                        channels + unit.classes))  # fmt: skip
    return layers
