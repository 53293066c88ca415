"""An exported model, read back: what it carries, and its logits in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import ExportError, MissingDependencyError
from mnv3search.export.description import Description, read_description
from mnv3search.export.onnx_file import Batch
from mnv3search.export.pixels import Pixels, model_input
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.runtimes.base import import_onnxruntime
from mnv3search.reading import read_bounded

if TYPE_CHECKING:
    from mnv3search.training.data.preprocessing import Preprocessing

MAX_FILE_BYTES = 2_000_000_000  # what a model in one file may have
Logits = NDArray[np.float32]


class ExportedModel:
    """A model of :func:`~mnv3search.export.onnx_file.export_onnx` or :func:`~mnv3search.export.int8.export_int8`.

    Attributes:
        description: what it carries.
        batch: images that a call takes: ``1``, or ``dynamic`` for any number.
    """

    def __init__(self, content: bytes, where: str = "the exported model", threads: int = 0) -> None:
        """Load it.

        Args:
            content: the file's bytes.
            where: for messages.
            threads: of one call; 0 for as many as onnxruntime likes.

        Raises:
            MissingDependencyError: onnxruntime is not installed.
            ExportError: no ONNX model, one of another program, or one whose parts do not belong together.
        """
        try:
            onnxruntime = import_onnxruntime()
        except ImportError:
            raise MissingDependencyError("onnxruntime", "running an exported model") from None
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # idle threads that spin slow a busy machine down by far
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own that share only Exception
            said = " ".join(str(error).split())[:200]
            raise ExportError(
                f"onnxruntime cannot load {where}: {said}; is it an ONNX model? Export it again"
            ) from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.description: Description = read_description(metadata, where)
        self.batch: Batch = _checked_batch(self._session, self.description, where)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the logits."""
        return self.description.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """From an image to the input."""
        return self.description.preprocessing

    def logits(self, pixels: Pixels) -> Logits:
        """(n, R, R, 3) uint8 RGB, resized and cropped, to (n, classes)."""
        given = model_input(pixels, self.description.preprocessing, self.description.input)
        parts = [given[i : i + 1] for i in range(len(given))] if self.batch == "1" else [given]
        return np.concatenate([self._session.run([OUTPUT_NAME], {INPUT_NAME: part})[0] for part in parts])


def load_exported(path: str | Path) -> ExportedModel:
    """The exported model in a file.

    Raises:
        ExportError: no such file, one too large, or none that mnv3search exported.
    """
    path = Path(path)
    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}") from None
    return ExportedModel(content, str(path))


def _checked_batch(session: Any, description: Description, where: str) -> Batch:
    """How many images a call takes; the model's input and output must be those that its description says."""
    side = description.preprocessing.resolution
    pixels, kind = ([side, side, 3], "tensor(uint8)") if description.input == "uint8" else (
        [3, side, side], "tensor(float)"
    )  # fmt: skip
    given, made = session.get_inputs(), session.get_outputs()
    if (
        not all(one.shape[0] == 1 or isinstance(one.shape[0], str) for one in given)
        or [(one.name, one.type, one.shape[1:]) for one in given] != [(INPUT_NAME, kind, pixels)]
        or [(one.name, one.shape[1:]) for one in made] != [(OUTPUT_NAME, [len(description.classes)])]
    ):  # fmt: skip
        raise ExportError(f"{where} has other inputs or outputs than its metadata say; export it again")
    return "1" if given[0].shape[0] == 1 else "dynamic"
