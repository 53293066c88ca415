"""An exported model read back: its description (classes, preprocessing, architecture), its input and its logits.

The description stands in the model's ``metadata_props``, each entry a text of its own that any program can read, and in
a JSON file beside it. What is read back from a file of unknown origin is checked.
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
from mnv3search.errors import ExportError, MissingDependencyError, Mnv3SearchError
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.runtimes.base import import_onnxruntime
from mnv3search.reading import parse_json, read_bounded

if TYPE_CHECKING:
    import onnx

    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork

FORMAT = "mnv3search.exported"
VERSION = 1
PREFIX = "mnv3search."
MAX_CLASSES = 1_000_000
Batch = Literal["1", "dynamic"]
Input = Literal["float32", "uint8"]
PrecisionName = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a user of an exported model must know.

    Attributes:
        architecture: of the network.
        classes: names of the logits, in their order.
        preprocessing: from an image to the input.
        input: ``float32`` normalised (N, 3, R, R), or ``uint8`` pixels (N, R, R, 3);
            the file says whether N is 1 or any.
        precision: ``fp32`` or ``int8``; input and output are the same in both.
        facts: what is known of the trained network; plain JSON values.
        quantisation: how it was quantised, for ``int8``; plain JSON values.
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
        """The description of a trained network's fp32 model, with a normalised input."""
        return cls(trained.architecture, trained.classes, trained.preprocessing, facts=dict(trained.facts))

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "producer": f"mnv3search {own_version()}",
            "precision": self.precision,
            "input": self.input,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_mapping(),
            "architecture": to_mapping(self.architecture),
            "facts": dict(self.facts),
            "quantisation": dict(self.quantisation),
        }


def own_version() -> str:
    """The installed version of this package, or ``unknown``."""
    try:
        return version("mnv3search")
    except PackageNotFoundError:
        return "unknown"


def write_description(model: onnx.ModelProto, description: Description) -> None:
    """Put ``description`` into the model's metadata, in place of whatever stood there."""
    import onnx

    entries = {key: _text(value) for key, value in description.to_mapping().items()}
    onnx.helper.set_model_props(model, {f"{PREFIX}{key}": text for key, text in entries.items()})


def read_description(metadata: Mapping[str, str], where: str) -> Description:
    """The description in an ONNX model's metadata.

    Raises:
        ExportError: it is of another program, of a later version, or damaged.
    """
    from mnv3search.training.data.preprocessing import Preprocessing

    if metadata.get(f"{PREFIX}format") != FORMAT:
        raise ExportError(
            f"{where} was not exported by mnv3search: it carries no class names or preprocessing; make one with "
            "mnv3search export RUN"
        )
    if metadata.get(f"{PREFIX}version") != str(VERSION):
        raise ExportError(
            f"{where} has version {metadata.get(f'{PREFIX}version')!r}; this release reads version {VERSION}"
        )
    try:
        classes = _value(metadata, "classes")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ExportError("its class names are no list of words")
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise ExportError(f"it names {len(classes)} classes; 1 to {MAX_CLASSES:,} are possible")
        return Description(
            from_mapping(_value(metadata, "architecture")), tuple(classes),
            Preprocessing.from_mapping(_mapping(metadata, "preprocessing")),
            _one_of(metadata, "input", get_args(Input)), _one_of(metadata, "precision", get_args(PrecisionName)),
            _mapping(metadata, "facts"), _mapping(metadata, "quantisation"),
        )  # fmt: skip
    except Mnv3SearchError as error:
        raise ExportError(f"the metadata of {where} cannot be used: {error}; export it again") from None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _value(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return parse_json(metadata[PREFIX + key])
    except (KeyError, ValueError):
        raise ExportError(f"{PREFIX}{key} is missing or no JSON") from None


def _mapping(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    value = _value(metadata, key)
    if not isinstance(value, dict):
        raise ExportError(f"{PREFIX}{key} is no JSON object")
    return value


def _one_of(metadata: Mapping[str, str], key: str, known: tuple[Any, ...]) -> Any:
    value = metadata.get(PREFIX + key)
    if value not in known:
        raise ExportError(f"{PREFIX}{key} is {value!r}; it must be {' or '.join(known)}")
    return value


NOISE_SEED = 0
CHUNK_PIXELS = 32 * 32 * 1024  # about 12 MB of normalised pixels at a time
Pixels = NDArray[np.uint8]


class PixelChunk(NamedTuple):
    """Some images: (n, R, R, 3) uint8 RGB, resized and cropped, and their labels, (n,); -1 where there are none."""

    pixels: Pixels
    labels: NDArray[np.int64]


def pixel_chunks(images: LabelledImages, preprocessing: Preprocessing, most: int | None = None) -> Iterator[PixelChunk]:
    """All ``images``, in order, in chunks of bounded memory, and of at most ``most`` images.

    Raises:
        DataError: an image cannot be read.
    """
    size = min(chunk_size(preprocessing.resolution), most or len(images) or 1)
    for first in range(0, len(images), size):
        numbers = range(first, min(first + size, len(images)))
        pixels = np.concatenate([preprocessing.resize_and_crop(images.read(number)[None]) for number in numbers])
        yield PixelChunk(pixels, images.labels[first : first + size])


def noise_chunks(count: int, resolution: int, seed: int = NOISE_SEED) -> Iterator[PixelChunk]:
    """Seeded pixels in place of images: blocks of even colour of every size, as flat and as busy as photographs are."""
    rng, size = np.random.default_rng(seed), chunk_size(resolution)
    for first in range(0, count, size):
        number = min(size, count - first)
        pixels = np.stack([_noise(rng, resolution) for _ in range(number)])
        yield PixelChunk(pixels, np.full(number, -1, dtype=np.int64))


def _noise(rng: np.random.Generator, side: int) -> Pixels:
    cells = int(rng.integers(2, max(side // 2, 2) + 1))
    coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    places = np.arange(side) * cells // side
    return coarse[places][:, places]


def chunk_size(resolution: int) -> int:
    """Images in one chunk."""
    return max(1, CHUNK_PIXELS // resolution**2)


def model_input(pixels: Pixels, preprocessing: Preprocessing, kind: Input) -> NDArray[Any]:
    """What a model with this kind of input takes for (n, R, R, 3) pixels, contiguous."""
    if kind == "uint8":
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(preprocessing.normalised(pixels).numpy())


MAX_FILE_BYTES = 2_000_000_000  # what a model in one file may have
Logits = NDArray[np.float32]


class ExportedModel:
    """A model of :func:`~mnv3search.export.onnx_file.export_onnx` or :func:`~mnv3search.export.onnx_file.export_int8`.

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
