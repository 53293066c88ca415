"""ONNX graphs of units and networks, written with ``onnx.helper``: batch 1, float32, norms folded, NCHW."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import MissingDependencyError
from mnv3search.graph.weights import conv_padding, network_weights, unit_weights
from mnv3search.layers import LINEAR, Layer, Unit, unit_layers, unit_names, units

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "input"
OUTPUT_NAME = "output"


def unit_graph(unit: Unit, seed: int = 0) -> bytes:
    """A serialised ONNX model of one unit: ``(1, in_channels, in_size, in_size)`` to ``(1, channels, size, size)``.

    The output of a head is ``(1, classes)``.
    """
    graph = _GraphBuilder(unit_weights(unit, seed))
    return graph.finish(_emit_unit(graph, unit, "", INPUT_NAME), (unit,), "unit")


def network_graph(
    architecture: Architecture, seed: int = 0, weights: Mapping[str, NDArray[Any]] | None = None
) -> bytes:
    """A serialised ONNX model of a whole network: input ``(1, 3, resolution, resolution)``, output ``(1, classes)``.

    ``weights`` are by the names of :func:`~mnv3search.graph.weights.network_weights`, and seeded by default.
    """
    graph = _GraphBuilder(network_weights(architecture, seed) if weights is None else weights)
    x, parts = INPUT_NAME, units(architecture)
    for name, unit in zip(unit_names(architecture), parts, strict=True):
        x = _emit_unit(graph, unit, f"{name}.", x)
    return graph.finish(x, parts, "network")


class _GraphBuilder:
    """Collects nodes and initializers; every method returns the name of the tensor that it made."""

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingDependencyError("onnx", "writing ONNX graphs") from None
        self._onnx = onnx
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def initializer(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._initializers:
            self._initializers[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def learned(self, name: str) -> list[str]:
        """The names of a layer's weight and, where it has one, bias."""
        names = [f"{name}.weight", f"{name}.bias"]
        return [self.initializer(n, self._weights[n]) for n in names if n in self._weights]

    def conv(self, x: str, layer: Layer, name: str, padding: str) -> str:
        before, after = conv_padding(layer, padding)
        return self.node(
            "Conv", [x, *self.learned(name)], name, kernel_shape=[layer.kernel_size] * 2, strides=[layer.stride] * 2,
            pads=[before, before, after, after], group=layer.groups,
        )  # fmt: skip

    def clip6(self, x: str) -> str:
        limits = [self.initializer(f"clip.{v}", np.array(v, dtype=np.float32)) for v in (0, 6)]
        return self.node("Clip", [x, *limits], f"{x}.relu6")

    def finish(self, x: str, parts: tuple[Unit, ...], name: str) -> bytes:
        """The serialised model whose output is tensor ``x``."""
        helper, first, last = self._onnx.helper, parts[0], unit_layers(parts[-1])[-1]
        self._nodes[-1].output[0] = OUTPUT_NAME
        shape_out = [1, last.out_channels] + ([] if parts[-1].classes else [last.out_size] * 2)
        float32 = self._onnx.TensorProto.FLOAT
        entering = [1, first.in_channels, first.in_size, first.in_size]
        graph = helper.make_graph(
            self._nodes, name, [helper.make_tensor_value_info(INPUT_NAME, float32, entering)],
            [helper.make_tensor_value_info(OUTPUT_NAME, float32, shape_out)], list(self._initializers.values()),
        )  # fmt: skip
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, producer_name="mnv3search", ir_version=IR_VERSION)
        return bytes(model.SerializeToString())


_ACTIVATIONS: Mapping[str, Callable[[_GraphBuilder, str], str]] = {
    "relu": lambda g, x: g.node("Relu", [x], f"{x}.relu"),
    "relu6": _GraphBuilder.clip6,
    "hard_swish": lambda g, x: g.node("HardSwish", [x], f"{x}.hard_swish"),
    "swish": lambda g, x: g.node("Mul", [x, g.node("Sigmoid", [x], f"{x}.sigmoid")], f"{x}.swish"),
    "sigmoid": lambda g, x: g.node("Sigmoid", [x], f"{x}.sigmoid"),
    "hard_sigmoid": lambda g, x: g.node("HardSigmoid", [x], f"{x}.hard_sigmoid", alpha=1 / 6, beta=0.5),
}


def _emit_unit(graph: _GraphBuilder, unit: Unit, prefix: str, entered: str) -> str:
    tensors = [entered]
    for layer in unit_layers(unit):
        name, x = prefix + layer.name, tensors[layer.source]
        if layer.kind == "squeeze_pool":
            x = graph.node("GlobalAveragePool", [x], name)
        elif layer.other >= 0:
            x = graph.node("Mul" if layer.kind == "scale" else "Add", [x, tensors[layer.other]], name)
        elif layer.kind == "pool":
            x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], name)], f"{name}.flatten")
        elif layer.kind in LINEAR:
            x = graph.node("Gemm", [x, *graph.learned(name)], name, transB=1)
        else:
            x = graph.conv(x, layer, name, unit.padding)
        tensors.append(_ACTIVATIONS[layer.activation](graph, x) if layer.activation else x)
    return tensors[-1]
