"""An exported model: its description (classes, preprocessing, architecture), its input and its logits.

The description is in the model's ``metadata_props``, each entry a text of its own that any program can read, and in a
JSON file next to it. Files of unknown origin are checked when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import ExportError, MissingDependencyError
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.runtimes.base import import_onnxruntime
from mnv3search.reading import parse_json, read_bounded
from mnv3search.records import UNREADABLE, Record

if TYPE_CHECKING:
    import onnx

    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork

FORMAT = "mnv3search.exported"
VERSION = 1
PREFIX = "mnv3search."
MAX_CLASSES = 1_000_000
MAX_FILE_BYTES = 2_000_000_000
NOISE_SEED = 0
CHUNK_PIXELS = 32 * 32 * 1024  # about 12 MB of normalised pixels at a time
Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]
_JSON = ("classes", "preprocessing", "architecture", "facts", "quantisation")
Batch = Literal["1", "dynamic"]
Input = Literal["float32", "uint8"]
PrecisionName = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a user of an exported model must know.

    Attributes:
        classes: names of the logits, in their order.
        preprocessing: from an image to the input.
        input: ``float32`` normalised (N, 3, R, R), or ``uint8`` pixels (N, R, R, 3).
        precision: input and output are the same in both.
        facts: of the trained network; plain JSON values.
        quantisation: for ``int8``, how it was quantised; plain JSON values.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    input: Input = "float32"
    precision: PrecisionName = "fp32"
    facts: Mapping[str, object] = field(default_factory=dict)
    quantisation: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, trained: TrainedNetwork) -> Description:
        """Of a trained network's fp32 model with a normalised input."""
        return cls(trained.architecture, trained.classes, trained.preprocessing, facts=dict(trained.facts))

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "producer": f"mnv3search {_own_version()}",
            "precision": self.precision,
            "input": self.input,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_mapping(),
            "architecture": to_mapping(self.architecture),
            "facts": dict(self.facts),
            "quantisation": dict(self.quantisation),
        }


def _own_version() -> str:
    try:
        return version("mnv3search")
    except PackageNotFoundError:
        return "unknown"


def write_description(model: onnx.ModelProto, description: Description) -> None:
    """Put ``description`` into the model's metadata, in place of what was there."""
    import onnx

    texts = {
        f"{PREFIX}{key}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        for key, value in description.to_mapping().items()
    }
    onnx.helper.set_model_props(model, texts)


def read_description(metadata: Mapping[str, str], where: str) -> Description:
    """The description in an ONNX model's metadata."""
    from mnv3search.training.data.preprocessing import Preprocessing

    texts = {key.removeprefix(PREFIX): text for key, text in metadata.items() if key.startswith(PREFIX)}
    if texts.get("format") != FORMAT:
        raise ExportError(
            f"{where} was not exported by mnv3search: it carries no class names or preprocessing; make one with "
            "mnv3search export RUN"
        )
    if texts.get("version") != str(VERSION):
        raise ExportError(f"{where} has version {texts.get('version')!r}; this release reads version {VERSION}")
    try:
        values = Record({name: parse_json(texts[name]) for name in _JSON if name in texts})
        classes = values.list("classes")
        if not 1 <= len(classes) <= MAX_CLASSES or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"classes must be 1 to {MAX_CLASSES:,} names")
        return Description(
            from_mapping(values.value("architecture")), tuple(classes),
            Preprocessing.from_mapping(values.value("preprocessing")),
            _one_of(texts, "input", get_args(Input)), _one_of(texts, "precision", get_args(PrecisionName)),
            values.record("facts").content, values.record("quantisation").content,
        )  # fmt: skip
    except UNREADABLE as error:
        raise ExportError(f"the metadata of {where} cannot be used: {error}; export it again") from None


def _one_of(texts: Mapping[str, str], key: str, known: tuple[Any, ...]) -> Any:
    if texts.get(key) not in known:
        raise ValueError(f"{key} is {texts.get(key)!r}; it must be {' or '.join(known)}")
    return texts[key]


class PixelChunk(NamedTuple):
    """Some images: (n, R, R, 3) uint8 RGB, resized and cropped, and their labels, (n,); -1 where there are none."""

    pixels: Pixels
    labels: NDArray[np.int64]


def pixel_chunks(images: LabelledImages, preprocessing: Preprocessing, most: int | None = None) -> Iterator[PixelChunk]:
    """All ``images``, in order, in chunks of bounded memory, and of at most ``most`` images."""
    size = min(chunk_size(preprocessing.resolution), most or len(images) or 1)
    for first in range(0, len(images), size):
        numbers = range(first, min(first + size, len(images)))
        pixels = np.concatenate([preprocessing.resize_and_crop(images.read(number)[None]) for number in numbers])
        yield PixelChunk(pixels, images.labels[first : first + size])


def noise_chunks(count: int, resolution: int, seed: int = NOISE_SEED) -> Iterator[PixelChunk]:
    """Seeded pixels in place of images: blocks of even colour of many sizes, as flat and as busy as photographs."""
    rng, size = np.random.default_rng(seed), chunk_size(resolution)
    for first in range(0, count, size):
        pixels = np.stack([_noise(rng, resolution) for _ in range(min(size, count - first))])
        yield PixelChunk(pixels, np.full(len(pixels), -1, dtype=np.int64))


def _noise(rng: np.random.Generator, side: int) -> Pixels:
    cells = int(rng.integers(2, max(side // 2, 2) + 1))
    coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    cell = np.arange(side) * cells // side
    return coarse[cell][:, cell]


def chunk_size(resolution: int) -> int:
    """Images in one chunk."""
    return max(1, CHUNK_PIXELS // resolution**2)


def model_input(pixels: Pixels, preprocessing: Preprocessing, kind: Input) -> NDArray[Any]:
    """The input of a model of this kind for (n, R, R, 3) pixels, contiguous."""
    return np.ascontiguousarray(pixels if kind == "uint8" else preprocessing.normalised(pixels).numpy())


class ExportedModel:
    """A model of :func:`~mnv3search.export.onnx_file.export_onnx` or :func:`~mnv3search.export.onnx_file.export_int8`.

    Attributes:
        description: of its metadata.
        batch: images that a call takes: ``1``, or ``dynamic`` for any number.
    """

    def __init__(self, content: bytes, where: str = "the exported model", threads: int = 0) -> None:
        """Load it.

        Args:
            content: the file's bytes.
            where: for messages.
            threads: of one call; 0 for onnxruntime's default.

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
            reason = " ".join(str(error).split())[:200]
            raise ExportError(
                f"onnxruntime cannot load {where}: {reason}; is it an ONNX model? Export it again"
            ) from None
        self.description = read_description(self._session.get_modelmeta().custom_metadata_map, where)
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
    try:
        content = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}") from None
    return ExportedModel(content, str(path))


def _checked_batch(session: Any, description: Description, where: str) -> Batch:
    """How many images a call takes; the model's input and output must be those of its description."""
    side = description.preprocessing.resolution
    pixels = [side, side, 3] if description.input == "uint8" else [3, side, side]
    kind = "tensor(uint8)" if description.input == "uint8" else "tensor(float)"
    inputs, outputs = session.get_inputs(), session.get_outputs()
    batches = [one.shape[0] for one in inputs if one.shape]
    if (
        [(one.name, one.type, one.shape[1:]) for one in inputs] != [(INPUT_NAME, kind, pixels)]
        or [(one.name, one.shape[1:]) for one in outputs] != [(OUTPUT_NAME, [len(description.classes)])]
        or not (batches == [1] or isinstance(batches[0], str))
    ):
        raise ExportError(f"{where} has other inputs or outputs than its metadata say; export it again")
    return "1" if batches == [1] else "dynamic"
