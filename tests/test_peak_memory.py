"""Peak memory against an analysis of the traced network: which storages are alive at each of its operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.families import parse_network
from mnv3search.network.build import build_network
from mnv3search.network.modules import ACTIVATIONS
from strategies import architectures

_IN_PLACE = (*{type(make()) for make in ACTIVATIONS.values()}, nn.Dropout, nn.BatchNorm1d, nn.BatchNorm2d)


def _in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node writes its first argument: activations, norms (which are folded away), add_, mul_, views."""
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), _IN_PLACE)
    return node.op == "call_method" and node.target in {"add_", "mul_", "flatten"}


def _traced_peak_elements(architecture: Architecture) -> int:
    with torch.no_grad(), torch.device("meta"):
        graph = fx.symbolic_trace(build_network(architecture).eval())
        ShapeProp(graph).propagate(torch.empty(1, 3, architecture.resolution, architecture.resolution))
    nodes = [node for node in graph.graph.nodes if node.op != "output"]
    storage: dict[fx.Node, fx.Node] = {}
    last_use: dict[fx.Node, int] = {}
    for index, node in enumerate(nodes):
        first = node.args[0] if node.args else None
        storage[node] = storage[first] if isinstance(first, fx.Node) and _in_place(graph, node) else node
        for used in (node, *node.all_input_nodes):
            last_use[storage[used]] = index
    born = {owner: nodes.index(owner) for owner in set(storage.values())}
    sizes: dict[fx.Node, int] = {owner: owner.meta["tensor_meta"].shape.numel() for owner in born}
    return max(
        sum(sizes[owner] for owner in born if born[owner] <= index <= last_use[owner]) for index in range(len(nodes))
    )


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_large", "mobilenet_v3_small_preprint", "mobilenet_v2", "mobilenet_v1", "mobilenet_v3_small_xiaolai"],
)
def test_published_networks(name: str) -> None:
    architecture = parse_network(name)
    assert count(architecture).peak_memory_bytes == 4 * _traced_peak_elements(architecture)


@settings(max_examples=40)
@given(architectures())
def test_any_network(architecture: Architecture) -> None:
    symmetric = replace(architecture, padding="symmetric")
    assert count(symmetric).peak_memory_bytes == 4 * _traced_peak_elements(symmetric)
