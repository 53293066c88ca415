"""Encoded images to pixels, (height, width, 3) uint8 RGB as a viewer shows them, or an error that says why not."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
})  # fmt: skip
# By content, not by name; formats that start other programs (EPS) stay out.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 80_000_000  # 240 MB decoded; under the count at which Pillow itself begins to warn
MAX_FILE_BYTES = 256 * 1024 * 1024
ORIENTATION, IMAGE_WIDTH, IMAGE_HEIGHT = 0x0112, 0x0100, 0x0101  # tags of EXIF and TIFF
# Markers of JPEG: frames of baseline, extended and progressive Huffman coding; other frames; what ends the search.
_SIZED = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _APP2, _ADOBE, _SCAN, _END = 0xE1, 0xE2, 0xEE, 0xDA, 0xD9
# What Pillow's parsers raise for data that are cut short or damaged.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, struct.error, zlib.error)


class EncodedImage:
    """An image whose header is read and checked, and whose pixels are decoded when asked for.

    ``width`` and ``height`` are those shown, after the turn or mirror that EXIF asks for (``turned``); ``format`` and
    ``mode`` (how pixels are stored) are Pillow's names.
    """

    def __init__(self, data: bytes, name: str) -> None:
        if not data:
            raise DataError(f"{name} is empty (0 bytes); replace or remove it")
        self.name, self._data = name, data
        self._plain = plain_jpeg_size(data)
        if self._plain is not None:
            (width, height), self.format, self.mode, orientation = self._plain, "JPEG", "RGB", 1
        else:
            image = _opened(data, name)
            self._image = image
            (width, height), self.format, self.mode = _stored_size(image), image.format or "", image.mode
            orientation = _orientation(image)
        if width * height > MAX_PIXELS:
            raise DataError(_too_large(name, f"{width}×{height} pixels, more"))
        self.turned = orientation > 1
        self.width, self.height = (height, width) if orientation >= 5 else (width, height)

    def pixels(self, reduce: int = 1) -> NDArray[np.uint8]:
        """(height, width, 3) RGB; JPEGs at 1/``reduce`` (1, 2, 4 or 8) of their size, which is several times faster."""
        from PIL import Image, ImageOps

        if self._plain is not None:
            # The header is read already: reading it again, as Pillow does, takes longer than to decode a small image.
            if reduce == 1:
                with suppress(ValueError, OSError):  # where it stops early, the whole reader says what is wrong
                    return np.array(Image.frombytes("RGB", self._plain, self._data, "jpeg", "RGB", ""))
            self._image = _opened(self._data, self.name)
        image = self._image
        try:
            if reduce > 1:
                image.draft("RGB", (image.width // reduce, image.height // reduce))
            image.load()
            if self.turned:
                image = ImageOps.exif_transpose(image)
            return _rgb(image, self.name)
        except DataError:
            raise
        except (*_DAMAGE, Image.DecompressionBombError) as error:
            raise DataError(f"{self.name} cannot be decoded: {error}; replace or remove it") from None


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """The pixels of an encoded image, (height, width, 3) RGB: turned by EXIF, transparency laid on white."""
    return EncodedImage(data, name).pixels()


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG with three channels of 8 bits in the usual colours and no EXIF; None for all else.

    EXIF may ask for a turn, an Adobe marker may say that the colours are others, APP2 that more pictures follow. Most
    images are of this kind: a scan of CIFAR-10 takes two thirds of the time that Pillow's whole reader takes.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        length = data[at + 2] << 8 | data[at + 3]
        if marker in {_ADOBE, _SCAN, _END} or marker in _OTHER_FRAMES or length < 2:
            return None
        if marker == _APP1 or (marker == _APP2 and data[at + 4 : at + 7] == b"MPF"):
            return None
        if marker in _SIZED:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            usual = data[at + 4] == 8 and data[at + 9] == 3 and height > 0 and width > 0
            # Component numbers "RGB" mean that the colours were never turned into luma and chroma.
            return (width, height) if usual and data[at + 10 : at + 11] != b"R" else None
        at += 2 + length
    return None


def _opened(data: bytes, name: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(name, "far more pixels")) from None
    except Exception as error:  # a damaged header can raise almost anything in a format's parser
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"is no image of a known format ({', '.join(FORMATS)})" if unknown else f"is damaged: {error}"
        raise DataError(f"{name} {reason}; replace or remove it") from None


def _too_large(name: str, size: str) -> str:
    return f"{name} has {size} than the {MAX_PIXELS // 1_000_000} million that are decoded; scale it down"


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as stored; Pillow turns those of TIFF files, by version before or after decoding."""
    if image.format == "TIFF":
        tags = image.getexif()
        return int(tags[IMAGE_WIDTH]), int(tags[IMAGE_HEIGHT])
    return image.size


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none."""
    if image.format in {"JPEG", "MPO"} and "exif" not in image.info:
        return 1  # parsing what is not there costs as much as decoding a small image
    try:
        turn = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about how to turn
        return 1
    return turn if 1 <= turn <= 8 else 1


def _rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode == "F":
        raise DataError(f"{name} holds floating-point values, whose black and white are unknown; store it with 8 bits")
    if image.mode.startswith("I"):  # 16 bits: convert() would clip instead of scaling
        grey = np.asarray(image).astype(np.int64)
        eight = (np.clip(grey, 0, 65535) // 257).astype(np.uint8)
        return np.repeat(eight[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, seen).convert("RGB"))
    return np.array(image.convert("RGB"))
