"""Small images decoded once: one uint8 array for each source, shared by all splits and subsets of it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable

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
        first = len(self.rows)
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
            shape = None if kept.pixels is None else kept.pixels.shape[1:]
            decoded = _decoded(images.source, missing, shape, len(kept.rows), progress)
            if decoded is None:
                kept.fit = False
            else:
                kept.add(missing, decoded)
        if not kept.fit or kept.pixels is None:
            return None
        return kept.pixels, np.fromiter(map(kept.rows.__getitem__, images.files), np.int64, len(images))


def _decoded(
    source: ImageSource, files: list[str], shape: tuple[int, ...] | None, before: int,
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.uint8] | None:  # fmt: skip
    """The images (N, H, W, 3), or None at the first that does not fit."""
    first = source.read(files[0])
    shape = first.shape if shape is None else shape
    if max(shape[:2]) > SMALL or (before + len(files)) * first.nbytes > MAX_BYTES:
        return None
    out = np.empty((len(files), *shape), np.uint8)
    for number, image in enumerate(_each(source, files, first)):
        if image.shape != shape:
            return None
        out[number] = image
        if progress is not None and (number + 1) % 1000 == 0:
            progress(number + 1, len(files))
    return out


def _each(source: ImageSource, files: list[str], first: NDArray[np.uint8]) -> Iterable[NDArray[np.uint8]]:
    yield first
    for file in files[1:]:
        yield source.read(file)
