"""Small images decoded once, and shared by all splits and subsets of their source.

Whether images are in memory follows from these images alone and not from what else was asked for: batches made in
memory differ in their last bits from others, and must be the same again when a training is resumed.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data.images import ImageSource, LabelledImages

SMALL = 64  # pixels: no side of an image in memory is longer
MAX_BYTES = 4 * 1024**3  # of the images of one split


class _DecodedImages:
    """The decoded images of one source, as far as they were asked for."""

    def __init__(self) -> None:
        self.images: dict[str, NDArray[np.uint8]] = {}
        self.large: set[str] = set()  # files that were found to be too large
        self.too_many: set[tuple[str, ...]] = set()  # splits that would take more than MAX_BYTES
        self.lock = threading.Lock()


_DECODED: weakref.WeakKeyDictionary[ImageSource, _DecodedImages] = weakref.WeakKeyDictionary()
_DECODED_LOCK = threading.Lock()


def _decoded_images(source: ImageSource) -> _DecodedImages:
    with _DECODED_LOCK:
        return _DECODED.setdefault(source, _DecodedImages())


def in_memory(images: LabelledImages) -> list[NDArray[np.uint8]] | None:
    """All ``images``, (H, W, 3) each and not to be changed; None where one is above 64×64, or all are above 4 GiB."""
    kept = _decoded_images(images.source)
    with kept.lock:
        if images.files in kept.too_many or not kept.large.isdisjoint(images.files):
            return None
        decoded: list[NDArray[np.uint8]] = []
        new: dict[str, NDArray[np.uint8]] = {}
        total = 0
        for file in images.files:
            image = kept.images.get(file)
            if image is None:
                image = new[file] = images.source.read(file)
            if max(image.shape[:2]) > SMALL:
                kept.large.add(file)
                return None
            total += image.nbytes
            # The first image shows before all are decoded whether they are likely to be too many.
            if max(total, len(images) * decoded[0].nbytes if decoded else 0) > MAX_BYTES:
                kept.too_many.add(images.files)
                return None
            decoded.append(image)
        kept.images |= new
        return decoded


class Collector:
    """Takes the pixels that a scan has decoded anyway, to keep them if all of them fit."""

    def __init__(self, source: ImageSource, count: int) -> None:
        self._source, self._count = source, count
        self._found: dict[str, NDArray[np.uint8]] | None = {}
        self._bytes = 0

    def take(self, file: str, pixels: NDArray[np.uint8] | None) -> None:
        """One image (H, W, 3), or None where it is large or cannot be decoded."""
        if self._found is None:
            return
        self._bytes += 0 if pixels is None else pixels.nbytes
        if pixels is None or pixels.nbytes * self._count > MAX_BYTES or self._bytes > MAX_BYTES:
            self._found = None
        else:
            self._found[file] = pixels

    def keep(self) -> None:
        """Keep what was taken, unless something did not fit."""
        kept = _decoded_images(self._source)
        with kept.lock:
            if self._found is not None and not kept.images:
                kept.images |= self._found
