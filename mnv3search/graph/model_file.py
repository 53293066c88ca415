"""An ONNX file of a user's: read with bounds, its input and its counts taken from its graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import ExportError, MissingDependencyError
from mnv3search.reading import read_bounded

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
MAX_BYTES = 500_000_000
MAX_NODES = 50_000
MAX_ELEMENTS = 100_000_000  # of an input or of one tensor whose shape is inferred
IMAGE_SEED = 1
_CONVOLUTIONS = {"Conv": 1, "QLinearConv": 3, "ConvInteger": 1}  # which input is the weight
_LINEAR = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
_BIAS = {"Conv": 2, "Gemm": 2, "QLinearConv": 8}


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModel:
    """A model file.

    Attributes:
        path: of the file.
        content: its bytes.
        shape: of its only input at batch 1.
        pixels: whether the input is uint8; float32 otherwise.
        madds: multiply-adds of convolutions and linear layers at batch 1.
        parameters: weights and biases of these; norms that were folded into them are no longer there.
        activations: elements of their outputs.
    """

    path: Path
    content: bytes
    shape: tuple[int, ...]
    pixels: bool
    madds: int
    parameters: int
    activations: int

    def __str__(self) -> str:
        return str(self.path)

    def image(self) -> NDArray[Any]:
        """The seeded input on which it is timed."""
        rng = np.random.default_rng(IMAGE_SEED)
        if self.pixels:
            return rng.integers(0, 256, self.shape, dtype=np.uint8)
        return rng.standard_normal(self.shape, dtype=np.float32)


def is_model_file(name: str) -> bool:
    """Whether a network's name means an ONNX file."""
    return name.endswith(SUFFIX)


def read_model(path: str | Path) -> OnnxModel:
    """The model in ``path``, in one file of at most 500 MB: nothing in it is run, and no other file is read.

    Raises:
        ExportError: it cannot be read, is no ONNX model, keeps data in other files, has branches or loops, more than
            one input, or an input or layer of unknown or too large a shape.
    """
    path = Path(path)
    try:
        import onnx
        from onnx import shape_inference
    except ImportError:
        raise MissingDependencyError("onnx", "reading an ONNX file") from None
    try:
        content = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        model = onnx.load_from_string(content)
        _check_structure(model)
        shape, pixels = _entering(model)
        onnx.checker.check_model(model)
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        madds, parameters, activations = _counted(inferred)
    except ValueError as error:  # ours, of one line
        raise ExportError(f"{path}: {error}") from None
    except Exception as error:  # protobuf, the checker and shape inference each have classes of their own
        raise ExportError(f"{path} is no valid ONNX model: {' '.join(str(error).split())[:200]}") from None
    return OnnxModel(path, content, shape, pixels, madds, parameters, activations)


def _check_structure(model: onnx.ModelProto) -> None:
    from onnx import TensorProto

    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise ValueError(f"its graph has {len(graph.node):,} nodes; at most {MAX_NODES:,} are read")
    if any(attribute.HasField("g") or len(attribute.graphs) for node in graph.node for attribute in node.attribute):
        raise ValueError("its graph has branches or loops, whose work depends on the input; export one without")
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    if any(t.data_location == TensorProto.EXTERNAL or len(t.external_data) for t in (*graph.initializer, *constants)):
        raise ValueError("it keeps weights in other files, which are not read; save it as one file")
    if len(graph.sparse_initializer) or len(model.functions):
        raise ValueError("it has sparse weights or functions of its own; export it with plain weights and operators")


def _entering(model: onnx.ModelProto) -> tuple[tuple[int, ...], bool]:
    """The shape at batch 1 and whether it is uint8; a batch that was left open is set to 1 in ``model``."""
    from onnx import TensorProto

    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ValueError(f"it has {len(inputs)} inputs; a network that is timed has one, an image")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise ValueError("its input is neither float32 nor uint8")
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if not sizes or any(size <= 0 for size in sizes[1:]):
        raise ValueError(f"its input has no fixed shape behind the batch ({sizes}); export it with one")
    if sizes[0] > 1:
        raise ValueError(f"its input is a batch of {sizes[0]}; export it for batch 1 or for any")
    if math.prod(sizes[1:]) > MAX_ELEMENTS:
        raise ValueError(f"its input has {math.prod(sizes[1:]):,} elements; at most {MAX_ELEMENTS:,} are timed")
    first = [value.type.tensor_type for value in model.graph.output[:1]]
    if not any(t.elem_type == TensorProto.FLOAT and all(d.dim_value > 0 for d in t.shape.dim[1:]) for t in first):
        raise ValueError("its first output is not float32 of a fixed shape behind the batch; export it with such a one")
    for value in (inputs[0], *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]  # what was inferred for another batch
    return (1, *sizes[1:]), kind.elem_type == TensorProto.UINT8


def _counted(model: onnx.ModelProto) -> tuple[int, int, int]:
    """MAdds, parameters and activations of its convolutions and linear layers."""
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:  # a weight in 8 bits is one behind its conversion
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    madds = parameters = activations = 0
    for node in graph.node:
        index = _CONVOLUTIONS.get(node.op_type, _LINEAR.get(node.op_type))
        weight = weights.get(node.input[index]) if index is not None and index < len(node.input) else None
        if weight is None:
            continue
        out = _size_of(shapes, node.output[0])
        each = math.prod(weight[1:]) if node.op_type in _CONVOLUTIONS else _entering_each(node, weight)
        bias = _BIAS.get(node.op_type, len(node.input))
        madds += out * each
        activations += out
        parameters += math.prod(weight)
        parameters += math.prod(weights.get(node.input[bias], (0,))) if bias < len(node.input) else 0
    return madds, parameters, activations


def _size_of(shapes: Mapping[str, Sequence[int]], name: str) -> int:
    shape = shapes.get(name, ())
    size = math.prod(shape)
    if not shape or not 0 < size <= MAX_ELEMENTS:
        raise ValueError(f"the shape of its tensor {name[:60]!r} is unknown or too large; export it with fixed shapes")
    return size


def _entering_each(node: onnx.NodeProto, weight: Sequence[int]) -> int:
    """Inputs of each output of a linear layer."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return weight[-1] if transposed else weight[max(len(weight) - 2, 0)]
