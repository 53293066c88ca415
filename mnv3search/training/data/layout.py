"""Which split and class each file of a folder or archive belongs to, by the folders that it stands in."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from os.path import splitext

from mnv3search.errors import DataError
from mnv3search.training.data.decoding import SUFFIXES

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
WHOLE = ""  # the one split of data without split folders


def read_layout(names: Iterable[str], where: str) -> tuple[dict[str, dict[str, list[str]]], tuple[str, ...]]:
    """Sort ``names`` (paths with ``/``; those of folders end with ``/``) into splits and classes.

    Folders that hold nothing but one folder are passed through, as archives often have one at the top. A class's name
    is composed (NFC): macOS writes é as e and an accent, which are other bytes and the same name.
    """
    kept: list[tuple[str, tuple[str, ...]]] = []
    ignored = []
    for name in names:
        parts = tuple(part for part in name.split("/") if part)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if hidden or not (name.endswith("/") or splitext(name)[1].lower() in SUFFIXES):
            ignored.append(name)
        else:
            kept.append((name, parts))
    depth = _depth_of_top([parts for name, parts in kept if not name.endswith("/")])
    splits: dict[str, dict[str, list[str]]] = {}
    tops = {parts[depth] for _, parts in kept if len(parts) > depth}
    by_split = any(top.lower() in SPLIT_NAMES for top in tops)
    folders: dict[str, str] = {}
    for name, parts in kept:
        below = parts[depth:]
        if by_split and below:
            split = SPLIT_NAMES.get(below[0].lower())
            if split is not None and folders.setdefault(split, below[0]) != below[0]:
                raise DataError(f"{where} has two folders for {split}: {folders[split]} and {below[0]}; keep one")
            below = below[1:]
        else:
            split = WHOLE
        is_folder = name.endswith("/")
        if split is None or len(below) < (1 if is_folder else 2):
            if not is_folder:
                ignored.append(name)
            continue
        files = splits.setdefault(split, {}).setdefault(composed(below[0], where), [])
        if not is_folder:
            files.append(name)
    ordered = {
        split: {label: sorted(splits[split][label]) for label in sorted(splits[split])}
        for split in ("train", "val", "test", WHOLE)
        if split in splits
    }
    return ordered, tuple(sorted(ignored))


def composed(name: str, where: str) -> str:
    """A name of a class or of data in its composed form, in which names are kept and compared."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise DataError(
            f"{where}: the name {shown} is not UTF-8, as an archive from another system leaves it; rename that folder"
        ) from None
    return unicodedata.normalize("NFC", name)


def _depth_of_top(files: list[tuple[str, ...]]) -> int:
    """How many folders stand above the splits or classes: those that all images share, and that are neither."""
    depth = 0
    while True:
        tops = {parts[depth] for parts in files if len(parts) > depth}
        alone = len(tops) == 1 and all(len(parts) > depth + 2 for parts in files)
        if not alone or next(iter(tops)).lower() in SPLIT_NAMES:
            return depth
        depth += 1
