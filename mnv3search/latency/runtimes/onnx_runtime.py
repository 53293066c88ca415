"""onnxruntime on the CPU: graphs in memory, sequential execution, no spinning threads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.runtimes.base import (
    CallSession,
    Image,
    Precision,
    Session,
    Subject,
    clock_of,
    graph_of,
    input_image,
)


class _BoundCall(NamedTuple):
    """A call on bound memory, which the binding itself does not keep from being given to others."""

    session: Any
    binding: Any
    held: tuple[Image, Image]

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)


class OnnxRuntime:
    """Times graphs in onnxruntime's CPU provider.

    Args:
        threads: intra-operator threads, at least 1.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """

    name = "onnxruntime"
    precision: Precision = "fp32"

    def __init__(self, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError("onnxruntime", "measuring this machine") from None
        self._ort: Any = onnxruntime
        self.version: str = onnxruntime.__version__
        self.threads = threads

    def prepare(self, subject: Subject) -> Session:
        """A session with its input and output bound, so that a call moves no memory of its own."""
        graph = graph_of(subject)
        try:
            session = self._ort.InferenceSession(graph, self._options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own that share only Exception
            raise MeasurementError(f"onnxruntime {self.version} refuses the graph of {subject}: {error}") from None
        binding = session.io_binding()
        image, output = input_image(subject), np.zeros(session.get_outputs()[0].shape, dtype=np.float32)
        binding.bind_ortvalue_input(INPUT_NAME, self._ort.OrtValue.ortvalue_from_numpy(image))
        binding.bind_ortvalue_output(OUTPUT_NAME, self._ort.OrtValue.ortvalue_from_numpy(output))
        call = _BoundCall(session, binding, (image, output))
        return CallSession(call, output.copy, clock_of(self.threads))

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # idle threads that spin take the cores from whatever is timed next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options
