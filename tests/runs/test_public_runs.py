"""Runs and prunings from Python: the same as on the command line, with its defaults and its errors."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from image_fakes import make_image_folder
from trained_fakes import SIDE, fake_trained

import mnv3search
from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.cli.group import cli
from mnv3search.errors import EvaluatorError, InfeasibleError, RunError, UnknownNameError, WeightsError
from mnv3search.runs.artifacts import RunOutcome
from mnv3search.runs.pruning_outcome import PruningOutcome
from mnv3search.runs.settings import PRUNING, RUN, PruningSettings, RunSettings, netadapt_settings, space_settings
from mnv3search.training.trained import load_trained, save_trained

NETWORK = Architecture(
    StemSpec(8), (BlockSpec(3, 32, 8), BlockSpec(3, 64, 16, 2)), HeadSpec(24), resolution=SIDE, classes=3
)


def test_an_empty_text_is_no_trained_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"^the path of the trained network is empty; give"):
        mnv3search.prune("", make_image_folder(tmp_path / "data", 2, 4), "0.6x")
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_a_run_gives_what_it_found_as_a_table_and_goes_on_from_its_folder(tmp_path: Path) -> None:
    outcome = mnv3search.run("mnv3_small", "0.9x", trials=64, finalists=1, seed=1, out=tmp_path / "r")
    assert isinstance(outcome, RunOutcome)
    assert outcome.met
    frame = outcome.to_frame()
    assert frame["name"][0] == "best"
    assert {"mobilenet_v3_small", "mobilenet_v3_small@0.75"} <= set(frame["name"])
    assert frame["latency_ms"][0] <= outcome.summary.target_latency_ms
    assert frame["architecture"][0] == outcome.summary.best.architecture
    again = mnv3search.resume(tmp_path / "r")
    assert isinstance(again, RunOutcome)
    assert again.summary.best == outcome.summary.best
    settings = json.loads((tmp_path / "r" / "manifest.json").read_text())["settings"]
    assert (settings["device"], settings["evaluator"], settings["trials"]) == ("pixel1", "prior", 64)


def test_a_pruning_gives_before_and_after_and_goes_on_from_its_folder(tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "images", per_class=10, side=SIDE)
    (tmp_path / "run").mkdir()
    save_trained(tmp_path / "run" / "best.safetensors", fake_trained(NETWORK))
    outcome = mnv3search.prune(
        tmp_path / "run", data, "0.8x", device="roofline:0.001,1000", confidence=0.5, step_fraction=0.1, short_steps=1,
        short_batch=4, held_out=0.3, finish="none", workers=1, out=tmp_path / "p",
    )  # fmt: skip
    frame = outcome.to_frame()
    assert list(frame["name"]) == ["before", "after"]
    assert frame["latency_ms"][1] <= 0.8 * frame["latency_ms"][0] + 1e-9
    assert load_trained(tmp_path / "p").architecture == load_trained(outcome.folder.best).architecture
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "p").iterdir() if f.name != "log.txt"}
    again = mnv3search.resume(tmp_path / "p", workers=1)
    assert isinstance(again, PruningOutcome)
    assert again.to_mapping() == outcome.to_mapping()
    assert before == {f.name: f.stat().st_mtime_ns for f in (tmp_path / "p").iterdir() if f.name != "log.txt"}, (
        "a finished one is left alone"
    )


def test_errors_are_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean finalists"):
        mnv3search.run("mnv3_small", "0.9x", finalist=2)
    with pytest.raises(UnknownNameError, match="mnv3_small"):
        mnv3search.run("mnv3_smal", "0.9x")
    with pytest.raises(EvaluatorError, match="--data"):
        mnv3search.run("mnv3_small_32", "0.9x")
    with pytest.raises(InfeasibleError, match="fastest takes"):
        mnv3search.run("mnv3_small", "1us")
    with pytest.raises(WeightsError, match="is no trained network"):
        mnv3search.prune("mobilenet_v3_small", "images", "0.8x")
    with pytest.raises(UnknownNameError, match="short_steps"):
        mnv3search.prune("run", "images", "0.8x", steps=1)
    for nothing in ("", "nowhere", tmp_path):
        with pytest.raises(RunError):
            mnv3search.resume(nothing)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_text_is_never_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_trained(tmp_path / "best.safetensors", fake_trained(NETWORK))
    with pytest.raises(WeightsError, match="the path of the trained network is empty"):
        mnv3search.prune("", "images", "0.8x")
    with pytest.raises(RunError, match="empty text"):
        PruningSettings("", "images", "0.8x", "host")


def test_the_command_line_has_the_defaults_of_the_settings() -> None:
    def default(command: str, option: str) -> Any:
        context = cli.make_context("mnv3search", [command], resilient_parsing=True)
        found = cli.get_command(context, command)
        assert found is not None
        return next(p.default for p in found.params if p.name == option)

    for name in ("confidence", "sampler", "objectives", "reward_exponent", "pruner", "seed"):
        assert default("run", name) == default("search", name) == RUN[name]
    for name in ("slack", "decay", "selection"):
        assert default("run", name) == RUN[name]
    for name in ("short_steps", "short_batch", "short_rate", "rule", "finish", "seed"):
        assert default("netadapt", name) == PRUNING[name]
    assert PRUNING["confidence"] == RUN["confidence"], "netadapt has one option for both"
    assert (PRUNING["decay"], PRUNING["selection"]) == (RUN["decay"], RUN["selection"])


def test_settings_that_nothing_is_said_of_are_the_defaults() -> None:
    run = space_settings("run", "mnv3_small", "0.9x")
    assert run == RunSettings("run", "mnv3_small", "0.9x", "pixel1", "prior")
    assert (run.trials, run.finalists) == (5_000, 3)
    scored = space_settings("run", "mnv3_small", "0.9x", evaluator="zero_cost:zen")
    assert scored == replace(run, evaluator="zero_cost:zen", trials=1_000)
    assert netadapt_settings("mobilenet_v2", "0.9x") == RunSettings(
        "netadapt", "mobilenet_v2", "0.9x", "pixel1", "prior"
    )
    assert (PRUNING["step_fraction"], PRUNING["held_out"]) == (0.025, 0.1)


@pytest.mark.parametrize("name", ["run", "resume", "prune"])
def test_every_argument_and_error_is_documented(name: str) -> None:
    member = getattr(mnv3search, name)
    documentation = inspect.getdoc(member) or ""
    for parameter in inspect.signature(member).parameters:
        assert f"    {parameter}:" in documentation
    assert "Raises:" in documentation
