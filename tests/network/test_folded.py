"""Modules with folded weights compute what the graph of the same weights computes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings

from mnv3search.architecture import Architecture
from mnv3search.errors import WeightsError
from mnv3search.families import published
from mnv3search.graph import INPUT_NAME, network_graph, network_weights, unit_graph
from mnv3search.layers import Unit, units
from mnv3search.network.build import MobileNetwork, build_network
from mnv3search.network.folded import folded_network, folded_unit, load_folded
from strategies import architectures

SEED = 4


def agree(graph: bytes, module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(2).standard_normal(shape, dtype=np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (truth,) = session.run(None, {INPUT_NAME: image})
    with torch.inference_mode():
        found = module(torch.from_numpy(image.copy())).numpy()
    assert found.shape == truth.shape
    assert np.abs(found - truth).max() <= 1e-4 * np.abs(truth).max()


def agree_network(architecture: Architecture) -> None:
    shape = (1, 3, architecture.resolution, architecture.resolution)
    agree(network_graph(architecture, SEED), folded_network(architecture, SEED), shape)


def agree_unit(unit: Unit) -> None:
    agree(unit_graph(unit, SEED), folded_unit(unit, SEED), (1, unit.in_channels, unit.in_size, unit.in_size))


@pytest.mark.parametrize("name", ["mobilenet_v1_fanrencli", "mobilenet_v3_small", "efficientnet_b0"])
def test_published_networks_and_their_units(name: str) -> None:
    architecture = published(name, resolution=64)
    agree_network(architecture)
    for unit in dict.fromkeys(units(architecture)):
        agree_unit(unit)


@settings(max_examples=40)
@given(architectures())
def test_any_network(architecture: Architecture) -> None:
    agree_network(architecture)


@settings(max_examples=25)
@given(architectures(max_blocks=2))
def test_any_unit(architecture: Architecture) -> None:
    for unit in units(architecture):
        agree_unit(unit)


def test_evaluation_mode_and_the_structure_of_a_built_network() -> None:
    architecture = published("mobilenet_v3_small", resolution=32)
    network = folded_network(architecture)
    assert isinstance(network, MobileNetwork)
    assert not any(module.training for module in network.modules())
    assert [*network.state_dict()] == [*build_network(architecture).state_dict()]


def test_weights_of_another_network_are_refused() -> None:
    architecture = published("mobilenet_v3_small", resolution=32)
    weights = network_weights(architecture)
    network = build_network(architecture)
    load_folded(network, weights)
    without = {name: values for name, values in weights.items() if name != "blocks.0.depthwise.bias"}
    with pytest.raises(WeightsError, match=r"blocks.0.depthwise.bias is nothing; the network needs \(16,\)"):
        load_folded(network, without)
    with pytest.raises(WeightsError, match=r"stem.conv.weight is \(1,\)"):
        load_folded(network, weights | {"stem.conv.weight": np.zeros(1, dtype=np.float32)})
    with pytest.raises(WeightsError, match=r"'blocks.99.depthwise.weight' have no layer"):
        load_folded(network, weights | {"blocks.99.depthwise.weight": np.zeros(1, dtype=np.float32)})
