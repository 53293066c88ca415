"""Padding and folding of the drawn weights, by hand."""

from __future__ import annotations

import numpy as np

from mnv3search.architecture import StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.families import published
from mnv3search.graph import network_weights, unit_weights
from mnv3search.graph.weights import conv_padding
from mnv3search.layers import Unit, unit_layers


def test_same_padding_puts_the_odd_pixel_at_the_end() -> None:
    (even,) = unit_layers(Unit(StemSpec(8, 3, 2), 3, 224, "same"))
    assert conv_padding(even, "same") == (0, 1)
    (odd,) = unit_layers(Unit(StemSpec(8, 3, 2), 3, 225, "same"))
    assert conv_padding(odd, "same") == (1, 1)
    (wide,) = unit_layers(Unit(StemSpec(8, 5, 1), 3, 10, "same"))
    assert conv_padding(wide, "same") == (2, 2)
    (strided,) = unit_layers(Unit(StemSpec(8, 1, 2), 3, 10, "same"))
    assert conv_padding(strided, "same") == (0, 0)
    assert conv_padding(even, "symmetric") == (1, 1)


def test_shapes_and_biases_of_a_block() -> None:
    block = BlockSpec(5, 48, 24, 1, "relu", SqueezeExciteSpec(12, use_bias=False))
    weights = unit_weights(Unit(block, 16, 20))
    assert {name: values.shape for name, values in weights.items()} == {
        "expansion.weight": (48, 16, 1, 1),
        "expansion.bias": (48,),  # the folded norm's
        "depthwise.weight": (48, 1, 5, 5),
        "depthwise.bias": (48,),
        "squeeze_excite.reduce.weight": (12, 48, 1, 1),
        "squeeze_excite.expand.weight": (48, 12, 1, 1),
        "projection.weight": (24, 48, 1, 1),
        "projection.bias": (24,),
    }
    assert all(values.dtype == np.float32 for values in weights.values())


def test_every_learned_layer_of_a_network_has_weights() -> None:
    architecture = published("mobilenet_v3_small_xiaolai", resolution=32)
    weights = network_weights(architecture)
    from mnv3search.cost import count

    learned = [layer for layer in count(architecture).layers if layer.kernel_size]
    assert {f"{layer.name}.weight" for layer in learned} == {n for n in weights if n.endswith(".weight")}
    assert sum(w.size for n, w in weights.items() if n.endswith(".weight")) == sum(
        layer.kernel_size**2 * layer.in_channels // layer.groups * layer.out_channels for layer in learned
    )
