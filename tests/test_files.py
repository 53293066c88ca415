"""Files are written whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mnv3search.errors import RunError
from mnv3search.files import held, write_atomic, write_text


def test_text_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    write_text(file, "new µ\n")
    assert file.read_bytes() == "new µ\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_the_old_content_and_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"a\.txt: No space left on device.*intact"):
        write_atomic(file, full)
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_interruption_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def interrupted(part: Path) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(file, interrupted)
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"make the folder .*nowhere"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(RunError, match="another process works on"), held(tmp_path):
        pass
    with held(tmp_path):
        assert not list(tmp_path.iterdir())
