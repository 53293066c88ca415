"""Labelled images, and where they are read from: a folder, a zip archive, an array in memory."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError
from mnv3search.reading import open_regular
from mnv3search.training.data.decoding import MAX_FILE_BYTES, decode

MAX_ENTRIES = 4_000_000
END_BYTES = 64 * 1024  # of a file's beginning and end; headers are shorter but for large colour profiles
MAX_RATIO = 200  # deflate cannot pass 1032; images that are compressed already stay near 1


class ImageSource(Protocol):
    """Where images are read from: a folder, a zip archive, a data set of torchvision."""

    name: str

    def read(self, file: str) -> NDArray[np.uint8]:
        """The decoded image, (height, width, 3) RGB as a viewer shows it.

        Raises:
            DataError: the file is missing, empty, cut short, too large or no image.
        """
        ...


class EncodedSource(ImageSource, Protocol):
    """A source that also gives an image as it is stored; large JPEGs can then be decoded at a part of their size."""

    def read(self, file: str) -> NDArray[np.uint8]:
        """As :meth:`ImageSource.read`."""
        return decode(self.encoded(file), self.full_name(file))

    def encoded(self, file: str) -> bytes:
        """The stored bytes."""
        ...

    def full_name(self, file: str) -> str:
        """The image's whole name, for messages."""
        ...


def encoded(source: ImageSource) -> TypeGuard[EncodedSource]:
    """Whether ``source`` is an :class:`EncodedSource`."""
    return hasattr(source, "encoded") and hasattr(source, "full_name")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images of one split with their labels, decoded one by one when they are asked for."""

    source: ImageSource
    files: tuple[str, ...]  # names in the source, unique and in a stable order
    labels: NDArray[np.int64]  # (N,) indices into classes
    classes: tuple[str, ...]  # names, in the order of the logits

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Image ``index``, decoded: (height, width, 3) RGB."""
        return self.source.read(self.files[index])

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> LabelledImages:
        """Only these images, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, files=tuple(self.files[int(i)] for i in chosen), labels=self.labels[chosen])


class FolderSource(EncodedSource):
    """Images in files under one folder; names are paths relative to it with ``/``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def encoded(self, file: str) -> bytes:
        """The file's bytes."""
        try:
            with open_regular(self.root / file) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size > MAX_FILE_BYTES:
                    raise DataError(_too_long(self.full_name(file), size))
                return stream.read(MAX_FILE_BYTES)
        except OSError as error:
            raise DataError(f"cannot read {self.full_name(file)}: {error.strerror or error}") from None

    def full_name(self, file: str) -> str:
        """The file's whole path."""
        return str(self.root / file)

    def ends(self, file: str) -> tuple[bytes, bytes]:
        """The first and the last ``END_BYTES`` of the file, to check it without reading all of it."""
        try:
            with open_regular(self.root / file) as stream:
                head = stream.read(END_BYTES)
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - END_BYTES))
                return head, stream.read(END_BYTES)
        except OSError as error:
            raise DataError(f"cannot read {self.full_name(file)}: {error.strerror or error}") from None


class ZipSource(EncodedSource):
    """Images in a zip archive, read in place: nothing is extracted. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._archive = _open_zip(path)

    def __reduce__(self) -> tuple[type[ZipSource], tuple[Path]]:
        return ZipSource, (self.path,)

    def entries(self) -> list[str]:
        """Names of all entries in the archive's order; those of folders end with ``/``."""
        return self._archive.namelist()

    def encoded(self, file: str) -> bytes:
        """The entry's bytes, at most ``MAX_FILE_BYTES`` of them."""
        where = self.full_name(file)
        with self._lock:
            if os.getpid() != self._process:  # a forked process must not share the position in the file
                self._archive, self._process = _open_zip(self.path), os.getpid()
            try:
                entry = self._archive.getinfo(file)
            except KeyError:
                raise DataError(f"{self.name} has no entry {file!r}") from None
            _check_entry(entry, where)
            try:
                with self._archive.open(entry) as stream:
                    return stream.read(entry.file_size)
            except Exception as error:  # damaged data can make a decompressor raise anything
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DataError(f"{where} cannot be read: {reason}; make the archive anew") from None

    def full_name(self, file: str) -> str:
        """The archive's path and the entry's."""
        return f"{self.name}:{file}"


class ArraySource:
    """Images in memory, (N, H, W, 3) uint8 for each split; file ``split/000012`` is image 12 of ``split``."""

    def __init__(self, name: str, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        self.name = name
        self.arrays = dict(arrays)

    def files(self, split: str) -> tuple[str, ...]:
        """Names of the images of one split, in order."""
        return tuple(f"{split}/{number:06d}" for number in range(len(self.arrays[split])))

    def read(self, file: str) -> NDArray[np.uint8]:
        """As :meth:`ImageSource.read`."""
        split, _, number = file.partition("/")
        try:
            image: NDArray[np.uint8] = self.arrays[split][int(number)]
        except (KeyError, ValueError, IndexError):
            raise DataError(f"{self.name} has no image {file!r}") from None
        return image


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        open_regular(path).close()
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory can make the reader raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(
            f"cannot read the zip archive {path}: {reason}; give an image folder or a whole zip archive of one"
        ) from None
    if len(archive.infolist()) > MAX_ENTRIES:
        raise DataError(f"{path} has {len(archive.infolist()):,} entries, more than the {MAX_ENTRIES:,} that are read")
    return archive


def _check_entry(entry: zipfile.ZipInfo, where: str) -> None:
    if entry.flag_bits & 0x1:
        raise DataError(f"{where} is encrypted; make the archive without a password")
    if entry.file_size > MAX_FILE_BYTES:
        raise DataError(_too_long(where, entry.file_size))
    if entry.file_size > 1024 * 1024 and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        raise DataError(
            f"{where} would unpack from {entry.compress_size:,} to {entry.file_size:,} bytes, as a zip bomb does; "
            "remove it from the archive"
        )


def _too_long(where: str, size: int) -> str:
    return f"{where} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that an image may have; scale it down"
