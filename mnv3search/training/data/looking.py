"""One image looked at: can it be decoded, how is it stored, is it small enough to keep."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.training.data.decoding import EncodedImage
from mnv3search.training.data.images import ImageSource
from mnv3search.training.data.memory import SMALL
from mnv3search.training.data.sources import FolderSource, encoded

END_OF_JPEG = b"\xff\xd9"
PADDING = 4096  # bytes after the end of a picture in which its end is still looked for


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one image.

    Attributes:
        fault: why it cannot be used, or empty.
        height, width: pixels; 0 where unknown.
        mode: how its pixels are stored, by Pillow's name.
        turned: EXIF asks for a turn.
        digest: of its bytes, or empty where they were not all read.
        pixels: (H, W, 3) of a small image, else None.
    """

    fault: str = ""
    height: int = 0
    width: int = 0
    mode: str = "RGB"
    turned: bool = False
    digest: bytes = b""
    pixels: NDArray[np.uint8] | None = None


def look_at(source: ImageSource, file: str, thorough: bool) -> Look:
    """Look at one image.

    Args:
        source: where it is.
        file: its name there.
        thorough: decode it whatever its size; else large images are judged by their header and their end, and decoded
            only where these leave a doubt.
    """
    try:
        if not encoded(source):
            pixels = source.read(file)
            return Look("", pixels.shape[0], pixels.shape[1], digest=_digest(pixels.tobytes()), pixels=_small(pixels))
        if not thorough and isinstance(source, FolderSource) and (brief := _by_its_ends(source, file)) is not None:
            return brief
        data = source.encoded(file)
        image = EncodedImage(data, source.place(file))
        if not thorough and max(image.height, image.width) > SMALL and _is_whole(image.format, data):
            return Look("", image.height, image.width, image.mode, image.turned)
        # Damage shows at any size, and large JPEGs decode faster at an eighth of it.
        pixels = image.pixels(8 if min(image.height, image.width) > 8 * SMALL else 1)
        return Look("", image.height, image.width, image.mode, image.turned, _digest(data), _small(pixels))
    except DataError as error:
        return Look(str(error))


def _by_its_ends(source: FolderSource, file: str) -> Look | None:
    """What the two ends of a large file say; None where they leave a doubt."""
    head, tail = source.ends(file)
    try:
        image = EncodedImage(head, source.place(file))
    except DataError:
        return None
    if max(image.height, image.width) <= SMALL or not _is_whole(image.format, tail):
        return None
    return Look("", image.height, image.width, image.mode, image.turned)


def _is_whole(form: str, tail: bytes) -> bool:
    """Whether the data end as this format's do; False for formats without a mark."""
    if form in {"JPEG", "MPO"}:
        return END_OF_JPEG in tail[-PADDING:]
    return form == "PNG" and b"IEND" in tail[-PADDING:]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    return pixels if max(pixels.shape[:2]) <= SMALL else None
