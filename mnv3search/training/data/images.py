"""Labelled images as a value: names, labels and classes, decoded one by one when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mnv3search.training.data.scan_report import ScanReport


class ImageSource(Protocol):
    """Where images are read from: a folder, a zip archive, a data set of torchvision."""

    name: str

    def read(self, file: str) -> NDArray[np.uint8]:
        """The decoded image, (height, width, 3) RGB as a viewer shows it.

        Raises:
            DataError: the file is missing, empty, cut short, too large or no image.
        """
        ...


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images of one split with their labels.

    Attributes:
        source: reads them.
        files: their names in the source, unique and in a stable order.
        labels: (N,) int64, indices into ``classes``.
        classes: names of the classes, in the order of the logits.
    """

    source: ImageSource
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Image ``index``, decoded: (height, width, 3) RGB."""
        return self.source.read(self.files[index])

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> LabelledImages:
        """Only these images, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, files=tuple(self.files[int(i)] for i in chosen), labels=self.labels[chosen])


@dataclass(frozen=True, slots=True)
class DataSplits:
    """The splits of one data set; all have the same classes.

    Attributes:
        train, val: to learn from, and to choose by.
        test: to judge by at the end, or None where the data have none.
        report: what the scan found, or None where there was none.
        held_out: share of the training images that is in none of these, for NetAdapt to score its proposals on.
    """

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages | None
    report: ScanReport | None = None
    held_out: float = 0.0
