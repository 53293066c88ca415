"""``mnv3search export`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    assert "checked on 9 images (data, val): the same class on 100.00 %" in done.out
    assert "top-1 there: network" in done.out
    assert load_exported(run / "best.onnx").classes == CLASSES
    assert json.loads((run / "best.onnx.json").read_text(encoding="utf-8"))["precision"] == "fp32"


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
