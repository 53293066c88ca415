"""onnxruntime on the CPU: graphs in memory, sequential execution, no spinning threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.latency.runtimes.base import (
    CallSession,
    Precision,
    Session,
    Subject,
    clock_of,
    import_onnxruntime,
    input_image,
)
from mnv3search.latency.runtimes.int8 import graph_in


class OnnxRuntime:
    """Times graphs in onnxruntime's CPU provider.

    Args:
        threads: intra-operator threads, at least 1.
        precision: ``int8`` quantises the graphs, see :mod:`~mnv3search.latency.runtimes.int8`.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """

    name = "onnxruntime"

    def __init__(self, threads: int = 1, precision: Precision = "fp32") -> None:
        try:
            onnxruntime = import_onnxruntime()
        except ImportError:
            raise MissingDependencyError("onnxruntime", "measuring this machine") from None
        self._ort: Any = onnxruntime
        self.version: str = onnxruntime.__version__
        self.threads = threads
        self.precision = precision

    def prepare(self, subject: Subject) -> Session:
        """A session with its input and output bound, so that a call moves no memory of its own."""
        return self.load(graph_in(subject, self.precision), input_image(subject), str(subject))

    def load(self, graph: bytes, image: NDArray[Any], what: str) -> Session:
        """A session of any graph with one input, which holds ``image``; its first output is float32 and is read.

        Raises:
            MeasurementError: onnxruntime refuses the graph; ``what`` says of what it is.
        """
        try:
            session = self._ort.InferenceSession(graph, self._options(), providers=["CPUExecutionProvider"])
            binding = session.io_binding()
            entering, leaving = session.get_inputs()[0], session.get_outputs()[0]
            output = np.zeros((len(image), *leaving.shape[1:]), dtype=np.float32)
            binding.bind_ortvalue_input(entering.name, self._ort.OrtValue.ortvalue_from_numpy(image))
            binding.bind_ortvalue_output(leaving.name, self._ort.OrtValue.ortvalue_from_numpy(output))
            call = partial(session.run_with_iobinding, binding)
            call()
        except Exception as error:  # onnxruntime raises classes of its own that share only Exception
            raise MeasurementError(f"onnxruntime {self.version} refuses the graph of {what}: {error}") from None
        return CallSession(call, output.copy, clock_of(self.threads), held=(image, output))

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # idle threads that spin take the cores from whatever is timed next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options
