"""MNN on the CPU: the same graphs, put through MNN's own converter; fp32 throughout (precision ``high``)."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.remote.agent import clock_of
from mnv3search.latency.runtimes.base import (
    CallSession,
    Precision,
    Session,
    Subject,
    graph_of,
    input_image,
    only_fp32,
)
from mnv3search.latency.runtimes.conversion import converted, native_output_dropped

# the converter's command reports to a server; this is the function beneath it
CONVERT = """
import sys, _tools
*_, given, made = sys.argv
_tools.mnnconvert(["MNNConvert", "-f", "ONNX", "--modelFile", given, "--MNNModel", made, "--bizCode", "mnv3search"])
"""


class MnnCpu:
    """Times graphs in MNN's CPU backend; fp32."""

    name = "mnn"

    def __init__(self, threads: int = 1, precision: Precision = "fp32") -> None:
        only_fp32(self.name, precision)
        try:
            with native_output_dropped():
                import MNN
                from MNN import expr, nn
        except ImportError:
            raise MissingDependencyError("MNN", "measuring with MNN", extra="mnn") from None
        self._express: Any = expr
        self._nn: Any = nn
        self.version: str = MNN.version()
        self.threads = threads
        self.precision: Precision = precision

    def prepare(self, subject: Subject) -> Session:
        """The converted graph as a module: a session's call, in MNN's older interface, writes over its own input."""
        model = converted(["-c", CONVERT], graph_of(subject), f"converting {subject} for mnn {self.version}")
        with tempfile.TemporaryDirectory(prefix="mnv3search-") as folder, native_output_dropped():
            path = Path(folder) / "model.mnn"
            path.write_bytes(model)
            settings = {"backend": "CPU", "precision": "high", "numThread": self.threads}
            manager = self._nn.create_runtime_manager((settings,))
            module = self._nn.load_module_from_file(
                str(path), [INPUT_NAME], [OUTPUT_NAME], runtime_manager=manager, shape_mutable=False
            )
        if module is None:
            raise MeasurementError(f"mnn {self.version} cannot load the graph of {subject}; use another runtime")
        image, express = input_image(subject), self._express
        entering = express.const(image, list(image.shape), express.data_format.NCHW, express.dtype.float)
        call = partial(module.forward, [entering])
        return CallSession(call, lambda: np.array(call()[0].read(), dtype=np.float32), clock_of(self.threads))
