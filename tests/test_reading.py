"""What others wrote is read within bounds: regular files alone, and JSON that means one thing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mnv3search.reading import open_regular, parse_json, read_bounded, read_json


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5) == b"12345"
    with pytest.raises(OSError, match="more than the 4 bytes"):
        read_bounded(file, 4)


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    assert read_bounded(tmp_path / "b", 5) == b"1"


def test_devices_pipes_sockets_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, reason in (
            ("zero", "a device"), ("pipe", "a pipe"), ("socket", "No such device"), (".", "a folder"),
            ("none", "No such file"), ("a\0b", "cannot be a path"),
        ):  # fmt: skip
            with pytest.raises(OSError, match=reason) as caught:
                open_regular(tmp_path / name)
            assert reason in str(caught.value.strerror)


def test_a_regular_file_without_a_size_is_bounded_by_reading() -> None:
    """Files of ``/proc`` say 0 bytes."""
    with pytest.raises(OSError, match="more than the 10 bytes"):
        read_bounded("/proc/self/status", 10)
    assert b"Name:" in read_bounded("/proc/self/status", 100_000)


def test_json_is_read_as_it_is_written(tmp_path: Path) -> None:
    text = '{"a": [1, -2.5e3, true, null, "é\\u00e9\\ud83d\\ude00"]}'
    (tmp_path / "a.json").write_text("\ufeff" + text, encoding="utf-8")  # as Notepad writes it
    assert parse_json(text) == read_json(tmp_path / "a.json", 1000) == {"a": [1, -2500.0, True, None, "éé😀"]}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"{", "line 1 column 2"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"[-Infinity]", "Infinity is no number"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 301 + b"]", "301 digits"),
        (b"[" + b"9" * 9999 + b"]", "9999 digits"),
        (b"[" * 100 + b"]" * 100, "deeper than 64"),
        (b"[" * 100_000 + b"]" * 100_000, "deeper than 64"),
        (b'["\\ud800"]', "surrogate"),
        (b'["caf\xe9"]', "byte 6 is not UTF-8"),
    ],
)
def test_json_that_means_nothing_or_two_things_is_refused(content: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        parse_json(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
