"""Latency tables on disk: rows that survive, tables that become one, and files that are refused."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latency_fakes import QUICK, KnownRuntime, known_device, parts_of, variants, whole_ms

from mnv3search.errors import DeviceError
from mnv3search.latency.keys import Fingerprint, network_of_key, unit_key
from mnv3search.latency.measured import table_file
from mnv3search.latency.measured.calibration import fit
from mnv3search.latency.measured.measuring import Round
from mnv3search.latency.measured.table import LatencyTable, TableKey
from mnv3search.latency.measured.table_file import TableFile, load_table, on_network, table_head, table_mapping
from mnv3search.layers import units

KEY = TableKey(Fingerprint("A CPU", 4, "x86_64"), "onnxruntime", "1.0", 1, "fp32", "reference")
FORMER = Path(__file__).parent / "data" / "table_v3.json"  # as the versions before wrote it, of a made-up CPU


def timed(
    table: LatencyTable, reference_ms: float, times: dict[str, float], networks: tuple[str, ...] = (), rounds: int = 5
) -> None:
    """A session of rounds that are all alike, entries in slots of one."""
    session = table.start_session({entry: slot for slot, entry in enumerate(times)}, networks)
    for _ in range(rounds):
        table.add_round(session, Round(np.array(list(times.values())), np.full(len(times), reference_ms)))


def write(path: Path, *tables: LatencyTable) -> Path:
    for table in tables:
        with TableFile(path, table.key) as file:
            file.add(table)
    return path


def rows(path: Path) -> list[tuple[object, ...]]:
    """All that a file holds, but for the numbers that SQLite gave."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        repeats = "SELECT s.started, e.key, e.whole, t.round, t.ms FROM repeats t JOIN sessions s ON s.id = session "
        found = connection.execute(f"{repeats} JOIN entries e ON e.id = entry ORDER BY 1, 2, 4").fetchall()
        readings = "SELECT s.started, round, slot, ms FROM readings JOIN sessions s ON s.id = session ORDER BY 1, 2, 3"
        return [*found, *connection.execute(readings).fetchall()]


@pytest.fixture
def first() -> LatencyTable:
    table = LatencyTable(KEY)
    timed(table, 10.0, {"a": 1.0, "b": 2.0})
    timed(table, 12.0, {"net": 9.0}, ("net",))
    return table


@pytest.fixture
def second() -> LatencyTable:
    """The same machine at half its speed."""
    table = LatencyTable(KEY)
    timed(table, 20.0, {"b": 4.0})
    timed(table, 20.0, {"c": 6.0, "d": 7.0})
    timed(table, 24.0, {"late": 18.0, "net": 18.0}, ("late", "net"))
    return table


def test_round_trip(first: LatencyTable, tmp_path: Path) -> None:
    first.output_difference = 2e-7
    path = write(tmp_path / "new" / "table.sqlite", first)
    again = load_table(path, KEY)
    assert table_mapping(again) == table_mapping(first)
    assert again.output_difference == 2e-7
    assert (again.networks, again.units, len(again)) == (("net",), ("a", "b"), 3)
    for entry in ("a", "b", "net"):
        assert again.timing(entry) == first.timing(entry)
    assert again.halves_disagreement == first.halves_disagreement
    assert load_table(path).key == KEY  # which the file says by itself
    assert table_head(path) == (KEY, first.measured_at)
    assert [p.name for p in path.parent.iterdir()] == ["table.sqlite"]


def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    assert len(load_table(tmp_path / "none.sqlite", KEY)) == 0
    with pytest.raises(DeviceError, match="there is no latency table"):
        load_table(tmp_path / "none.sqlite")


def test_each_round_is_in_the_file_when_it_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with TableFile(path, KEY) as file:
        session = file.table.start_session({"a": 0, "b": 0})
        for done in range(1, 4):
            file.table.add_round(session, Round(np.array([1.0, 2.0]), np.array([10.0])))
            file.save()
            assert load_table(path, KEY).rounds_of("b") == done  # another connection, while this one is open
    assert len(rows(path)) == 9


def test_entries_and_sessions_without_a_round_are_not_written(first: LatencyTable, tmp_path: Path) -> None:
    first.start_session({"z": 0})
    again = load_table(write(tmp_path / "t.sqlite", first), KEY)
    assert (len(again), len(again.sessions)) == (3, 2)


class Interrupted(list[float]):
    """Repeats of which no more can be noted."""

    def append(self, value: float) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("noted", [0, 1, 2])
def test_an_interrupted_round_leaves_the_drift_of_those_before_it(tmp_path: Path, noted: int) -> None:
    table = LatencyTable(KEY)
    usual = np.array([1.0, 2.0, 4.0])
    session = table.start_session({"a": 0, "b": 0, "c": 0})
    for drift, reading in ((1.0, 10.0), (1.5, 15.0), (1.0, 30.0), (1.0, 10.0)):  # a wrong reading in the third
        table.add_round(session, Round(usual * drift, np.array([reading])))
    run = session.runs["abc"[noted]]
    run.ms = Interrupted(run.ms)
    with pytest.raises(KeyboardInterrupt):
        table.add_round(session, Round(usual, np.array([10.0])))
    for found in (table, load_table(write(tmp_path / "t.sqlite", table), KEY)):
        assert [found.rounds_of(entry) for entry in "abc"] == [4 + (index < noted) for index in range(3)]
        assert found.unit_reference_ms == pytest.approx(10.0)
        assert [found.timing(entry).median_ms for entry in "abc"] == pytest.approx(usual.tolist())
        assert [found.timing(entry).spread for entry in "abc"] == pytest.approx([0, 0, 0])
        assert found.halves_disagreement < 1e-9


def measuring(folder: Path, seed: int, begun: Any, stop: bool) -> None:
    """A process that measures some units of its own and some of all."""
    some = [*variants(4, seed=0), *variants(4, seed=seed)]
    device = known_device(KnownRuntime(), folder, replace(QUICK, rounds=20))
    device.calibrate_on = tuple(variants(8, seed=0))
    begun.wait()

    def progress(done: int, *_: object) -> None:
        if stop and done > 700:
            os.kill(os.getpid(), signal.SIGKILL)

    device.prepare(parts_of(some), progress)


def test_two_processes_that_measure_at_once_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    begun = spawn.Barrier(2)
    both = [spawn.Process(target=measuring, args=(tmp_path, seed, begun, False)) for seed in (1, 2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    device = known_device(KnownRuntime(), tmp_path, replace(QUICK, rounds=20))
    assert len([path for path in device.path.parent.iterdir() if path.suffix == ".sqlite"]) == 1
    for network in [n for seed in (0, 1, 2) for n in variants(4, seed=seed)]:
        for unit in units(network):
            assert device.table.rounds_of(unit_key(unit)) % 20 == 0
            assert device.table.rounds_of(unit_key(unit)) >= 20
    assert len({session.started for session in device.table.sessions}) == len(device.table.sessions) >= 2
    runtime = KnownRuntime()
    asked = known_device(runtime, tmp_path, replace(QUICK, rounds=20))
    some = variants(4, seed=0)
    np.testing.assert_allclose(asked.latency_ms(some), whole_ms(some), rtol=0.02)
    assert not [subject for subject in runtime.prepared if subject not in runtime.networks]  # no unit again


def test_a_measurement_that_is_killed_keeps_every_round(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=measuring, args=(tmp_path, 1, fork.Barrier(1), True))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    device = known_device(KnownRuntime(), tmp_path, replace(QUICK, rounds=20))
    unit = units(variants(1, seed=0)[0])[0]
    items = len(device.table)
    assert device.table.rounds_of(unit_key(unit)) == (700 - items) // items + 1  # progress counts preparing as a round


def test_tables_become_one_at_the_speed_of_the_first(first: LatencyTable, second: LatencyTable, tmp_path: Path) -> None:
    found = load_table(write(tmp_path / "t.sqlite", first, second), KEY)
    assert found.networks == ("net", "late")
    assert len(found) == 6
    assert {entry: found.rounds_of(entry) for entry in ("a", "b", "c", "d", "late", "net")} == {
        "a": 5, "b": 10, "c": 5, "d": 5, "late": 5, "net": 10,
    }  # fmt: skip
    expected = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.5, "late": 9.0, "net": 9.0}
    assert {entry: found.timing(entry).median_ms for entry in expected} == pytest.approx(expected)
    assert {entry: found.timing(entry).minimum_ms for entry in expected} == pytest.approx(expected)
    references = found.unit_reference_ms, found.network_reference_ms, found.latest_network_drift.reference_ms
    assert references == pytest.approx((10.0, 12.0, 24.0))


def test_what_is_inserted_twice_is_there_once(first: LatencyTable, second: LatencyTable, tmp_path: Path) -> None:
    path = write(tmp_path / "t.sqlite", first, second)
    once = rows(path)
    copy = load_table(write(tmp_path / "copy.sqlite", second), KEY)
    exported = tmp_path / "t.json"
    exported.write_text(json.dumps(table_mapping(load_table(path, KEY))))
    write(path, second, first, copy, load_table(exported, KEY))
    assert rows(path) == once
    assert table_mapping(load_table(exported, KEY)) == table_mapping(load_table(path, KEY))


def test_the_longer_state_of_a_session_completes_its_beginning(first: LatencyTable, tmp_path: Path) -> None:
    table = LatencyTable(KEY)
    timed(table, 10.0, {"a": 1.0})
    session = table.start_session({"b": 0, "net": 0}, ["net"])
    for index in range(8):
        if index == 3:
            early = write(tmp_path / "early.sqlite", table)
        table.add_round(session, Round(np.array([2.0, 9.0]), np.array([10.0 + index])))
    late = write(tmp_path / "late.sqlite", table)
    assert len(rows(early)) < len(rows(late))
    write(late, load_table(early))
    write(early, load_table(late))
    assert rows(early) == rows(late)
    assert load_table(early).timing("b") == table.timing("b")


def test_an_empty_table_adds_nothing_and_takes_all(first: LatencyTable, tmp_path: Path) -> None:
    path = write(tmp_path / "t.sqlite", first, LatencyTable(KEY))
    empty = write(tmp_path / "empty.sqlite", LatencyTable(KEY))
    assert rows(empty) == []
    assert rows(write(empty, first)) == rows(path)


def test_whichever_was_checked_first_says_so(first: LatencyTable, second: LatencyTable, tmp_path: Path) -> None:
    path = write(tmp_path / "t.sqlite", first)
    for difference in (3e-7, 4e-7):
        second.output_difference = difference
        assert load_table(write(path, second), KEY).output_difference == 3e-7


def test_tables_of_another_key_are_not_merged(first: LatencyTable, tmp_path: Path) -> None:
    path = write(tmp_path / "t.sqlite", first)
    before = rows(path)
    other = LatencyTable(replace(KEY, runtime_version="2.0", precision="int8"))
    timed(other, 10.0, {"z": 1.0})
    with (
        TableFile(path, KEY) as file,
        pytest.raises(DeviceError, match="different runtime_version, precision cannot be merged; keep both"),
    ):
        file.add(other)
    assert rows(path) == before


def test_a_table_of_the_version_before_is_taken_over_with_the_same_prices(tmp_path: Path) -> None:
    before = load_table(FORMER)
    path = tmp_path / "latency" / before.key.file_name
    path.parent.mkdir()
    old = path.with_suffix(".json")
    old.write_bytes(FORMER.read_bytes())
    assert old.name.startswith("known_1_fp32-1t-v3-")
    taken_over = load_table(path, before.key)
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, f"{path.stem}.json.old"])
    for found in (taken_over, load_table(path, before.key)):
        assert table_mapping(found) == table_mapping(before)
        assert prices(found) == prices(before)  # to the last bit
    assert json.loads(json.dumps(table_mapping(before))) == json.loads(FORMER.read_text())
    path.unlink()
    assert len(load_table(path, before.key)) == 0  # what was deleted does not come back


def test_an_import_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    before = load_table(FORMER)
    path = tmp_path / before.key.file_name
    path.with_suffix(".json").write_bytes(FORMER.read_bytes())
    with TableFile(path, before.key):
        pass  # killed after the empty database was made
    assert table_mapping(load_table(path, before.key)) == table_mapping(before)
    assert not path.with_suffix(".json").exists()


def prices(table: LatencyTable) -> list[Any]:
    entries = [astuple(table.timing(entry)) for entry in (*table.units, *table.networks)]
    networks = [units(network_of_key(key)) for key in table.networks]
    alone = [np.array([table.timing(unit_key(unit)).lower_ms for unit in parts]) for parts in networks]
    whole = np.array([table.timing(key).median_ms for key in table.networks])
    fitted = fit(networks, alone, whole)
    of_units = [fitted.price(parts, ms).tolist() for parts, ms in zip(networks, alone, strict=True)]
    return [entries, of_units, fitted.fixed_ms, table.unit_reference_ms, table.network_reference_ms, table.clock_drift]


def test_prices_of_a_saved_table_are_those_of_the_version_before() -> None:
    table = load_table(FORMER)
    expected = json.loads(FORMER.with_name("table_v3_prices.json").read_text())
    timings, of_units, *others = prices(table)
    np.testing.assert_allclose(timings, list(expected["timings"].values()), rtol=1e-12, atol=1e-15)
    assert list(expected["timings"]) == [*table.units, *table.networks]
    for found, wanted in zip(of_units, expected["prices"], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
    wanted = [expected[name] for name in ("fixed_ms", "unit_reference_ms", "network_reference_ms", "drift")]
    np.testing.assert_allclose(others, wanted, rtol=1e-9)
    assert table.halves_disagreement == pytest.approx(expected["halves"], rel=1e-9)


def test_a_former_table_in_a_folder_that_cannot_be_written_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_table(FORMER).key
    old = tmp_path / key.file_name.replace(".sqlite", ".json")
    old.write_bytes(FORMER.read_bytes())

    def refused(path: Path, key: TableKey) -> TableFile:
        raise DeviceError("no room")

    monkeypatch.setattr(table_file, "TableFile", refused)
    assert len(load_table(tmp_path / key.file_name, key)) == 47
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


def sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return change


def bytes_at(offset: int, content: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[offset : offset + len(content)] = content
        path.write_bytes(whole)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (sql("PRAGMA user_version = 1"), "version 1; this release reads 3; delete it to measure again"),
        (sql("PRAGMA application_id = 1"), "not a latency table"),
        (sql("UPDATE table_key SET cpu = 'B CPU'"), "measured elsewhere.*A CPU"),
        (sql("UPDATE table_key SET runtime_version = '2.0'"), 'runtime_version "1.0"'),
        (sql("UPDATE table_key SET threads = 2"), "threads 1"),
        (sql("UPDATE table_key SET threads = 'two'"), "does not say what it is of"),
        (sql("UPDATE table_key SET runtime = x'00'"), "does not say what it is of"),
        (sql("DELETE FROM table_key"), "does not say what it is of"),
        (sql("UPDATE repeats SET ms = -1.0 WHERE round = 1"), "-1.0 is not a time"),
        (sql("UPDATE repeats SET ms = 1e-300 WHERE round = 1"), "1e-300 is not a time"),
        (sql("UPDATE repeats SET ms = 9e999 WHERE round = 1"), "inf is not a time"),
        (sql("UPDATE repeats SET ms = 'long' WHERE round = 1"), "'long' is not a time"),
        (sql("UPDATE readings SET ms = 0.0 WHERE round = 1"), "0.0 is not a time"),
        (sql("DELETE FROM repeats WHERE round = 1"), "lacks a round"),
        (sql("UPDATE repeats SET round = 'x' WHERE round = 1"), "lacks a round"),
        (sql("DELETE FROM readings WHERE round = 4"), "more rounds than its session"),
        (sql("DELETE FROM readings WHERE round = 1"), "lacks a reading"),
        (sql("DELETE FROM readings WHERE round = 1 AND slot = 1"), "differ in their readings"),
        (sql("DELETE FROM readings WHERE slot = 0"), "damaged"),
        (sql("UPDATE runs SET slot = 9 WHERE slot = 1"), "slot"),
        (sql("UPDATE runs SET slot = -1 WHERE slot = 1"), "damaged"),
        (sql("UPDATE runs SET slot = 0.5 WHERE slot = 1"), "no whole number"),
        (sql("DELETE FROM runs WHERE slot = 1"), "damaged"),
        (sql("DELETE FROM entries WHERE key = 'b'"), "damaged"),
        (sql("UPDATE entries SET key = x'ff' WHERE key = 'b'"), "damaged"),
        (sql("UPDATE entries SET key = CAST(x'ff' AS TEXT) WHERE key = 'b'"), "damaged"),
        (sql("DELETE FROM sessions"), "damaged"),
        (sql("UPDATE sessions SET started = 'yesterday'"), "yesterday"),
        (sql("UPDATE sessions SET started = 7.5"), "damaged"),
        (sql("UPDATE table_key SET output_difference = -1.0"), "output_difference is -1.0; it must be from 0"),
        (sql("UPDATE table_key SET output_difference = 9e999"), "output_difference is inf; it must be a finite number"),
        (sql("CREATE TABLE more (x)"), "tables are not this program's"),
        (sql("DROP TABLE repeats", "CREATE VIEW repeats AS SELECT 1"), "tables are not this program's"),
        (sql("CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END"), "tables are not this program's"),
        (bytes_at(0, b"no database at all"), "damaged"),
        (bytes_at(4096, b"\xff" * 4096), "damaged"),
        (bytes_at(6 * 4096, b"\xff" * 2000), "damaged"),
        (cut, "damaged"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(
    first: LatencyTable, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    path = write(tmp_path / "t.sqlite", first)
    sql("PRAGMA journal_mode = DELETE")(path)
    change(path)
    for use in (lambda: load_table(path, KEY), lambda: TableFile(path, KEY)):
        with pytest.raises(DeviceError, match=said) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_text_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    path.write_text("not a database, but long enough to have a header of one hundred bytes" * 3)
    with pytest.raises(DeviceError, match=r"damaged.*delete it"):
        load_table(path, KEY)


def test_what_is_no_regular_file_or_too_large_is_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.sqlite"
    os.mkfifo(path)
    for use in (lambda: load_table(path, KEY), lambda: TableFile(path, KEY)):
        with pytest.raises(DeviceError, match="no regular file; move it away"):
            use()
    path.unlink()
    path.mkdir()
    with pytest.raises(DeviceError, match="it is a folder"):
        load_table(path, KEY)
    path.rmdir()
    write(path, LatencyTable(KEY))
    monkeypatch.setattr(table_file, "MAX_FILE_BYTES", 10)
    with pytest.raises(DeviceError, match="over 10 bytes"):
        load_table(path, KEY)


def test_a_file_that_another_process_has_just_made_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "t.sqlite").touch()
    assert len(load_table(tmp_path / "t.sqlite", KEY)) == 0


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"cannot write the latency table.*MNV3SEARCH_CACHE"):
        TableFile(tmp_path / "file" / "table.sqlite", KEY)


def test_a_table_that_others_keep_locked_is_said(
    first: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.sqlite", first)
    monkeypatch.setattr(table_file, "BUSY_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DeviceError, match=r"another process keeps the latency table .* locked"):
            TableFile(path, KEY)
        assert len(load_table(path, KEY)) == 3  # reading goes on


def journal(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


MOUNTED = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / {folder} rw - {kind} server:/home rw
"""


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("ext4", False),
        ("nfs4", True),
        ("nfs", True),
        ("cifs", True),
        ("fuse.sshfs", True),
        ("fuseblk", False),
        ("lustre", True),
    ],
)
def test_on_file_systems_of_other_machines_the_journal_is_a_rollback_journal(
    first: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, network: bool
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTED.format(folder=str(folder).replace(" ", "\\040"), kind=kind))
    monkeypatch.setattr(table_file, "MOUNTS", mounts)
    assert on_network(folder / "latency") == network
    assert not on_network(tmp_path)
    path = folder / "latency" / "t.sqlite"
    with TableFile(path, KEY) as file:
        file.add(first)
        assert journal(path) == ("delete" if network else "wal")
        assert load_table(path, KEY).rounds_of("a") == 5
    assert journal(path) == "delete"
    assert [found.name for found in path.parent.iterdir()] == ["t.sqlite"]
    assert load_table(path, KEY).rounds_of("a") == 5


def test_a_file_system_without_locks_is_used_without(
    first: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refused)
    opened: list[str] = []
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def noted(name: str, **options: Any) -> sqlite3.Connection:
        opened.append(name)
        return connect(name, **options)

    monkeypatch.setattr(sqlite3, "connect", noted)
    path = write(tmp_path / "t.sqlite", first)
    assert load_table(path, KEY).rounds_of("a") == 5
    assert all("nolock=1" in name for name in opened)


def set_at(*where: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        target: Any = content
        for step in where[:-1]:
            target = target[step]
        target[where[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_at("version", value=1), "version 1; this release reads 3; delete it to measure again"),
        (set_at("version", value=None), "version None"),
        (set_at("format", value="other"), "not a latency table"),
        (set_at("key", "device", "cpu", value="B CPU"), "measured elsewhere.*A CPU"),
        (set_at("key", "threads", value=2), "threads 1"),
        (set_at("key", "threads", value=True), "does not say what it is of"),
        (set_at("key", value=None), "does not say what it is of"),
        (set_at("units", "a", 0, "ms", 0, value=-1.0), "-1.0 is not a time"),
        (set_at("units", "a", 0, "ms", 0, value=1e-300), "1e-300 is not a time"),
        (set_at("units", "a", 0, "ms", 0, value=10**400), "has 401 digits"),
        (set_at("units", "a", 0, "ms", 0, value="1"), "'1' is not a time"),
        (set_at("units", "a", 0, "ms", 0, value=float("nan")), "NaN is no number"),
        (set_at("units", "a", 0, "ms", value=[1.0] * 9), "more rounds than its session"),
        (set_at("units", "a", 0, "slot", value=3), "slot"),
        (set_at("units", "a", 0, "slot", value=0.0), "no whole number"),
        (set_at("units", "a", 0, "sitting", value=False), "no whole number"),
        (set_at("units", "a", 0, "sitting", value=-1), "damaged"),
        (set_at("units", "a", 0, "sitting", value=5), "damaged"),
        (set_at("units", "a", value=7), "damaged"),
        (set_at("sittings", 0, "reference_ms", value=[[10.0], [10.0, 1.0]]), "differ in their readings"),
        (set_at("sittings", 0, "reference_ms", value=[[], []]), "differ in their readings"),
        (set_at("sittings", 0, "reference_ms", value=[[10.0], [0.0]]), "0.0 is not a time"),
        (set_at("sittings", 0, "started", value="yesterday"), "yesterday"),
        (set_at("sittings", 0, "started", value=7), "damaged"),
        (set_at("sittings", value=None), "damaged"),
        (set_at("output_difference", value=-1.0), "output_difference is -1.0; it must be from 0"),
        (set_at("output_difference", value=True), "output_difference is True"),
    ],
)
def test_damaged_json_is_refused_in_one_line(
    first: LatencyTable, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = tmp_path / "table.json"
    content = json.loads(json.dumps(table_mapping(first)))
    change(content)
    path.write_text(json.dumps(content))
    for file in (path, path.with_suffix(".sqlite")):  # given itself, or found where earlier versions kept it
        with pytest.raises(DeviceError, match=said) as caught:
            load_table(file, KEY)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert not path.with_suffix(".sqlite").exists()


def test_truncated_json_is_refused_wherever_it_is_cut(first: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    text = json.dumps(table_mapping(first))
    for length in range(0, len(text) - 1, 97):
        path.write_text(text[:length])
        with pytest.raises(DeviceError, match="cut short or not JSON"):
            load_table(path, KEY)


def test_the_key_of_a_table_is_written_whole(tmp_path: Path) -> None:
    key = replace(
        KEY, device=Fingerprint("ÄMD ‘Zen’", 128, "aarch64"), runtime="my runtime", threads=7, precision="int8"
    )
    table = LatencyTable(key)
    timed(table, 10.0, {"a": 1.0}, rounds=1)
    assert asdict(load_table(write(tmp_path / "t.sqlite", table)).key) == asdict(key)
