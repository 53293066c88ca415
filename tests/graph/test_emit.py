"""Emitted graphs compute what their weights say, for everything that an architecture can express."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.graph import INPUT_NAME, OPSET, OUTPUT_NAME, Weights, network_graph, network_weights, unit_graph
from mnv3search.layers import Layer, Unit, unit_layers, unit_names, units
from strategies import architectures

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

NAMES = (
    "mobilenet_v1_fanrencli",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_small_fanrencli",
    "mobilenet_v3_small_xiaolai",
    "efficientnet_b0",
)


def run(graph: bytes, image: np.ndarray, outputs: list[str] | None = None) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, {INPUT_NAME: image}))


def image_of(architecture: Architecture, seed: int = 3) -> np.ndarray:
    shape = (1, 3, architecture.resolution, architecture.resolution)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


ACTIVATIONS = {
    "": lambda x: x,
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "hard_swish": torch.nn.functional.hardswish,
    "swish": torch.nn.functional.silu,
    "hard_sigmoid": torch.nn.functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
}


def tensorflow_same(x: Any, kernel: int, stride: int) -> Any:
    """Pad as TensorFlow documents ``SAME``: by the remainder of the size, the odd pixel at the end."""
    size = x.shape[-1]
    total = max(kernel - stride if size % stride == 0 else kernel - size % stride, 0)
    return torch.nn.functional.pad(x, [total // 2, total - total // 2] * 2)


def evaluate(architecture: Architecture, weights: Weights, image: np.ndarray) -> np.ndarray:
    """The network by torch's functions in double precision, written apart from the emitter."""
    x = torch.from_numpy(image).double()
    for name, unit in zip(unit_names(architecture), units(architecture), strict=True):
        x = evaluate_unit(unit, name, weights, x)
    found: np.ndarray = x.numpy()
    return found


def evaluate_unit(unit: Unit, name: str, weights: Weights, x: Any) -> Any:
    entered, features, shortcut = x, x, x

    def learned(layer: Layer) -> list[Any]:
        found = [weights.get(f"{name}.{layer.name}.{part}") for part in ("weight", "bias")]
        return [None if values is None else torch.from_numpy(values).double() for values in found]

    for layer in unit_layers(unit):
        if layer.kind in {"squeeze_pool", "pool"}:
            features, x = x, x.mean((2, 3), keepdim=layer.kind == "squeeze_pool")
        elif layer.kind == "scale":
            x = features * x
        elif layer.kind == "add":
            x = x + shortcut
        elif layer.kind in {"hidden", "classifier"}:
            x = ACTIVATIONS[layer.activation](torch.nn.functional.linear(x, *learned(layer)))
        else:
            source, padding = (entered if layer.kind == "shortcut" else x), layer.kernel_size // 2
            if unit.padding == "same":
                source, padding = tensorflow_same(source, layer.kernel_size, layer.stride), 0
            weight, bias = learned(layer)
            out = torch.nn.functional.conv2d(source, weight, bias, layer.stride, padding, groups=layer.groups)
            if layer.kind == "shortcut":
                shortcut = out
            else:
                x = ACTIVATIONS[layer.activation](out)
    return x


def assert_same_outputs(architecture: Architecture) -> None:
    weights, image = network_weights(architecture, seed=5), image_of(architecture)
    (found,) = run(network_graph(architecture, seed=5), image, [OUTPUT_NAME])
    truth = evaluate(architecture, weights, image)
    assert found.shape == (1, architecture.classes)
    assert np.abs(found - truth).max() <= 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("name", NAMES)
def test_published_networks_compute_what_torch_computes(name: str) -> None:
    assert_same_outputs(published(name, resolution=64))


@settings(max_examples=40)
@given(architectures())
def test_any_architecture_computes_what_torch_computes(architecture: Architecture) -> None:
    assert_same_outputs(architecture)


@pytest.mark.parametrize("name", NAMES)
def test_activations_stay_near_one(name: str) -> None:
    architecture = published(name)
    model = onnx.load_from_string(network_graph(architecture))
    inner = [output for node in model.graph.node for output in node.output if output != OUTPUT_NAME]
    for output in inner:
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    tensors = run(model.SerializeToString(), image_of(architecture, seed=8), [*inner, OUTPUT_NAME])
    for output, values in zip([*inner, OUTPUT_NAME], tensors, strict=True):
        size = np.abs(values)
        assert 0.1 < np.sqrt(np.mean(values.astype(np.float64) ** 2)) < 10, output
        assert np.mean(size == 0) < 0.75, output
        assert not ((size > 0) & (size < np.finfo(np.float32).tiny)).any(), f"{output} has subnormal values"


@settings(max_examples=25)
@given(architectures(max_blocks=2), st.integers(0, 3))
@example(published("mobilenet_v3_small_preprint"), 2)
def test_units_take_and_give_the_shapes_of_their_network(architecture: Architecture, index: int) -> None:
    parts = units(architecture)
    index = min(index, len(parts) - 1)
    unit, last = parts[index], unit_layers(parts[index])[-1]
    shape = (1, unit.in_channels, unit.in_size, unit.in_size)
    graph = unit_graph(unit)
    (found,) = run(graph, np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    if unit.classes:
        assert found.shape == (1, architecture.classes)
    else:
        after = parts[index + 1]
        assert found.shape == (1, after.in_channels, after.in_size, after.in_size)
        assert found.shape[1] == last.out_channels
    assert np.isfinite(found).all()


def test_graphs_are_valid_reproducible_and_use_native_operators() -> None:
    graph = network_graph(published("mobilenet_v3_small", resolution=32))
    assert graph == network_graph(published("mobilenet_v3_small", resolution=32))
    assert graph != network_graph(published("mobilenet_v3_small", resolution=32), seed=1)
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET >= 14
    operators = [node.op_type for node in model.graph.node]
    # 1 stem + 10 expansions (the first block has none) + 11 depthwise + 11 projections + 1 feature, and 9 SE of 2
    assert operators.count("Conv") == 34 + 18
    assert operators.count("HardSigmoid") == 9
    # stem, feature, hidden, and two in each of the eight h-swish blocks
    assert operators.count("HardSwish") == 3 + 16
    assert "BatchNormalization" not in operators


def test_given_weights_are_used() -> None:
    architecture = published("mobilenet_v3_small", resolution=32)
    weights = network_weights(architecture)
    weights["head.classifier.weight"] = np.zeros_like(weights["head.classifier.weight"])
    (found,) = run(network_graph(architecture, weights=weights), image_of(architecture))
    np.testing.assert_allclose(found[0], weights["head.classifier.bias"], rtol=1e-6)


def test_missing_onnx_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mnv3search.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="pip install onnx"):
        network_graph(published("mobilenet_v3_small", resolution=32))
