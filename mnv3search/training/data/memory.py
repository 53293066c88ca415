"""Small images decoded once: one uint8 array for each source, shared by all splits and subsets of it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data.images import ImageSource, LabelledImages

SMALL = 64  # pixels: no side of an image in memory is longer
MAX_BYTES = 4 * 1024**3


class SmallImages:
    """The decoded images of one source, as far as they were asked for."""

    def __init__(self) -> None:
        self.pixels: NDArray[np.uint8] | None = None
        self.rows: dict[str, int] = {}
        self.fit = True  # False once an image was seen that is large or of another size
        self.lock = threading.Lock()

    def add(self, files: list[str], pixels: NDArray[np.uint8]) -> None:
        """Keep decoded images, (N, H, W, 3)."""
        first = 0 if self.pixels is None else len(self.pixels)
        self.pixels = pixels if self.pixels is None else np.concatenate([self.pixels, pixels])
        self.rows.update({file: first + number for number, file in enumerate(files)})


_KEPT: weakref.WeakKeyDictionary[ImageSource, SmallImages] = weakref.WeakKeyDictionary()
_KEPT_LOCK = threading.Lock()


def kept_images(source: ImageSource) -> SmallImages:
    """What is kept of ``source``; forgotten with it."""
    with _KEPT_LOCK:
        return _KEPT.setdefault(source, SmallImages())


def in_memory(
    images: LabelledImages, progress: Callable[[int, int], None] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """All images of ``images`` as (pixels of the source (M, H, W, 3), rows in them (N,)), decoded on first use.

    None where they are not all of one size of at most 64×64, or would take more than 4 GiB.

    Raises:
        DataError: an image that cannot be decoded.
    """
    kept = kept_images(images.source)
    with kept.lock:
        missing = [file for file in dict.fromkeys(images.files) if file not in kept.rows]
        if kept.fit and missing:
            decoded = _decoded(images.source, missing, None if kept.pixels is None else kept.pixels.shape[1:], progress)
            if decoded is None:
                kept.fit = False
            else:
                kept.add(missing, decoded)
        if not kept.fit or kept.pixels is None:
            return None
        return kept.pixels, np.fromiter(map(kept.rows.__getitem__, images.files), np.int64, len(images))


def _decoded(
    source: ImageSource, files: list[str], shape: tuple[int, ...] | None, progress: Callable[[int, int], None] | None
) -> NDArray[np.uint8] | None:
    """The images (N, H, W, 3), or None at the first that does not fit."""
    out: NDArray[np.uint8] | None = None
    for number, file in enumerate(files):
        image = source.read(file)
        if out is None:
            shape = image.shape if shape is None else shape
            if max(shape[:2]) > SMALL or len(files) * image.nbytes > MAX_BYTES:
                return None
            out = np.empty((len(files), *shape), np.uint8)
        if image.shape != shape:
            return None
        out[number] = image
        if progress is not None and (number + 1) % 1000 == 0:
            progress(number + 1, len(files))
    return out


class Collector:
    """Takes the pixels that a scan has decoded anyway, to keep them if all of them fit."""

    def __init__(self, source: ImageSource, count: int) -> None:
        """Be ready for up to ``count`` images of ``source``."""
        self._source, self._count = source, count
        self._files: list[str] = []
        self._out: NDArray[np.uint8] | None = None
        self._fit = kept_images(source).fit

    def take(self, file: str, pixels: NDArray[np.uint8] | None) -> None:
        """One image (H, W, 3), or None where it is large or cannot be decoded."""
        if not self._fit:
            return
        if pixels is None or len(self._files) >= self._count or pixels.nbytes * self._count > MAX_BYTES:
            self._fit, self._out = False, None
            return
        if self._out is None:
            self._out = np.empty((self._count, *pixels.shape), np.uint8)
        if pixels.shape != self._out.shape[1:]:
            self._fit, self._out = False, None
            return
        self._out[len(self._files)] = pixels
        self._files.append(file)

    def keep(self) -> None:
        """Keep what was taken, unless something did not fit."""
        kept = kept_images(self._source)
        with kept.lock:
            if self._fit and self._out is not None and not kept.rows:
                kept.add(self._files, self._out[: len(self._files)])
