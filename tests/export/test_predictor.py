"""Predictions of a trained network and of its exported file, for files named in every way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_fakes import make_image_folder
from trained_fakes import CLASSES, SIDE, fake_trained, saved_fake

from mnv3search.errors import DataError, ExportError, WeightsError
from mnv3search.export import ExportSettings, export_network
from mnv3search.export.predictor import image_files, load_predictor, predict, softmax


def test_a_network_and_its_file_say_the_same(tmp_path: Path) -> None:
    run = saved_fake(tmp_path / "run")
    export_network(fake_trained(), tmp_path / "network.onnx", ExportSettings(timed=False, with_preprocessing=True))
    folder = make_image_folder(tmp_path / "data", CLASSES, per_class=2, side=40, split=())
    files = image_files([str(folder)])
    assert len(files) == 6
    ours = list(predict(load_predictor(run), files, top=2))
    theirs = list(predict(load_predictor(tmp_path / "network.onnx"), files, top=2))
    for one, other in zip(ours, theirs, strict=True):
        assert [guess.name for guess in one.guesses] == [guess.name for guess in other.guesses]
        assert [g.probability for g in one.guesses] == pytest.approx([g.probability for g in other.guesses], abs=1e-4)
        assert one.pixels is not None
        assert one.pixels.shape == (SIDE, SIDE, 3)


def test_probabilities_are_those_of_the_prepared_image(tmp_path: Path) -> None:
    trained = fake_trained()
    folder = make_image_folder(tmp_path, CLASSES, per_class=1, side=SIDE, split=())
    (file, *_) = image_files([str(folder)])
    (found,) = predict(load_predictor(saved_fake(tmp_path / "run")), [file], top=99)
    assert found.pixels is not None
    with torch.inference_mode():
        logits = trained.network(trained.preprocessing.to_tensor(found.pixels[None]))
    shares = torch.softmax(logits.double(), dim=1)[0].numpy()
    assert {guess.name: guess.probability for guess in found.guesses} == pytest.approx(
        dict(zip(CLASSES, shares.tolist(), strict=True)), abs=1e-6
    )
    assert [g.probability for g in found.guesses] == sorted((g.probability for g in found.guesses), reverse=True)


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([1000.0, 999.0], dtype=np.float32)), [0.7310586, 0.2689414], rtol=1e-6)


def test_an_image_that_cannot_be_read_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "data", CLASSES, per_class=1, side=SIDE, split=())
    good = image_files([str(folder)])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:200])
    files = [good[0], tmp_path / "empty.png", tmp_path / "cut.png", tmp_path / "nothing.png", good[1]]
    found = list(predict(load_predictor(saved_fake(tmp_path / "run")), files))
    assert [one.error is None for one in found] == [True, False, False, False, True]
    for one, word in zip(found[1:4], ("0 bytes", "cut.png cannot be decoded", "No such file"), strict=True):
        assert one.error is not None
        assert word in one.error
        assert one.guesses == ()


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPG", "sub/c.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = [str(tmp_path / "b.jpg"), str(tmp_path), str(tmp_path / "*.jpg")]
    assert [path.relative_to(tmp_path).as_posix() for path in image_files(named)] == ["b.jpg", "a.JPG", "sub/c.png"]
    assert image_files([str(tmp_path / "notes.txt")]) == [tmp_path / "notes.txt"]  # named outright: reading will tell
    (tmp_path / "[1].png").touch()
    assert image_files([str(tmp_path / "[1].png")]) == [tmp_path / "[1].png"]
    (tmp_path / "bare").mkdir()
    for name, message in (("bare", "holds no images"), ("*.webp", "matches no file")):
        with pytest.raises(DataError, match=message):
            image_files([str(tmp_path / name)])


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no file or folder"):
        load_predictor(tmp_path / "nothing")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="cannot load"):
        load_predictor(tmp_path / "x.onnx")
