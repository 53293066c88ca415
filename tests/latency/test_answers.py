"""Networks as the command line names them, priced and timed whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latency_fakes import KnownRuntime, KnownSession, known_device, whole_ms
from trained_fakes import fake_trained

from mnv3search.errors import DeviceError, ExportError, MeasurementError, UnknownNameError
from mnv3search.export import ExportedModel, export_onnx
from mnv3search.export.exported import Batch
from mnv3search.families import published
from mnv3search.graph import network_graph
from mnv3search.graph.model_file import read_model
from mnv3search.latency import answers
from mnv3search.latency.answers import latencies
from mnv3search.latency.runtimes.base import LoadsGraphs, Session
from mnv3search.latency.runtimes.int8 import graph_in
from mnv3search.latency.runtimes.registry import load_runtime

NAMES = ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2@0.5")


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownRuntime:
    """``host`` is a made-up machine whose drift wanders by a half."""
    runtime = KnownRuntime(drift=lambda call: 1 + 0.5 * (call // 40 % 3))

    def load(text: str) -> Any:
        assert text == "host"
        return known_device(runtime, tmp_path)

    monkeypatch.setattr(answers, "load_device", load)
    return runtime


def test_ratios_are_those_of_the_same_rounds(made_up: KnownRuntime) -> None:
    found = latencies(NAMES, "host", whole=True)
    assert (found.device, found.kind, found.against) == ("host:known", "measured", NAMES[0])
    large, small = whole_ms([published("mobilenet_v3_large"), published("mobilenet_v3_small")])
    first, second, _ = found.rows
    assert first.ratio is not None
    assert (first.ratio.value, first.ratio.low, first.ratio.high) == (1.0, 1.0, 1.0)
    assert second.ratio is not None
    assert second.ratio.low <= small / large <= second.ratio.high
    assert second.ratio.value == pytest.approx(small / large, rel=0.02)
    assert second.minimum_ms is not None
    assert second.minimum_ms <= second.latency_ms
    assert found.rounds is not None
    assert found.rounds >= 40


def test_against_another_of_them_and_one_more(made_up: KnownRuntime) -> None:
    among = latencies(NAMES, "host", whole=True, against=NAMES[1])
    assert [row.name for row in among.rows] == list(NAMES)
    assert among.rows[1].ratio is not None
    assert among.rows[1].ratio.value == 1.0
    other = latencies(NAMES[1:], "host", whole=True, against=NAMES[0])
    assert ([row.name for row in other.rows], other.against) == (list(NAMES), NAMES[0])


class TakesFiles(KnownRuntime):
    """Loads any graph: one in 8 bits takes half as long."""

    def load(self, graph: bytes, image: np.ndarray, what: str) -> Session:
        return KnownSession(self, 1.0 if b"QuantizeLinear" in graph else 2.0)


def test_model_files_take_turns_with_networks(made_up: KnownRuntime, tmp_path: Path) -> None:
    small = published("mobilenet_v3_small", resolution=32)
    fp32, int8 = tmp_path / "a.onnx", tmp_path / "a_int8.onnx"
    fp32.write_bytes(network_graph(small))
    int8.write_bytes(graph_in(small, "int8"))
    names = [str(fp32), str(int8), NAMES[0]]
    with pytest.raises(DeviceError, match=r"a\.onnx is a model file, which is timed as it stands; add --whole"):
        latencies(names, "host")
    with pytest.raises(MeasurementError, match=r"known cannot take .*a\.onnx as it is; time ONNX files in onnxruntime"):
        latencies(names, "host", whole=True)
    made_up.__class__ = TakesFiles
    found = latencies(names, "host", whole=True)
    assert [row.name for row in found.rows] == names
    assert found.rows[1].ratio is not None
    assert found.rows[1].ratio.value == pytest.approx(0.5, rel=0.02)
    with pytest.raises(ExportError, match=r"cannot read .*absent\.onnx"):
        latencies([str(tmp_path / "absent.onnx")], "host", whole=True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_real_runtimes_take_model_files(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    trained = fake_trained()
    batches: tuple[tuple[Batch, bool], ...] = (("1", False), ("dynamic", True))
    for batch, pixels in batches:
        path = tmp_path / f"{batch}.onnx"
        path.write_bytes(export_onnx(trained, batch=batch, with_preprocessing=pixels))
        model, loads = read_model(path), load_runtime(runtime)
        assert isinstance(loads, LoadsGraphs)
        session = loads.load(model.content, model.image(), str(model))
        assert session.time_once() > 0
        expected = ExportedModel(model.content)._session.run(None, {"input": model.image()})[0]
        np.testing.assert_allclose(session.output(), expected, rtol=1e-3, atol=1e-4)


def test_one_network_has_nothing_to_be_set_against(made_up: KnownRuntime) -> None:
    found = latencies(NAMES[:1], "host", whole=True)
    assert (found.against, found.rows[0].ratio) == (None, None)


def test_estimates_are_priced() -> None:
    found = latencies(NAMES, "pixel1")
    assert (found.device, found.kind, found.against, found.rounds) == ("pixel1", "estimated", None, None)
    assert found.rows[0].latency_ms == pytest.approx(51.2, rel=0.05)
    assert all(row.error_ms and row.ratio is None and row.minimum_ms is None for row in found.rows)


def test_what_cannot_be_timed() -> None:
    with pytest.raises(DeviceError, match="--device host"):
        latencies(NAMES, "pixel1", whole=True)
    with pytest.raises(DeviceError, match="add --whole"):
        latencies(NAMES, "host", against="mobilenet_v2")
    with pytest.raises(UnknownNameError, match="mobilenet_v9"):
        latencies(NAMES, "host", whole=True, against="mobilenet_v9")
