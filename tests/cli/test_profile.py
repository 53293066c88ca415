"""``profile``, ``devices`` and ``latency`` on a made-up machine: measured once, listed, compared, stale, refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from latency_fakes import KnownRuntime

from mnv3search.architecture import dump_architecture
from mnv3search.latency.device_spec import DeviceSpec
from mnv3search.latency.measured import table_device
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.runtimes.base import Runtime
from mnv3search.space import load_space

Invoke = Callable[..., Any]
PROFILE = ("profile", "--space", "ofa_mbv3", "--rounds", "17", "--check", "3")
SEARCH = ("search", "--space", "mnv3_large", "--target-latency", "50ms")
NETADAPT = ("netadapt", "mobilenet_v2", "--target-latency", "0.8x")


class Machine:
    """What ``host`` is made of in a test; ``stop_after`` interrupts the next measurement."""

    version = "1"
    stop_after: int | None = None
    load_average: float | None = None

    def runtime(self, spec: DeviceSpec) -> Runtime:
        runtime = KnownRuntime(stop_after=self.stop_after)
        runtime.version, runtime.name = self.version, spec.runtime
        runtime.threads, runtime.precision = spec.threads, spec.precision
        runtime.load_average = self.load_average
        return runtime


class UncheckedDevice(TableDevice):
    """Its runtime is not compared with torch."""

    def __init__(self, runtime: Runtime, **options: Any) -> None:
        super().__init__(runtime, check=lambda _: 0.0, **options)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setenv("MNV3SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table_device, "runtime_of", made.runtime)
    monkeypatch.setattr("mnv3search.latency.measured.table_device.WHOLE_PAUSE", 0.0)
    monkeypatch.setattr(table_device, "TableDevice", UncheckedDevice)
    return made


def test_profile_measures_once_reports_and_says_what_is_next(invoke: Invoke, machine: Machine, tmp_path: Path) -> None:
    first = invoke(*PROFILE)
    assert first.code == 0, first.err
    assert "93 of them measured now" in first.out
    assert "3 of 3 within ±5 %" in first.out
    assert "next: mnv3search run --space ofa_mbv3 --device host --target-latency 0.8x" in first.out
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-profile-ofa_mbv3-host", folder.name)
    assert {file.name for file in folder.iterdir()} == {
        "profile.json", "predicted-against-measured.png", "predicted-against-measured.svg",
    }  # fmt: skip
    content = json.loads((folder / "profile.json").read_text())
    assert (content["layers"], content["unseen"]["networks"], content["threads"]) == (93, 3, 1)
    before = (folder / "profile.json").read_bytes()
    second = invoke(*PROFILE)
    assert "all in the table already: nothing was measured again" in second.out
    assert (folder / "profile.json").read_bytes() == before
    again = folder.with_name(f"{folder.name}-2") / "profile.json"
    assert json.loads(again.read_text())["folder"] == str(again.parent.relative_to(tmp_path))


def test_profile_as_json_and_with_options(invoke: Invoke, machine: Machine, tmp_path: Path) -> None:
    outcome = invoke(*PROFILE, "--runtime", "torch", "--threads", "2", "--out", "here", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    content = json.loads(outcome.out)
    assert (content["device"], content["runtime"], content["threads"]) == ("host:torch,threads=2", "torch", 2)
    assert content["folder"] == "here"
    assert (tmp_path / "here" / "profile.json").is_file()
    assert Path(content["table"]).is_file()


def test_an_interrupted_profile_goes_on(invoke: Invoke, machine: Machine) -> None:
    machine.stop_after = 1500
    stopped = invoke(*PROFILE)
    assert stopped.code == 130
    assert "the same command goes on" in stopped.err
    assert "Traceback" not in stopped.err
    machine.stop_after = None
    assert invoke(*PROFILE).code == 0


def test_tables_move_as_json(invoke: Invoke, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke(*PROFILE, "--runtime", "torch", "--check", "0")
    (table,) = json.loads(invoke("devices", "--json").out)["tables"]
    shown = invoke("devices", "export", "host:torch", "--out", "t.json")
    assert shown.out.startswith("t.json: ")
    assert json.loads(Path("t.json").read_text())["version"] == 3
    again = json.loads(invoke("devices", "export", table["path"], "--json").out)
    assert again["file"] == Path(table["path"]).with_suffix(".json").name
    assert Path(again["file"]).read_bytes() == Path("t.json").read_bytes()

    monkeypatch.setenv("MNV3SEARCH_CACHE", str(tmp_path / "other"))
    assert invoke("devices", "export", "host:torch").code == 2
    (first,) = json.loads(invoke("devices", "import", "t.json", "--json").out)["imported"]
    twice = json.loads(invoke("devices", "import", "t.json", table["path"], "--json").out)["imported"]
    assert {one["entries"] for one in (first, *twice)} == {again["entries"]}
    (moved,) = json.loads(invoke("devices", "--json").out)["tables"]
    assert moved | {"path": "", "bytes": 0} == table | {"path": "", "bytes": 0}
    assert invoke("devices", "export", moved["path"], "--out", "u.json").code == 0
    assert Path("u.json").read_bytes() == Path("t.json").read_bytes()
    for wrong in (("import", "none.sqlite"), ("import", "none.json"), ("export", "none.json"), ("export", "pixel1")):
        outcome = invoke("devices", *wrong)
        assert outcome.code == 2
        assert len(outcome.err.strip().splitlines()) == 1


def test_devices_lists_the_tables(invoke: Invoke, machine: Machine) -> None:
    assert "No latency table is measured yet" in invoke("devices").out
    invoke(*PROFILE, "--runtime", "torch")
    (table,) = json.loads(invoke("devices", "--json").out)["tables"]
    assert (table["device"], table["runtime"], table["damage"]) == ("host:torch", "torch", None)
    assert table["stale"].startswith("torch is ")
    assert (table["checked"]["networks"], table["checked"]["layers"]) == (3, 93)
    shown = invoke("devices").out
    assert "host:torch" in shown
    assert "mean" in shown
    Path(table["path"]).write_text("{")
    (table,) = json.loads(invoke("devices", "--json").out)["tables"]
    assert table["damage"] == "is not a latency table of this program; delete it to measure again"


def test_devices_names_the_held_out_errors_of_profiles(invoke: Invoke) -> None:
    devices = {d["name"]: d for d in json.loads(invoke("devices", "--json").out)["devices"]}
    assert devices["pixel1"]["held_out"] == "mean 1 to 11 % by family"
    assert devices["host"]["held_out"] is None


def test_an_upgrade_measures_anew_unless_a_stale_table_is_allowed(
    invoke: Invoke, machine: Machine, tmp_path: Path
) -> None:
    invoke(*PROFILE)
    machine.version = "2"
    latency = ("latency", "--device", "host", "--json")
    (tmp_path / "net.json").write_text(dump_architecture(load_space("ofa_mbv3").sample(1, seed=5)[0]))
    found = invoke(*latency, "net.json", "--allow-stale")
    assert found.code == 0, found.err
    stale = json.loads(found.out)
    assert stale["device"] == "host (table of onnxruntime 1)"
    lacking = invoke(*latency, "mobilenet_v2@0.35", "--allow-stale")  # its layers are not in it, and none is added
    assert (lacking.code, "leave --allow-stale away" in lacking.err) == (2, True)
    (table,) = json.loads(invoke("devices", "--json").out)["tables"]
    assert table["runtime_version"] == "1"
    assert json.loads(invoke(*latency, "mobilenet_v3_large").out)["device"] == "host"
    assert "of them measured now" in invoke(*PROFILE).out


def test_a_profile_of_a_former_versions_table_says_so_and_leads_on(invoke: Invoke, machine: Machine) -> None:
    invoke(*PROFILE)
    machine.version = "2"
    shown = invoke(*PROFILE, "--allow-stale")
    assert shown.code == 0, shown.err
    assert "host (table of onnxruntime 1)" in shown.out
    assert "nothing was measured again" in shown.out
    assert "next: mnv3search run --space ofa_mbv3 --device host:onnxruntime,stale --target" in shown.out
    (table,) = json.loads(invoke("devices", "--json").out)["tables"]
    assert (table["device"], table["runtime_version"]) == ("host", "1")


def test_a_run_keeps_the_device_with_its_options_and_goes_on_with_them(
    invoke: Invoke, machine: Machine, tmp_path: Path
) -> None:
    search = ("search", "--space", "ofa_mbv3", "--target-latency", "0.9x", "--trials", "30", "--json")
    options = ("--device", "host", "--runtime", "torch", "--threads", "2")
    fresh = invoke(*search, *options, "--out", "fresh")
    assert fresh.code == 0, fresh.err
    machine.version = "2"
    first = invoke(*search, *options, "--allow-stale", "--out", "r")
    assert first.code == 0, first.err
    manifest = (tmp_path / "r" / "manifest.json").read_text()
    assert '"host:torch,threads=2,stale"' in manifest
    best = json.loads((tmp_path / "r" / "best.json").read_text())
    assert best["device"] == "host:torch,threads=2 (table of torch 1)"
    again = invoke("search", "--resume", "r", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["best"]["architecture"] == json.loads(first.out)["best"]["architecture"]
    assert len(json.loads(invoke("devices", "--json").out)["tables"]) == 1


def test_a_busy_board_is_said_once(invoke: Invoke, machine: Machine) -> None:
    machine.load_average = 1000.0
    assert invoke(*PROFILE).err.count("the machine to be timed is busy: its load average was 1000.0") == 1
    latency = ("latency", "mobilenet_v3_small", "--device", "host", "--whole")
    assert invoke(*latency).out.count("the machine to be timed is busy") == 1
    (note,) = json.loads(invoke(*latency, "--json").out)["notes"]
    assert note.startswith("the machine to be timed is busy")
    machine.load_average = 0.0
    assert "busy" not in invoke(*latency).out


def test_latency_interrupted_speaks_of_the_table(invoke: Invoke, machine: Machine) -> None:
    machine.stop_after = 50
    stopped = invoke("latency", "mobilenet_v3_small", "--device", "host")
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1].startswith("interrupted; the latency table keeps")
    assert "--resume" not in stopped.err


def test_networks_against_each_other(invoke: Invoke, machine: Machine) -> None:
    names = ("mobilenet_v3_large", "mobilenet_v3_small")
    found = json.loads(invoke("latency", *names, "--device", "host", "--whole", "--json").out)
    assert (found["kind"], found["against"]) == ("measured", names[0])
    large, small = found["networks"]
    assert large["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert small["ratio"]["value"] == pytest.approx(small["latency_ms"] / large["latency_ms"], rel=0.02)
    assert small["ratio"]["low"] <= small["ratio"]["value"] <= small["ratio"]["high"]
    shown = invoke("latency", *names, "--device", "host", "--whole", "--against", names[1]).out
    assert f"times {names[1]}" in shown
    assert "set against" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("profile", "--space", "mnv3_larg"), ("mnv3_larg", "mnv3_large")),
        ((*PROFILE, "--device", "pixel1"), ("pixel1", "--device host")),
        ((*PROFILE, "--device", "hsot"), ("hsot",)),
        ((*PROFILE, "--runtime", "onnxrutime"), ("onnxrutime", "onnxruntime")),
        ((*PROFILE, "--threads", "0"), ("threads is 0",)),
        ((*PROFILE, "--precision", "int4"), ("int4", "int8")),
        ((*PROFILE, "--device", "host:torch", "--runtime", "openvino"), ("contradicts",)),
        (("profile", "--space", "mnv3_small", "--rounds", "0"), ("rounds is 0",)),
        (("profile", "--space", "mnv3_small", "--seconds", "0"), ("seconds is 0",)),
        (("profile", "--space", "mnv3_small", "--seconds", "nan"), ("seconds is nan",)),
        (("profile", "--space", "mnv3_small", "--check", "-1"), ("check is -1",)),
        (("profile",), ("--space",)),
        (("latency", "mobilenet_v2", "--threads", "2"), ("--threads", "pixel1", "--device host")),
        (("latency", "mobilenet_v2", "--allow-stale"), ("--allow-stale", "pixel1", "--device host")),
        ((*SEARCH, "--runtime", "torch"), ("--runtime", "pixel1", "--device host")),
        ((*SEARCH, "--allow-stale"), ("--allow-stale", "pixel1", "--device host")),
        ((*SEARCH, "--device", "host", "--precision", "int4"), ("int4", "int8")),
        ((*SEARCH, "--device", "host:torch", "--runtime", "openvino"), ("contradicts",)),
        ((*NETADAPT, "--threads", "2"), ("--threads", "pixel1", "--device host")),
        ((*NETADAPT, "--device", "host", "--runtime", "onnxrutime"), ("onnxrutime", "onnxruntime")),
        (("latency", "mobilenet_v2", "--against", "mnasnet_a1"), ("--whole",)),
        (("latency", "mobilenet_v2", "--device", "ssh://-x@board"), ("-x@board",)),
    ],
)
def test_what_is_refused(invoke: Invoke, machine: Machine, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    outcome = invoke(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in line
