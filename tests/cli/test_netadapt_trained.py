"""``mnv3search netadapt RUN --data``: from a trained network to a pruned one, and what is said where it cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from image_fakes import make_image_folder
from trained_fakes import SIDE, fake_trained

from mnv3search.architecture import Architecture, HeadSpec, StemSpec, dump_architecture
from mnv3search.blocks import BlockSpec
from mnv3search.training.trained import load_trained, save_trained

Invoke = Callable[..., Any]
NETWORK = Architecture(
    StemSpec(8), (BlockSpec(3, 32, 8), BlockSpec(3, 64, 16, 2)), HeadSpec(24), resolution=SIDE, classes=3
)
# on a roofline latency is multiply-adds alone, and its error wide: 0.5 aims at the figure itself
HOW = ("--device", "roofline:0.001,1000", "--confidence", "0.5", "--step", "0.1", "--workers", "1", "--held-out", "0.3")
SHORT = ("--steps", "1", "--batch-size", "4")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with images and a trained network."""
    make_image_folder(tmp_path / "images", per_class=10, side=SIDE)
    (tmp_path / "run").mkdir()
    save_trained(tmp_path / "run" / "best.safetensors", fake_trained(NETWORK))
    return tmp_path


def test_it_prunes_a_run_that_other_commands_then_take(invoke: Invoke, here: Path) -> None:
    asked = ("netadapt", "run", "--data", "images", "--target-latency", "0.8x", *HOW, *SHORT, "--epochs", "1")
    outcome = invoke(*asked, "--out", "p", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert found["target"]["met"] is True
    assert found["after"]["latency_ms"] <= 0.8 * found["before"]["latency_ms"] + 1e-9
    assert found["judged_by"] == "validation images"
    assert load_trained(here / "p").facts["pruned_from"] == "run"
    again = invoke("netadapt", "--resume", "p", "--workers", "1")
    assert again.code == 0
    assert "within the target" in again.out
    assert "top-1 is known to" in again.out


def test_images_that_a_training_left_out_score_the_proposals(invoke: Invoke, here: Path) -> None:
    (here / "n.json").write_text(dump_architecture(NETWORK))
    trained = invoke(
        "train", "n.json", "--data", "images", "--epochs", "1", "--held-out", "0.3", "--out", "t", "--json"
    )
    assert trained.code == 0, trained.err
    how = ("--device", "roofline:0.001,1000", "--confidence", "0.5", "--step", "0.1", "--workers", "1")
    asked = ("netadapt", "t", "--data", "images", "--target-latency", "0.8x", *how, *SHORT, "--finish", "none")
    found = json.loads(invoke(*asked, "--out", "p", "--json").out)
    assert found["held_out_unseen"] is True
    assert json.loads((here / "p" / "manifest.json").read_text())["settings"]["held_out"] == 0.3


def test_a_network_with_weights_from_elsewhere_is_pruned_without_a_training(invoke: Invoke, here: Path) -> None:
    (here / "n.json").write_text(dump_architecture(NETWORK))
    torch.save(fake_trained(NETWORK).network.state_dict(), here / "w.pth")
    asked = ("netadapt", "n.json", "--weights", "w.pth", "--target-latency", "0.8x", *HOW, *SHORT, "--finish", "none")
    outcome = invoke(*asked, "--data", "images", "--out", "p", "--json")
    assert outcome.code == 0, outcome.err
    pruned = load_trained(here / "p")
    assert pruned.classes == ("class_0", "class_1", "class_2")
    assert invoke("netadapt", "--resume", "p", "--workers", "1").code == 0
    assert "pruning it needs the images" in invoke(*asked).err
    small = invoke(*asked[:1], "mobilenet_v3_small", *asked[2:], "--data", "nowhere")
    assert (small.code, "nowhere" in small.err) == (2, False), "weights of another network, before any image"
    five = fake_trained(replace(NETWORK, classes=5)).network.state_dict()
    torch.save(five, here / "w.pth")
    assert "the weights are for 5 classes, the network for 3" in invoke(*asked, "--data", "images").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--target-latency", "0.8x"), "pruning it needs the images, --data DIR"),
        (("mobilenet_v3_small", "--data", "images", "--target-latency", "0.8x"), "is no trained network"),
        (("--data", "images", "--target-latency", "0.8x"), "give a RUN"),
        (("run", "--data", "images"), "--target-latency"),
        (
            ("run", "--data", "images", "--target-latency", "0.8x", "--evaluator", "prior"),
            "--evaluator is for a NETWORK",
        ),
        (("mobilenet_v3_small", "--target-latency", "0.8x", "--steps", "3"), "--steps is for a trained RUN"),
        (("run", "--data", "nowhere", "--target-latency", "0.8x", *HOW), "nowhere"),
        (("run", "--data", "images", "--target-latency", "fast", *HOW), "not a number"),
        (("run", "--data", "images", "--target-latency", "0.8x", *HOW, "--recipe", "papr"), "did you mean paper"),
        (("run", "--data", "images", "--target-latency", "0.8x", "--device", "pixel9"), "pixel"),
        (("run", "--data", "images", "--target-latency", "0.8x", "--seed", "-1"), "--seed"),
        (("run", "--data", "images", "--target-latency", "0.8x", "--seed", "4294967296"), "4294967295"),
        (("images", "--data", "images", "--target-latency", "0.8x", *HOW), "holds no best.safetensors"),
        # both before the images are looked at, which are not there
        (("run", "--data", "nowhere", "--target-latency", "0.8x", *HOW, "--out", "run"), "is not an empty folder"),
        (("run", "--data", "nowhere", "--target-latency", "0.8x", *HOW, "--baseline", "rnu"), "rnu"),
        (("run", "--data", "nowhere", "--target-latency", "0.8x", *HOW, "--beside", "rnu"), "rnu"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(invoke: Invoke, here: Path, arguments: tuple[str, ...], said: str) -> None:
    outcome = invoke("netadapt", *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") <= 2
    assert not (here / "runs").exists() or not any((here / "runs").iterdir()), "nothing is left behind"


def test_an_infeasible_target_gives_the_bounds_as_json(invoke: Invoke, here: Path) -> None:
    outcome = invoke("netadapt", "run", "--data", "images", "--target-latency", "0.01x", *HOW, "--out", "p", "--json")
    assert outcome.code == 2
    bounds = json.loads(outcome.out)
    assert bounds["feasible"] is False
    assert 0 < bounds["fastest_ms"] < bounds["slowest_ms"]
    assert not (here / "p").exists()


def test_a_missed_target_exits_with_2_and_keeps_what_there_is(invoke: Invoke, here: Path) -> None:
    how = ("--device", "roofline:0.001,1000", "--confidence", "0.5", "--workers", "1", "--held-out", "0.3")
    asked = ("netadapt", "run", "--data", "images", "--target-latency", "0.4x", *how, *SHORT, "--finish", "none")
    outcome = invoke(*asked, "--step", "0.5", "--out", "p")
    assert outcome.code == 2
    assert "the target is missed" in outcome.out
    assert "Pruned to" not in outcome.out
    assert "--step, such as 0.25" in outcome.out
    told = invoke("netadapt", "--resume", "p", "--workers", "1", "--json")
    assert told.code == 2
    assert json.loads(told.out)["target"]["met"] is False
    counted = json.loads(invoke("count", "p", "p/network.json", "--json").out)["networks"]
    assert counted[0]["madds"] == counted[1]["madds"] == json.loads(told.out)["after"]["madds"]


def test_resume_takes_nothing_that_is_settled(invoke: Invoke, here: Path) -> None:
    asked = ("netadapt", "run", "--data", "images", "--target-latency", "0.9x", *HOW, *SHORT, "--finish", "none")
    assert invoke(*asked, "--out", "p").code == 0
    outcome = invoke("netadapt", "--resume", "p", "--steps", "5")
    assert outcome.code == 2
    assert "goes on with what was begun; leave --steps away" in outcome.err


@pytest.mark.parametrize(
    ("stage", "last", "kept"),
    [
        ("images.open_data", "interrupted", False),
        ("pruning.end_training", "go on with mnv3search netadapt --resume p", True),
    ],
)
def test_ctrl_c_speaks_of_a_folder_where_there_is_one(
    invoke: Invoke, here: Path, monkeypatch: pytest.MonkeyPatch, stage: str, last: str, kept: bool
) -> None:
    def interrupting(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"mnv3search.runs.{stage}", interrupting)
    asked = ("netadapt", "run", "--data", "images", "--target-latency", "0.9x", *HOW, *SHORT)
    outcome = invoke(*asked, "--out", "p")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].endswith(last)
    assert ("--resume" in outcome.err, (here / "p").exists()) == (kept, kept)


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_can_be_resumed(invoke: Invoke, here: Path) -> None:
    asked = ["netadapt", "run", "--data", "images", "--target-latency", "0.7x", *HOW, "--steps", "200"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mnv3search", *asked, "--batch-size", "8", "--finish", "none", "--out", "p"],
        cwd=here, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log, until = here / "p" / "proposals.jsonl", time.monotonic() + 120
    while not (log.exists() and '"score"' in log.read_text()):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "mnv3search netadapt --resume p" in err
    scored = log.read_text().count('"score"')
    assert invoke("netadapt", "--resume", "p", "--workers", "1", "--json").code == 0
    assert log.read_text().count('"score"') > scored
