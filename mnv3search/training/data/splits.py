"""The splits of a data set, and which images are held out, by a hash of their names."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.training.data.images import LabelledImages

if TYPE_CHECKING:
    from mnv3search.training.data.scan import ScanReport


@dataclass(frozen=True, slots=True)
class DataSplits:
    """The splits of one data set; all have the same classes."""

    train: LabelledImages
    val: LabelledImages  # to choose by
    test: LabelledImages | None  # to evaluate on at the end, where the data have one
    report: ScanReport | None = None  # of the scan, where there was one
    held_out: float = 0.0  # share of the training images that is left out, for NetAdapt to score its proposals on


NETADAPT = "NetAdapt"  # the salt of the images that a training leaves out for NetAdapt to score its proposals on
MOST_READ = 16  # images whose pixels a fingerprint holds


def held_out(images: LabelledImages, share: float, salt: str = "held out") -> tuple[LabelledImages, LabelledImages]:
    """Split ``images`` in two: (rest, held-out), with about ``share`` of each class held out.

    An image is held out when the hash of its class and file name is below ``share``: it stays on its side when files
    are added or removed, when folders move, and when a folder is zipped. Of each class at least one image goes to
    either side, in the order of ``images``. Another ``salt`` gives an independent split.
    """
    if not 0 < share < 1:
        raise DataError(f"the share to hold out, {share!r}, must be above 0 and below 1")
    hashes = name_hashes(images, salt)
    chosen = hashes < share
    order, starts, counts = _by_class(images, hashes)
    if len(alone := order[starts[counts == 1]]):
        only = f"class {images.classes[int(images.labels[alone[0]])]!r} has one image ({images.files[int(alone[0])]})"
        raise DataError(f"{only}, which cannot be split in two; add images or a split of your own (train/ and val/)")
    chosen[order[starts]], chosen[order[starts + counts - 1]] = True, False
    return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))


def stable_subset(images: LabelledImages, count: int, salt: str = "subset") -> LabelledImages:
    """``count`` images, classes in the proportion of the whole, in the order of ``images``.

    Chosen by the hash of their names: the same on every machine, and the subset of fewer is part of the subset of more
    as far as the rounding of the classes' shares lets it.
    """
    order, starts, counts = _by_class(images, name_hashes(images, salt))
    if not len(starts) <= count <= len(images):
        raise DataError(
            f"a subset of {count} images must have at least one for each of {len(starts)} classes and at most all "
            f"{len(images)}"
        )
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return images.subset(np.sort(order[rank < np.repeat(_quotas(counts, count), counts)]))


def _by_class(
    images: LabelledImages, hashes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Images by class and then hash; where in that order each class that has images starts, and how many it has."""
    order = np.lexsort((hashes, images.labels))
    _, starts, counts = np.unique(images.labels[order], return_index=True, return_counts=True)
    return order, starts, counts


def name_hashes(images: LabelledImages, salt: str) -> NDArray[np.float64]:
    """Of each image a figure in [0, 1) that depends on ``salt``, its class and its file name alone."""
    hashes = np.empty(len(images), dtype=np.float64)
    for index, (file, label) in enumerate(zip(images.files, images.labels, strict=True)):
        text = f"{salt}\0{images.classes[int(label)]}\0{file.rpartition('/')[2]}"
        name = unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape")  # macOS decomposes é
        digest = hashlib.blake2b(name, digest_size=8).digest()
        hashes[index] = (int.from_bytes(digest, "big") >> 11) / 2.0**53
    return hashes


def fingerprint(images: LabelledImages) -> str:
    """A fingerprint of images: their number, and a hash of their classes and names, folders left out.

    It covers the pixels of a few images too, as the splits of a data set often number their files alike.
    """
    found = hashlib.blake2b(digest_size=8)
    for file, label in zip(images.files, images.labels, strict=True):
        text = f"{images.classes[int(label)]}\0{file.rpartition('/')[2]}\0"
        found.update(text.encode("utf-8", "surrogateescape"))
    for index in range(0, len(images), -(-len(images) // MOST_READ) or 1):
        found.update(images.read(index).tobytes())
    return f"{len(images)} images, {found.hexdigest()}"


def _quotas(counts: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Whole shares of ``count`` in proportion to ``counts``, each at least 1, by largest remainder."""
    exact = counts * (count / counts.sum())
    quotas: NDArray[np.int64] = np.maximum(1, np.floor(exact)).astype(np.int64)
    while (missing := count - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        open_to_change = quotas < counts if step > 0 else quotas > 1
        gain = np.where(open_to_change, step * (exact - quotas), -np.inf)
        quotas[np.argsort(-gain, kind="stable")[: min(abs(missing), int(open_to_change.sum()))]] += step
    return quotas
