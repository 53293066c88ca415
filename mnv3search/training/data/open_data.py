"""Data sets by the name that a user gives: a folder, a zip archive, or a data set of torchvision."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mnv3search.errors import DataError
from mnv3search.training.data.images import MAX_ENTRIES, FolderSource, ImageSource, LabelledImages, ZipSource
from mnv3search.training.data.layout import SPLIT_NAMES, WHOLE, composed, read_layout
from mnv3search.training.data.scan import check_splits, scan_images
from mnv3search.training.data.splits import NETADAPT, DataSplits, held_out
from mnv3search.training.data.torchvision_data import PREFIX, torchvision_splits

Progress = Callable[[int, int], None]
OnFault = Callable[[str], None]
VAL_SHARE = 0.1  # of the training images, held out where the data have no val


def open_data(
    where: str | Path, *, val_share: float = VAL_SHARE, scan: bool = True, progress: Progress | None = None,
    on_fault: OnFault | None = None, netadapt_share: float = 0.0,
) -> DataSplits:  # fmt: skip
    """The data set ``where``, with a validation split, and a test split where there is one.

    ``where`` is

    - a folder with ``train/`` and ``val/`` or ``test/``, in each a folder of images for each class; or with the folders
      of the classes at once;
    - a zip archive of such a folder, read in place;
    - ``torchvision:NAME:FOLDER``, for instance ``torchvision:CIFAR10:data``; ``,download`` at the end fetches it.

    Without a ``val`` split one is held out of ``train`` (see :func:`~mnv3search.training.data.splits.held_out`).

    Args:
        where: see above.
        val_share: share of the training images to hold out where there is no ``val``.
        scan: check every image first (see :func:`~mnv3search.training.data.scan.scan_images`).
        progress: called with (done, total) while it scans.
        on_fault: called with what is wrong with each image that cannot be used, where the error does not name all.
        netadapt_share: share of the training images to leave out, for NetAdapt to score its proposals on.

    Raises:
        DataError: no such data, one class, empty classes, classes that differ between the splits, or, with ``scan``,
            images that cannot be decoded.
    """
    where = str(where)
    found, ignored = _splits(where)
    if WHOLE in found:
        found = {"train": found[WHOLE]}
    if "train" not in found:
        raise DataError(f"{where} has no images to train on: it holds {_listed(found)}; add a folder train/")
    check_splits(found)
    report = scan_images(found, progress, ignored=ignored) if scan else None
    if report is not None:
        report.raise_if_bad(on_fault)
    train, val = found["train"], found.get("val")
    if val is None:
        train, val = held_out(train, val_share)
    if netadapt_share:
        train, _ = held_out(train, netadapt_share, NETADAPT)
    return DataSplits(train, val, found.get("test"), report, netadapt_share)


def open_images(
    where: str | Path, classes: Sequence[str] | None = None, *, scan: bool = False, progress: Progress | None = None,
    on_fault: OnFault | None = None,
) -> LabelledImages:  # fmt: skip
    """The images of one split, to evaluate on, with labels in the order of ``classes``, sorted by name where None.

    ``where`` is a folder whose folders are classes (``flowers/val``), or data as :func:`open_data` takes them followed
    by ``:`` and a split (``cifar10.zip:test``, ``torchvision:CIFAR10:data:test``). ``:val`` of data without a val split
    are the images that :func:`open_data` holds out of a training. The rest is as there.
    """
    where = str(where)
    base, split = _with_split(where)
    found, ignored = _splits(base)
    if split is None:
        if len(found) > 1:
            raise DataError(f"{where} has several splits; name one: {' or '.join(f'{where}:{one}' for one in found)}")
        images = next(iter(found.values()))
    elif split == "val" and split not in found and (whole := found.get("train", found.get(WHOLE))) is not None:
        images = held_out(whole, VAL_SHARE)[1]
    elif split not in found:
        raise DataError(f"{base} has no split {split!r}; it holds {_listed(found)}")
    else:
        images = found[split]
    if scan:
        scan_images(images, progress, ignored=ignored).raise_if_bad(on_fault)
    return images if classes is None else with_classes(images, classes)


def absolute_data(where: str) -> str:
    """The same data, or another file or folder, by an absolute path."""
    if where.startswith(PREFIX):
        name, colon, folder = where.removeprefix(PREFIX).partition(":")
        return f"{PREFIX}{name}:{Path(folder).expanduser().absolute()}" if colon and folder else where
    return str(Path(where).expanduser().absolute())


def with_classes(images: LabelledImages, classes: Sequence[str]) -> LabelledImages:
    """The same images with labels in the order of ``classes``, which may have more classes than the images."""
    numbers = {unicodedata.normalize("NFC", name): number for number, name in enumerate(classes)}
    if unknown := [name for name in images.classes if name not in numbers]:
        raise DataError(
            f"{images.source.name} has {_some(unknown)}, unknown to the network, which knows {_some(classes)}; "
            "give images of its classes, under its names"
        )
    order = np.array([numbers[name] for name in images.classes], dtype=np.int64)
    return replace(images, labels=order[images.labels], classes=tuple(classes))


def _splits(where: str) -> tuple[dict[str, LabelledImages], tuple[str, ...]]:
    """Splits by name, or ``WHOLE`` alone, and the files that are no images."""
    if where.startswith(PREFIX):
        return torchvision_splits(where), ()
    if not where:
        raise DataError("the path of the images is empty; give a folder, a zip archive or torchvision:NAME:FOLDER")
    composed(where, "the images")
    path = Path(where).expanduser()
    source: ImageSource
    if path.is_dir():
        source, names = FolderSource(path), _walk(path)
    elif path.is_file():
        source = ZipSource(path)
        names = source.entries()
    else:
        raise DataError(f"no such folder or zip archive: {where}; or name torchvision:NAME:FOLDER")
    splits, ignored = read_layout(names, where)
    if not splits:
        raise DataError(
            f"{where} holds no folder of images; put the images of each class into a folder "
            "of its name, in train/ and val/"
        )
    return {split: _labelled(source, classes) for split, classes in splits.items()}, ignored


def _labelled(source: ImageSource, classes: dict[str, list[str]]) -> LabelledImages:
    files = tuple(file for members in classes.values() for file in members)
    counts = [len(members) for members in classes.values()]
    return LabelledImages(source, files, np.repeat(np.arange(len(counts)), counts), tuple(classes))


def _walk(root: Path) -> list[str]:
    """Names of all files and, with ``/`` at the end, folders below ``root``.

    Links are followed wherever they lead, as data often lie elsewhere, and several to one folder are several folders;
    one to a folder that it stands in, such as ``..``, is left out.
    """
    names: list[str] = []
    inside: dict[str, tuple[str, ...]] = {str(root): (os.path.realpath(root),)}  # where each and those above really are
    for folder, folders, files in os.walk(root, followlinks=True):
        above = inside.pop(folder)
        for name in tuple(folders):
            path = os.path.join(folder, name)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(above[-1], name)
            if any(inner == real or inner.startswith(real.rstrip(os.sep) + os.sep) for inner in above):
                folders.remove(name)
            else:
                inside[path] = (*above, real)
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        names += [f"{prefix}{name}/" for name in folders] + [f"{prefix}{name}" for name in files]
        if len(names) > MAX_ENTRIES:
            raise DataError(
                f"{root} holds more than the {MAX_ENTRIES:,} files that are read; name the folder of the data"
            )
    return names


def _with_split(where: str) -> tuple[str, str | None]:
    """``data.zip:test`` in its parts; a whole path that exists, or one without a split, has None."""
    base, colon, split = where.rpartition(":")
    if not colon or split not in SPLIT_NAMES or Path(where).exists():
        return where, None
    return base, SPLIT_NAMES[split]


def _listed(found: dict[str, LabelledImages]) -> str:
    return ", ".join(split or "no splits" for split in found)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{len(names)} classes ({shown}{', …' if len(names) > 5 else ''})" if len(names) > 1 else f"class {shown}"
