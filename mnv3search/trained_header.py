"""The header of a trained network's file, read without its weights and without torch.

A ``.safetensors`` file begins with its header's length (8 bytes, little-endian) and the header, a JSON object whose
``__metadata__`` maps names to texts. A trained network keeps everything under one name, as safetensors writes several
in any order, and equal networks should be equal files.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnv3search.errors import WeightsError
from mnv3search.reading import open_regular, parse_json

FORMAT = "mnv3search.trained"
VERSION = 1
KEY = "mnv3search"
SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 100_000_000
"""The most that safetensors itself reads."""
_LENGTH = struct.Struct("<Q")
REMEDY = "give a file that mnv3search train wrote, or the folder of its run"


def trained_header(path: Path) -> Mapping[str, Any]:
    """Architecture, classes, preprocessing and facts in the file of a trained network.

    Raises:
        WeightsError: it cannot be read, is damaged, of another kind or of another version.
    """
    try:
        with open_regular(path) as stream:
            start = stream.read(_LENGTH.size)
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            text = stream.read(length) if length <= MAX_HEADER_BYTES else b""
        header = parse_json(text if len(text) == length else b"")  # nothing is no JSON
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from None
    except ValueError:
        raise WeightsError(f"cannot read {path}: it is damaged or no {SUFFIX} file; {REMEDY}") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return described(path, metadata if isinstance(metadata, dict) else {})


def about(metadata: Mapping[str, object]) -> Mapping[str, Any] | None:
    """The object under :data:`KEY` in a file's metadata, or None."""
    text = metadata.get(KEY)
    try:
        found = parse_json(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def described(path: Path, metadata: Mapping[str, object]) -> Mapping[str, Any]:
    """As :func:`about`, of a trained network's file; a WeightsError where it is of another kind or version."""
    found = about(metadata)
    if found is None or found.get("format") != FORMAT:
        raise WeightsError(f"{path} holds tensors, but not as a trained network of mnv3search; {REMEDY}")
    if found.get("version") != VERSION:
        raise WeightsError(f"{path} has version {found.get('version')!r}; this release reads version {VERSION}")
    return found
