"""Whatever a user gets wrong: one clear line on stderr, exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnv3search.architecture import dump_architecture
from mnv3search.families import published

Invoke = Callable[..., Any]
ROOFLINE = (
    '{"format": "mnv3search.device", "version": 1, "kind": "roofline", "name": "x", "gmadds_per_s": %s, '
    '"gbytes_per_s": 1}'
)
RUN = ("run", "--space", "mnv3_large", "--target-latency", "50ms")


def refused(outcome: Any, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--space", "mnv3_larg", "--target-latency", "50ms"), ("mnv3_larg", "mnv3_large")),
        ((*RUN, "--device", "pixl1"), ("pixl1", "pixel1")),
        ((*RUN, "--evaluator", "priorr"), ("priorr", "prior")),
        (("count", "mobilenet_v3_lrage"), ("mobilenet_v3_lrage", "mobilenet_v3_large")),
        (("count", "mobilenet_v3_large@0"), ("0.0", "above 0")),
        (("count", "mobilenet_v3_large@1:keras"), ("NAME[@WIDTH]",)),
        (("count", "mobilenet_v3_large/0"), ("resolution", "0")),
        (("latency", "mobilenet_v2", "--device", "pixel9"), ("pixel9",)),
        (("latency", "mobilenet_v2", "--whole"), ("--device host",)),
        (("netadapt", "mobilenet_v4", "--target-latency", "40ms"), ("mobilenet_v4",)),
        (("netadapt", "mobilenet_v2"), ("--target-latency",)),
        (("netadapt", "mobilenet_v2", "--target-latency", "40ms", "--step", "0"), ("step fraction",)),
        (("netadapt", "mobilenet_v2", "--target-latency", "40ms", "--decay", "nan"), ("decay",)),
        (("run", "--space", "mnv3_large"), ("--target-latency",)),
        (("run", "--target-latency", "50ms"), ("--space",)),
        ((*RUN, "--trials", "0"), ("trials", "0")),
        ((*RUN, "--trials", "many"), ("many",)),
        ((*RUN, "--seed", "-1"), ("seed",)),
        ((*RUN, "--slack", "nan"), ("slack",)),
        ((*RUN, "--objectives", "3"), ("objectives",)),
        ((*RUN, "--sampler", "luck"), ("luck",)),
        (("run", "--resume", "nowhere"), ("nowhere", "not a run")),
        (("run", "--resume", "nowhere", "--out", "there"), ("--out",)),
        (("compare", "nowhere"), ("nowhere",)),
        (("compare", "runs/nowhere"), ("runs/nowhere", "no such file or folder")),
        (("count", "runs/nowhere"), ("runs/nowhere", "no such file or folder")),
        (("latency", "nowhere.safetensors"), ("nowhere.safetensors", "No such file")),
        (("count", "mnv3_small_23"), ("mnv3_small_23", "mnv3_small_32")),
        (("compare", "mobilenet_v2", "--out", "nowhere/x"), ("make the folder nowhere",)),
        (("spaces", "my.yaml"), ("my.yaml",)),
        (("fly",), ("fly",)),
        (("run", "--spice", "x"), ("--spice",)),
        (("run", "--space", "mnv3_small_32", "--target-latency", "1ms"), ("--data", "--evaluator")),
    ],
)
def test_one_line_that_names_the_value(invoke: Invoke, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(invoke(*arguments), *words)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("space.yaml", ("spaces", "FILE")),
        ("space.yaml", ("run", "--space", "FILE", "--target-latency", "50ms")),
        ("network.json", ("count", "FILE")),
        ("device.json", ("latency", "mobilenet_v2", "--device", "FILE")),
        ("manifest.json", ("run", "--resume", "FOLDER")),
        ("manifest.json", ("train", "--resume", "FOLDER")),
        ("manifest.json", ("device", "fit", "FOLDER", "FILE", "--out", "d.json")),
        ("times.csv", ("device", "fit", "FILE", "--out", "d.json")),
        ("recipe.yaml", ("train", "mobilenet_v2", "--data", "FOLDER", "--recipe", "FILE")),
        ("data.zip", ("train", "mobilenet_v2", "--data", "FILE")),
        ("best.safetensors", ("count", "FILE")),
        ("w.pth", ("train", "mobilenet_v2", "--data", "FOLDER", "--weights", "FILE")),
        ("model.onnx", ("predict", "FILE", "image.png")),
    ],
)
def test_what_is_no_regular_file_is_refused_without_waiting_or_reading(
    invoke: Invoke, name: str, arguments: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "given" / name
    file.parent.mkdir()
    if kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    refused(invoke(*(a.replace("FILE", str(file)).replace("FOLDER", str(file.parent)) for a in arguments)))


@pytest.mark.parametrize("target", ["0ms", "-3ms", "nanms", "infms", "ms", "50", "50 parsecs", "0x", ""])
@pytest.mark.parametrize("command", [("run", "--space", "mnv3_large"), ("netadapt", "mobilenet_v2")])
def test_targets_that_are_none(invoke: Invoke, command: tuple[str, ...], target: str) -> None:
    refused(invoke(*command, f"--target-latency={target}"), "target")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "not JSON"),
        ('{"architecture": ', "not JSON"),
        ("[]", "no 'architecture'"),
        ('{"format": "mnv3search.architecture", "version": 7, "architecture": {}}', "version 7"),
        ('{"architecture": {"stem": {"out_channels": -16}, "blocks": [], "head": {}}}', "-16"),
        ('{"architecture": {"stem": {"out_channels": NaN}, "blocks": [], "head": {}}}', "NaN"),
        ('{"architecture": {"stem": {"out_channels": 16}, "blocks": 5, "head": {"feature_channels": 8}}}', "blocks"),
        ("\x00\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_network_files_that_are_none(invoke: Invoke, tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "net.json").write_text(content)
    refused(invoke("count", "net.json"), "net.json", word)


def test_a_network_file_cut_short_or_missing(invoke: Invoke, tmp_path: Path) -> None:
    text = dump_architecture(published("mobilenet_v2"))
    (tmp_path / "net.json").write_text(text[: len(text) // 2])
    refused(invoke("latency", "net.json"), "net.json")
    refused(invoke("count", "gone.json"), "gone.json")


@pytest.mark.parametrize(
    "content",
    [
        "{", "null", '{"format": "mnv3search.device", "version": 99, "kind": "roofline", "name": "x"}',
        ROOFLINE % "NaN",
        ROOFLINE % "-1",
    ],
)  # fmt: skip
def test_device_files_that_are_none(invoke: Invoke, tmp_path: Path, content: str) -> None:
    (tmp_path / "board.json").write_text(content)
    refused(invoke("latency", "mobilenet_v2", "--device", "board.json"), "board.json")


def test_an_infeasible_target_says_both_figures(invoke: Invoke) -> None:
    outcome = invoke("run", "--space", "mnv3_large", "--target-latency", "1ms", "--trials", "10")
    refused(outcome, "1 ms", "fastest", "slowest")


@pytest.mark.parametrize("command", ["run", "search"])
def test_an_infeasible_target_as_json(invoke: Invoke, command: str) -> None:
    outcome = invoke(command, "--space", "mnv3_large", "--target-latency", "1ms", "--trials", "10", "--json")
    assert outcome.code == 2
    figures = json.loads(outcome.out)
    assert figures["feasible"] is False
    assert 1 < figures["fastest_ms"] < figures["slowest_ms"]
    assert len(outcome.err.splitlines()) == 1


def test_a_folder_that_holds_something_is_left_alone(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    refused(invoke(*RUN, "--out", "full"), "full", "--out")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_of_the_folder(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    refused(invoke(*RUN, "--out", "taken"), "taken")
    refused(invoke(*RUN, "--out", "taken/below"), "taken/below")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--sampler", "tep"), "tpe"),
        (("--step", "0"), "step fraction"),
        (("--decay", "2"), "decay"),
        (("--step", "0.005", "--decay", "0.9"), "raise the step or the decay"),
    ],
)
def test_options_are_refused_before_there_is_a_folder(
    invoke: Invoke, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    refused(invoke(*RUN, "--out", "r", *options), word)
    assert not (tmp_path / "r").exists()


def test_what_netadapt_cannot_reach_is_said_of_its_network(invoke: Invoke) -> None:
    refused(invoke("netadapt", "mobilenet_v2", "--target-latency", "0.1ms"), "narrowing of this network", "fastest")
