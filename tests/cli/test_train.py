"""``mnv3search train`` and ``evaluate`` as a user meets them."""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from image_fakes import make_image_folder, zip_folder
from safetensors.torch import load_file, save_file
from training_fakes import PREPROCESSING, TINY, tiny_network

from mnv3search.architecture import dump_architecture
from mnv3search.files import locked
from mnv3search.training.trained import TrainedNetwork, load_trained, save_trained

Invoke = Callable[..., Any]
BRIEF = """format: mnv3search.recipe/1
epochs: 2
batch_size: 6
optimizer: adamw
learning_rate: 0.01
reference_batch: 6
augmentation: {flip: true}
norm_momentum: 0.1
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with data, a network and a recipe."""
    make_image_folder(tmp_path / "flowers", ["aster", "daisy", "rose"], per_class=8, side=12)
    (tmp_path / "net.json").write_text(dump_architecture(replace(TINY, classes=1000)))
    (tmp_path / "brief.yaml").write_text(BRIEF)
    return tmp_path


TRAIN = ("train", "net.json", "--data", "flowers", "--recipe", "brief.yaml")


def refused(outcome: Any, *words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0]


def test_from_a_folder_to_a_judged_network(invoke: Invoke, place: Path) -> None:
    trained = invoke(*TRAIN, "--out", "run", "--epochs", "8")
    assert trained.code == 0, trained.err
    for word in ("best epoch", "%", "images/s", "best.safetensors", "evaluate run --data flowers:val", "predict run"):
        assert word in trained.out
    assert "mnv3search export run --data flowers\n" in trained.out
    assert "top-5" not in trained.out  # of three classes it is always 100 %
    names = {path.name for path in (place / "run").iterdir()}
    assert names == {
        "manifest.json", "network.json", "best.safetensors", "last.safetensors", "history.csv", "log.txt",
    }  # fmt: skip
    manifest = json.loads((place / "run" / "manifest.json").read_text())
    assert (manifest["format"], manifest["status"]) == ("mnv3search.training", "finished")
    assert manifest["environment"]["versions"]["torch"]
    assert manifest["images"] == {"train": 24, "val": 24, "test": 0, "classes": 3}
    assert "24 training images" in trained.err
    assert load_trained(place / "run").classes == ("aster", "daisy", "rose")
    judged = invoke("evaluate", "run", "--data", "flowers/val", "--json")
    assert judged.code == 0, judged.err
    found = json.loads(judged.out)
    assert found["top1"] == pytest.approx(manifest["best"]["val_accuracy"])
    assert found["images"] == 24
    assert set(found["class_accuracy"]) == {"aster", "daisy", "rose"}
    assert sum(map(sum, found["confusion"])) == 24


def test_as_json(invoke: Invoke, place: Path) -> None:
    outcome = invoke(*TRAIN, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    found = json.loads(outcome.out)
    assert len(found["history"]) == 2
    assert found["classes"] == ["aster", "daisy", "rose"]
    assert Path(found["trained"]).is_file()
    assert found["folder"].endswith("-train-net")


def test_an_archive_and_a_table_of_confusions(invoke: Invoke, place: Path) -> None:
    zip_folder(place / "flowers", place / "flowers.zip")
    assert invoke("train", "net.json", "--data", "flowers.zip", "--recipe", "brief.yaml", "--out", "run").code == 0
    outcome = invoke("evaluate", "run", "--data", "flowers.zip:val")
    assert outcome.code == 0, outcome.err
    for word in ("top-1", "loss", "images/s", "aster", "recognised"):
        assert word in outcome.out
    assert "top-5" not in outcome.out  # of three classes it is always 100 %


def test_transfer_with_frozen_features(invoke: Invoke, place: Path) -> None:
    start = tiny_network(classes=1000).eval()
    torch.save(start.state_dict(), place / "start.pth")
    outcome = invoke(
        "train", "net.json", "--data", "flowers", "--weights", "start.pth", "--freeze", "features", "--epochs", "3",
        "--out", "run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "computed once" in outcome.err
    found = load_file(place / "run" / "best.safetensors")
    changed = {name for name, tensor in start.state_dict().items() if not torch.equal(found[name], tensor)}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}
    assert found["head.classifier.bias"].shape == (3,)


def test_a_trained_network_is_begun_with_and_learnt_from(invoke: Invoke, place: Path) -> None:
    assert invoke(*TRAIN, "--out", "first").code == 0
    outcome = invoke(*TRAIN, "--weights", "first", "--teacher", "first", "--learning-rate", "1e-9", "--out", "second")
    assert outcome.code == 0, outcome.err
    one, other = (load_file(place / name / "best.safetensors") for name in ("first", "second"))
    torch.testing.assert_close(one["head.classifier.weight"], other["head.classifier.weight"], rtol=0, atol=1e-6)


def test_ctrl_c_leaves_what_resumes_to_the_same_weights(
    invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnv3search.cli.progress import ProgressLine

    assert invoke(*TRAIN, "--out", "whole").code == 0
    advance = ProgressLine.advance

    def interrupting(self: ProgressLine, done: int, detail: str = "", total: int | None = None) -> None:
        advance(self, done, detail, total)
        if done == 5 and detail.startswith("epoch"):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "advance", interrupting)
        outcome = invoke(*TRAIN, "--out", "cut")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].endswith("go on with mnv3search train --resume cut")
    assert json.loads((place / "cut" / "manifest.json").read_text())["status"] == "interrupted"
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    shutil.move(place / "flowers", "moved")
    refused(invoke("train", "--resume", str(place / "cut")), "if the images moved", "--data WHERE")
    resumed = invoke("train", "--resume", str(place / "cut"), "--data", "moved", "--quiet")
    assert resumed.code == 0, resumed.err
    best = [(place / name / "best.safetensors").read_bytes() for name in ("whole", "cut")]
    assert best[0] == best[1]
    manifest = json.loads((place / "cut" / "manifest.json").read_text())
    assert (manifest["status"], manifest["sessions"]) == ("finished", 2)
    assert manifest["settings"]["data"] == str(place / "elsewhere" / "moved")


def test_ctrl_c_before_the_first_step_is_taken_up_too(
    invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnv3search.cli.progress import ProgressLine

    save_file(tiny_network(classes=1000).state_dict(), place / "start.safetensors")
    frozen = (
        "train", "net.json", "--data", "flowers", "--weights", "start.safetensors", "--freeze", "features",
        "--epochs", "2",
    )  # fmt: skip
    assert invoke(*frozen, "--out", "whole").code == 0

    def interrupting(self: ProgressLine, name: str, total: int | None = None) -> None:
        if name.startswith("features"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "stage", interrupting)
        assert invoke(*frozen, "--out", "cut").code == 130
    assert not (place / "cut" / "last.safetensors").exists()
    resumed = invoke("train", "--resume", "cut")
    assert resumed.code == 0, resumed.err
    best = [(place / name / "best.safetensors").read_bytes() for name in ("whole", "cut")]
    assert best[0] == best[1]


def test_ctrl_c_while_images_are_looked_at_speaks_of_a_folder_where_there_is_one(
    invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    assert invoke(*TRAIN, "--out", "run", "--epochs", "1").code == 0
    manifest = place / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"interrupted"'))
    monkeypatch.setattr("mnv3search.training.session.open_data", interrupting)
    begun, resumed = invoke(*TRAIN, "--out", "new"), invoke("train", "--resume", "run")
    assert (begun.code, resumed.code) == (130, 130)
    assert begun.err.splitlines()[-1] == "interrupted"
    assert not (place / "new").exists()
    assert resumed.err.splitlines()[-1].endswith("mnv3search train --resume run")


def test_a_finished_training_is_told_and_not_computed_again(invoke: Invoke, place: Path) -> None:
    save_file(tiny_network(classes=1000).state_dict(), place / "start.safetensors")
    frozen = ("--weights", "start.safetensors", "--freeze", "features", "--epochs", "2")
    first = invoke("train", "net.json", "--data", "flowers", *frozen, "--out", "run", "--json")
    assert first.code == 0, first.err
    before = {path.name: path.read_bytes() for path in (place / "run").iterdir()}
    shutil.rmtree(place / "flowers")
    again = invoke("train", "--resume", "run")
    assert again.code == 0, again.err
    assert again.err.splitlines() == [
        "the training in run was finished already: nothing is trained, and this is its result"
    ]
    assert "best epoch" in again.out
    assert {path.name: path.read_bytes() for path in (place / "run").iterdir()} == before
    found, told = json.loads(first.out), json.loads(invoke("train", "--resume", "run", "--json").out)
    assert {**told, "seconds": 0, "images_per_second": 0} == {**found, "seconds": 0, "images_per_second": 0}
    assert told["images_per_second"] == pytest.approx(found["images_per_second"], rel=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "of 12 pixels, are enlarged to 80×80, the network's own resolution, and the recipe is paper (1 epoch); "
             "--resolution 12 trains faster, on 12×12, then by recipe small_32"),
        (("--recipe", "brief.yaml"), "the recipe is brief (1 epoch); --resolution 12 trains faster, on 12×12\n"),
        (("--resolution", "80"), None),
        (("--resolution", "12"), None),
    ],
)  # fmt: skip
def test_images_that_are_enlarged_are_told(invoke: Invoke, place: Path, words: tuple[str, ...], said: str) -> None:
    (place / "net.json").write_text(dump_architecture(replace(TINY, classes=1000, resolution=80)))
    outcome = invoke("train", "net.json", "--data", "flowers", "--epochs", "1", *words)
    assert outcome.code == 0, outcome.err
    assert said in outcome.err if said else "enlarged" not in outcome.err


def test_a_training_whose_state_is_gone_is_not_begun_over_its_best(invoke: Invoke, place: Path) -> None:
    assert invoke(*TRAIN, "--out", "run", "--epochs", "1").code == 0
    (place / "run" / "last.safetensors").unlink()
    refused(invoke("train", "--resume", "run"), "run has no last.safetensors", "another folder")


def test_held_out_images_of_one_folder_are_judged_by_name(invoke: Invoke, place: Path) -> None:
    make_image_folder(place / "flat", ["aster", "daisy", "rose"], per_class=20, side=12, split=())
    trained = invoke("train", "net.json", "--data", "flat", "--recipe", "brief.yaml", "--out", "run")
    assert "evaluate run --data flat:val" in trained.out
    judged = invoke("evaluate", "run", "--data", "flat:val", "--json")
    assert judged.code == 0, judged.err
    manifest = json.loads((place / "run" / "manifest.json").read_text())
    found = json.loads(judged.out)
    assert found["images"] == manifest["images"]["val"]
    assert found["top1"] == pytest.approx(manifest["best"]["val_accuracy"])


def test_a_full_disk_is_one_line_and_resumable(invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnv3search.training import loop
    from mnv3search.training.state import save_state as save

    calls = list[int]()

    def full(*given: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
                save(*given)
        save(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", full)
        refused(invoke(*TRAIN, "--out", "run"), "last.safetensors", "No space left", "intact")
    assert invoke("train", "--resume", "run").code == 0


def test_tensorboard(invoke: Invoke, place: Path) -> None:
    assert invoke(*TRAIN, "--out", "run", "--tensorboard").code == 0
    reading = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(place / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/top1")] == [1, 2]


def test_tensorboard_that_is_not_installed(invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    refused(invoke(*TRAIN, "--out", "run", "--tensorboard"), "'mnv3search[tensorboard]'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), ("NETWORK", "--data")),
        (("train", "net.json"), ("--data",)),
        (("train", "net.json", "--data", "nowhere"), ("nowhere",)),
        (("train", "mobilenet_v9", "--data", "flowers"), ("mobilenet_v9",)),
        ((*TRAIN[:4], "--recipe", "papper"), ("papper", "paper")),
        ((*TRAIN[:4], "--recipe", "gone.yaml"), ("gone.yaml",)),
        ((*TRAIN, "--epochs", "0"), ("epochs", "0")),
        ((*TRAIN, "--batch-size", "1"), ("batch_size", "1")),
        ((*TRAIN, "--learning-rate", "-1"), ("learning_rate", "-1")),
        ((*TRAIN, "--resolution", "0"), ("resolution", "0")),
        ((*TRAIN, "--freeze", "features"), ("--weights",)),
        ((*TRAIN, "--freeze", "stem"), ("stem",)),
        ((*TRAIN, "--weights", "gone.pth"), ("gone.pth",)),
        ((*TRAIN, "--teacher", "gone"), ("gone",)),
        ((*TRAIN, "--precision", "fp16"), ("fp16",)),
        (("train", "--resume", "nowhere"), ("nowhere", "not a training", "give the folder that --out named")),
        ((*TRAIN, "--out", "net.json"), ("net.json is a file; choose another --out",)),
        ((*TRAIN, "--out", "net.json/deep/run"), ("net.json is a file", "choose another --out")),
        (("train", "net.json", "--resume", "nowhere"), ("--resume", "leave NETWORK away")),
        (("train", "--resume", "nowhere", "--epochs", "9", "--seed", "0"), ("leave --epochs, --seed away",)),
        ((*TRAIN, "--learning-rate", "nan"), ("learning_rate: nan is not a number above 0",)),
        ((*TRAIN, "--learning-rate", "inf"), ("learning_rate: inf is not a number above 0",)),
        ((*TRAIN, "--learning-rate", "5000"), ("learning_rate: 5000.0 is not a number above 0, at most 1000",)),
        ((*TRAIN, "--seed", str(2**32)), ("--seed", str(2**32 - 1))),
        (("train", "net.json", "--data", "net.json"), ("zip archive net.json", "give an image folder")),
        (("evaluate", "nowhere", "--data", "flowers/val"), ("nowhere",)),
        (("evaluate", "flowers", "--data", "flowers/val"), ("best.safetensors",)),
        (("evaluate", "net.json", "--data", "flowers/val"), ("net.json", ".safetensors")),
    ],
)
def test_what_is_asked_wrongly(invoke: Invoke, place: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    if "fp16" in arguments and torch.cuda.is_available():
        pytest.skip("fp16 is no mistake on this machine")
    refused(invoke(*arguments), *words)


def test_one_class(invoke: Invoke, place: Path) -> None:
    make_image_folder(place / "one", ["rose"])
    refused(invoke("train", "net.json", "--data", "one"), "one class", "'rose'")


def test_every_image_that_cannot_be_used_is_named(invoke: Invoke, place: Path) -> None:
    for number in range(5):
        (place / "flowers" / "train" / "rose" / f"{number}.png").write_bytes(b"")
    outcome = invoke(*TRAIN)
    refused(outcome, "5 images of 53 cannot be used", "and 4 more")
    for number in range(5):
        assert f"rose/{number}.png is empty" in outcome.err


def test_weights_of_another_rule_of_widths_are_named_before_the_images_are_looked_at(
    invoke: Invoke, place: Path
) -> None:
    state = torchvision.models.mobilenet_v3_small(width_mult=0.35).state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, "w.pth")
    asked = ("train", "mobilenet_v3_small@0.35/64", "--data", "nowhere", "--weights", "w.pth")
    refused(invoke(*asked), "they are of mobilenet_v3_small@0.35:torchvision/64", "expansion.conv.weight")


def test_weights_of_another_network(invoke: Invoke, place: Path) -> None:
    other = tiny_network(blocks=(TINY.blocks[0], replace(TINY.blocks[1], kernel_size=3)))
    save_file(other.state_dict(), place / "other.safetensors")
    refused(invoke(*TRAIN, "--weights", "other.safetensors"), "other.safetensors", "depthwise")
    trained = TrainedNetwork(other.architecture, other.eval(), ("aster", "daisy", "rose"), PREPROCESSING)
    save_trained(place / "run.safetensors", trained)
    refused(invoke(*TRAIN, "--weights", "run.safetensors"), "error: run.safetensors: ", "depthwise")


class Bomb:
    """Says on unpickling that code was run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (13,))


def test_a_pickled_checkpoint(invoke: Invoke, place: Path) -> None:
    (place / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    refused(invoke(*TRAIN, "--weights", "bomb.pth"), "bomb.pth")
    refused(invoke("evaluate", "bomb.pth", "--data", "flowers/val"), "bomb.pth", ".safetensors")


def test_labels_that_differ_from_the_checkpoints(invoke: Invoke, place: Path) -> None:
    assert invoke(*TRAIN, "--out", "run", "--epochs", "1").code == 0
    make_image_folder(place / "more", ["aster", "daisy", "rose", "tulip"], per_class=2, side=12)
    refused(invoke("evaluate", "run", "--data", "more/val"), "'tulip'", "3 classes")
    make_image_folder(place / "teachers", ["aster", "daisy", "tulip"], per_class=2, side=12)
    refused(invoke("train", "net.json", "--data", "teachers", "--teacher", "run"), "teacher", "same classes")


def test_a_loss_that_is_nan(invoke: Invoke, place: Path) -> None:
    (place / "brief.yaml").write_text(BRIEF.replace("adamw", "sgd") + "schedule: constant\n")
    outcome = invoke(*TRAIN, "--learning-rate", "900", "--out", "run", "--epochs", "30")
    refused(outcome, "last good checkpoint is run/last.safetensors", "lower the learning rate")
    assert json.loads((place / "run" / "manifest.json").read_text())["status"] == "failed"
    last = load_file(place / "run" / "last.safetensors")
    assert all(bool(t.isfinite().all()) for name, t in last.items() if name.startswith("network."))


def test_a_folder_that_holds_something_is_left_alone(invoke: Invoke, place: Path) -> None:
    outcome = invoke(*TRAIN, "--out", "flowers")
    refused(outcome, "flowers", "--out")
    assert "scanning" not in outcome.err  # said at once, not after a scan of all images
    assert sorted(path.name for path in (place / "flowers").iterdir()) == ["train", "val"]


def test_several_processes_need_a_name(invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(invoke(*TRAIN), "--out")


def test_a_training_that_runs_is_left_as_it_is_by_a_second_one(invoke: Invoke, place: Path) -> None:
    assert invoke(*TRAIN, "--out", "run").code == 0
    (place / "run" / "best.safetensors").unlink()  # so that something is left to do
    manifest = (place / "run" / "manifest.json").read_text()
    with locked(place / "run"):
        refused(invoke("train", "--resume", "run"), "another process works on")
    assert (place / "run" / "manifest.json").read_text() == manifest


def test_seconds_and_threads_are_those_of_all_sessions(invoke: Invoke, place: Path) -> None:
    assert invoke(*TRAIN, "--out", "run", "--threads", "1").code == 0
    file = place / "run" / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["settings"]["threads"] == 1
    file.write_text(json.dumps(manifest | {"seconds": 1000.0, "status": "interrupted"}))
    outcome = invoke("train", "--resume", "run", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["seconds"] > 1000


def test_judging_by_what_was_trained_on_is_said_and_avoided(invoke: Invoke, place: Path) -> None:
    make_image_folder(place / "whole", ["aster", "daisy", "rose"], per_class=20, side=12, split=())
    assert invoke("train", "net.json", "--data", "whole", "--recipe", "brief.yaml", "--out", "run").code == 0
    held = json.loads((place / "run" / "manifest.json").read_text())["images"]["val"]
    outcome = invoke("evaluate", "run", "--data", "whole", "--json")
    found = json.loads(outcome.out)
    assert found["images"] == held
    assert f"evaluated on the {held} held-out images" in found["note"]
    assert invoke(*TRAIN, "--out", "split").code == 0
    assert "trained on these very images" in invoke("evaluate", "split", "--data", "flowers/train").out
    assert json.loads(invoke("evaluate", "split", "--data", "flowers/val", "--json").out)["note"] is None


def test_what_a_training_will_take_is_said_after_a_few_steps(
    invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnv3search.training.loop.LEAST_COST_S", 0.0)
    outcome = invoke(*TRAIN, "--out", "run", "--epochs", "4")  # 4 steps an epoch
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("about ")]
    assert "11 steps of 6 images at" in line
