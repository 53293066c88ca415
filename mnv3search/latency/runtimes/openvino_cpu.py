"""OpenVINO on the CPU: the same graphs, in memory, one stream, without the half precision that it prefers."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.latency.remote.agent import clock_of
from mnv3search.latency.runtimes.base import CallSession, Precision, Session, Subject, input_image
from mnv3search.latency.runtimes.int8 import graph_in


@contextlib.contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Give the thread its signal stack back: the CPU plugin leaves one that it unmaps, and a Ctrl-C then crashes."""
    sigaltstack = getattr(ctypes.CDLL(None), "sigaltstack", None) if os.name == "posix" else None
    if sigaltstack is None:
        yield
        return
    kept = ctypes.create_string_buffer(64)  # a stack_t, which has 24 bytes
    sigaltstack(None, kept)
    try:
        yield
    finally:
        sigaltstack(kept, None)


class OpenVinoCpu:
    """Times graphs in OpenVINO's CPU plugin; ``int8`` takes the same quantised graphs as onnxruntime.

    At one thread the whole call runs in the caller's, so its CPU time is that of the call.
    """

    name = "openvino"

    def __init__(self, threads: int = 1, precision: Precision = "fp32") -> None:
        try:
            import openvino
        except ImportError:
            raise MissingDependencyError("openvino", "measuring with OpenVINO", extra="openvino") from None
        self._openvino: Any = openvino
        self._core: Any = openvino.Core()
        self.version = str(openvino.__version__).partition("-")[0]  # without the build's commit and branch
        self.threads = threads
        self.precision = precision

    def prepare(self, subject: Subject) -> Session:
        """A request whose input and output lie in memory of ours, so that a call moves none of its own."""
        return self.load(graph_in(subject, self.precision), input_image(subject), str(subject))

    def load(self, graph: bytes, image: NDArray[Any], what: str) -> Session:
        """A request of any graph with one input, which holds ``image``, and one output.

        Raises:
            MeasurementError: openvino refuses the graph.
        """
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = self._core.read_model(graph)
            model.reshape(list(image.shape))
            with _signal_stack_kept():
                request = self._core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise MeasurementError(f"openvino {self.version} refuses the graph of {what}: {error}") from None
        output = np.zeros(tuple(model.outputs[0].shape), dtype=np.float32)
        request.set_input_tensor(self._openvino.Tensor(image, shared_memory=True))
        request.set_output_tensor(self._openvino.Tensor(output, shared_memory=True))
        call = partial(request.infer, share_outputs=True)
        return CallSession(call, output.copy, clock_of(self.threads), memory=(image, output))
