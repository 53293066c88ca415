"""What the commands print, for people and for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trained_fakes import ARCHITECTURE, saved_fake

import mnv3search
from mnv3search.cli import COMMANDS
from mnv3search.cli.group import cli
from mnv3search.cost import count
from mnv3search.space import load_space

Invoke = Callable[..., Any]
NAMES = [command for commands in COMMANDS.values() for command in commands]


def test_help_names_every_command_and_the_main_job(invoke: Invoke) -> None:
    outcome = invoke("--help")
    assert outcome.code == 0
    assert all(command in outcome.out for command in NAMES)
    assert "mnv3search run --space mnv3_large --target-latency 50ms" in outcome.out


@pytest.mark.parametrize("command", NAMES)
def test_every_command_has_help_with_examples(invoke: Invoke, command: str) -> None:
    outcome = invoke(command, "--help")
    assert outcome.code == 0
    examples = outcome.out.split("Examples:\n")[1].splitlines()
    assert any(f"mnv3search {command}" in line for line in examples)
    assert all(line.startswith("  ") and "  |  " not in line for line in examples), "one command a line, to be copied"


def test_without_a_command_the_help_is_printed(invoke: Invoke) -> None:
    for words in ((), ("device",)):
        outcome = invoke(*words)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == invoke(*words, "--help").out


def test_the_version(invoke: Invoke) -> None:
    for option in ("-V", "--version"):
        assert invoke(option).out == f"mnv3search, version {mnv3search.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [(("runn",), "did you mean run?"), (("device", "ft"), "did you mean fit?"), (("xyzzy",), "known are run, search")],
)
def test_a_command_that_is_not_known_is_told_the_nearest(invoke: Invoke, words: tuple[str, ...], said: str) -> None:
    outcome = invoke(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


def test_quiet_shows_no_progress(invoke: Invoke) -> None:
    run = ("search", "--space", "mnv3_small", "--target-latency", "15ms", "--trials", "20")
    loud, quiet, again = invoke(*run), invoke(*run, "--quiet"), invoke(*run)
    assert (loud.code, quiet.code, quiet.err) == (0, 0, "")
    assert "pricing" in loud.err
    assert "pricing" in again.err, "what one command line says does not stay for the next"
    assert "mnv3_small for 15 ms" in quiet.out


def test_verbose_says_where_an_error_was_raised(invoke: Invoke) -> None:
    assert "Traceback" not in invoke("count", "mobilenet_v9").err
    verbose = invoke("count", "mobilenet_v9", "-v").err
    assert "Traceback" in verbose
    assert "parse_network" in verbose


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(invoke: Invoke, shell: str) -> None:
    outcome = invoke("completion", shell)
    assert outcome.code == 0
    assert "_MNV3SEARCH_COMPLETE" in outcome.out


@pytest.mark.parametrize(
    ("words", "at", "found"), [("mnv3search tra", "1", "plain,train"), ("mnv3search device ", "2", "plain,fit")]
)
def test_completion_of_a_command(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, words: str, at: str, found: str
) -> None:
    monkeypatch.setenv("_MNV3SEARCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", at)
    outcome = invoke()
    assert (outcome.code, outcome.err) == (0, "")
    assert found in outcome.out.splitlines()


def test_completion_of_a_space(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MNV3SEARCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mnv3search run --space mnv3_l")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert "plain,mnv3_large" in invoke().out


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("run", "--space", "mnv3_large"), "\n"),  # no folder was made yet
        (("latency", "mobilenet_v2"), "; the latency table keeps the layers that were measured"),
        (("profile", "--space", "mnv3_large"), "; the latency table keeps the layers that were measured"),
        (("compare", "run"), "\n"),
        (("count", "search.json"), "\n"),
        ((), "\n"),
    ],
)
def test_an_interrupt_says_what_is_kept(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], kept: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    outcome = invoke(*words)
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.startswith(f"interrupted{kept}")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--space", "mnv3_large", "--target-latency", "50ms", "--out", ""),
        ("train", "mobilenet_v2", "--data", ""),
        ("evaluate", ""),
        ("compare", "mobilenet_v2", "--out="),
    ],
)
def test_an_empty_text_is_not_the_current_folder(invoke: Invoke, tmp_path: Path, words: tuple[str, ...]) -> None:
    outcome = invoke(*words)
    assert outcome.code == 2
    assert "an empty text" in outcome.err
    assert not list(tmp_path.iterdir())


def test_count_json(invoke: Invoke) -> None:
    outcome = invoke("count", "mobilenet_v3_large", "mobilenet_v2@0.75/192", "--json", "--layers")
    assert (outcome.code, outcome.err) == (0, "")
    large, other = json.loads(outcome.out)["networks"]
    assert (large["name"], large["madds"], large["parameters"]) == ("mobilenet_v3_large", 216_589_760, 5_483_032)
    assert other["name"] == "mobilenet_v2@0.75/192"
    for network in (large, other):
        for figure in ("madds", "parameters", "activations"):
            assert network[figure] == sum(layer[figure] for layer in network["layers"])
        assert network["peak_memory_bytes"] > 0
        assert all({"name", "kind"} <= set(layer) for layer in network["layers"])


def test_count_of_a_file_of_names(invoke: Invoke) -> None:
    names = ["mobilenet_v2", "mobilenet_v3_small@0.75"]
    Path("a.txt").write_text("# what to compare\n\nmobilenet_v2\n  mobilenet_v3_small@0.75\r\n")
    Path("a.json").write_text(json.dumps(names))
    for file in ("a.txt", "a.json"):
        outcome = invoke("count", "--list", file, "--json")
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)["networks"]
        assert [one["name"] for one in found] == names
        assert set(found[0]) == {"name", "madds", "parameters", "activations", "peak_memory_bytes"}
    for content, word in (("[1]", "lists 1, which is no name"), ("[", "give a file"), ("mobilnet_v2", "mobilenet_v2")):
        Path("a.txt").write_text(content)
        outcome = invoke("count", "--list", "a.txt", "--json")
        assert (outcome.code, outcome.out) == (2, "")
        assert word in outcome.err
    assert "--list" in invoke("count").err


def test_count_shows_layers_and_totals(invoke: Invoke) -> None:
    outcome = invoke("count", "mobilenet_v3_small", "--layers")
    assert "56,510,400" in outcome.out
    assert "blocks.3.squeeze_excite.reduce" in outcome.out


@pytest.mark.slow
def test_count_check_agrees_with_fvcore(invoke: Invoke) -> None:
    outcome = invoke("count", "mobilenet_v3_small", "--check")
    assert outcome.code == 0
    assert "the same 56,510,400" in outcome.err


def test_latency_json(invoke: Invoke) -> None:
    outcome = invoke("latency", "mobilenet_v3_large", "mobilenet_v3_small", "--device", "pixel1", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert (found["device"], found["kind"]) == ("pixel1", "estimated")
    large, small = found["networks"]
    assert large["latency_ms"] == pytest.approx(51.2, rel=0.05)
    assert small["latency_ms"] == pytest.approx(15.8, rel=0.08)
    assert 0 < small["error_ms"] < large["error_ms"]


def test_spaces_and_devices_as_json_and_as_tables(invoke: Invoke) -> None:
    spaces = {s["name"]: s for s in json.loads(invoke("spaces", "--json").out)["spaces"]}
    assert set(spaces) == {"mnv3_large", "mnv3_small", "mnv2", "mnasnet", "ofa_mbv3", "mnasnet_anb", "mnv3_small_32"}
    assert spaces["mnv3_small_32"]["evaluator"] is None
    devices = {d["name"]: d["kind"] for d in json.loads(invoke("devices", "--json").out)["devices"]}
    assert devices["pixel1"] == "estimated"
    assert "host" in devices
    assert "mnv3_large" in invoke("spaces").out
    assert "pixel2" in invoke("devices").out
    assert "stage" in invoke("spaces", "mnv3_large").out


def test_tables_set_our_counts_beside_the_papers(invoke: Invoke) -> None:
    shown = invoke("tables").out
    assert "MobileNetV3-Large" in shown
    assert "216.6" in shown
    assert json.loads(invoke("tables", "--json").out)["tables"]


def test_compare_judges_all_alike_and_draws(invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("compare", "mobilenet_v3_large", "mobilenet_v2", "--device", "pixel2", "--out", "both", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["device"] == "pixel2"
    assert [n["name"] for n in found["networks"]] == ["mobilenet_v3_large", "mobilenet_v2"]
    assert (tmp_path / "both.png").stat().st_size > 10_000
    assert "pixel2" in (tmp_path / "both.svg").read_text()
    assert "published" in invoke("compare", "mobilenet_v3_large", "--out", "one").out


def test_networks_are_named_by_runs_and_spaces_too(invoke: Invoke, tmp_path: Path) -> None:
    saved_fake(tmp_path / "run")
    outcome = invoke("count", "run", "run/best.safetensors", "mnv3_small_32", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    folder, file, space = json.loads(outcome.out)["networks"]
    assert folder["madds"] == file["madds"] == count(ARCHITECTURE).madds
    assert space["parameters"] == count(load_space("mnv3_small_32").reference).parameters
    timed = invoke("latency", "run", "mnv3_small_32@0.5", "--device", "roofline:10,10", "--json")
    assert [n["name"] for n in json.loads(timed.out)["networks"]] == ["run", "mnv3_small_32@0.5"]
    how = ("--device", "roofline:10,10", "--evaluator", "zero_cost:parameters", "--out", "drawn", "--json")
    compared = json.loads(invoke("compare", "run", "mobilenet_v2", *how).out)["networks"]
    assert [n["parameters"] for n in compared] == [folder["parameters"], 3_504_872]


@pytest.mark.parametrize(
    "arguments", [("tables",), ("latency", "mobilenet_v2", "--device", "pixel1"), ("devices",), ("spaces",)]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_that_shows_ascii_alone_gets_all_in_it(
    arguments: tuple[str, ...], as_json: bool, tmp_path: Path
) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mnv3search", *arguments, *(["--json"] if as_json else [])],
        env=os.environ | ascii_only, cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.isascii()
    assert not as_json or json.loads(done.stdout)
