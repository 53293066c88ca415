"""What travels with an exported model: class names, preprocessing, architecture and where it comes from.

It stands in the model's ``metadata_props``, each entry a text of its own that any program can read, and in a JSON file
beside it. What is read back from a file of unknown origin is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, get_args

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import ExportError, Mnv3SearchError
from mnv3search.reading import parse_json

if TYPE_CHECKING:
    import onnx

    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork

FORMAT = "mnv3search.exported"
VERSION = 1
PREFIX = "mnv3search."
MAX_CLASSES = 1_000_000
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
