"""What is wrong with the images of a data set, found before anything is trained on them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np

from mnv3search.errors import DataError
from mnv3search.training.data.images import ImageSource, LabelledImages
from mnv3search.training.data.looking import Look, look_at
from mnv3search.training.data.memory import SMALL, Collector
from mnv3search.training.data.scan_report import ScanReport

THOROUGH = 20_000  # large images up to which all are decoded: a minute or two on one core
CHUNK = 512


def scan_images(
    images: LabelledImages | Mapping[str, LabelledImages],
    progress: Callable[[int, int], None] | None = None,
    *,
    ignored: Sequence[str] = (),
    thorough: bool | None = None,
) -> ScanReport:
    """Look at every image of one split, or of several by name.

    Small images (up to 64 pixels) are decoded, and kept for the batches where all are small. Large ones are decoded up
    to ``THOROUGH`` images; of more than that header and end are looked at, which finds empty, cut and oversized files,
    and not damage in the middle nor copies.

    Args:
        images: what to look at.
        progress: called with (done, total) now and then.
        ignored: files beside the images that were left out, for the report.
        thorough: decode all, or do not decode large ones; by their number where None.
    """
    splits = {"": images} if isinstance(images, LabelledImages) else dict(images)
    total = sum(map(len, splits.values()))
    every = total <= THOROUGH if thorough is None else thorough
    notes = _Notes()
    collectors = {split.source: Collector(split.source, total) for split in splits.values()}
    for name, split in splits.items():
        collector = collectors[split.source]
        with contextlib.closing(_looks(split.source, split.files, every)) as looks:
            for number, (file, look) in enumerate(zip(split.files, looks, strict=True)):
                notes.take(name, file, split.classes[int(split.labels[number])], look)
                collector.take(file, look.pixels)
                if progress is not None and (notes.images % CHUNK == 0 or notes.images == total):
                    progress(notes.images, total)
    for collector in collectors.values():
        collector.keep()
    return notes.report(splits, ignored)


def check_splits(splits: Mapping[str, LabelledImages]) -> None:
    """Hold splits to each other: at least two classes, none empty, the same in all.

    Raises:
        DataError: says which classes, of which split.
    """
    train = splits["train"]
    wanted = frozenset(train.classes)
    for name, images in splits.items():
        missing = sorted(wanted.difference(images.classes))
        extra = [label for label in images.classes if label not in wanted]
        if missing or extra:
            lacks = f" lacks {_some(missing)}" if missing else ""
            more = f" has {_some(extra)} besides" if extra else ""
            raise DataError(
                f"{images.source.name}: {name}{lacks}{' and' if lacks and more else ''}{more}; "
                "all splits need the classes of train: rename, move or remove these folders"
            )
        if empty := empty_classes(images):
            raise DataError(
                f"{images.source.name}: no images in {name} of {_some(empty)}; add some, or remove it from all splits"
            )
    if len(train.classes) < 2:
        raise DataError(f"{train.source.name} has one class, {train.classes[0]!r}; telling classes apart needs two")


def empty_classes(images: LabelledImages) -> list[str]:
    """Classes without an image."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return [label for label, count in zip(images.classes, counts, strict=True) if count == 0]


def _looks(source: ImageSource, files: Sequence[str], thorough: bool) -> Generator[Look, None, None]:
    """A look at each file in turn; large images by several threads, which decode at the same time."""
    first = look_at(source, files[0], thorough) if files else Look()
    if max(first.height, first.width) <= SMALL:  # so short that threads would only wait for each other
        for file in files:
            yield look_at(source, file, thorough)
        return
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1), "scan") as pool:
        for start in range(0, len(files), CHUNK):
            yield from pool.map(lambda file: look_at(source, file, thorough), files[start : start + CHUNK])


class _Notes:
    """Gathers looks into a report."""

    def __init__(self) -> None:
        self.images = 0
        self._unreadable: dict[str, str] = {}
        self._modes: Counter[str] = Counter()
        self._turned: list[str] = []
        self._sides = [0, 0]
        self._first: dict[bytes, tuple[str, str, str]] = {}
        self._copies: dict[bytes, list[tuple[str, str, str]]] = {}

    def take(self, split: str, file: str, label: str, look: Look) -> None:
        self.images += 1
        if look.fault:
            self._unreadable[file] = look.fault
            return
        if look.mode != "RGB":
            self._modes[look.mode] += 1
        if look.turned:
            self._turned.append(file)
        shortest, longest = min(look.height, look.width), max(look.height, look.width)
        self._sides = [min(self._sides[0] or shortest, shortest), max(self._sides[1], longest)]
        place = (split, file, label)
        if look.digest and (first := self._first.setdefault(look.digest, place)) is not place:
            self._copies.setdefault(look.digest, [first]).append(place)

    def report(self, splits: Mapping[str, LabelledImages], ignored: Sequence[str]) -> ScanReport:
        copies = list(self._copies.values())
        counts = {name: np.bincount(images.labels, minlength=len(images.classes)) for name, images in splits.items()}
        return ScanReport(
            images=self.images,
            unreadable=self._unreadable,
            empty_classes=tuple((name, label) for name, split in splits.items() for label in empty_classes(split)),
            single_image_classes=tuple(
                (name, splits[name].classes[int(label)])
                for name, count in counts.items()
                for label in np.flatnonzero(count == 1)
            ),
            converted=dict(self._modes),
            turned=tuple(self._turned),
            copies=tuple(tuple(file for _, file, _ in found) for found in copies),
            copies_between_splits=sum(len({split for split, _, _ in found}) > 1 for found in copies),
            copies_between_classes=sum(len({label for _, _, label in found}) > 1 for found in copies),
            ignored=tuple(ignored),
            shortest_side=self._sides[0],
            longest_side=self._sides[1],
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
