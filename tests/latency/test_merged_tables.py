"""Tables of one key that were measured apart become one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnv3search.errors import DeviceError
from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.measured.measuring import Round
from mnv3search.latency.measured.table import LatencyTable, TableKey

KEY = TableKey(Fingerprint("A CPU", 4, "x86_64"), "onnxruntime", "1.0", 1, "fp32", "reference")


def sat(table: LatencyTable, reference_ms: float, times: dict[str, float], networks: tuple[str, ...] = ()) -> None:
    """A sitting of five rounds that are all alike, entries in slots of one."""
    runs = table.start_sitting({entry: slot for slot, entry in enumerate(times)}, networks)
    readings = np.full(len(times), reference_ms)
    for _ in range(5):
        table.add_round(runs, Round(np.array(list(times.values())), readings))


@pytest.fixture
def first() -> LatencyTable:
    table = LatencyTable(KEY)
    sat(table, 10.0, {"a": 1.0, "b": 2.0})
    sat(table, 12.0, {"net": 9.0}, ("net",))
    return table


@pytest.fixture
def second() -> LatencyTable:
    """The same machine at half its pace."""
    table = LatencyTable(KEY)
    sat(table, 20.0, {"b": 4.0})
    sat(table, 20.0, {"c": 6.0, "d": 7.0})
    sat(table, 24.0, {"late": 18.0, "net": 18.0}, ("late", "net"))
    return table


def content(table: LatencyTable, folder: Path) -> str:
    table.save(folder / "written.json")
    return (folder / "written.json").read_text()


def test_sittings_follow_and_times_keep_their_level(first: LatencyTable, second: LatencyTable) -> None:
    first.merge(second)
    assert first.networks == ("net", "late")
    assert len(first) == 6
    assert {entry: first.rounds_of(entry) for entry in ("a", "b", "c", "d", "late", "net")} == {
        "a": 5, "b": 10, "c": 5, "d": 5, "late": 5, "net": 10,
    }  # fmt: skip
    expected = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.5, "late": 9.0, "net": 9.0}
    assert {entry: first.timing(entry).median_ms for entry in expected} == pytest.approx(expected)
    assert {entry: first.timing(entry).minimum_ms for entry in expected} == pytest.approx(expected)
    levels = first.level_ms, first.network_level_ms, first.latest_network_drift.reference_ms
    assert levels == pytest.approx((10.0, 12.0, 24.0))


def test_the_other_table_stays_as_it_was(first: LatencyTable, second: LatencyTable, tmp_path: Path) -> None:
    before = content(second, tmp_path)
    first.merge(second)
    sat(first, 10.0, {"c": 3.0})
    assert content(second, tmp_path) == before


def test_a_merged_table_reads_back(first: LatencyTable, second: LatencyTable, tmp_path: Path) -> None:
    first.merge(second)
    first.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json", KEY)
    assert again.timing("d") == first.timing("d")
    assert again.networks == first.networks
    assert again.measured_at == first.measured_at


def test_merging_twice_or_with_itself_changes_nothing(
    first: LatencyTable, second: LatencyTable, tmp_path: Path
) -> None:
    first.merge(second)
    once = content(first, tmp_path)
    first.merge(second)
    first.merge(first)
    assert content(first, tmp_path) == once
    second.save(tmp_path / "second.json")
    first.merge(LatencyTable.load(tmp_path / "second.json", KEY))  # a copy is known as well
    assert content(first, tmp_path) == once


def midway(path: Path) -> tuple[LatencyTable, LatencyTable]:
    """A table, and what was saved of it in the middle of its second sitting."""
    table = LatencyTable(KEY)
    sat(table, 10.0, {"a": 1.0})
    runs = table.start_sitting({"b": 0, "net": 0}, ["net"])
    for index in range(8):
        if index == 3:
            table.save(path)
        table.add_round(runs, Round(np.array([2.0, 9.0]), np.array([10.0 + index])))
    return table, LatencyTable.load(path, KEY)


def test_a_copy_saved_in_the_middle_of_a_sitting_is_known(tmp_path: Path) -> None:
    table, copy = midway(tmp_path / "copy.json")
    assert (copy.rounds_of("b"), table.rounds_of("b")) == (3, 8)
    whole = content(table, tmp_path)
    table.merge(copy)
    assert content(table, tmp_path) == whole


def test_the_longer_state_of_a_sitting_replaces_its_beginning(tmp_path: Path) -> None:
    table, copy = midway(tmp_path / "copy.json")
    assert copy.timing("b").rounds == 3  # its drift is known, and forgotten
    copy.merge(table)
    assert content(copy, tmp_path) == content(table, tmp_path)
    assert copy.timing("b") == table.timing("b")
    assert copy.network_level_ms == table.network_level_ms
    copy.merge(table)
    assert copy.rounds_of("net") == 8


def test_all_states_of_a_sitting_come_to_the_longest(first: LatencyTable, tmp_path: Path) -> None:
    table, copy = midway(tmp_path / "copy.json")
    first.merge(copy)
    before = first.rounds_of("b")
    first.merge(table)
    first.merge(copy)
    assert first.rounds_of("b") == before + 5
    first.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json", KEY).timing("net") == first.timing("net")


def test_what_is_measured_after_a_merge_stays_out_of_the_other(first: LatencyTable) -> None:
    table = LatencyTable(KEY)
    runs = table.start_sitting({"x": 0})
    table.add_round(runs, Round(np.array([1.0]), np.array([10.0])))
    first.merge(table)
    table.add_round(runs, Round(np.array([1.0]), np.array([10.0])))
    assert (first.rounds_of("x"), table.rounds_of("x")) == (1, 2)
    assert first.timing("x").rounds == 1
    first.merge(table)
    assert first.timing("x").rounds == 2


def test_an_empty_table_adds_nothing_and_takes_all(first: LatencyTable, tmp_path: Path) -> None:
    before = content(first, tmp_path)
    empty = LatencyTable(KEY)
    first.merge(empty)
    assert content(first, tmp_path) == before
    empty.merge(first)
    assert content(empty, tmp_path) == before


def test_whichever_was_checked_says_so(first: LatencyTable, second: LatencyTable) -> None:
    second.output_difference = 3e-7
    first.merge(second)
    assert first.output_difference == 3e-7
    second.output_difference = 4e-7
    first.merge(second)
    assert first.output_difference == 3e-7


def test_tables_of_another_key_are_refused(first: LatencyTable, tmp_path: Path) -> None:
    before = content(first, tmp_path)
    other = LatencyTable(replace(KEY, runtime_version="2.0", precision="int8"))
    sat(other, 10.0, {"z": 1.0})
    with pytest.raises(DeviceError, match="different runtime_version, precision cannot be merged; keep both"):
        first.merge(other)
    assert content(first, tmp_path) == before
