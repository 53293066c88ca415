"""``mnv3search export`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_fakes import make_image_folder
from trained_fakes import CLASSES, SIDE, saved_fake

from mnv3search.export import load_exported

Invoke = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_image_folder(tmp_path / "data", CLASSES, per_class=3, side=SIDE)
    return saved_fake(tmp_path / "run")


def test_a_folder_becomes_a_checked_file_beside_its_weights(invoke: Invoke, run: Path) -> None:
    done = invoke("export", "run", "--data", "data", "--no-timing")
    assert done.code == 0, done.err
    assert "run/best.onnx: fp32" in done.out
    assert f"input (1, 3, {SIDE}, {SIDE}) float32" in done.out
    assert "checked on 9 images (data, val): the same class on 100.00 %" in done.out
    assert "top-1 there: network" in done.out
    assert load_exported(run / "best.onnx").classes == CLASSES
    assert json.loads((run / "best.onnx.json").read_text(encoding="utf-8"))["precision"] == "fp32"


@pytest.mark.parametrize("words", [(), ("--int8", "--calibration-images", "9")], ids=["fp32", "int8"])
def test_any_number_of_images_in_a_call_where_it_is_asked_for(
    invoke: Invoke, run: Path, words: tuple[str, ...]
) -> None:
    done = invoke("export", "run", "--data", "data", "--no-timing", "--batch", "dynamic", "--out", "any.onnx", *words)
    assert done.code == 0, done.err
    assert f"input (any number, 3, {SIDE}, {SIDE}) float32" in done.out
    pixels = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    model = load_exported(Path("any.onnx"))
    assert (model.batch, model.logits(pixels).shape) == ("dynamic", (2, len(CLASSES)))


def test_files_are_judged_like_the_run_that_they_are_of(invoke: Invoke, run: Path) -> None:
    assert invoke("export", "run", "--data", "data", "--no-timing").code == 0
    assert invoke("export", "run", "--data", "data", "--no-timing", "--int8", "--calibration-images", "9").code == 0
    found = {}
    for name in ("run", "run/best.onnx", "run/best_int8.onnx"):
        done = invoke("evaluate", name, "--data", "data:val", "--json")
        assert done.code == 0, done.err
        found[name] = json.loads(done.out)
    assert found["run"]["confusion"] == found["run/best.onnx"]["confusion"]
    checked = json.loads((run / "best_int8.onnx.json").read_text(encoding="utf-8"))["parity"]
    assert found["run/best_int8.onnx"]["top1"] == pytest.approx(checked["model_top1"])
    table = invoke("evaluate", "run/best_int8.onnx", "--data", "data:val").out
    assert "recognised" in table
    assert "top-5" not in table  # of three classes it is always 100 %
    make_image_folder(run.parent / "more", [*CLASSES, "tulip"], per_class=1, side=SIDE, split=())
    refused = invoke("evaluate", "run/best.onnx", "--data", "more")
    assert refused.code == 2
    assert "class 'tulip', unknown to the network" in refused.err.splitlines()[-1]


def test_a_file_cannot_be_exported_again(invoke: Invoke, run: Path) -> None:
    (run / "best.onnx").write_bytes(b"")
    done = invoke("export", "run/best.onnx")
    assert done.code == 2
    assert "run/best.onnx is an exported model, which only evaluate and predict take" in done.err.splitlines()[-1]
    assert "--weights" not in done.err


@pytest.mark.slow
def test_int8_beside_fp32_timed_in_turn(invoke: Invoke, run: Path) -> None:
    words = ("--int8", "--data", "data", "--out", "small.onnx", "--calibration", "entropy", "--with-preprocessing")
    done = invoke("export", "run/best.safetensors", *words, "--batch", "dynamic", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["path"] == "small.onnx"
    assert (found["precision"], found["input"], found["quantisation"]["calibration"]) == ("int8", "uint8", "entropy")
    assert set(found["latency"]["models"]) == {"fp32", "int8"}
    assert found["latency"]["ratio"]["low"] <= found["latency"]["ratio"]["value"] <= found["latency"]["ratio"]["high"]
    assert load_exported(run.parent / "small.onnx").description.precision == "int8"


def test_without_data_it_says_that_noise_was_used(invoke: Invoke, run: Path) -> None:
    done = invoke("export", "run", "--no-timing")
    assert done.code == 0, done.err
    assert "noise, as no data were given" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--int8"), ("int8 needs images", "--data")),
        (("nowhere",), ("there is no file or folder nowhere",)),
        (("run", "--reduce-range"), ("add --int8",)),
        (("run", "--out", "model.tflite"), ("model.tflite", "must end in .onnx")),
        (("run", "--out", "deep/model.onnx"), ("make the folder deep first",)),
        (("run", "--data", "missing"), ("missing",)),
        (("run", "--format", "pickle"), ("pickle",)),
        (("run", "--int8", "--data", "data", "--calibration-images", "0"), ("0",)),
    ],
)
def test_one_line_that_names_the_value(
    invoke: Invoke, run: Path, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    done = invoke("export", *words, "--no-timing")
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in said)
    assert [*run.parent.glob("**/*.onnx")] == []
