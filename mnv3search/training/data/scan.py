"""What is wrong with images, found before they are trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnv3search.errors import DataError
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.memory import in_memory


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan found.

    Attributes:
        images: how many were looked at.
        unreadable: what is wrong with each image that cannot be decoded, by file.
        ignored: files that were left out: hidden, or no images by their name.
    """

    images: int
    unreadable: Mapping[str, str]
    ignored: tuple[str, ...]

    def raise_if_bad(self) -> None:
        """Raise where an image cannot be decoded.

        Raises:
            DataError: names the first ones.
        """
        if self.unreadable:
            first = "; ".join(list(self.unreadable.values())[:3])
            raise DataError(f"{len(self.unreadable)} of {self.images} images cannot be used: {first}")


def scan_images(
    images: LabelledImages | Sequence[LabelledImages], progress: Callable[[int, int], None] | None = None, *,
    ignored: Sequence[str] = (),
) -> ScanReport:  # fmt: skip
    """Look at every image."""
    splits = [images] if isinstance(images, LabelledImages) else list(images)
    unreadable: dict[str, str] = {}
    for split in splits:
        try:
            in_memory(split, progress)
        except DataError as error:
            unreadable[split.source.name] = str(error)
    return ScanReport(sum(map(len, splits)), unreadable, tuple(ignored))


def check_splits(splits: Mapping[str, LabelledImages]) -> None:
    """Hold splits to each other: at least two classes, none empty, the same in all.

    Raises:
        DataError: says which classes, of which split.
    """
    train = splits["train"]
    for name, images in splits.items():
        empty = [label for number, label in enumerate(images.classes) if not np.any(images.labels == number)]
        if empty:
            raise DataError(
                f"{images.source.name} has no images in {name} for {', '.join(map(repr, empty[:5]))}; "
                "add some or remove the folder"
            )
        missing, extra = set(train.classes) - set(images.classes), set(images.classes) - set(train.classes)
        if missing or extra:
            raise DataError(
                f"{images.source.name} has other classes in {name} than in train: missing {sorted(missing)[:5]}, "
                f"more {sorted(extra)[:5]}"
            )
    if len(train.classes) < 2:
        raise DataError(f"{train.source.name} has one class, {train.classes[0]!r}; telling classes apart needs two")
