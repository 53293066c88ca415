"""LiteRT (TensorFlow Lite) on the CPU, with XNNPACK: whole networks alone, as converting one takes half a minute.

The converter takes long, prints much and starts threads of its own, none of which belongs where networks are timed; so
it runs in a process of its own: ``python -m mnv3search.latency.runtimes.litert_cpu ARCHITECTURE.json MODEL.tflite``.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mnv3search.architecture import Architecture, dump_architecture, load_architecture
from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.latency.remote.agent import clock_of
from mnv3search.latency.runtimes.base import (
    WEIGHT_SEED,
    CallSession,
    Image,
    Precision,
    Session,
    Subject,
    input_image,
    only_fp32,
)
from mnv3search.latency.runtimes.conversion import converted, native_output_dropped

CONVERT = ["-m", "mnv3search.latency.runtimes.litert_cpu"]


class LiteRtCpu:
    """Times whole networks, converted from torch by litert-torch, in LiteRT's interpreter; fp32."""

    name = "litert"
    whole_only = True

    def __init__(self, threads: int = 1, precision: Precision = "fp32") -> None:
        only_fp32(self.name, precision)
        try:
            from ai_edge_litert import interpreter
        except ImportError:
            raise MissingDependencyError("ai-edge-litert", "measuring with LiteRT", extra="litert") from None
        if not _is_installed("litert_torch"):  # imported only where it converts
            raise MissingDependencyError("litert-torch", "measuring with LiteRT", extra="litert")
        self._interpreter: Any = interpreter.Interpreter
        self.version = version("ai-edge-litert")
        self.threads = threads
        self.precision: Precision = precision

    def prepare(self, subject: Subject) -> Session:
        """An interpreter of the converted network with its input in place."""
        if not isinstance(subject, Architecture):
            raise MeasurementError(
                "litert times whole networks alone, as converting one takes half a minute; measure the layers of a "
                "space in onnxruntime, openvino or mnn"
            )
        what = f"converting a network for litert {self.version}"
        model = converted(CONVERT, dump_architecture(subject).encode(), what)
        with native_output_dropped():
            interpreter = self._interpreter(model_content=model, num_threads=self.threads)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], input_image(subject))
            interpreter.invoke()  # XNNPACK packs the weights in the first call
        leaving = interpreter.get_output_details()[0]["index"]

        def read() -> Image:
            return np.array(interpreter.get_tensor(leaving), dtype=np.float32)

        return CallSession(interpreter.invoke, read, clock_of(self.threads), memory=model)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # barred from being imported
        return False


def main(given: Path, made: Path) -> None:
    """Write the network of an architecture file as a LiteRT model; input and output as torch's."""
    import litert_torch
    import torch

    from mnv3search.network.folded import folded_network

    architecture = load_architecture(given)
    example = (torch.from_numpy(input_image(architecture)),)
    litert_torch.convert(folded_network(architecture, WEIGHT_SEED), example).export(str(made))


if __name__ == "__main__":
    main(Path(sys.argv[-2]), Path(sys.argv[-1]))
