"""Quantised graphs: 8 bits where a layer computes, fp32 at both ends, and the same every time."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mnv3search.architecture import Architecture
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.keys import saturates_in_8_bits
from mnv3search.latency.runtimes.base import Subject, graph_of
from mnv3search.latency.runtimes.check import SAME_PADDED
from mnv3search.latency.runtimes.int8 import graph_in
from mnv3search.layers import unit_layers, units

UNIT = units(SAME_PADDED)[3]


@pytest.mark.parametrize("subject", [UNIT, SAME_PADDED], ids=["unit", "network"])
def test_every_weight_is_int8_with_a_scale_a_channel(subject: Subject) -> None:
    graph = onnx.load_from_string(graph_in(subject, "int8")).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    parts = units(subject) if isinstance(subject, Architecture) else (subject,)
    learned = [layer for unit in parts for layer in unit_layers(unit) if layer.kernel_size]
    weights = [name for name in tensors if name.endswith(".weight_quantized")]
    assert len(weights) == len(learned)
    for name in weights:
        assert tensors[name].data_type == onnx.TensorProto.INT8
        scale = tensors[name.replace("_quantized", "_scale")]
        assert list(scale.dims) == [tensors[name].dims[0]]
    assert [value.name for value in (*graph.input, *graph.output)] == [INPUT_NAME, OUTPUT_NAME]
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_it_is_repeatable_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.WARNING):
        assert graph_in(UNIT, "int8") == graph_in(UNIT, "int8")
    assert caplog.records == []
    assert logging.getLogger().handlers == handlers


def test_fp32_is_the_graph_itself() -> None:
    assert graph_in(UNIT, "fp32") == graph_of(UNIT)


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "flags : avx avx2", True),
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", "flags : avx2 avx_vnni", False),
        ("aarch64", "Features : fp asimd", False),
        ("x86_64", None, False),
    ],
)
def test_x86_without_vnni_saturates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, saturates: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    assert saturates_in_8_bits(tmp_path / "cpuinfo") is saturates


@pytest.mark.parametrize(("saturates", "largest"), [(True, 64), (False, 127)])
def test_weights_are_timed_in_as_many_bits_as_give_the_right_outputs(
    monkeypatch: pytest.MonkeyPatch, saturates: bool, largest: int
) -> None:
    monkeypatch.setattr("mnv3search.latency.runtimes.int8.saturates_in_8_bits", lambda: saturates)
    model = onnx.load_from_string(graph_in(SAME_PADDED, "int8"))
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer if w.name.endswith(".weight_quantized")]
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) == largest
