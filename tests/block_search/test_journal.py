from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mnv3search.block_search import journal as journal_module
from mnv3search.block_search.journal import open_journal
from mnv3search.errors import RunError

LOGS = [{"op_code": 0, "worker_id": "w", "study_name": f"study {i}", "directions": [2]} for i in range(5)]


def _written(path: Path) -> bytes:
    journal = open_journal(path)
    journal.append_logs(LOGS)
    journal.flush()
    journal.close()
    return path.read_bytes()


def _read(path: Path) -> list[dict[str, object]]:
    journal = open_journal(path)
    logs = list(journal.read_logs(0))
    journal.close()
    return logs


def test_nothing_reaches_the_disk_before_a_flush(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "study.log")
    journal.append_logs(LOGS)
    assert (tmp_path / "study.log").read_bytes() == b""
    journal.flush()
    assert [json.loads(line) for line in (tmp_path / "study.log").read_bytes().splitlines()] == LOGS


def test_logs_are_handed_over_once(tmp_path: Path) -> None:
    _written(tmp_path / "study.log")
    journal = open_journal(tmp_path / "study.log")
    assert list(journal.read_logs(0)) == LOGS
    assert list(journal.read_logs(5)) == []


def test_a_file_cut_anywhere_opens_with_every_whole_line(tmp_path: Path) -> None:
    content = _written(tmp_path / "study.log")
    for cut in range(len(content) + 1):
        path = tmp_path / "cut.log"
        path.write_bytes(content[:cut])
        assert _read(path) == LOGS[: content[:cut].count(b"\n")]
        assert path.read_bytes() == content[: content.rfind(b"\n", 0, cut) + 1]


def test_zeros_that_a_power_cut_left_are_removed(tmp_path: Path) -> None:
    content = _written(tmp_path / "study.log")
    (tmp_path / "study.log").write_bytes(content + b'{"op_code":4,"wor\0\0\0\0')
    assert _read(tmp_path / "study.log") == LOGS
    (tmp_path / "study.log").write_bytes(content + b"\0\0\0\0")
    assert _read(tmp_path / "study.log") == LOGS


@pytest.mark.parametrize("content", [b"dear diary", b"dear diary\n", b"[1]\n", b'{"a":1}\n', b"\xff\xfe\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"notes\.txt"):
        open_journal(path)
    assert path.read_bytes() == content


def test_damage_in_the_middle_names_the_line(tmp_path: Path) -> None:
    lines = _written(tmp_path / "study.log").splitlines(keepends=True)
    (tmp_path / "study.log").write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    with pytest.raises(RunError, match="line 2"):
        open_journal(tmp_path / "study.log")


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first = open_journal(tmp_path / "study.log")
    with pytest.raises(RunError, match="another process"):
        open_journal(tmp_path / "study.log")
    first.close()
    open_journal(tmp_path / "study.log").close()
    assert [path.name for path in tmp_path.iterdir()] == ["study.log"]


def test_a_path_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot open the study"):
        open_journal(tmp_path / "file" / "study.log")


def test_a_full_disk_is_one_line_and_loses_nothing_saved(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device that is always full here")
    journal = open_journal(tmp_path / "study.log")
    journal.append_logs(LOGS)
    journal.flush()
    journal.close()
    journal._file = journal._opened.enter_context(full.open("wb"))
    journal.append_logs(LOGS)
    with pytest.raises(RunError, match="cannot write the study"):
        journal.flush()
    journal.close()  # has nothing to add
    assert _read(tmp_path / "study.log") == LOGS


def test_neither_a_link_nor_a_pipe_nor_a_folder_is_opened(tmp_path: Path) -> None:
    _written(tmp_path / "study.log")
    (tmp_path / "link.log").symlink_to(tmp_path / "study.log")
    (tmp_path / "dangling.log").symlink_to(tmp_path / "nowhere.log")
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.log").mkdir()
    for name in ("link.log", "dangling.log", "pipe.log", "folder.log"):
        with pytest.raises(RunError, match=name):
            open_journal(tmp_path / name)
    assert not (tmp_path / "nowhere.log").exists()
    assert _read(tmp_path / "study.log") == LOGS


def test_a_file_beyond_bounds_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _written(tmp_path / "study.log")
    monkeypatch.setattr(journal_module, "MAX_BYTES", 100)
    with pytest.raises(RunError, match="at most 100 bytes"):
        open_journal(tmp_path / "study.log")
