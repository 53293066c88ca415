"""Data sets of torchvision by name: those whose images have one label each and splits that are fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError, UnknownNameError
from mnv3search.training.data.images import ArraySource, FolderSource, ImageSource, LabelledImages
from mnv3search.training.data.layout import WHOLE

PREFIX = "torchvision:"
DOWNLOAD = ",download"

_TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}


@dataclass(frozen=True, slots=True)
class _Kind:
    """The arguments and attributes of a class of torchvision."""

    splits: Mapping[str, Mapping[str, object]]  # of each of our splits the arguments that select it
    images: str  # attribute with an array of images, or a list of paths, or of pairs of path and label
    labels: str = ""  # attribute with the labels; empty where they are in the pairs
    classes: tuple[str, ...] = ()


_ARRAY = _Kind({"train": {"train": True}, "test": {"train": False}}, "data", "targets")
_FILES = _Kind(_THREE, "_image_files", "_labels")
DATA_SETS: Mapping[str, _Kind] = MappingProxyType({
    **dict.fromkeys(("CIFAR10", "CIFAR100", "MNIST", "KMNIST", "FashionMNIST"), _ARRAY),
    "STL10": _Kind(_TWO, "data", "labels"),
    "SVHN": _Kind(_TWO, "data", "labels", tuple("0123456789")),
    "Flowers102": _FILES,
    "Food101": _Kind(_TWO, "_image_files", "_labels"),
    "DTD": _FILES,
    "FGVCAircraft": _FILES,
    "OxfordIIITPet": _Kind({"train": {"split": "trainval"}, "test": {"split": "test"}}, "_images", "_labels"),
    "Imagenette": _Kind({"train": {"split": "train"}, "val": {"split": "val"}}, "_samples"),
    "GTSRB": _Kind(_TWO, "_samples", "", tuple(f"{number:02d}" for number in range(43))),
    "EuroSAT": _Kind({WHOLE: {}}, "samples"),
    "SUN397": _Kind({WHOLE: {}}, "_image_files", "_labels"),
})  # fmt: skip


def torchvision_splits(where: str) -> dict[str, LabelledImages]:
    """The splits of ``torchvision:NAME:FOLDER``; fetched first where ``,download`` follows.

    CIFAR's files are pickles by their makers: torchvision opens them only if their checksums are the published ones.
    """
    name, colon, folder = where.removeprefix(PREFIX).partition(":")
    fetch = folder.endswith(DOWNLOAD)
    folder = folder.removesuffix(DOWNLOAD)
    if not colon or not folder:
        raise DataError(f"{where!r} must be {PREFIX}NAME:FOLDER, for instance {PREFIX}CIFAR10:data")
    if name not in DATA_SETS:
        raise UnknownNameError("data set of torchvision", name, DATA_SETS)
    root = Path(folder).expanduser()
    if not fetch and not root.is_dir():
        raise DataError(f"no such folder: {root}; add {DOWNLOAD} to fetch {name} into it")
    found = {split: _open(name, root, dict(asked), fetch) for split, asked in DATA_SETS[name].splits.items()}
    return _labelled(name, root, found)


def _open(name: str, root: Path, asked: dict[str, object], fetch: bool) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, name)(root=str(root), download=fetch, **asked)
    except ImportError as error:
        raise DataError(f"torchvision needs another package to read {name}: {error}") from None
    except Exception as error:  # what torchvision, its downloads and the parsers of damaged files raise is not bounded
        remedy = "look at the folder" if fetch else f"look at the folder, or add {DOWNLOAD} to fetch it"
        raise DataError(f"cannot open {name} in {root}: {error}; {remedy}") from None


def _labelled(name: str, root: Path, found: dict[str, Any]) -> dict[str, LabelledImages]:
    kind = DATA_SETS[name]
    try:
        parts = {split: (getattr(data, kind.images), _labels(kind, data)) for split, data in found.items()}
        classes = kind.classes or tuple(
            # Imagenette gives several names for a class
            str(one[0] if isinstance(one, list | tuple) else one)
            for one in next(iter(found.values())).classes
        )
    except AttributeError as error:
        raise DataError(
            f"this version of torchvision keeps {name} in another way: {error}; install 0.19 or a later one"
        ) from None
    source: ImageSource
    if kind.images == "data":
        source = arrays = ArraySource(
            f"{PREFIX}{name}:{root}", {split: _rgb(data) for split, (data, _) in parts.items()}
        )
        files = {split: arrays.files(split) for split in parts}
    else:
        source = FolderSource(root)
        files = {split: tuple(_below(root, image) for image in images) for split, (images, _) in parts.items()}
    return {split: LabelledImages(source, files[split], labels, classes) for split, (_, labels) in parts.items()}


def _labels(kind: _Kind, data: Any) -> NDArray[np.int64]:
    labels = getattr(data, kind.labels) if kind.labels else [label for _, label in getattr(data, kind.images)]
    return np.asarray(labels, dtype=np.int64)


def _below(root: Path, image: object) -> str:
    path = image[0] if isinstance(image, tuple) else image
    return Path(str(path)).relative_to(root).as_posix()


def _rgb(data: Any) -> NDArray[np.uint8]:
    """(N, H, W), (N, 3, H, W) or (N, H, W, 3) to (N, H, W, 3)."""
    array: NDArray[np.uint8] = np.asarray(data, dtype=np.uint8)
    if array.ndim == 3:
        return np.repeat(array[:, :, :, None], 3, axis=3)
    if array.shape[1] == 3 and array.shape[3] != 3:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    return array
