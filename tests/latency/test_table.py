"""The latency table: times at one speed, whichever session they come from, and what its last sessions say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from mnv3search.architecture import HeadSpec
from mnv3search.blocks import BlockSpec
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
    add_session(table, readings, times, networks)
    return table


def add_session(
    table: LatencyTable, readings: list[list[float]], times: dict[str, list[float]], networks: tuple[str, ...] = ()
) -> None:
    session = table.start_session(dict.fromkeys(times, 0), networks)
    for index, reading in enumerate(readings):
        table.add_round(session, Round(np.array([ms[index] for ms in times.values()]), np.array(reading)))


def test_times_are_at_the_level_of_the_first_session() -> None:
    table = filled([[10.0]] * 5, {"a": [1.0] * 5})
    add_session(table, [[20.0]] * 5, {"b": [1.0] * 5})  # the machine at half its drift
    assert table.timing("a").median_ms == pytest.approx(1.0)
    assert table.timing("b").median_ms == pytest.approx(0.5)
    assert table.timing("b").minimum_ms == pytest.approx(0.5)
    assert table.unit_reference_ms == pytest.approx(10.0)


def test_units_and_networks_have_a_level_each() -> None:
    table = filled([[10.0]] * 5, {"a": [1.0] * 5})
    add_session(table, [[12.0]] * 5, {"net": [9.0] * 5}, ("net",))  # the reference among networks
    add_session(table, [[24.0]] * 5, {"late": [9.0] * 5}, ("late",))
    levels = table.unit_reference_ms, table.network_reference_ms, table.latest_network_drift.reference_ms
    assert levels == pytest.approx((10.0, 12.0, 24.0))
    assert table.timing("net").median_ms == pytest.approx(9.0)
    assert table.timing("late").median_ms == pytest.approx(4.5)
    assert table.timing("a").median_ms == pytest.approx(1.0)
    with pytest.raises(DeviceError, match="empty"):
        _ = filled([[10.0]], {"a": [1.0]}).network_reference_ms


def test_a_second_session_adds_to_an_entry() -> None:
    # x and y say that the drift was steady
    table = filled([[10.0]] * 3, {"a": [1.0, 1.2, 1.1], "x": [2.0] * 3, "y": [3.0] * 3})
    add_session(table, [[10.0]] * 2, {"a": [1.3, 1.4], "x": [2.0] * 2, "y": [3.0] * 2})
    assert table.rounds_of("a") == 5
    assert table.timing("a").median_ms == pytest.approx(1.2)
    assert table.timing("a").lower_ms == pytest.approx(1.1)
    assert table.timing("a").minimum_ms == pytest.approx(1.0)
    assert table.rounds_of("b") == 0


def test_level_error_is_how_the_drift_varies() -> None:
    assert filled([[10.0]] * 16, {"a": [1.0] * 16}).clock_drift == 0
    wandering = filled([[10.0]] * 8 + [[14.4]] * 8, {"a": [1.0] * 8 + [1.44] * 8})
    assert wandering.unit_reference_ms == pytest.approx(12.0)
    # moments at drifts of 1/1.2 and 1.2, four each
    assert wandering.clock_drift == pytest.approx(np.sqrt(8 / 7) * (1.2 - 1 / 1.2) / 2)


def test_when_it_was_measured() -> None:
    assert LatencyTable(KEY).measured_at is None
    before = datetime.now(UTC).replace(microsecond=0)
    table = filled([[10.0]], {"a": [1.0]})
    assert table.measured_at is not None
    assert before <= datetime.fromisoformat(table.measured_at) <= datetime.now(UTC)
    table.start_session({"b": 0})
    assert table.measured_at is not None
    add_session(table, [[10.0]], {"b": [1.0]})
    days = ("2024-05-02T10:00:00+00:00", "2024-05-09T10:00:00+00:00", "2024-05-03T10:00:00+00:00")
    for session, started in zip(table.sessions, days, strict=True):
        session.started = started
    # the second session was left before its first round, so nothing was measured in it
    assert table.measured_at == days[2]


def test_halves_that_disagree_are_seen() -> None:
    assert LatencyTable(KEY).halves_disagreement == 0
    steady = filled([[10.0]] * 6, {"a": [1.0] * 6, "b": [2.0] * 6})
    assert steady.halves_disagreement == pytest.approx(0)
    add_session(steady, [[10.0]] * 6, {"c": [1.0, 1.1] * 3, "d": [1.1, 1.0] * 3})
    assert steady.halves_disagreement == pytest.approx((0.1 / 1.1 + 0.1) / 2)  # the worst session, c's and d's middle
    assert steady.halves_disagreement > MAX_DISAGREEMENT
    drifting = filled([[10.0]] * 6 + [[12.0]] * 6, {"a": [1.0] * 6 + [1.2] * 6})
    assert drifting.halves_disagreement == pytest.approx(0)
    drifting.start_session({"d": 0})  # interrupted in its warm-up
    assert drifting.halves_disagreement == pytest.approx(0)


def test_unknown_entries_and_empty_tables_are_said() -> None:
    with pytest.raises(DeviceError, match="no time of b; measure it"):
        filled([[10.0]], {"a": [1.0]}).timing("b")
    with pytest.raises(DeviceError, match="empty"):
        _ = LatencyTable(KEY).unit_reference_ms


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


STEADY = [1.0] * 16
UNEVEN = [1.0, 1.1] * 8


def add_pair(table: LatencyTable, entry: str, ms: Sequence[float], *, whole: bool = False) -> None:
    """Sixteen rounds of an entry and of another whose odd rounds are short where its own are long."""
    others = ms[1:] + ms[:1]  # type: ignore[operator]
    session = table.start_session({entry: 0, f"{entry}'": 0}, (entry, f"{entry}'") if whole else ())
    for one, other in zip(ms, others, strict=True):
        table.add_round(session, Round(np.array([one, other]), np.array([10.0])))


def test_halves_are_of_the_last_sessions() -> None:
    table = LatencyTable(KEY)
    add_pair(table, "a", UNEVEN)
    uneven = table.halves_disagreement
    assert uneven > 0.05
    add_pair(table, "net", STEADY, whole=True)  # the units' last is still the first
    assert table.halves_disagreement == pytest.approx(uneven)
    add_pair(table, "b", STEADY)
    assert table.halves_disagreement == pytest.approx(0)
    add_pair(table, "late net", UNEVEN, whole=True)
    assert table.halves_disagreement == pytest.approx(uneven)


def test_the_drift_is_of_the_last_session_of_units() -> None:
    table = LatencyTable(KEY)
    wandering = table.start_session({"a": 0})
    for drift in (1.0,) * 8 + (1.4,) * 8:
        table.add_round(wandering, Round(np.array([drift]), np.array([10 * drift])))
    assert table.clock_drift > 0.1
    add_pair(table, "net", STEADY, whole=True)
    assert table.clock_drift > 0.1
    add_pair(table, "b", STEADY)
    assert table.clock_drift == pytest.approx(0)
