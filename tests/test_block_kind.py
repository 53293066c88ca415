"""A kind of block that the package does not know: one class, registered, is all that a network of it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.accuracy.registry import load_evaluator
from mnv3search.architecture import Architecture, HeadSpec, Padding, StemSpec, dump_architecture, parse_architecture
from mnv3search.block_search import search
from mnv3search.blocks import BLOCK_KINDS, Activation, BlockPosition, BlockSpec, ChoiceRule, LayerBuilder, check_int
from mnv3search.cost import UnitCost, count, unit_cost, unit_peak_elements
from mnv3search.errors import ArchitectureError, EvaluatorError, SpaceError
from mnv3search.graph import network_graph, unit_graph
from mnv3search.latency.devices import load_device
from mnv3search.latency.keys import unit_key, unit_of_key
from mnv3search.layer_search.proposals import narrow, sites
from mnv3search.layers import Unit, network_layers, residual_groups, units
from mnv3search.network.build import build_network
from mnv3search.network.folded import folded_network, folded_unit, folded_weights
from mnv3search.network.slicing import plan_slicing, slice_network
from mnv3search.space import parse_space


@dataclass(frozen=True, slots=True)
class FusedSpec:
    """A fused inverted residual: a full k×k convolution that expands, a projection, and an addition where asked for."""

    kind: ClassVar[str] = "trial_fused"
    choices: ClassVar[Mapping[str, ChoiceRule]] = {
        "kernel_size": ChoiceRule({"description": "1, 3 or 5", "enum": [1, 3, 5]}, "kernel sizes", "k"),
        "expanded": ChoiceRule({"description": "a number of channels", "type": "integer"}, "widths", "w", default=8),
        "residual": ChoiceRule({"description": "true or false", "type": "boolean"}, "flags", "add", default=False),
    }
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "activation": {"description": "relu or swish", "enum": ["relu", "swish"]}
    }
    kernel_size: int
    expanded_channels: int
    out_channels: int
    stride: int = 1
    activation: Activation = "relu"
    residual: bool = False

    def __post_init__(self) -> None:
        check_int("FusedSpec", "expanded_channels", self.expanded_channels, 1, 1024)

    @classmethod
    def from_choices(cls, values: Mapping[str, Any], position: BlockPosition) -> FusedSpec:
        return cls(
            values["kernel_size"], values["expanded"], position.out_channels, position.stride,
            values.get("activation", "relu"), values["residual"],
        )  # fmt: skip

    def check_input(self, in_channels: int) -> None:
        if self.residual and (self.stride, self.out_channels) != (1, in_channels):
            raise ArchitectureError(f"adds {in_channels} channels to {self.out_channels} at stride {self.stride}")

    def add_layers(self, layers: LayerBuilder) -> None:
        x = layers.conv("fused", layers.entered, self.expanded_channels, self.kernel_size, self.stride, self.activation)
        x = layers.conv("projection", x, self.out_channels)
        if self.residual:
            layers.add(x, layers.entered)

    def resized(self, in_channels: int, expanded_channels: int, out_channels: int) -> FusedSpec:
        return replace(self, expanded_channels=expanded_channels, out_channels=out_channels)

    def narrowed(self, in_channels: int, new_in_channels: int, expanded_channels: int, out_channels: int) -> FusedSpec:
        return self.resized(new_in_channels, expanded_channels, out_channels)

    def __str__(self) -> str:
        return f"fused{self.kernel_size}e{self.expanded_channels}c{self.out_channels}"


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    BLOCK_KINDS[FusedSpec.kind] = FusedSpec
    yield
    del BLOCK_KINDS[FusedSpec.kind]


def _network() -> Architecture:
    """Stem 4 at 9×9 (→ 5×5), a fused block with a residual, one to 8 channels at 3×3, an inverted residual."""
    blocks = (
        FusedSpec(3, 12, 4, residual=True), FusedSpec(3, 16, 8, 2, "hard_swish"), BlockSpec(3, 24, 8, 1),
    )  # fmt: skip
    return Architecture(StemSpec(4), blocks, HeadSpec(16, 8), resolution=9, classes=3)


def _unit() -> Unit:
    return units(_network())[1]


def test_it_is_counted() -> None:
    """4 → 12 by 3×3 and → 4 by 1×1, at 5×5 = 25.

    MAdds 9·4·12·25 + 12·4·25; parameters 432 + 24 and 48 + 8; outputs 300 + 100. Alive at most: the projection's
    input (300) and output (100) and the block's input (100), which waits for the addition.
    """
    assert unit_cost(_unit()) == UnitCost(10_800 + 1_200, 456 + 56, 400)
    assert unit_peak_elements(_unit()) == 500
    assert [layer.name for layer in count(_network()).layers[1:4]] == [
        "blocks.0.fused", "blocks.0.projection", "blocks.0.add",
    ]  # fmt: skip


def test_a_roofline_prices_it() -> None:
    device = load_device("roofline:10,1000")
    network = _network()
    without = replace(network, blocks=network.blocks[1:])
    cost = device.latency_ms([network])[0] - device.latency_ms([without])[0]
    assert cost > 12_000 / 10e9 * 1e3 * 0.99  # its MAdds at 10 G MAdds/s


def test_it_round_trips_through_json_and_has_its_short_text() -> None:
    network = _network()
    text = dump_architecture(network)
    assert '"kind": "trial_fused"' in text
    assert parse_architecture(text) == network
    assert text.count('"kind"') == 2  # none of the inverted residual
    assert "| fused3e12c4 fused3e16c8 k3e24c8 |" in str(network)


def test_a_rule_that_it_breaks_is_told_with_the_block() -> None:
    with pytest.raises(ArchitectureError, match="block 0 adds 4 channels to 6 at stride 1"):
        replace(_network(), blocks=(FusedSpec(3, 12, 6, residual=True),))
    with pytest.raises(ArchitectureError, match=r"blocks\[0\]\.kind is 'fusde'; the kinds are inverted_residual"):
        parse_architecture(dump_architecture(_network()).replace("trial_fused", "fusde", 1))


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_its_graph_computes_what_its_module_does(padding: Padding) -> None:
    runtime = pytest.importorskip("onnxruntime")
    network = replace(_network(), padding=padding)
    image = np.random.default_rng(0).standard_normal((1, 3, 9, 9), dtype=np.float32)
    found = runtime.InferenceSession(network_graph(network, 5)).run(None, {"input": image})[0]
    with torch.no_grad():
        expected = folded_network(network, 5)(torch.from_numpy(image)).numpy()
    assert np.abs(found - expected).max() < 1e-4
    maps = np.random.default_rng(1).standard_normal((1, 4, 5, 5), dtype=np.float32)
    found = runtime.InferenceSession(unit_graph(_unit(), 5)).run(None, {"input": maps})[0]
    with torch.no_grad():
        expected = folded_unit(_unit(), 5)(torch.from_numpy(maps)).numpy()
    assert np.abs(found - expected).max() < 1e-4


def test_it_trains_and_exports_its_weights() -> None:
    network = build_network(_network())
    network(torch.randn(4, 3, 9, 9)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert "blocks.0.fused.conv.weight" in network.state_dict()
    assert folded_weights(network)["blocks.1.fused.weight"].shape == (16, 4, 3, 3)


def test_proposals_narrow_it_and_keep_the_residual() -> None:
    network = _network()
    assert residual_groups(network) == ((-1, 0), (1, 2))
    assert [(site.kind, site.members, site.channels) for site in sites(network)] == [
        ("expansion", (0,), 12), ("expansion", (1,), 16), ("expansion", (2,), 24), ("bottleneck", (-1, 0), 4),
        ("bottleneck", (1, 2), 8),
    ]  # fmt: skip
    narrowed = narrow(narrow(network, sites(network)[0], 8), sites(network)[3], 2)
    assert narrowed.stem.out_channels == 2
    assert narrowed.blocks[:2] == (FusedSpec(3, 8, 2, residual=True), FusedSpec(3, 16, 8, 2, "hard_swish"))


def test_a_slice_keeps_its_largest_filters() -> None:
    """The residual's two channels by stem and projection, the expansion's three by the fused convolution."""
    wide = _network()
    network = build_network(wide)
    with torch.no_grad():
        network.get_parameter("stem.conv.weight").zero_()[1] = 1.0
        network.get_parameter("blocks.0.projection.conv.weight").zero_()[3] = 1.0
        network.get_parameter("blocks.0.fused.conv.weight").zero_()[[2, 7, 11]] = 1.0
    narrowed = narrow(narrow(wide, sites(wide)[0], 3), sites(wide)[3], 2)
    plan = plan_slicing(wide, network.state_dict(), narrowed)
    assert plan["blocks.0.fused"] == ((2, 7, 11), (1, 3))
    assert plan["blocks.1.fused"].inputs == (1, 3)
    images = torch.randn(2, 3, 9, 9)
    sliced = slice_network(network.eval(), narrowed)
    with torch.no_grad():  # what was left out was zero, but for what its norms add
        assert sliced(images).shape == (2, 3)
        assert torch.allclose(sliced(images), network(images), atol=1e-5)


def test_untrained_networks_of_it_are_scored() -> None:
    evaluator = load_evaluator("zero_cost:zen")
    assert np.isfinite([e.top1 for e in evaluator.evaluate([_network().with_resolution(32)])]).all()


def test_the_prior_refuses_what_it_was_not_fitted_to() -> None:
    with pytest.raises(EvaluatorError, match="knows no trial_fused"):
        load_evaluator("prior").evaluate([_network()])


def test_latency_tables_know_it_by_a_key_of_its_own() -> None:
    assert unit_of_key(unit_key(_unit())) == _unit()
    assert unit_key(_unit()) != unit_key(_unit()._replace(spec=BlockSpec(3, 12, 4)))


def test_its_layers_name_their_inputs() -> None:
    """The addition reads the projection and what entered the block: the stem's output, tensor 1."""
    layers = network_layers(_network())
    assert [(layer.source, layer.other) for layer in layers[:5]] == [(0, -1), (1, -1), (2, -1), (3, 1), (4, -1)]


SPACE = """format: mnv3search.space/1
resolution: 32
classes: 10
defaults: {evaluator: null, device: "roofline:10,1000"}
stem: {out_channels: 8}
stages:
  - out_channels: 8
    depth: [1, 2]
    block: {kind: trial_fused, kernel_size: [3, 5], expanded: [8, 16], residual: [false, true], activation: swish}
  - {out_channels: 12, stride: 2, block: {kernel_size: [3, 5], expansion_ratio: 3}}
  - out_channels: 12
    depth: 2
    block: {kind: trial_fused, options: [skip, {kernel_size: 1}, {kernel_size: 3, expanded: 24, residual: true}]}
head: {feature_channels: null}
"""


def test_a_space_of_it_is_counted_sampled_and_reads_its_networks_again() -> None:
    """Per block 2·2·2 in the first stage, of depth 1 or 2; 2 in the second; 3 in each of two, skip at either alike."""
    space = parse_space(SPACE, "trial")
    assert space.size == (8 + 64) * 2 * (1 + 2 + 4)
    assert len(set(space.enumerate())) == space.size
    assert {p.name for p in space.parameters if p.name.startswith("stage1")} == {
        "stage1.depth", *(f"stage1.block{b}.{c}" for b in (1, 2) for c in ("kernel_size", "expanded", "residual"))
    }  # fmt: skip
    for network in space.sample(20, 0):
        assert isinstance(network.blocks[0], FusedSpec)
        assert network.blocks[0].activation == "swish"
        assert parse_architecture(dump_architecture(network)) == network
        assert space.decode(space.encode(network)) == network
    rows = space.sample_indices(20, np.random.default_rng(0))
    assert space.count_batch(rows).madds.tolist() == [count(a).madds for a in space.architectures(rows)]
    options = {c for p in space.parameters if p.name.endswith("option") for c in p.choices}
    assert options == {"skip", "k1_w8", "k3_w24_add"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[3, 5], expanded", "[3, 4], expanded", r"stages\[0\].block.kernel_size\[1\]: 4 is not 1, 3 or 5"),
        ("residual: [", "rezidual: [", "unknown key; did you mean residual"),
        ("kind: trial_fused, kernel_size: [3, 5], ", "kind: trial_fused, ", "lacks 'kernel_size'; it is kernel sizes"),
        ("kind: trial_fused, kernel", "kind: fusde, kernel", "'fusde' is not one of inverted_residual, trial_fused"),
        ("kind: trial_fused, opt", "opt", "expanded.*is an unknown key; the keys here are activation, expansion_ratio"),
        ("expanded: [8", "expanded: [0", "FusedSpec.expanded_channels is 0"),
        ("{out_channels: 12, stride: 2, block: {", "{out_channels: 12, stride: 2, block: {kind: trial_fused, residual: "
         "true, expanded: 8, ", "expansion_ratio.*is an unknown key"),
        ("depth: [1, 2]\n", "depth: [1, 2]\n    stride: 2\n", "the block fused3e8c8 adds 8 channels to 8 at stride 2"),
    ],
)  # fmt: skip
def test_a_space_of_it_is_checked_by_its_own_rules(old: str, new: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        parse_space(SPACE.replace(old, new, 1), "trial")


def test_a_space_of_it_is_searched() -> None:
    class MoreIsBetter:
        def evaluate(self, architectures: list[Architecture]) -> list[Evaluation]:
            return [Evaluation(min(99.0, count(a).parameters / 1e3), 0.1) for a in architectures]

    space, device = parse_space(SPACE, "trial"), load_device("roofline:10,1000")
    found = search(space, device, MoreIsBetter(), 5.0, trials=20, seed=0)  # type: ignore[arg-type]
    assert found.evaluated == 20
    assert space.contains(found.best.architecture)
    assert any(isinstance(block, FusedSpec) for block in found.best.architecture.blocks)
