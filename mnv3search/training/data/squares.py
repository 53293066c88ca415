"""Images of any size to squares of the resolution, with the random crop and mirror on the way."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data import changes
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.decoding import EncodedImage
from mnv3search.training.data.draws import Draws
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.memory import InMemory
from mnv3search.training.data.preprocessing import Preprocessing, resized
from mnv3search.training.data.sources import encoded


class Squares:
    """Makes the squares of one split."""

    def __init__(
        self, images: LabelledImages, preprocessing: Preprocessing, augmentation: Augmentation,
        memory: InMemory | None,
    ) -> None:  # fmt: skip
        """Take the split; ``memory`` as :func:`~mnv3search.training.data.memory.in_memory` gives it."""
        self._images, self._preprocessing, self._augmentation = images, preprocessing, augmentation
        self._memory = memory

    @property
    def in_memory(self) -> bool:
        """Whether all images are in memory, so that there is nothing to decode."""
        return self._memory is not None

    def begin(
        self, chosen: NDArray[np.int64], draws: Draws, pool: concurrent.futures.Executor | None
    ) -> Callable[[], NDArray[np.uint8]]:
        """Begin to make the squares of ``chosen`` images in ``pool``; call the result to wait for them.

        The result is (N, R, R, 3) uint8.
        """
        memory = self._memory
        if memory is not None and memory.of_one_size:
            return lambda: self._together(memory.several(chosen), draws)
        numbers = range(len(chosen))
        if pool is None:
            return lambda: self._gathered([self._single(chosen, draws, number) for number in numbers], draws)
        waiting = [pool.submit(self._single, chosen, draws, number) for number in numbers]
        return lambda: self._gathered([future.result() for future in waiting], draws)

    def _together(self, images: NDArray[np.uint8], draws: Draws) -> NDArray[np.uint8]:
        images = _mirrored(images, draws.flips)
        if draws.parts is not None:
            return self._stacked([self._part(image, draws.parts[number]) for number, image in enumerate(images)])
        if draws.corners is not None:
            images = changes.pad_and_crop(images, self._augmentation.pad, draws.corners)
        return self._preprocessing.squares(images)

    def _single(self, chosen: NDArray[np.int64], draws: Draws, number: int) -> NDArray[np.uint8]:
        index = int(chosen[number])
        if draws.parts is None:
            whole: NDArray[np.uint8] = self._preprocessing.squares(self._pixels(index)[None])[0]
            return whole
        source, file = self._images.source, self._images.files[index]
        if self._memory is not None or not encoded(source):
            return self._part(self._pixels(index), draws.parts[number])
        image = EncodedImage(source.encoded(file), source.place(file))
        top, left, height, width = changes.part_of(draws.parts[number], image.height, image.width)
        reduce = _reduction(min(height, width), self._preprocessing.resolution)
        pixels = image.pixels(reduce)
        down, across = pixels.shape[0] / image.height, pixels.shape[1] / image.width
        top, left = int(top * down), int(left * across)
        part = pixels[top : top + max(1, round(height * down)), left : left + max(1, round(width * across))]
        return self._resized(part)

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        return self._images.read(index) if self._memory is None else self._memory.image(index)

    def _part(self, image: NDArray[np.uint8], drawn: NDArray[np.float64]) -> NDArray[np.uint8]:
        top, left, height, width = changes.part_of(drawn, image.shape[0], image.shape[1])
        return self._resized(image[top : top + height, left : left + width])

    def _resized(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self._preprocessing.resolution
        square: NDArray[np.uint8] = resized(part[None], side, side, self._preprocessing.interpolation)[0]
        return square

    def _gathered(self, squares: list[NDArray[np.uint8]], draws: Draws) -> NDArray[np.uint8]:
        images = _mirrored(self._stacked(squares), draws.flips)
        if draws.corners is not None:
            images = changes.pad_and_crop(images, self._augmentation.pad, draws.corners)
        return images

    def _stacked(self, squares: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        side = self._preprocessing.resolution
        return np.stack(squares) if squares else np.empty((0, side, side, 3), np.uint8)


def _mirrored(images: NDArray[np.uint8], flips: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """``images`` (N, H, W, 3), of which those of ``flips`` are mirrored left to right, in place."""
    if flips.any():
        images[flips] = images[flips][:, :, ::-1]
    return images


def _reduction(shortest: int, side: int) -> int:
    """By how much a JPEG can be decoded smaller so that ``shortest`` pixels stay at least ``side``."""
    return next((reduce for reduce in (8, 4, 2) if shortest >= reduce * side), 1)
