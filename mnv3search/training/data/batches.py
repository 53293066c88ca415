"""Batches for training and evaluation: each depends on the images, seed, epoch and its number alone."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.training.data.augmentation import (
    Augmentation,
    RandomParameters,
    apply_operations,
    blank,
    crop_region,
    draw_mix,
    draw_parameters,
    mix_images,
    mix_labels,
    pad_and_crop,
)
from mnv3search.training.data.decoding import EncodedImage
from mnv3search.training.data.images import LabelledImages, encoded
from mnv3search.training.data.memory import in_memory
from mnv3search.training.data.preprocessing import Preprocessing, resized

if TYPE_CHECKING:
    import torch

AHEAD = 2  # batches that are decoded while the network works on one
# One stream of random numbers for each purpose: what is drawn for one does not move the others.
_ORDER, _FLIP, _PARAMETERS, _MIX = range(4)


@dataclass(frozen=True, slots=True)
class Batch:
    """What the network takes at once."""

    images: torch.Tensor  # (N, 3, R, R) float32, channels last in memory
    labels: torch.Tensor  # (N,) int64, or (N, classes) float32 shares where images were mixed

    def __len__(self) -> int:
        return int(self.images.shape[0])


class Batches:
    """The images of one split as batches of ``batch_size`` over all processes, epoch by epoch.

    Small images (up to 64 pixels) are decoded once and stay in memory with their source; others are decoded when they
    are needed, by ``workers`` threads ahead of the network, or in the caller's. ``seed`` decides the order, where
    ``shuffle`` asks for a new one each epoch, and the transforms. ``drop_last`` leaves out a batch that is not full.

    With several processes each batch is that of one process cut into ``world`` parts, ``rank`` getting its own: the
    images of a step and their transforms do not depend on how many processes share it. Only MixUp and CutMix, which
    pair images within a process, do. The last batch of an epoch may leave a process without images.
    """

    def __init__(
        self, images: LabelledImages, preprocessing: Preprocessing, batch_size: int, *,
        augmentation: Augmentation | None = None, seed: int = 0, shuffle: bool = False, drop_last: bool = False,
        rank: int = 0, world: int = 1, workers: int = 0,
    ) -> None:  # fmt: skip
        if len(images) == 0:
            raise DataError(f"{images.source.name} gives no images to make batches of")
        if batch_size < 1 or (drop_last and batch_size > len(images)):
            raise DataError(
                f"batches of {batch_size} cannot be made of {len(images)} images; choose 1 to {len(images)}"
            )
        if not 0 <= rank < world or batch_size % world:
            raise DataError(f"batches of {batch_size} cannot be cut for process {rank} of {world}: use a multiple")
        if workers < 0 or seed < 0:
            raise DataError(f"workers ({workers}) and seed ({seed}) must be 0 or more")
        self.images, self.preprocessing, self.batch_size = images, preprocessing, batch_size
        self.augmentation = augmentation or Augmentation()
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.rank, self.world, self.workers = rank, world, workers
        self._memory = in_memory(images)
        self._one_size = self._memory is not None and len({image.shape for image in self._memory}) == 1

    def __len__(self) -> int:
        """Steps in an epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from batch ``start`` on, the same each time."""
        if number < 0 or start < 0:
            raise DataError(f"epoch {number} and its first batch {start} must be 0 or more")
        order, flips = self._order(number), self._flips(number)
        with contextlib.ExitStack() as stack:
            pool = None
            if self.workers and self._memory is None:
                pool = concurrent.futures.ThreadPoolExecutor(self.workers, "images")
                stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            begun: deque[Callable[[], Batch]] = deque()
            for step in range(start, len(self)):
                chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
                begun.append(self._begin(number, step, chosen, flips[chosen], pool))
                if len(begun) > (AHEAD if pool else 0):
                    yield begun.popleft()()
            while begun:
                yield begun.popleft()()

    def _begin(
        self, epoch: int, step: int, chosen: NDArray[np.int64], flips: NDArray[np.bool_],
        pool: concurrent.futures.Executor | None,
    ) -> Callable[[], Batch]:  # fmt: skip
        """Begin batch ``step`` of ``epoch``; call the result to get it."""
        side, count = self.preprocessing.resolution, len(chosen)
        # Drawn for all processes and then cut, so that each image's transforms do not depend on how many there are.
        part = slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)
        drawn = draw_parameters(self._generator(_PARAMETERS, epoch, step), flips, self.augmentation, side).share(part)
        mine = chosen[part]
        crops = self._begin_crops(mine, drawn, pool)
        return lambda: self._finish(epoch, step, mine, drawn, crops())

    def _finish(
        self, epoch: int, step: int, chosen: NDArray[np.int64], drawn: RandomParameters, crops: NDArray[np.uint8]
    ) -> Batch:
        import torch

        if drawn.operations is not None:
            crops = apply_operations(crops, drawn.operations)
        pixels = self.preprocessing.normalised(crops)
        for boxes in drawn.boxes:
            pixels = blank(pixels, boxes)
        labels = torch.from_numpy(self.images.labels[chosen])
        if not self.augmentation.mixes:
            return Batch(pixels, labels)
        mix = draw_mix(
            self._generator(_MIX, epoch, step, self.rank, self.world), len(chosen), self.preprocessing.resolution,
            self.augmentation.mixup, self.augmentation.cutmix,
        )  # fmt: skip
        return Batch(mix_images(pixels, mix), mix_labels(labels, len(self.images.classes), mix))

    def _begin_crops(
        self, chosen: NDArray[np.int64], drawn: RandomParameters, pool: concurrent.futures.Executor | None
    ) -> Callable[[], NDArray[np.uint8]]:
        """Begin to crop and mirror ``chosen`` images in ``pool``; call the result for (N, R, R, 3) uint8."""
        if self._one_size:
            return lambda: self._crop_together(chosen, drawn)
        crops = (pool.map if pool else map)(lambda number: self._crop(chosen, drawn, number), range(len(chosen)))
        return lambda: self._moved(self._stacked(list(crops)), drawn)

    def _crop_together(self, chosen: NDArray[np.int64], drawn: RandomParameters) -> NDArray[np.uint8]:
        """Images of one size are mirrored and moved, all at once, before they are cropped."""
        memory = self._memory
        assert memory is not None
        whole = np.stack([memory[i] for i in chosen]) if len(chosen) else np.empty((0, *memory[0].shape), np.uint8)
        images = self._moved(whole, drawn)
        if drawn.regions is None:
            return self.preprocessing.resize_and_crop(images)
        return self._stacked([self._region(image, drawn.regions[number]) for number, image in enumerate(images)])

    def _crop(self, chosen: NDArray[np.int64], drawn: RandomParameters, number: int) -> NDArray[np.uint8]:
        index = int(chosen[number])
        source, file = self.images.source, self.images.files[index]
        if drawn.regions is None or self._memory is not None or not encoded(source):
            pixels = self.images.read(index) if self._memory is None else self._memory[index]
            if drawn.regions is None:
                whole: NDArray[np.uint8] = self.preprocessing.resize_and_crop(pixels[None])[0]
                return whole
            return self._region(pixels, drawn.regions[number])
        image = EncodedImage(source.encoded(file), source.full_name(file))
        top, left, height, width = crop_region(drawn.regions[number], image.height, image.width)
        # A JPEG is decoded at a part of its size as long as the region keeps the resolution.
        shortest, side = min(height, width), self.preprocessing.resolution
        pixels = image.pixels(next((reduce for reduce in (8, 4, 2) if shortest >= reduce * side), 1))
        down, across = pixels.shape[0] / image.height, pixels.shape[1] / image.width
        top, left = int(top * down), int(left * across)
        return self._resized(
            pixels[top : top + max(1, round(height * down)), left : left + max(1, round(width * across))]
        )

    def _region(self, image: NDArray[np.uint8], drawn: NDArray[np.float64]) -> NDArray[np.uint8]:
        top, left, height, width = crop_region(drawn, image.shape[0], image.shape[1])
        return self._resized(image[top : top + height, left : left + width])

    def _resized(self, region: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self.preprocessing.resolution
        crop: NDArray[np.uint8] = resized(region[None], side, side, self.preprocessing.interpolation)[0]
        return crop

    def _stacked(self, crops: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        side = self.preprocessing.resolution
        return np.stack(crops) if crops else np.empty((0, side, side, 3), np.uint8)

    def _moved(self, images: NDArray[np.uint8], drawn: RandomParameters) -> NDArray[np.uint8]:
        """``images`` (N, H, W, 3) mirrored left to right, in place, and moved, as drawn."""
        if drawn.flips.any():
            images[drawn.flips] = images[drawn.flips][:, :, ::-1]
        return images if drawn.corners is None else pad_and_crop(images, self.augmentation.pad, drawn.corners)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.images))
        return self._generator(_ORDER, epoch).permutation(len(self.images))

    def _flips(self, epoch: int) -> NDArray[np.bool_]:
        """Of each image whether it is mirrored: each in every other epoch."""
        if not self.augmentation.flip:
            return np.zeros(len(self.images), dtype=bool)
        first = self._generator(_FLIP).random(len(self.images)) < 0.5
        return first ^ bool(epoch % 2)

    def _generator(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])
