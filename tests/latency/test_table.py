"""The latency table keeps every repeat, and refuses what it cannot trust."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from mnv3search.architecture import BlockSpec, HeadSpec
from mnv3search.errors import DeviceError
from mnv3search.families import published
from mnv3search.latency.keys import Fingerprint, network_key, network_of_key, this_machine, unit_key
from mnv3search.latency.measured.measuring import MAX_DISAGREEMENT, Round
from mnv3search.latency.measured.table import LatencyTable, TableKey, default_cache_dir, table_path
from mnv3search.layers import units
from strategies import architectures

KEY = TableKey(Fingerprint("A CPU", 4, "x86_64"), "onnxruntime", "1.0", 1, "fp32", "reference")


def filled(
    readings: list[list[float]], times: dict[str, list[float]], networks: tuple[str, ...] = (), key: TableKey = KEY
) -> LatencyTable:
    table = LatencyTable(key)
    add_sitting(table, readings, times, networks)
    return table


def add_sitting(
    table: LatencyTable, readings: list[list[float]], times: dict[str, list[float]], networks: tuple[str, ...] = ()
) -> None:
    runs = table.start_sitting(dict.fromkeys(times, 0), networks)
    for index, reading in enumerate(readings):
        table.add_round(runs, Round(np.array([ms[index] for ms in times.values()]), np.array(reading)))


def test_round_trip(tmp_path: Path) -> None:
    table = filled([[10.0], [11.0], [10.0]], {"a": [1.0, 1.1, 1.0], "net": [9.0, 9.9, 9.0]}, ("net",))
    path = tmp_path / "new" / "table.json"
    table.output_difference = 2e-7
    table.save(path)
    again = LatencyTable.load(path, KEY)
    assert again.output_difference == 2e-7
    assert again.measured_at == table.measured_at
    assert again.halves_disagreement == table.halves_disagreement
    assert again.networks == ("net",)
    assert len(again) == 2
    assert again.timing("a") == table.timing("a")
    assert again.timing("net") == table.timing("net")
    assert again.level_ms == table.level_ms == pytest.approx(10.0)
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]


def test_times_are_at_the_level_of_the_first_sitting() -> None:
    table = filled([[10.0]] * 5, {"a": [1.0] * 5})
    add_sitting(table, [[20.0]] * 5, {"b": [1.0] * 5})  # the machine at half its pace
    assert table.timing("a").median_ms == pytest.approx(1.0)
    assert table.timing("b").median_ms == pytest.approx(0.5)
    assert table.timing("b").minimum_ms == pytest.approx(0.5)
    assert table.level_ms == pytest.approx(10.0)


def test_units_and_networks_have_a_level_each() -> None:
    table = filled([[10.0]] * 5, {"a": [1.0] * 5})
    add_sitting(table, [[12.0]] * 5, {"net": [9.0] * 5}, ("net",))  # the reference among networks
    add_sitting(table, [[24.0]] * 5, {"late": [9.0] * 5}, ("late",))
    levels = table.level_ms, table.network_level_ms, table.latest_network_drift.reference_ms
    assert levels == pytest.approx((10.0, 12.0, 24.0))
    assert table.timing("net").median_ms == pytest.approx(9.0)
    assert table.timing("late").median_ms == pytest.approx(4.5)
    assert table.timing("a").median_ms == pytest.approx(1.0)
    with pytest.raises(DeviceError, match="empty"):
        _ = filled([[10.0]], {"a": [1.0]}).network_level_ms


def test_a_second_sitting_adds_to_an_entry() -> None:
    # x and y say that the pace was steady
    table = filled([[10.0]] * 3, {"a": [1.0, 1.2, 1.1], "x": [2.0] * 3, "y": [3.0] * 3})
    add_sitting(table, [[10.0]] * 2, {"a": [1.3, 1.4], "x": [2.0] * 2, "y": [3.0] * 2})
    assert table.rounds_of("a") == 5
    assert table.timing("a").median_ms == pytest.approx(1.2)
    assert table.timing("a").lower_ms == pytest.approx(1.1)
    assert table.timing("a").minimum_ms == pytest.approx(1.0)
    assert table.rounds_of("b") == 0


def test_level_error_is_how_the_pace_varies() -> None:
    assert filled([[10.0]] * 16, {"a": [1.0] * 16}).level_error == 0
    wandering = filled([[10.0]] * 8 + [[14.4]] * 8, {"a": [1.0] * 8 + [1.44] * 8})
    assert wandering.level_ms == pytest.approx(12.0)
    # moments at paces of 1/1.2 and 1.2, four each
    assert wandering.level_error == pytest.approx(np.sqrt(8 / 7) * (1.2 - 1 / 1.2) / 2)


def test_when_it_was_measured(tmp_path: Path) -> None:
    assert LatencyTable(KEY).measured_at is None
    before = datetime.now(UTC).replace(microsecond=0)
    table = filled([[10.0]], {"a": [1.0]})
    assert table.measured_at is not None
    assert before <= datetime.fromisoformat(table.measured_at) <= datetime.now(UTC)
    table.start_sitting({"b": 0})
    assert table.measured_at is not None
    path = tmp_path / "t.json"
    add_sitting(table, [[10.0]], {"b": [1.0]})
    table.save(path)
    content = json.loads(path.read_text())
    days = ("2024-05-02T10:00:00+00:00", "2024-05-09T10:00:00+00:00", "2024-05-03T10:00:00+00:00")
    for sitting, started in zip(content["sittings"], days, strict=True):
        sitting["started"] = started
    path.write_text(json.dumps(content))
    # the second sitting was left before its first round, so nothing was measured in it
    assert LatencyTable.load(path, KEY).measured_at == days[2]


def test_halves_that_disagree_are_seen() -> None:
    assert LatencyTable(KEY).halves_disagreement == 0
    steady = filled([[10.0]] * 6, {"a": [1.0] * 6, "b": [2.0] * 6})
    assert steady.halves_disagreement == pytest.approx(0)
    add_sitting(steady, [[10.0]] * 6, {"c": [1.0, 1.1] * 3, "d": [1.1, 1.0] * 3})
    assert steady.halves_disagreement == pytest.approx((0.1 / 1.1 + 0.1) / 2)  # the worst sitting, c's and d's middle
    assert steady.halves_disagreement > MAX_DISAGREEMENT
    drifting = filled([[10.0]] * 6 + [[12.0]] * 6, {"a": [1.0] * 6 + [1.2] * 6})
    assert drifting.halves_disagreement == pytest.approx(0)
    drifting.start_sitting({"d": 0})  # interrupted in its warm-up
    assert drifting.halves_disagreement == pytest.approx(0)


class Interrupted(list[float]):
    """Repeats of which no more can be noted."""

    def append(self, value: float) -> None:
        raise KeyboardInterrupt


def test_a_round_that_is_interrupted_leaves_a_table_that_reads_back(tmp_path: Path) -> None:
    table = LatencyTable(KEY)
    runs = table.start_sitting({"a": 0, "b": 0})
    table.add_round(runs, Round(np.array([1.0, 2.0]), np.array([10.0])))
    runs[1].ms = Interrupted(runs[1].ms)
    with pytest.raises(KeyboardInterrupt):
        table.add_round(runs, Round(np.array([1.0, 2.0]), np.array([10.0])))
    table.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json", KEY)
    assert (again.rounds_of("a"), again.rounds_of("b")) == (2, 1)
    assert again.timing("b").median_ms == 2.0
    assert again.halves_disagreement == 0


@pytest.mark.parametrize("noted", [0, 1, 2])
def test_an_interrupted_round_leaves_the_pace_of_those_before_it(tmp_path: Path, noted: int) -> None:
    table = LatencyTable(KEY)
    usual = np.array([1.0, 2.0, 4.0])
    runs = table.start_sitting({"a": 0, "b": 0, "c": 0})
    for pace, reading in ((1.0, 10.0), (1.5, 15.0), (1.0, 30.0), (1.0, 10.0)):  # a wrong reading in the third
        table.add_round(runs, Round(usual * pace, np.array([reading])))
    runs[noted].ms = Interrupted(runs[noted].ms)
    with pytest.raises(KeyboardInterrupt):
        table.add_round(runs, Round(usual, np.array([10.0])))
    table.save(tmp_path / "t.json")
    for found in (table, LatencyTable.load(tmp_path / "t.json", KEY)):
        assert [found.rounds_of(entry) for entry in "abc"] == [4 + (index < noted) for index in range(3)]
        assert found.level_ms == pytest.approx(10.0)
        assert [found.timing(entry).median_ms for entry in "abc"] == pytest.approx(usual.tolist())
        assert [found.timing(entry).spread for entry in "abc"] == pytest.approx([0, 0, 0])
        assert found.timing("b").lower_ms == pytest.approx(2.0)


def test_unknown_entries_and_empty_tables_are_said() -> None:
    with pytest.raises(DeviceError, match="no time of b; measure it"):
        filled([[10.0]], {"a": [1.0]}).timing("b")
    with pytest.raises(DeviceError, match="empty"):
        _ = LatencyTable(KEY).level_ms


def test_entries_without_a_round_are_not_written(tmp_path: Path) -> None:
    table = filled([[10.0]], {"a": [1.0]})
    table.start_sitting({"b": 0})
    table.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json", KEY)
    assert len(again) == 1
    assert again.timing("a").median_ms == 1.0


def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    assert len(LatencyTable.load(tmp_path / "none.json", KEY)) == 0


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
        (set_at("key", "runtime_version", value="2.0"), 'runtime_version "1.0"'),
        (set_at("key", "threads", value=2), "threads 1"),
        (set_at("key", value=None), "measured elsewhere"),
        (set_at("units", "a", 0, "ms", 0, value=-1.0), "-1.0 is not a time"),
        (set_at("units", "a", 0, "ms", 0, value=1e-300), "1e-300 is not a time"),
        (set_at("units", "a", 0, "ms", 0, value=10**400), "has 401 digits"),
        (set_at("units", "a", 0, "ms", 0, value="1"), "'1' is not a time"),
        (set_at("units", "a", 0, "ms", 0, value=float("nan")), "NaN is no number"),
        (set_at("units", "a", 0, "ms", value=[1.0] * 9), "more rounds than its sitting"),
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
        (set_at("sittings", value=[[[10.0], [10.0]]]), "damaged"),
        (set_at("sittings", value=None), "damaged"),
        (set_at("output_difference", value=-1.0), "-1.0 is no difference of outputs"),
        (set_at("output_difference", value=True), "True is no difference"),
        (set_at("output_difference", value=float("inf")), "Infinity is no number"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = tmp_path / "table.json"
    filled([[10.0], [10.0]], {"a": [1.0, 1.0]}).save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DeviceError, match=said) as caught:
        LatencyTable.load(path, KEY)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_truncated_tables_are_refused_wherever_they_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    filled([[10.0], [10.0]], {"a": [1.0, 1.0]}).save(path)
    text = path.read_text()
    for length in range(0, len(text) - 1, 7):
        path.write_text(text[:length])
        with pytest.raises(DeviceError, match="cut short or not JSON"):
            LatencyTable.load(path, KEY)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"cannot write the latency table.*MNV3SEARCH_CACHE"):
        filled([[10.0]], {"a": [1.0]}).save(tmp_path / "file" / "table.json")


def test_where_tables_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MNV3SEARCH_CACHE", str(tmp_path / "chosen"))
    assert default_cache_dir() == tmp_path / "chosen"
    monkeypatch.delenv("MNV3SEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert table_path(KEY) == tmp_path / "xdg" / "mnv3search" / "latency" / KEY.file_name
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "mnv3search"
    assert table_path(KEY, tmp_path).parent == tmp_path / "latency"


def test_file_names_differ_wherever_the_key_does() -> None:
    others = [
        replace(KEY, device=replace(KEY.device, cpu="B")),
        replace(KEY, device=replace(KEY.device, cores=8)),
        replace(KEY, device=replace(KEY.device, arch="aarch64")),
        replace(KEY, runtime="torch"),
        replace(KEY, runtime_version="1.1"),
        replace(KEY, threads=2),
        replace(KEY, precision="int8"),
        replace(KEY, reference="other"),
    ]
    assert len({key.file_name for key in (KEY, *others)}) == 9
    assert "/" not in replace(KEY, runtime_version="1/../2 β").file_name


def test_fingerprint_of_this_machine(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU\n")
    assert this_machine(cpuinfo).cpu == "Some CPU @ 2 GHz"
    assert this_machine(tmp_path / "none").cpu
    assert this_machine().cores >= 1
    assert this_machine() == this_machine()


def test_unit_keys_leave_out_what_no_time_depends_on() -> None:
    v3 = units(published("mobilenet_v3_large"))
    head, block = v3[-1], v3[4]
    assert isinstance(head.spec, HeadSpec)
    assert unit_key(head) == unit_key(head._replace(spec=replace(head.spec, dropout=0.5, linear_std=0.1)))
    assert isinstance(block.spec, BlockSpec)
    se = block.spec.squeeze_excite
    assert se is not None
    other = replace(se, ratio=0.5, divisor=4, relative_to="output")
    assert unit_key(block) == unit_key(block._replace(spec=replace(block.spec, squeeze_excite=other)))
    narrower = replace(se, squeeze_channels=8)
    assert unit_key(block) != unit_key(block._replace(spec=replace(block.spec, squeeze_excite=narrower)))
    assert unit_key(block) != unit_key(block._replace(in_size=block.in_size + 1))
    assert unit_key(head) != unit_key(head._replace(classes=10))
    assert len({unit_key(unit) for unit in v3}) == len(set(v3))


@settings(max_examples=40)
@given(architectures())
def test_network_keys_read_back(architecture: Any) -> None:
    assert network_of_key(network_key(architecture)) == architecture
