"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from mnv3search.errors import RunError
from mnv3search.files import append_lines, locked, locks_work, tidy, write_atomic, write_text


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


@pytest.mark.parametrize("name", ["folder", "file"])
def test_a_folder_or_file_is_locked_by_one_at_a_time(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        with locked(tmp_path / name):
            (lock,) = set(tmp_path.rglob("*")) - set(before)
            assert lock == tmp_path / {"folder": "folder/.lock", "file": ".file.lock"}[name]
            with pytest.raises(RunError, match="another process works on"), locked(tmp_path / name):
                pass
        assert sorted(tmp_path.rglob("*")) == before


def test_a_lock_is_on_a_file_that_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, opened = fcntl.flock, []

    def noted(handle: int, operation: int) -> None:
        opened.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        assert stat.S_ISREG(os.fstat(handle).st_mode)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", noted)
    with locked(tmp_path):
        write_text(tmp_path / "a.txt", "x")
    assert opened == [os.O_RDWR] * 2


def test_a_lock_that_a_killed_process_left_is_taken_and_one_that_goes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".lock").touch()
    flock, tries = fcntl.flock, []

    def removed_first(handle: int, operation: int) -> None:
        flock(handle, operation)
        tries.append(handle)
        if len(tries) == 1:
            (tmp_path / ".lock").unlink()  # by the process that had it, as its last act

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with locked(tmp_path):
        assert len(tries) == 2
        assert (tmp_path / ".lock").is_file()
    assert not list(tmp_path.iterdir())


def test_where_no_lock_file_can_be_made_it_is_said(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"cannot write .*\.lock"), locked(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_file_systems_without_locks_are_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    assert locks_work(tmp_path)
    assert locks_work(tmp_path / "none")  # nothing can be made there, which says nothing of locks
    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    with locked(tmp_path), locked(tmp_path):
        write_text(tmp_path / "a.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert not locks_work(tmp_path)


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        append_lines(tmp_path / "b.jsonl", ["x"])
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.txt", "b.jsonl")] == [0o640, 0o640]


def test_what_a_killed_process_was_writing_is_taken_over(tmp_path: Path) -> None:
    def killed(part: Path) -> None:
        part.write_text("half of a much longer text")
        os._exit(9)

    if (child := os.fork()) == 0:
        write_atomic(tmp_path / "a.txt", killed)
    os.waitpid(child, 0)
    assert [p.name for p in tmp_path.iterdir()] == [".a.part.txt"]
    write_atomic(tmp_path / "a.txt", lambda part: part.open("a").write("whole"))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "whole"}


def test_two_that_write_one_file_leave_the_whole_of_one_of_them(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def written(part: Path, text: str) -> None:
        together.wait()
        part.write_text(text)
        together.wait()

    texts = ["a" * 1_000, "b" * 10]
    threads = [
        threading.Thread(target=write_atomic, args=(tmp_path / "f", lambda part, text=text: written(part, text)))
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_text() in texts
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_links_are_replaced_or_refused_but_never_written_through(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("precious")
    (tmp_path / "a").symlink_to(letter)
    with pytest.raises(RunError, match="cannot write"):
        append_lines(tmp_path / "a", ["more"])
    write_text(tmp_path / "a", "other")
    assert (letter.read_text(), (tmp_path / "a").read_text()) == ("precious", "other")


def test_a_folder_is_tidied_of_what_a_killed_process_wrote_and_of_nothing_else(tmp_path: Path) -> None:
    kept = ["a.part.txt", ".hidden", "steps/best.safetensors"]
    (tmp_path / "steps").mkdir()
    for name in (*kept, ".a.part.txt", ".b.1.part", "steps/.best.x8dk2_0q.part.safetensors"):
        (tmp_path / name).touch()
    tidy(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


@pytest.mark.parametrize("place", ["a", "steps"])
def test_links_in_a_folder_are_refused_whatever_they_point_to(tmp_path: Path, place: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / place).symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=f"{place} is a link"):
        tidy(tmp_path / "run")
    (tmp_path / "run" / place).unlink()
    os.mkfifo(tmp_path / "run" / place)
    with pytest.raises(RunError, match=f"{place} is no regular file"):
        tidy(tmp_path / "run")
