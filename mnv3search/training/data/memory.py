"""Small images decoded once: arrays of one size each for every source, shared by all splits and subsets of it.

Whether images are in memory, and how, follows from these images alone and not from what else was asked for: batches
made in memory differ in their last bits from others, and must be the same again when a training goes on.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data.images import ImageSource, LabelledImages

SMALL = 64  # pixels: no side of an image in memory is longer
MAX_BYTES = 4 * 1024**3  # of the images of one split
_FIRST_ROOM = 16
Shape = tuple[int, ...]


class _Stack:
    """Images of one size, (N, H, W, 3), in an array with room for more."""

    def __init__(self, shape: Shape) -> None:
        self._room: NDArray[np.uint8] = np.empty((_FIRST_ROOM, *shape), np.uint8)
        self._count = 0

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self._room[: self._count]

    def add(self, images: NDArray[np.uint8]) -> int:
        """Put ``images`` (N, H, W, 3) behind the others; the row of the first."""
        first, self._count = self._count, self._count + len(images)
        if self._count > len(self._room):
            grown = np.empty((max(self._count, 2 * len(self._room)), *self._room.shape[1:]), np.uint8)
            grown[:first] = self._room[:first]
            self._room = grown
        self._room[first : self._count] = images
        return first


class _Stacks:
    """Decoded images by their sizes."""

    def __init__(self) -> None:
        self.by_shape: dict[Shape, _Stack] = {}
        self.places: dict[str, tuple[Shape, int]] = {}  # of each file: its size, and its row among those of that size
        self.bytes = 0

    def add(self, file: str, image: NDArray[np.uint8]) -> None:
        """Keep one image, (H, W, 3)."""
        stack = self.by_shape.setdefault(image.shape, _Stack(image.shape))
        self.places[file] = image.shape, stack.add(image[None])
        self.bytes += image.nbytes

    def take_over(self, other: _Stacks) -> None:
        """Keep what ``other`` has, which is not to be used any more."""
        firsts = {}
        for shape, stack in other.by_shape.items():
            mine = self.by_shape.setdefault(shape, stack)
            firsts[shape] = 0 if mine is stack else mine.add(stack.pixels)
        self.places.update({file: (shape, firsts[shape] + row) for file, (shape, row) in other.places.items()})
        self.bytes += other.bytes


class SmallImages:
    """The decoded images of one source, as far as they were asked for."""

    def __init__(self) -> None:
        self.stacks = _Stacks()
        self.large: set[str] = set()  # files that were seen to be too large
        self.too_many: set[tuple[str, ...]] = set()  # splits that would take more than MAX_BYTES
        self.lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """The decoded images of one split.

    Attributes:
        stacks: (M, H, W, 3) uint8 of each size that there is, which other splits may share.
        sizes: (N,) of each image in which stack it is.
        rows: (N,) of each image which row of that stack it is.
    """

    stacks: Sequence[NDArray[np.uint8]]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def of_one_size(self) -> bool:
        """Whether all images have the same height and width."""
        return len(self.stacks) == 1

    def image(self, index: int) -> NDArray[np.uint8]:
        """Image ``index``, (H, W, 3); not to be changed."""
        image: NDArray[np.uint8] = self.stacks[self.sizes[index]][self.rows[index]]
        return image

    def several(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of ``chosen`` images, (N, H, W, 3), where all are of one size."""
        return self.stacks[0][self.rows[chosen]]


_KEPT: weakref.WeakKeyDictionary[ImageSource, SmallImages] = weakref.WeakKeyDictionary()
_KEPT_LOCK = threading.Lock()


def kept_images(source: ImageSource) -> SmallImages:
    """What is kept of ``source``; forgotten with it."""
    with _KEPT_LOCK:
        return _KEPT.setdefault(source, SmallImages())


def in_memory(images: LabelledImages, progress: Callable[[int, int], None] | None = None) -> InMemory | None:
    """All of ``images``, decoded on first use; None where one is larger than 64×64, or all take more than 4 GiB.

    Raises:
        DataError: an image that cannot be decoded.
    """
    kept = kept_images(images.source)
    with kept.lock:
        if images.files in kept.too_many or not kept.large.isdisjoint(images.files):
            return None
        if not _decoded(images, kept, progress):
            return None
        places = [kept.stacks.places[file] for file in images.files]
        shapes = list(dict.fromkeys(shape for shape, _ in places))
        numbers = {shape: number for number, shape in enumerate(shapes)}
        return InMemory(
            [kept.stacks.by_shape[shape].pixels for shape in shapes],
            np.fromiter((numbers[shape] for shape, _ in places), np.int64, len(places)),
            np.fromiter((row for _, row in places), np.int64, len(places)),
        )


def _decoded(images: LabelledImages, kept: SmallImages, progress: Callable[[int, int], None] | None) -> bool:
    """Decode into ``kept`` what it lacks; False, with nothing kept, where ``images`` do not fit."""
    places, found = kept.stacks.places, _Stacks()
    missing = [file for file in dict.fromkeys(images.files) if file not in places]
    known = 0
    if len(images) * 3 * SMALL**2 > MAX_BYTES:  # else they fit, whatever their sizes
        known = sum(math.prod(places[file][0]) for file in dict.fromkeys(images.files) if file in places)
        # The first image tells before all are decoded whether they are likely to be too many.
        if known > MAX_BYTES or len(images) * images.read(0).nbytes > MAX_BYTES:
            kept.too_many.add(images.files)
            return False
    for number, file in enumerate(missing, start=1):
        image = images.source.read(file)
        if max(image.shape[:2]) > SMALL:
            kept.large.add(file)
            return False
        found.add(file, image)
        if known + found.bytes > MAX_BYTES:
            kept.too_many.add(images.files)
            return False
        if progress is not None and number % 1000 == 0:
            progress(number, len(missing))
    kept.stacks.take_over(found)
    return True


class Collector:
    """Takes the pixels that a scan has decoded anyway, to keep them if all of them fit."""

    def __init__(self, source: ImageSource, count: int) -> None:
        """Be ready for up to ``count`` images of ``source``."""
        self._source, self._count = source, count
        self._found: _Stacks | None = _Stacks()

    def take(self, file: str, pixels: NDArray[np.uint8] | None) -> None:
        """One image (H, W, 3), or None where it is large or cannot be decoded."""
        if self._found is None:
            return
        if pixels is None or pixels.nbytes * self._count > MAX_BYTES or self._found.bytes + pixels.nbytes > MAX_BYTES:
            self._found = None
        else:
            self._found.add(file, pixels)

    def keep(self) -> None:
        """Keep what was taken, unless something did not fit."""
        kept = kept_images(self._source)
        with kept.lock:
            if self._found is not None and not kept.stacks.places:
                kept.stacks.take_over(self._found)
                self._found = None
