"""What is drawn at random for one batch, for all processes alike, before any image is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.training.data import changes
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.policy import Operations, draw_operations


@dataclass(frozen=True, slots=True)
class Draws:
    """Of each image of a batch, what happens to it.

    Attributes:
        flips: (N,) bool, mirrored or not.
        corners: (N, 2) of the windows in padded images, or None.
        parts: (N, tries, 4), see :func:`~mnv3search.training.data.changes.part_of`, or None.
        operations: of RandAugment and colour jitter.
        boxes: (N, 4) each, set to the mean colour.
    """

    flips: NDArray[np.bool_]
    corners: NDArray[np.int64] | None
    parts: NDArray[np.float64] | None
    operations: Operations | None
    boxes: tuple[NDArray[np.int64], ...]

    def share(self, part: slice) -> Draws:
        """Those of some images of the batch."""
        return Draws(
            self.flips[part],
            None if self.corners is None else self.corners[part],
            None if self.parts is None else self.parts[part],
            None if self.operations is None else self.operations.share(part),
            tuple(boxes[part] for boxes in self.boxes),
        )


def draw(generator: np.random.Generator, flips: NDArray[np.bool_], augmentation: Augmentation, side: int) -> Draws:
    """Draw for ``len(flips)`` images that become squares of ``side`` pixels."""
    count = len(flips)
    corners = parts = None
    if augmentation.crop == "pad" and augmentation.pad:
        corners = generator.integers(2 * augmentation.pad + 1, size=(count, 2))
    if augmentation.crop == "random_resized":
        parts = changes.random_parts(generator, count, augmentation.least_area)
    operations = draw_operations(generator, count, augmentation)
    boxes = []
    if augmentation.cutout:
        boxes.append(changes.draw_boxes(generator, count, side, augmentation.cutout))
    if augmentation.erase:
        boxes.append(changes.draw_erasures(generator, count, side, augmentation.erase))
    return Draws(flips, corners, parts, operations, tuple(boxes))
