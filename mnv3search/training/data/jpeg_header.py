"""The size of a JPEG from its first bytes, for those that need no conversion: most images, told in microseconds."""

from __future__ import annotations

_SIZED = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive with Huffman coding
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _APP2, _ADOBE = 0xE1, 0xE2, 0xEE
_SCAN, _END = 0xDA, 0xD9


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG with three channels of 8 bits in the usual colours and no EXIF; None for all else.

    EXIF may ask for a turn, an Adobe marker may say that the colours are others, APP2 that more pictures follow.
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
