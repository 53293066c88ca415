"""ONNX files of users: counted as the architecture they were made of is, bounded, and never a way to another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from trained_fakes import fake_trained

from mnv3search.cost import count
from mnv3search.errors import ExportError
from mnv3search.export import export_onnx
from mnv3search.families import published
from mnv3search.graph import network_graph
from mnv3search.graph.model_file import OnnxModel, read_model
from mnv3search.latency.runtimes.int8 import graph_in


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1"])
def test_counts_are_those_of_the_architecture(tmp_path: Path, name: str) -> None:
    network = published(name, resolution=64)
    counts = count(network)
    model = read_model(written(tmp_path, network_graph(network)))
    assert (model.madds, model.activations) == (counts.madds, counts.activations)
    # a norm's scale and shift are folded: a bias is left of the two
    assert model.parameters == counts.parameters - sum(layer.out_channels for layer in counts.layers if layer.norm)
    assert (model.shape, model.pixels) == ((1, 3, 64, 64), False)
    assert model.image().shape == (1, 3, 64, 64)


def test_counts_in_8_bits_are_those_of_fp32(tmp_path: Path) -> None:
    network = published("mobilenet_v3_small", resolution=32)
    fp32 = read_model(written(tmp_path, network_graph(network)))
    int8 = read_model(written(tmp_path, graph_in(network, "int8")))
    assert (int8.madds, int8.parameters, int8.activations) == (fp32.madds, fp32.parameters, fp32.activations)


def test_exported_models_with_their_preprocessing(tmp_path: Path) -> None:
    trained = fake_trained()
    counts = count(trained.architecture)
    for batch in ("1", "dynamic"):
        model = read_model(written(tmp_path, export_onnx(trained, batch=batch, with_preprocessing=True)))
        assert model.madds == counts.madds
        assert model.pixels
        assert model.image().dtype == np.uint8
        assert model.shape[0] == 1


def changed(folder: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load_from_string(network_graph(published("mobilenet_v3_small", resolution=32)))
    change(model)
    return written(folder, model.SerializeToString())


def outside(model: Any) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/passwd")


def looping(model: Any) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["input"], ["other"], then_branch=body, else_branch=body))


def second_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1]))


def open_shape(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def huge(model: Any) -> None:
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1_000_000


def batch_of_eight(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def whole_numbers(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (outside, "keeps weights in other files, which are not read"),
        (looping, "branches or loops"),
        (second_input, "it has 2 inputs"),
        (open_shape, "no fixed shape"),
        (huge, "at most 100,000,000"),
        (batch_of_eight, "a batch of 8"),
        (whole_numbers, "neither float32 nor uint8"),
        (lambda model: model.graph.node.pop(), "no valid ONNX model"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_one_line(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    with pytest.raises(ExportError, match=said) as caught:
        read_model(changed(tmp_path, change))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, said in (
        (written(tmp_path, b"no model"), "no valid ONNX model|has 0 inputs"),
        (tmp_path / "absent.onnx", "cannot read"),
        (tmp_path, "it is a folder"),
        (pipe, "a pipe"),
    ):
        with pytest.raises(ExportError, match=said):
            read_model(path)
    monkeypatch.setattr("mnv3search.graph.model_file.MAX_BYTES", 10)
    with pytest.raises(ExportError, match="more than the 10 bytes"):
        read_model(written(tmp_path, b"x" * 11))


def test_a_model_is_named_by_its_path(tmp_path: Path) -> None:
    model = read_model(written(tmp_path, network_graph(published("mobilenet_v3_small", resolution=32))))
    assert isinstance(model, OnnxModel)
    assert str(model) == str(tmp_path / "model.onnx")
