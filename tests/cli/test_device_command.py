"""``mnv3search device`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layer_folders import small_plan, write_times

from mnv3search.latency.layer_files.exported import write_layers

Invoke = Callable[..., Any]

TIMES = """architecture,ms
mobilenet_v3_large,51.2
mobilenet_v3_small,15.8
mobilenet_v2,64
mnasnet_a1,55
mobilenet_v3_large@0.75,39.8
"""


@pytest.fixture
def times(tmp_path: Path) -> Path:
    path = tmp_path / "times.csv"
    path.write_text(TIMES, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", ["fit", "export-layers", "import"])
def test_every_command_has_help_with_examples(invoke: Invoke, command: str) -> None:
    outcome = invoke("device", command, "--help")
    assert outcome.code == 0
    assert f"mnv3search device {command}" in outcome.out.split("Examples:")[1]


def test_fits_a_device_that_other_commands_take(invoke: Invoke, times: Path) -> None:
    outcome = invoke("device", "fit", "--from", times.name, "--name", "my_phone")
    assert outcome.code == 0
    assert "my_phone.json: fitted to 5 networks. On networks left out it is" in outcome.out
    shown = invoke("latency", "mobilenet_v3_large", "efficientnet_b0", "--device", "my_phone.json", "--json")
    found = json.loads(shown.out)
    assert (found["device"], found["kind"]) == ("my_phone", "estimated")
    assert found["networks"][0]["latency_ms"] == pytest.approx(51.2, rel=0.2)
    assert all(row["error_ms"] > 0 for row in found["networks"])


def test_fit_as_json_is_one_object(invoke: Invoke, times: Path) -> None:
    times.write_text(TIMES + "mobilenet_v2,66\n", encoding="utf-8")
    outcome = invoke("device", "fit", "--from", times.name, "--name", "p", "--out", "other.json", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert (found["device"], found["name"], found["held_out"]["networks"]) == ("other.json", "p", 5)
    assert "lines 4 and 7" in found["notices"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "none.csv", "--name", "p"), "cannot read the times none.csv"),
        (("--from", ".", "--name", "p"), "cannot read the times ."),
        (("--from", "times.csv", "--name", "my phone"), "'my phone' must be 1 to 100 letters"),
        (("--from", "times.csv", "--name", "../p"), "'../p' must be"),
        (("--from", "times.csv", "--name", "p", "--out", "p.txt"), "must end in .json"),
        (("--from", "times.csv", "--name", "p", "--out", "mine.json"), "exists and is no device's file"),
        (("--from", "times.csv", "--name", "p", "--out", "gone/p.json"), "make the folder gone first"),
        (("--from", "times.csv"), "Missing option '--name'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    invoke: Invoke, times: Path, arguments: tuple[str, ...], message: str
) -> None:
    (times.parent / "mine.json").write_text("{}", encoding="utf-8")
    outcome = invoke("device", "fit", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err.splitlines()[-1]


SPACE = """format: mnv3search.space/1
resolution: 32
stem: {out_channels: 16}
head: {feature_channels: null}
stages:
- {out_channels: 24, stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: [2, 3]}}
"""


def test_exports_a_space_once(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    arguments = ("device", "export-layers", "--space", "tiny.yaml", "--out", "layers", "--networks", "2")
    first = invoke(*arguments)
    assert first.code == 0
    assert "MB, to layers" in first.err
    found = json.loads(invoke(*arguments, "--json").out)
    assert found["kept"] == found["layers"] + found["networks"]
    assert (found["folder"], found["networks"], found["layers"]) == ("layers", 2, 10)


def test_an_interrupted_export_says_how_to_go_on(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_subject: object) -> bytes:
        raise KeyboardInterrupt

    (tmp_path / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    monkeypatch.setattr("mnv3search.latency.layer_files.exported.graph_of", interrupted)
    outcome = invoke("device", "export-layers", "--space", "tiny.yaml", "--out", "layers")
    assert outcome.code == 130
    assert "the same command goes on from there" in outcome.err
    outcome = invoke("device", "import", "--layers", "layers", "--times", "t.csv", "--name", "board")
    assert outcome.code == 2
    assert "was interrupted; finish it" in outcome.err


def test_export_of_an_unknown_space(invoke: Invoke) -> None:
    outcome = invoke("device", "export-layers", "--space", "mnv3_larg", "--out", "layers")
    assert outcome.code == 2
    assert "did you mean mnv3_large" in outcome.err
    assert not Path("layers").exists()


def test_imports_a_device_that_other_commands_take(invoke: Invoke, tmp_path: Path) -> None:
    plan = small_plan()
    write_layers(plan, tmp_path / "layers")
    write_times(tmp_path / "t.csv", plan)
    arguments = ("device", "import", "--layers", "layers", "--times", "t.csv", "--name", "board")
    outcome = invoke(*arguments)
    assert outcome.code == 0
    assert f"board.json: {len(plan.layers)} layers and 6 whole networks; each left out" in outcome.out
    found = json.loads(invoke(*arguments, "--json").out)
    assert (found["calibrated"], found["missing"], found["notices"]) == (True, 0, [])
    shown = json.loads(invoke("latency", "mobilenet_v2@0.5/96", "--device", "board.json", "--json").out)
    assert (shown["device"], shown["kind"]) == ("board", "table")


def test_import_without_whole_networks_says_so(invoke: Invoke, tmp_path: Path) -> None:
    plan = small_plan()
    write_layers(plan, tmp_path / "layers")
    write_times(tmp_path / "t.csv", plan, lambda entry: not entry.is_network)
    outcome = invoke("device", "import", "--layers", "layers", "--times", "t.csv", "--name", "board")
    assert outcome.code == 0
    assert "notice: uncalibrated" in outcome.err


def test_import_of_no_folder(invoke: Invoke) -> None:
    outcome = invoke("device", "import", "--layers", "none", "--times", "t.csv", "--name", "board")
    assert outcome.code == 2
    assert "give the folder that export-layers wrote" in outcome.err
