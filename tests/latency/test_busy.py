"""What is said of a machine that has work of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from latency_fakes import KnownRuntime, known_device

from mnv3search.latency.devices import load_device
from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.measured.table_device import FormerVersion
from mnv3search.latency.measured.whole_networks import busy_sentence, disturbed_sentence


class Board(KnownRuntime):
    """Another machine with four cores."""

    machine = Fingerprint("a board's CPU", 4, "aarch64")

    def __init__(self, load_average: float | None) -> None:
        super().__init__()
        self.load_average = load_average


@pytest.mark.parametrize(("load", "busy"), [(None, False), (0.0, False), (2.0, False), (2.1, True), (40.0, True)])
def test_more_than_half_of_its_cores(load: float | None, busy: bool, tmp_path: Path) -> None:
    for runtime in (Board(load), FormerVersion(Board(load), "0")):
        sentence = busy_sentence(known_device(runtime, tmp_path))
        assert (sentence is not None) is busy
        if sentence is not None:
            assert f"the machine to be timed is busy: its load average was {load:.1f} on 4 cores" in sentence


def test_this_machine_is_looked_at_as_boards_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(KnownRuntime, "load_average")
    for runtime in (KnownRuntime(), FormerVersion(KnownRuntime(), "0")):
        device = known_device(runtime, tmp_path)
        monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
        assert busy_sentence(device) is None
        monkeypatch.setattr(os, "getloadavg", lambda: (4000.0, 0.1, 0.1))
        assert "its load average was 4000.0 on" in str(busy_sentence(device))


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(KnownRuntime, "load_average")
    monkeypatch.delattr(os, "getloadavg")
    assert busy_sentence(known_device(KnownRuntime(), tmp_path)) is None
    assert busy_sentence(load_device("pixel1")) is None
    assert disturbed_sentence([]) is None
    assert disturbed_sentence([object()]) is None  # a device of another kind
