"""onnxruntime on this machine's CPU, in the same session as the agent's on a board."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.latency.remote import agent
from mnv3search.latency.runtimes.base import Precision, Session, Subject, import_onnxruntime, input_image
from mnv3search.latency.runtimes.int8 import graph_in


class OnnxRuntime:
    """Times graphs in onnxruntime's CPU provider; ``int8`` quantises them."""

    name = "onnxruntime"

    def __init__(self, threads: int = 1, precision: Precision = "fp32") -> None:
        try:
            self.version: str = import_onnxruntime().__version__
        except ImportError:
            raise MissingDependencyError("onnxruntime", "measuring this machine") from None
        self.threads = threads
        self.precision = precision

    def prepare(self, subject: Subject) -> Session:
        """A session of the subject's graph, see :meth:`load`."""
        return self.load(graph_in(subject, self.precision), input_image(subject), str(subject))

    def load(self, graph: bytes, image: NDArray[Any], what: str) -> Session:
        """A session of any graph of one input; its first output is float32 and is read.

        Raises:
            MeasurementError: onnxruntime refuses the graph.
        """
        try:
            session = agent.Session(graph, image, self.threads)
            session.time_once()
        except Exception as error:  # onnxruntime raises classes of its own that share only Exception
            raise MeasurementError(f"onnxruntime {self.version} refuses the graph of {what}: {error}") from None
        return session
