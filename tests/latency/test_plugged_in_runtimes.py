"""A runtime that an installed package registers: named by device texts, described, measured and listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnv3search.errors import UnknownNameError
from mnv3search.latency.device_spec import DeviceSpec
from mnv3search.latency.devices import describe_devices, device_names, load_device
from mnv3search.latency.keys import this_machine
from mnv3search.latency.measured.table import TableKey, table_path
from mnv3search.latency.measured.table_file import TableFile
from mnv3search.latency.measured.tables_on_disk import tables_on_disk

MODULE = """
class Runtime:
    name, version = "plugged_board", "7.1-build3"

    def __init__(self, threads, precision):
        self.threads, self.precision = threads, precision

    def prepare(self, subject):
        raise NotImplementedError
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as an installer leaves it, found on the path; its tables go to the folder that is returned."""
    site = tmp_path / "site"
    info = site / "plugged_package-2.5.dist-info"
    info.mkdir(parents=True)
    (site / "plugged_package.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-package\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[mnv3search.runtimes]\nplugged_board = plugged_package:Runtime\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("MNV3SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_device_text_names_it(package: Path) -> None:
    assert "host:plugged_board" in device_names()
    spec = DeviceSpec.parse("host:plugged_board,threads=2,int8,stale")
    assert spec == DeviceSpec("plugged_board", "int8", 2, stale=True)
    assert str(spec) == "host:plugged_board,int8,threads=2,stale"
    device = load_device("host:plugged_board")
    assert (device.name, device.kind) == ("host:plugged_board", "table")


def test_it_is_described_by_its_package(package: Path) -> None:
    described = {d.name: d.summary for d in describe_devices()}
    assert described["host:plugged_board"].endswith("plugged_board, of the package plugged-package 2.5")


def test_its_tables_are_not_taken_for_those_of_a_runtime_that_is_gone(package: Path) -> None:
    key = TableKey(this_machine(), "plugged_board", "7.1-build3", 1, "fp32", "a reference")
    with TableFile(table_path(key, package), key):
        pass
    (table,) = tables_on_disk(package)
    assert (table.device, table.stale) == ("host:plugged_board", "")


def test_the_nearest_of_all_is_said(package: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean plugged_board"):
        DeviceSpec.parse("host:plugged_bord")
