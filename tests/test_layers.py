"""Layers and their costs, worked out by hand.

A layer is written (name, multiply-adds, parameters, activations, live elements). Parameters of a convolution with norm
are weights + 2·out; live elements are the tensors that must exist while it runs.
"""

from __future__ import annotations

from typing import Any

from mnv3search.architecture import HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, LayerBuilder, SqueezeExciteSpec
from mnv3search.cost import UnitCost, unit_cost, unit_peak_elements
from mnv3search.layers import ChannelGroup, Unit, channel_groups, live_elements, unit_layers

Row = tuple[str, int, int, int, int]


def _rows(unit: Unit) -> list[Row]:
    return [(x.name, x.madds, x.parameters, x.activations, x.live_elements) for x in unit_layers(unit)]


def _check(unit: Unit, rows: list[Row], total: tuple[int, int, int, int]) -> None:
    assert _rows(unit) == rows
    assert (*unit_cost(unit), unit_peak_elements(unit)) == total


def _block(expanded: int, out: int, in_channels: int = 4, size: int = 5, **fields: Any) -> Unit:
    return Unit(BlockSpec(fields.pop("kernel_size", 3), expanded, out, **fields), in_channels, size)


def test_stem() -> None:
    """3×8×8 → 4×4×4: 3²·3·4·4² = 1728; 108 weights + 8; 4·16 outputs; 192 in and 64 out."""
    _check(Unit(StemSpec(4), 3, 8), [("conv", 1728, 116, 64, 256)], (1728, 116, 64, 256))


def test_inverted_residual() -> None:
    """4 → 8 → 4 at 5×5; a 4-channel map has 100 elements, an 8-channel map 200. The input waits for the addition."""
    _check(
        _block(8, 4),
        [
            ("expansion", 4 * 8 * 25, 32 + 16, 200, 100 + 200),
            ("depthwise", 9 * 8 * 25, 72 + 16, 200, 200 + 200 + 100),
            ("projection", 8 * 4 * 25, 32 + 8, 100, 200 + 100 + 100),
            ("add", 0, 0, 0, 100 + 100),
        ],
        (3400, 176, 500, 500),
    )


def test_squeeze_excite_after_the_depthwise_convolution() -> None:
    """8 → 2 → 8 at 1×1, biases and no norms; the 200 elements that it scales and the input (100) wait meanwhile."""
    rows = _rows(_block(8, 4, squeeze_excite=SqueezeExciteSpec(2)))
    assert rows[2:6] == [
        ("squeeze_excite.pool", 0, 0, 0, 300 + 8),
        ("squeeze_excite.reduce", 16, 16 + 2, 2, 300 + 8 + 2),
        ("squeeze_excite.expand", 16, 16 + 8, 8, 300 + 2 + 8),
        ("squeeze_excite.scale", 0, 0, 0, 300 + 8),
    ]
    assert [row[0] for row in rows] == [
        "expansion", "depthwise", *(row[0] for row in rows[2:6]), "projection", "add"
    ]  # fmt: skip


def test_squeeze_excite_after_the_projection_and_a_projected_shortcut() -> None:
    """4 → 8 → 6 at 5×5 (a 6-channel map has 150): the shortcut's convolution runs on the waiting input."""
    se = SqueezeExciteSpec(1, position="projection", use_norm=True, use_bias=False)
    _check(
        _block(8, 6, squeeze_excite=se, shortcut="projected"),
        [
            ("expansion", 800, 48, 200, 300),
            ("depthwise", 1800, 88, 200, 500),
            ("projection", 8 * 6 * 25, 48 + 12, 150, 200 + 150 + 100),
            ("squeeze_excite.pool", 0, 0, 0, 150 + 100 + 6),
            ("squeeze_excite.reduce", 6, 6 + 2, 1, 250 + 6 + 1),
            ("squeeze_excite.expand", 6, 6 + 12, 6, 250 + 1 + 6),
            ("squeeze_excite.scale", 0, 0, 0, 250 + 6),
            ("shortcut", 4 * 6 * 25, 24 + 12, 150, 150 + 100 + 150),
            ("add", 0, 0, 0, 150 + 150),
        ],
        (800 + 1800 + 1200 + 12 + 600, 48 + 88 + 60 + 8 + 18 + 36, 200 + 200 + 150 + 7 + 150, 500),
    )


def test_stride_2_without_expansion() -> None:
    """4 → 4 → 6, 5×5 kernel, 7×7 → 4×4 (⌈7/2⌉): no expansion, no residual."""
    _check(
        _block(4, 6, size=7, kernel_size=5, stride=2),
        [
            ("depthwise", 25 * 4 * 16, 100 + 8, 64, 196 + 64),
            ("projection", 4 * 6 * 16, 24 + 12, 96, 64 + 96),
        ],
        (1600 + 384, 144, 160, 260),
    )


def test_expansion_always_stands_where_it_changes_no_width() -> None:
    assert [row[:3] for row in _rows(_block(4, 6, expansion="always"))] == [
        ("expansion", 16 * 25, 16 + 8), ("depthwise", 900, 44), ("projection", 600, 36),
    ]  # fmt: skip


def test_separable_block_with_a_depth_multiplier() -> None:
    """4 → 8 in the depthwise convolution (each channel twice, one input channel a filter), then 8 → 6."""
    unit = _block(8, 6, expansion="depthwise", linear_bottleneck=False, shortcut="none", activation="relu6")
    _check(
        unit,
        [("depthwise", 9 * 8 * 25, 72 + 16, 200, 100 + 200), ("projection", 1200, 48 + 12, 150, 200 + 150)],
        (3000, 148, 350, 350),
    )
    assert [layer.activation for layer in unit_layers(unit)] == ["relu6", "relu6"]
    assert unit_layers(unit)[0].groups == 4


def test_convolution_biases_add_one_parameter_a_channel() -> None:
    plain = _block(8, 4)
    assert unit_cost(plain._replace(conv_bias=True)) == UnitCost(3400, 176 + 8 + 8 + 4, 500)


def test_head_of_v3() -> None:
    """4×3×3 → 1×1 to 8 → pool → 6 → 3 classes."""
    _check(
        Unit(HeadSpec(8, 6), 4, 3, classes=3),
        [
            ("feature", 4 * 8 * 9, 32 + 16, 72, 36 + 72),
            ("pool", 0, 0, 0, 72 + 8),
            ("hidden", 48, 48 + 6, 6, 8 + 6),
            ("classifier", 18, 18 + 3, 3, 6 + 3),
        ],
        (354, 123, 81, 108),
    )


def test_head_with_squeeze_excite_and_a_normed_hidden_layer() -> None:
    head = HeadSpec(8, 6, squeeze_excite=SqueezeExciteSpec(2), hidden_norm=True, hidden_bias=False)
    rows = _rows(Unit(head, 4, 3, classes=3))
    assert rows[2] == ("squeeze_excite.reduce", 16, 18, 2, 72 + 8 + 2)
    assert rows[-2] == ("hidden", 48, 48 + 12, 6, 14)


def test_bare_head() -> None:
    """V1's: pool (4·9 in, 4 out), classifier."""
    _check(
        Unit(HeadSpec(None), 4, 3, classes=3), [("pool", 0, 0, 0, 40), ("classifier", 12, 15, 3, 7)], (12, 15, 3, 40)
    )


def test_channels_that_stay_together() -> None:
    """4 → 8 → 4 with squeeze-excite and residual, by tensor: input, expansion, depthwise, pool, reduce, gate, scaled, …

    The projection (7) writes the input's channels, as the addition (8) joins them; the gate writes none of its own.
    """
    groups = channel_groups(unit_layers(_block(8, 4, squeeze_excite=SqueezeExciteSpec(2))))
    assert groups.of_tensor == (0, 1, 1, 1, 2, 1, 1, 0, 0)
    assert groups.groups == (ChannelGroup(4, (7,)), ChannelGroup(8, (1,)), ChannelGroup(2, (4,)))


def test_a_depthwise_convolution_that_multiplies_channels_starts_a_group_on_another() -> None:
    """3 → 6 by a depthwise convolution, two outputs a channel; a projection to 5."""
    groups = channel_groups(unit_layers(_block(6, 5, in_channels=3, expansion="depthwise", shortcut="none")))
    assert groups.of_tensor == (0, 1, 2)
    assert groups.groups == (ChannelGroup(3, ()), ChannelGroup(6, (1,), base=0), ChannelGroup(5, (2,)))


def test_a_tensor_that_is_read_later_is_not_changed_in_place() -> None:
    """A scaling of what enters keeps both: 4 × 5 × 5 = 100 twice, and 4 gates; the addition then needs no third map."""
    builder = LayerBuilder(4, 5, conv_bias=False, classes=0)
    builder.add(builder.squeeze_excite(builder.entered, SqueezeExciteSpec(2)), builder.entered)
    assert live_elements(builder.rows) == [100 + 4, 100 + 4 + 2, 100 + 2 + 4, 100 + 4 + 100, 100 + 100]
    builder = LayerBuilder(4, 5, conv_bias=False, classes=0)
    x = builder.depthwise("depthwise", builder.entered, 3)
    builder.add(builder.squeeze_excite(x, SqueezeExciteSpec(2)), x)
    assert live_elements(builder.rows) == [100 + 100, 100 + 4, 100 + 4 + 2, 100 + 2 + 4, 100 + 4 + 100, 100 + 100]
