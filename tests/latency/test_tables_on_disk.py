"""The list of tables: what each is of, whether it speaks of today, and that no file on disk can break it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mnv3search.latency.keys import Fingerprint, this_machine
from mnv3search.latency.measured.measuring import Round
from mnv3search.latency.measured.table import LatencyTable, TableKey, table_path
from mnv3search.latency.measured.table_file import TableFile, load_table, table_mapping
from mnv3search.latency.measured.tables_on_disk import (
    NOTES,
    OLD_DAYS,
    TableNote,
    read_note,
    stale_table_for,
    tables_on_disk,
    write_note,
)
from mnv3search.latency.runtimes.registry import installed_version

INSTALLED = installed_version("onnxruntime") or ""
KEY = TableKey(this_machine(), "onnxruntime", INSTALLED, 1, "fp32", "a reference")
NOTE = TableNote("host", "2026-01-31T10:00:00+00:00", 6, 0.012, 0.038, "mnv3_large", 711)


def saved(key: TableKey, cache: Path, rounds: int = 3, moment: str | None = None) -> Path:
    table = LatencyTable(key)
    session = table.start_session({"a unit": 0}, started=moment)
    for _ in range(rounds):
        table.add_round(session, Round(np.array([1.0]), np.array([2.0])))
    path = table_path(key, cache)
    with TableFile(path, key) as file:
        file.add(table)
    return path


def test_no_folder_no_tables(tmp_path: Path) -> None:
    assert tables_on_disk(tmp_path) == ()


def test_a_table_of_this_machine_as_it_is_now(tmp_path: Path) -> None:
    path = saved(KEY, tmp_path)
    (found,) = tables_on_disk(tmp_path)
    assert (found.path, found.key, found.damage, found.stale, found.device) == (path, KEY, "", "", "host")
    assert abs(datetime.now(UTC) - found.measured_at) < timedelta(minutes=5)
    assert found.size == path.stat().st_size


@pytest.mark.parametrize(
    ("change", "device", "stale"),
    [
        ({"runtime_version": "0.0.1"}, "host", f"onnxruntime is now {INSTALLED}"),
        ({"device": Fingerprint("another CPU", 64, "aarch64")}, "host", "of another machine"),
        ({"runtime": "no_such_runtime"}, "host:no_such_runtime", "no_such_runtime is not installed"),
        ({"precision": "int8", "threads": 2}, "host:onnxruntime,int8,threads=2", ""),
        ({"runtime_version": f"{INSTALLED}-17404-abc"}, "host", ""),  # a library that also tells its build
    ],
)
def test_what_makes_a_table_stale(tmp_path: Path, change: dict[str, object], device: str, stale: str) -> None:
    saved(replace(KEY, **change), tmp_path)  # type: ignore[arg-type]
    (found,) = tables_on_disk(tmp_path)
    assert (found.device, found.stale) == (device, stale)


def test_a_table_grows_old(tmp_path: Path) -> None:
    saved(KEY, tmp_path)
    later = datetime.now(UTC) + timedelta(days=OLD_DAYS + 2)
    (found,) = tables_on_disk(tmp_path, now=later)
    assert found.stale.endswith("days old")


@pytest.mark.parametrize("suffix", [".sqlite", ".json"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00" * 100, b"null", b"{}", b'{"format":"other","version":3}',
        b'{"format":"mnv3search.latency_table","version":1,"key":{}}',
        b'{"format":"mnv3search.latency_table","version":3}',
        b'{"format":"mnv3search.latency_table","version":3,"key":{"device":3}}',
        b'{"format":' + b"[" * 60_000,
    ],
    ids=range(8),
)  # fmt: skip
def test_damaged_files_are_listed_with_the_remedy(tmp_path: Path, content: bytes, suffix: str) -> None:
    saved(KEY, tmp_path)
    (tmp_path / "latency" / f"wrong{suffix}").write_bytes(content)
    wrong = next(table for table in tables_on_disk(tmp_path) if table.path.stem == "wrong")
    assert "delete it" in wrong.damage
    assert (wrong.key, wrong.stale) == (None, "")
    assert len(tables_on_disk(tmp_path)) == 2


@pytest.mark.parametrize("suffix", [".sqlite", ".json"])
def test_a_folder_in_a_tables_place(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "latency" / f"folder{suffix}").mkdir(parents=True)
    (found,) = tables_on_disk(tmp_path)
    assert "it is a folder" in found.damage


def test_a_table_of_the_version_before_is_listed_as_what_it_becomes(tmp_path: Path) -> None:
    path = saved(KEY, tmp_path, moment="2025-03-02T10:00:00+00:00")
    path.with_suffix(".json").write_text(json.dumps(table_mapping(load_table(path))))
    path.unlink()
    for _ in range(2):
        (found,) = tables_on_disk(tmp_path)
        assert (found.path, found.key, found.damage) == (path, KEY, "")
        assert found.measured_at == datetime(2025, 3, 2, 10, tzinfo=UTC)
        assert found.size == path.stat().st_size
    assert load_table(path, KEY).rounds_of("a unit") == 3


def test_the_newest_comes_first(tmp_path: Path) -> None:
    new = saved(replace(KEY, threads=2), tmp_path, moment="2025-03-02T10:00:00+00:00")
    old = saved(KEY, tmp_path, moment="2025-03-02T09:00:00+00:00")  # written later, as by a copy
    assert [table.path for table in tables_on_disk(tmp_path)] == [new, old]
    assert tables_on_disk(tmp_path)[0].measured_at == datetime(2025, 3, 2, 10, tzinfo=UTC)


def test_a_table_without_a_session_has_its_files_time(tmp_path: Path) -> None:
    path = saved(KEY, tmp_path, rounds=0)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (found,) = tables_on_disk(tmp_path)
    assert found.measured_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_a_former_version_is_found_the_newest_and_only_otherwise_alike(tmp_path: Path) -> None:
    newer, _ = (
        saved(replace(KEY, runtime_version=version), tmp_path, moment=f"2025-03-0{day}T10:00:00+00:00")
        for version, day in (("0.2", 2), ("0.1", 1))
    )
    saved(KEY, tmp_path)
    found = stale_table_for(KEY, tmp_path)
    assert found is not None
    assert found.path == newer
    for other in (replace(KEY, threads=2), replace(KEY, precision="int8"), replace(KEY, reference="another")):
        assert stale_table_for(other, tmp_path) is None
    assert stale_table_for(KEY, tmp_path / "elsewhere") is None


def test_a_note_stays_beside_its_table(tmp_path: Path) -> None:
    path = saved(KEY, tmp_path)
    assert read_note(path) is None
    write_note(path, NOTE)
    assert read_note(path) == NOTE
    (found,) = tables_on_disk(tmp_path)
    assert found.note == NOTE


@pytest.mark.parametrize(
    "change", [{"mean_error": "low"}, {"max_error": -1}, {"networks": "6"}, {"device": "a\nb"}, {"space": "x" * 1000}]
)
def test_a_note_that_is_none_is_left_out(tmp_path: Path, change: dict[str, object]) -> None:
    path = saved(KEY, tmp_path)
    write_note(path, NOTE)
    note = path.parent / NOTES / path.with_suffix(".json").name
    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    assert read_note(path) is None
    note.write_text("[" * 100_000)
    assert read_note(path) is None
