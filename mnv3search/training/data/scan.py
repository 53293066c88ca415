"""What is wrong with the images of a data set, found before anything is trained on them, and reported."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.training.data.decoding import EncodedImage
from mnv3search.training.data.images import FolderSource, ImageSource, LabelledImages, encoded
from mnv3search.training.data.memory import SMALL, Collector

END_OF_JPEG = b"\xff\xd9"
PADDING = 4096  # bytes after the end of an image in which its end is still found


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What is known of one image."""

    fault: str = ""  # why it cannot be used
    height: int = 0  # pixels; 0 where unknown
    width: int = 0
    mode: str = "RGB"  # how its pixels are stored, by Pillow's name
    turned: bool = False  # EXIF asks for a turn
    digest: bytes = b""  # of its bytes; empty where they were not all read
    pixels: NDArray[np.uint8] | None = None  # (H, W, 3) of a small image

    @classmethod
    def of(cls, image: EncodedImage, data: bytes = b"", pixels: NDArray[np.uint8] | None = None) -> ImageCheck:
        """Of a header, and of data and pixels where they were read."""
        small = pixels is not None and max(pixels.shape[:2]) <= SMALL
        digest = _digest(data) if data else b""
        return cls("", image.height, image.width, image.mode, image.turned, digest, pixels if small else None)


def check_image(source: ImageSource, file: str, thorough: bool) -> ImageCheck:
    """Check one image; unless ``thorough`` large ones are decoded only where header and end do not suffice."""
    try:
        if not encoded(source):
            pixels = source.read(file)
            small = pixels if max(pixels.shape[:2]) <= SMALL else None
            return ImageCheck("", pixels.shape[0], pixels.shape[1], digest=_digest(pixels.tobytes()), pixels=small)
        if not thorough and isinstance(source, FolderSource):
            head, tail = source.ends(file)
            with contextlib.suppress(DataError):
                image = EncodedImage(head, source.full_name(file))
                if max(image.height, image.width) > SMALL and _is_whole(image.format, tail):
                    return ImageCheck.of(image)
        data = source.encoded(file)
        image = EncodedImage(data, source.full_name(file))
        if not thorough and max(image.height, image.width) > SMALL and _is_whole(image.format, data):
            return ImageCheck.of(image)
        # Damage shows at any size, and large JPEGs decode faster at an eighth of it.
        return ImageCheck.of(image, data, image.pixels(8 if min(image.height, image.width) > 8 * SMALL else 1))
    except DataError as error:
        return ImageCheck(str(error))


def _is_whole(form: str, tail: bytes) -> bool:
    """Whether the data end as this format's do; False for formats without a mark."""
    if form in {"JPEG", "MPO"}:
        return END_OF_JPEG in tail[-PADDING:]
    return form == "PNG" and b"IEND" in tail[-PADDING:]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


SHOWN, MOST_FAULTS = 5, 1000
MOST_IN_AN_ERROR = 3  # images that an error names; more of them are listed, one a line
MODES = {
    "L": "grey", "1": "black and white", "P": "palette", "PA": "palette with alpha", "LA": "grey with alpha",
    "RGBA": "alpha", "CMYK": "CMYK", "I;16": "16 bits", "I": "32 bits", "YCbCr": "YCbCr", "LAB": "Lab",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan of images found."""

    images: int  # how many were checked
    unreadable: Mapping[str, str]  # of each image that cannot be used: empty, cut short, damaged, too large, no image
    empty_classes: tuple[tuple[str, str], ...] = ()  # (split, class) without an image
    single_image_classes: tuple[tuple[str, str], ...] = ()  # (split, class) with one
    converted: Mapping[str, int] | None = None  # number of images not stored as RGB, by Pillow's names
    turned: tuple[str, ...] = ()  # images that EXIF asks to turn; they are
    copies: tuple[tuple[str, ...], ...] = ()  # groups of files with the same bytes
    copies_between_splits: int = 0  # of these groups
    copies_between_classes: int = 0
    ignored: tuple[str, ...] = ()  # hidden files, no images by their names, or outside the folders of the classes
    shortest_side: int = 0  # of all images, pixels; 0 where none could be read
    longest_side: int = 0

    def raise_if_bad(self, on_fault: Callable[[str], None] | None = None) -> None:
        """Raises :class:`DataError` where images cannot be used or classes are empty, and names the first of them.

        ``on_fault`` is called with the fault of each image first (see :meth:`faults`).
        """
        if on_fault is not None:
            for fault in self.faults():
                on_fault(fault)
        if self.unreadable:
            reasons = list(self.unreadable.values())
            named = reasons if len(reasons) <= MOST_IN_AN_ERROR else [reasons[0], f"and {len(reasons) - 1:,} more"]
            count = "1 image" if len(reasons) == 1 else f"{len(reasons):,} images"
            raise DataError(f"{count} of {self.images:,} cannot be used: {'; '.join(named)}")
        if self.empty_classes:
            raise DataError(f"no images of {_pairs(self.empty_classes)}; add some, or remove the class from all splits")

    def faults(self) -> list[str]:
        """The fault of each image that cannot be used, one a line: the first 1,000; none if the error names all."""
        reasons = list(self.unreadable.values())
        if len(reasons) <= MOST_IN_AN_ERROR:
            return []
        rest = len(reasons) - MOST_FAULTS
        return [*reasons[:MOST_FAULTS], *([f"and {rest:,} more"] if rest > 0 else [])]

    def lines(self) -> list[str]:
        """The report, one finding a line."""
        sides = f", sides of {self.shortest_side} to {self.longest_side} pixels" if self.longest_side else ""
        found = [f"{self.images:,} images{sides}"]
        if self.unreadable:
            found.append(f"cannot be used: {_first_of(list(self.unreadable.values()))}")
        if self.empty_classes:
            found.append(f"classes without images: {_pairs(self.empty_classes)}")
        if self.single_image_classes:
            found.append(f"classes with one image: {_pairs(self.single_image_classes)}")
        if self.converted:
            kinds = ", ".join(f"{count:,} {MODES.get(mode, mode)}" for mode, count in sorted(self.converted.items()))
            found.append(f"converted to RGB: {kinds}")
        if self.turned:
            found.append(f"turned as EXIF says: {len(self.turned):,}")
        if self.copies:
            between = [
                f"{count} of them {what}"
                for count, what in (
                    (self.copies_between_splits, "in more than one split, so accuracy will look better than it is"),
                    (self.copies_between_classes, "in more than one class"),
                )
                if count
            ]
            equal = [" = ".join(_shortened(group)) for group in self.copies]
            found.append("; ".join([f"the same image more than once: {len(equal):,} ({_first_of(equal)})", *between]))
        if self.ignored:
            found.append(f"left out, as no images of a class: {_first_of(self.ignored)}")
        return found


def _first_of(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return f"{', '.join(items[:SHOWN])}{more}"


def _shortened(group: Sequence[str]) -> list[str]:
    """The names of a group of equal files, few enough to read."""
    return [*group[:SHOWN], *([f"{len(group) - SHOWN:,} more"] if len(group) > SHOWN else [])]


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return _first_of([f"{label!r} in {split}" if split else repr(label) for split, label in pairs])


THOROUGH = 20_000  # large images up to which all are decoded: a minute or two on one core
CHUNK = 512


def scan_images(
    images: LabelledImages | Mapping[str, LabelledImages], progress: Callable[[int, int], None] | None = None, *,
    ignored: Sequence[str] = (), thorough: bool | None = None,
) -> ScanReport:  # fmt: skip
    """Check every image of one split, or of several by name; ``ignored`` are the files left out, for the report.

    Small images (up to 64 pixels) are decoded, and kept for the batches where all are small. Large ones are decoded
    where ``thorough`` (by default up to ``THOROUGH`` images); else header and end are checked, which finds empty, cut
    and oversized files, and not damage in the middle nor copies.
    """
    splits = {"": images} if isinstance(images, LabelledImages) else dict(images)
    total = sum(map(len, splits.values()))
    every = total <= THOROUGH if thorough is None else thorough
    findings = _Findings()
    collectors = {split.source: Collector(split.source, total) for split in splits.values()}
    for name, split in splits.items():
        collector = collectors[split.source]
        with contextlib.closing(_checks(split.source, split.files, every)) as checks:
            for number, (file, check) in enumerate(zip(split.files, checks, strict=True)):
                findings.add(name, file, split.classes[int(split.labels[number])], check)
                collector.take(file, check.pixels)
                if progress is not None and (findings.images % CHUNK == 0 or findings.images == total):
                    progress(findings.images, total)
    for collector in collectors.values():
        collector.keep()
    return findings.report(splits, ignored)


def check_splits(splits: Mapping[str, LabelledImages]) -> None:
    """Check splits against one another: at least two classes, none empty, the same in all."""
    train = splits["train"]
    wanted = frozenset(train.classes)
    for name, images in splits.items():
        missing = sorted(wanted.difference(images.classes))
        extra = [label for label in images.classes if label not in wanted]
        if missing or extra:
            lacks = f" lacks {_first_of(list(map(repr, missing)))}" if missing else ""
            more = f" has {_first_of(list(map(repr, extra)))} besides" if extra else ""
            raise DataError(
                f"{images.source.name}: {name}{lacks}{' and' if lacks and more else ''}{more}; "
                "all splits need the classes of train: rename, move or remove these folders"
            )
        if empty := classes_with(images, 0):
            raise DataError(
                f"{images.source.name}: no images in {name} of {_first_of(list(map(repr, empty)))}; add some, or "
                "remove it from all splits"
            )
    if len(train.classes) < 2:
        raise DataError(f"{train.source.name} has one class, {train.classes[0]!r}; telling classes apart needs two")


def classes_with(images: LabelledImages, count: int) -> list[str]:
    """Classes with this number of images."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return [images.classes[int(label)] for label in np.flatnonzero(counts == count)]


def _checks(source: ImageSource, files: Sequence[str], thorough: bool) -> Generator[ImageCheck, None, None]:
    """Checks of all files in turn; large images by several threads, which decode at the same time."""
    first = check_image(source, files[0], thorough) if files else ImageCheck()
    if max(first.height, first.width) <= SMALL:  # so short that threads would only wait for each other
        for file in files:
            yield check_image(source, file, thorough)
        return
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1), "scan") as pool:
        for start in range(0, len(files), CHUNK):
            yield from pool.map(lambda file: check_image(source, file, thorough), files[start : start + CHUNK])


class _Findings:
    """Gathers checks into a report."""

    def __init__(self) -> None:
        self.images = 0
        self._unreadable: dict[str, str] = {}
        self._modes: Counter[str] = Counter()
        self._turned: list[str] = []
        self._sides = [0, 0]
        self._equal: dict[bytes, list[tuple[str, str, str]]] = {}

    def add(self, split: str, file: str, label: str, check: ImageCheck) -> None:
        self.images += 1
        if check.fault:
            self._unreadable[file] = check.fault
            return
        if check.mode != "RGB":
            self._modes[check.mode] += 1
        if check.turned:
            self._turned.append(file)
        shortest, longest = min(check.height, check.width), max(check.height, check.width)
        self._sides = [min(self._sides[0] or shortest, shortest), max(self._sides[1], longest)]
        if check.digest:
            self._equal.setdefault(check.digest, []).append((split, file, label))

    def report(self, splits: Mapping[str, LabelledImages], ignored: Sequence[str]) -> ScanReport:
        copies = [found for found in self._equal.values() if len(found) > 1]
        empty, single = (
            tuple((name, label) for name, split in splits.items() for label in classes_with(split, count))
            for count in (0, 1)
        )
        return ScanReport(
            images=self.images,
            unreadable=self._unreadable,
            empty_classes=empty,
            single_image_classes=single,
            converted=dict(self._modes),
            turned=tuple(self._turned),
            copies=tuple(tuple(file for _, file, _ in found) for found in copies),
            copies_between_splits=sum(len({split for split, _, _ in found}) > 1 for found in copies),
            copies_between_classes=sum(len({label for _, _, label in found}) > 1 for found in copies),
            ignored=tuple(ignored),
            shortest_side=self._sides[0],
            longest_side=self._sides[1],
        )
