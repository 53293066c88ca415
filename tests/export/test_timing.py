"""Exported models are timed in turn: ratios from calls of the same rounds, by a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from trained_fakes import SIDE, fake_trained

from mnv3search.export import ExportedModel, export_onnx
from mnv3search.export.exported import Description
from mnv3search.export.timing import time_models
from mnv3search.latency.measured.measuring import MeasuringPlan
from mnv3search.latency.runtimes.base import Precision, Subject
from mnv3search.latency.runtimes.onnx_runtime import OnnxRuntime

PLAN = MeasuringPlan(rounds=16, min_seconds=0.0, max_rounds=16, warmup=1, lead_calls=1)


@dataclass
class Session:
    milliseconds: float

    def time_once(self) -> float:
        return self.milliseconds / 1e3

    def output(self) -> np.ndarray:
        return np.zeros((1, 3), dtype=np.float32)


@dataclass
class Runtime:
    """Takes as many milliseconds as a graph has bytes."""

    name: str = "fake"
    version: str = "1"
    threads: int = 1
    precision: Precision = "fp32"
    images: list[np.ndarray] = field(default_factory=list)

    def prepare(self, subject: Subject) -> Any:
        raise NotImplementedError

    def load(self, graph: bytes, image: np.ndarray, what: str) -> Any:
        self.images.append(image)
        return Session(float(len(graph)))


def test_the_ratio_is_of_the_last_to_the_first() -> None:
    runtime, reported = Runtime(), list[int]()
    description = Description.of(fake_trained())
    found = time_models(
        {"fp32": b"12345678", "int8": b"1234"}, description, runtime=runtime, plan=PLAN,
        progress=reported.append,
    )  # fmt: skip
    assert (found.runtime, found.threads, found.rounds) == ("fake 1", 1, 16)
    assert {name: one.latency_ms for name, one in found.models.items()} == pytest.approx({"fp32": 8.0, "int8": 4.0})
    assert found.ratio is not None
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.models["fp32"].error_ms >= 0
    assert reported == [*range(1, 17)]
    assert {image.shape for image in runtime.images} == {(1, 3, SIDE, SIDE)}
    assert time_models({"fp32": b"1"}, description, runtime=runtime, plan=PLAN).ratio is None


@pytest.mark.parametrize("with_preprocessing", [False, True], ids=["normalised", "pixels"])
def test_onnxruntime_times_an_exported_model(with_preprocessing: bool) -> None:
    trained = fake_trained()
    content = export_onnx(trained, batch="dynamic", with_preprocessing=with_preprocessing)
    found = time_models({"fp32": content}, ExportedModel(content).description, plan=PLAN)
    assert found.runtime == f"onnxruntime {OnnxRuntime().version}"
    assert 0 < found.models["fp32"].minimum_ms <= found.models["fp32"].latency_ms * 1.5
