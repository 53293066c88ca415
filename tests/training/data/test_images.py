"""Folders and archives: read in place, bounded, by several threads at once."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_fakes import make_image_folder, zip_folder

from mnv3search.errors import DataError
from mnv3search.training.data import images
from mnv3search.training.data.images import FolderSource, ZipSource
from mnv3search.training.data.open_data import open_data


def test_archive_has_the_images_of_its_folder_and_extracts_nothing(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "flowers", classes=2, per_class=3)
    archive = zip_folder(folder, tmp_path / "flowers.zip", top="flowers")
    before = sorted(tmp_path.rglob("*"))
    plain, packed = open_data(str(folder)), open_data(str(archive))
    for split in ("train", "val"):
        mine, other = getattr(plain, split), getattr(packed, split)
        assert other.files == tuple(f"flowers/{file}" for file in mine.files)
        np.testing.assert_array_equal(mine.labels, other.labels)
        for index in range(len(mine)):
            np.testing.assert_array_equal(mine.read(index), other.read(index))
    assert sorted(tmp_path.rglob("*")) == before


def test_archive_is_read_by_several_threads(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "a", classes=2, per_class=20, split=())
    source, plain = ZipSource(zip_folder(folder, tmp_path / "a.zip")), FolderSource(folder)
    files = [name for name in source.entries() if not name.endswith("/")] * 10
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for file, data in zip(files, pool.map(source.encoded, files), strict=True):
            assert data == plain.encoded(file)


def test_archive_goes_to_another_process_by_its_path(tmp_path: Path) -> None:
    source = ZipSource(zip_folder(make_image_folder(tmp_path / "a", per_class=1, split=()), tmp_path / "a.zip"))
    again = pickle.loads(pickle.dumps(source))
    assert again.entries() == source.entries()


def with_flag(archive: Path, flag: int) -> None:
    """Set a general-purpose flag of every entry, in the local and in the central headers."""
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            (flags,) = struct.unpack_from("<H", data, at + offset)
            struct.pack_into("<H", data, at + offset, flags | flag)
            at = data.find(mark, at + 4)
    archive.write_bytes(data)


def test_encrypted_entry_is_refused(tmp_path: Path) -> None:
    archive = zip_folder(make_image_folder(tmp_path / "a", per_class=2), tmp_path / "a.zip")
    with_flag(archive, 0x1)
    with pytest.raises(DataError, match="is encrypted; make the archive without a password"):
        open_data(str(archive))


def test_entry_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("x.png", bytes(4_000_000))
    with pytest.raises(DataError, match=r"x\.png would unpack from .* as a zip bomb does; remove it"):
        ZipSource(archive).encoded("x.png")


def test_entry_that_is_longer_than_an_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    folder = make_image_folder(tmp_path / "a", per_class=1, split=())
    archive = zip_folder(folder, tmp_path / "a.zip")
    for source in (ZipSource(archive), FolderSource(folder)):
        with pytest.raises(DataError, match="more than the 100 that an image may have"):
            source.encoded("class_0/0000.png")


def test_archive_with_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zip_folder(make_image_folder(tmp_path / "a"), tmp_path / "a.zip")
    monkeypatch.setattr(images, "MAX_ENTRIES", 10)
    with pytest.raises(DataError, match="more than the 10 that are read"):
        ZipSource(archive)


def test_damaged_entry_is_named(tmp_path: Path) -> None:
    archive = zip_folder(make_image_folder(tmp_path / "a", classes=2, per_class=1, split=()), tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    data[200:220] = bytes(20)
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip:class_0/0000\.png cannot be read: .*; make the archive anew"):
        ZipSource(archive).read("class_0/0000.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_entries_that_are_damaged_anywhere_are_named(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as packed:
        packed.writestr("a/0.png", bytes(range(256)) * 20)
    whole = archive.read_bytes()
    source = ZipSource(archive)
    assert source.encoded("a/0.png") == bytes(range(256)) * 20
    length = source._archive.getinfo("a/0.png").compress_size
    for first in range(37, 37 + length - 8, 7):  # 30 bytes of header and the name go before
        archive.write_bytes(whole[:first] + b"\xff" * 8 + whole[first + 8 :])
        try:
            assert ZipSource(archive).encoded("a/0.png") == bytes(range(256)) * 20  # what ends a stream may be spared
        except DataError as error:
            assert re.search(r"a\.zip:a/0\.png cannot be read: .+; make the archive anew", str(error))  # noqa: PT017


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x50\x4b\x05\x06" + bytes(17)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read the zip archive .*a\.zip: "):
        ZipSource(tmp_path / "a.zip")


def test_missing_files_are_named(tmp_path: Path) -> None:
    archive = zip_folder(make_image_folder(tmp_path / "a"), tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"has no entry 'x\.png'"):
        ZipSource(archive).read("x.png")
    with pytest.raises(DataError, match=r"cannot read .*x\.png: No such file"):
        FolderSource(tmp_path).read("x.png")


def test_what_is_no_regular_file_among_images_is_named_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name, what in (("zero.png", "a device"), ("pipe.png", "a pipe"), ("folder.png", "a folder")):
        for read in (FolderSource(tmp_path).read, FolderSource(tmp_path).ends):
            with pytest.raises(DataError, match=rf"cannot read .*{name}: it is {what}"):
                read(name)
