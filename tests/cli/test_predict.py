"""``mnv3search predict`` as a user meets it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_fakes import make_image_folder
from PIL import Image
from trained_fakes import CLASSES, SIDE, fake_trained, saved_fake

from mnv3search.export import ExportSettings, export_network
from mnv3search.training.trained import save_trained

Invoke = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_image_folder(tmp_path / "data", CLASSES, per_class=1, side=SIDE, split=())
    return saved_fake(tmp_path / "run")


def test_a_table_of_the_most_probable_classes(invoke: Invoke, run: Path) -> None:
    done = invoke("predict", "run", "data/class_0/0000.png", "data/class_1/0000.png", "--top", "2")
    assert done.code == 0, done.err
    assert done.out.count("%") == 4
    assert "data/class_1/0000.png" in done.out


def test_names_do_not_command_the_terminal(invoke: Invoke, run: Path) -> None:
    Path("data/class_0/0000.png").rename("data/class_0/\x1b[31mred\x9b.png")
    done = invoke("predict", "run", "data/class_0/\x1b[31mred\x9b.png", "\x1b[2Jgone.jpg", "--picture", "p.png")
    assert done.code == 2
    assert r"data/class_0/\x1b[31mred\x9b.png" in done.out
    assert r"\x1b[2Jgone.jpg" in done.err
    assert not {"\x1b", "\x9b"} & {*done.out, *done.err}


def test_json_of_a_network_and_of_its_file_agree(invoke: Invoke, run: Path) -> None:
    export_network(fake_trained(), run / "best.onnx", ExportSettings(timed=False))
    for words in (("run",), ("run/best.safetensors",), ("run/best.onnx",)):
        done = invoke("predict", *words, "data", "--top", "3", "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)["predictions"]
        assert [one["file"] for one in found] == [f"data/{name}/0000.png" for name in CLASSES]
        assert all(sum(c["probability"] for c in one["classes"]) == pytest.approx(1.0) for one in found)
        assert {c["name"] for c in found[0]["classes"]} == set(CLASSES)


def test_only_pixels_that_are_drawn_are_kept(invoke: Invoke, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnv3search.report import predictions

    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(predictions, "MAX_DRAWN", 2)
    monkeypatch.setattr(predictions, "draw_predictions", lambda images, png, more=0: seen.append((len(images), more)))
    assert invoke("predict", "run", "data", "--picture", "p.png").code == 0
    assert seen == [(2, len(CLASSES) - 2)]


def test_a_pattern_without_a_match_stops_none_of_the_others(invoke: Invoke, run: Path) -> None:
    done = invoke("predict", "run", "*.webp", "data", "--json")
    assert done.code == 2
    assert len(json.loads(done.out)["predictions"]) == len(CLASSES)
    assert "*.webp matches no file" in done.err


def test_images_that_cannot_be_read_get_a_line_each(invoke: Invoke, run: Path) -> None:
    Path("empty.jpg").write_bytes(b"")
    Path("text.png").write_text("no image")
    done = invoke("predict", "run", "empty.jpg", "data/class_0/0000.png", "text.png", "--json", "--picture", "p.png")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert [line.split()[1] for line in lines] == ["empty.jpg", "text.png"]
    found = json.loads(done.out)["predictions"]
    assert ["error" in one for one in found] == [True, False, True]
    assert Image.open("p.png").size[0] > 400


def test_where_no_image_can_be_read_each_says_why_and_nothing_is_drawn(invoke: Invoke, run: Path) -> None:
    Path("empty.jpg").write_bytes(b"")
    done = invoke("predict", "run", "empty.jpg", "gone.jpg", "--picture", "p.png")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert "empty.jpg is empty" in lines[0]
    assert "gone.jpg" in lines[1]
    assert not Path("p.png").exists()


def test_an_answer_that_is_not_finite_is_no_prediction(invoke: Invoke, run: Path) -> None:
    trained = fake_trained()
    with torch.no_grad():
        for weights in trained.network.parameters():
            weights.fill_(1e20)
    save_trained(run / "best.safetensors", trained)
    done = invoke("predict", "run", "data/class_0/0000.png", "--json")
    assert done.code == 2
    assert "data/class_0/0000.png: the network's logits are not finite" in done.err.splitlines()[-1]
    assert "classes" not in json.loads(done.out)["predictions"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere", "data"), "there is no file or folder nowhere"),
        (("run", "*.webp"), "*.webp matches no file"),
        (("run", "data", "--picture", "p.jpg"), "p.jpg must end in .png"),
        (("data/class_0/0000.png", "data"), "is not a trained network"),
        (("run", "data", "--top", "0"), "0"),
    ],
)
def test_one_line_that_names_the_value(invoke: Invoke, run: Path, words: tuple[str, ...], said: str) -> None:
    done = invoke("predict", *words)
    assert done.code == 2
    assert said in done.err.splitlines()[-1]


def test_names_of_any_bytes_and_letters_lose_nothing(invoke: Invoke, run: Path) -> None:
    names = (b"caf\xe9.png", "日本.png".encode(), b"plain.png")
    for name in names:
        Path(os.fsdecode(name)).write_bytes(Path("data/class_0/0000.png").read_bytes())
    done = invoke("predict", "run", *map(os.fsdecode, names), "--top", "1", "--picture", "p.png")
    assert done.code == 0, done.err
    assert done.out.count("%") == len(names)
    assert r"caf\udce9.png" in done.out
    assert "the picture's font lacks 日本: drawn as boxes" in done.err
    assert "Warning" not in done.err
    assert Path("p.png").exists()
    found = json.loads(invoke("predict", "run", *map(os.fsdecode, names), "--json").out)["predictions"]
    assert [os.fsencode(one["file"]) for one in found] == list(names)


def test_what_was_predicted_is_printed_though_the_picture_cannot_be_written(invoke: Invoke, run: Path) -> None:
    done = invoke("predict", "run", "data", "--picture", "nowhere/p.png")
    assert done.code == 2
    assert "data/class_0/0000.png" in done.out
    assert "nowhere" in done.err


def test_too_many_pixels_are_said_once_and_in_our_own_words(invoke: Invoke, run: Path) -> None:
    Image.new("1", (10_000, 9_000)).save("huge.png")
    done = invoke("predict", "run", "huge.png")
    assert done.code == 2
    assert done.err.count("\n") == 1 + done.err.count("predicting"), done.err
    assert "huge.png has 10000×9000 pixels, more than the 80 million" in done.err
