"""Networks are what their architectures say: shapes, parameters, padding, gradients, initial weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from mnv3search.architecture import Architecture, HeadSpec, Padding, StemSpec
from mnv3search.blocks import BlockSpec, LayerBuilder, SqueezeExciteSpec
from mnv3search.cost import count
from mnv3search.families import NETWORKS, parse_network
from mnv3search.layers import Unit, unit_layers, units
from mnv3search.network.build import build_network
from mnv3search.network.modules import Conventions, SqueezeExcite, UnitModule
from strategies import architectures

TINY = Architecture(StemSpec(4), (BlockSpec(3, 8, 4), BlockSpec(3, 8, 4)), HeadSpec(8, 8), resolution=9, classes=3)


def _output_shapes(network: Any, images: Any) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: shapes.__setitem__(name, tuple(output.shape))
            )
    with torch.no_grad():
        network(images)
    return shapes


@settings(max_examples=60)
@given(architectures())
def test_shapes_parameters_and_activations_are_those_counted(architecture: Architecture) -> None:
    network = build_network(architecture).eval()
    side = architecture.resolution
    shapes = _output_shapes(network, torch.zeros(2, 3, side, side))
    counts = count(architecture)
    assert sum(p.numel() for p in network.parameters()) == counts.parameters
    assert sum(torch.Size(shape[1:]).numel() for shape in shapes.values()) == counts.activations
    learned = [layer.out_channels for layer in counts.layers if layer.kernel_size]
    assert [shape[1] for shape in shapes.values()] == learned
    for index, unit in enumerate(units(architecture)[2:]):
        assert shapes[f"blocks.{index}.depthwise.conv"][2:] == (unit.in_size, unit.in_size)


@settings(max_examples=40)
@given(architectures(max_resolution=12))
def test_working_in_place_changes_no_logit(architecture: Architecture) -> None:
    network = build_network(architecture).eval()
    images = torch.randn(1, 3, 11, 13, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    with torch.no_grad():
        in_place = network(images)
    assert torch.equal(images, before)
    assert in_place.shape == (1, architecture.classes)
    assert torch.allclose(in_place, network(images).detach(), rtol=1e-4, atol=1e-7)


@settings(max_examples=40)
@given(architectures(max_resolution=12))
def test_every_parameter_gets_a_gradient(architecture: Architecture) -> None:
    network = build_network(architecture).train()
    side = architecture.resolution
    network(torch.randn(3, 3, side, side)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("padding", "seen"), [("same", [[3.0, 0.0], [0.0, 0.0]]), ("symmetric", [[3.0, 3.0], [3.0, 3.0]])]
)
def test_same_padding_puts_the_odd_pixel_at_the_end(padding: Padding, seen: list[list[float]]) -> None:
    """Side 4, kernel 3, stride 2: TensorFlow's windows start at 0 and 2, torch's at −1 and 1; pixel 1 tells them apart.

    The pixel is 1 in 3 channels and the kernel all ones, so a window that has it gives 3.
    """
    network = build_network(replace(TINY, stem=StemSpec(1), blocks=(BlockSpec(1, 1, 1),), padding=padding))
    network.stem.conv.weight.data.fill_(1.0)
    images = torch.zeros(1, 3, 4, 4)
    images[..., 1, 1] = 1.0
    assert network.stem.conv(images)[0, 0].tolist() == seen


def test_modules_stand_in_the_order_in_which_they_run() -> None:
    network = build_network(
        replace(TINY, blocks=(BlockSpec(3, 8, 6, squeeze_excite=SqueezeExciteSpec(2), shortcut="projected"),))
    )
    owners = [name.rpartition(".")[0] for name in network.state_dict()]
    assert list(dict.fromkeys(owners)) == [
        "stem.conv", "stem.norm",
        "blocks.0.expansion.conv", "blocks.0.expansion.norm", "blocks.0.depthwise.conv", "blocks.0.depthwise.norm",
        "blocks.0.squeeze_excite.reduce", "blocks.0.squeeze_excite.expand",
        "blocks.0.projection.conv", "blocks.0.projection.norm", "blocks.0.shortcut.conv", "blocks.0.shortcut.norm",
        "head.feature.conv", "head.feature.norm", "head.hidden", "head.classifier",
    ]  # fmt: skip


def test_squeeze_excite_computes_its_formula() -> None:
    """Pool 2; reduce 3·2 + 1 = 7; ReLU; expand −1·7 + 5 = −2; hard-sigmoid (−2 + 3)/6 = 1/6; each pixel × 1/6."""
    _, _, reduce, expand, *_ = unit_layers(Unit(BlockSpec(1, 1, 1, squeeze_excite=SqueezeExciteSpec(1)), 1, 2))
    module = SqueezeExcite(reduce, expand, Conventions.of(TINY)).eval()
    for conv, weight, bias in ((module.reduce, 3.0, 1.0), (module.expand, -1.0, 5.0)):
        conv.weight.data.fill_(weight)
        conv.bias.data.fill_(bias)  # type: ignore[union-attr]
    with torch.no_grad():
        found = module(torch.tensor([[[[0.0, 4.0], [1.0, 3.0]]]]))
    assert torch.allclose(found, torch.tensor([[[[0.0, 4.0], [1.0, 3.0]]]]) / 6)


def test_a_residual_adds_the_input_once() -> None:
    network = build_network(TINY).eval()
    block = network.get_submodule("blocks.1")
    torch.nn.init.zeros_(network.get_parameter("blocks.1.projection.norm.weight"))
    features = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(features), features)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_published_network_builds_with_its_counted_parameters(name: str) -> None:
    architecture = parse_network(name)
    with torch.device("meta"):
        network = build_network(architecture)
    assert sum(p.numel() for p in network.parameters()) == count(architecture).parameters
    norm = network.stem.norm
    assert (norm.eps, norm.momentum) == (architecture.norm_eps, architecture.norm_momentum)


def test_initial_weights_have_the_stated_spread() -> None:
    """He over the outputs: std² = 2 / (out·k²) for a full convolution; linear 0.01; biases 0; norms 1 and 0."""
    torch.manual_seed(0)
    network = build_network(parse_network("mobilenet_v3_small_fanrencli"))
    feature: Any = network.get_submodule("head.feature.conv")
    assert float(feature.weight.detach().std()) == pytest.approx((2 / 576) ** 0.5, rel=0.01)
    assert float(network.head.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    assert not feature.bias.any()
    assert network.stem.norm.weight.eq(1).all()
    assert not network.stem.norm.bias.any()


class _GatedInput:
    """Not a block of any kind: scales what enters and adds that to it, so that both must last."""

    def add_layers(self, layers: LayerBuilder) -> None:
        layers.add(layers.squeeze_excite(layers.entered, SqueezeExciteSpec(2)), layers.entered)


def test_what_a_later_layer_reads_is_not_changed_in_place() -> None:
    unit = Unit(_GatedInput(), 4, 5)  # type: ignore[arg-type]
    module = UnitModule(unit, Conventions.of(TINY)).eval()
    features = torch.randn(2, 4, 5, 5)
    before = features.clone()
    with torch.no_grad():
        found = module(features)
    assert torch.equal(features, before)
    assert torch.equal(found, module(features.requires_grad_()))  # with gradients nothing works in place
    assert not torch.equal(found, before)
