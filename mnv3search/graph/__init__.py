"""ONNX emission: a graph of an architecture or of one unit, without torch."""

from __future__ import annotations

from mnv3search.graph.emit import INPUT_NAME, OPSET, OUTPUT_NAME, network_graph, unit_graph
from mnv3search.graph.weights import Weights, network_weights, unit_weights

__all__ = [
    "INPUT_NAME",
    "OPSET",
    "OUTPUT_NAME",
    "Weights",
    "network_graph",
    "network_weights",
    "unit_graph",
    "unit_weights",
]
