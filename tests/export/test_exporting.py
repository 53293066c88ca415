"""A file is written only once it was found to do what the network does; and its description is true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from image_fakes import make_image_folder
from trained_fakes import CLASSES, SIDE, fake_trained

from mnv3search.errors import DataError, ExportError, RunError
from mnv3search.export import ExportedModel, ExportSettings, export_int8, export_network, export_onnx, load_exported
from mnv3search.export import exporting as module
from mnv3search.export.exported import PixelChunk, noise_chunks, pixel_chunks
from mnv3search.export.parity import Parity, check_parity, compare
from mnv3search.latency.runtimes.int8 import Quantisation
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.splits import DataSplits

QUIET = ExportSettings(timed=False)
INT8 = ExportSettings(int8=Quantisation(), timed=False, calibration_images=6)


def splits(folder: Path, classes: tuple[str, ...] = CLASSES, *parts: str) -> DataSplits:
    make_image_folder(folder, classes, per_class=4, side=SIDE, split=parts or ("train", "val"))
    return open_data(str(folder), scan=False)


def other_weights(content: bytes, name: str, factor: float) -> bytes:
    """The same model with one of its weights changed."""
    model = onnx.load_from_string(content)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(factor), name))
    return bytes(model.SerializeToString())


def test_a_file_and_what_is_known_of_it(tmp_path: Path) -> None:
    trained, out = fake_trained(), tmp_path / "network.onnx"
    done = export_network(trained, out, QUIET, data=splits(tmp_path / "data"))
    assert done.path == out
    assert done.bytes == out.stat().st_size
    assert (done.parity.images, done.parity.agreement) == (12, 100.0)
    assert done.parity.max_difference < 1e-4
    assert done.parity.network_top1 == done.parity.model_top1
    assert load_exported(out).classes == CLASSES
    description = json.loads((tmp_path / "network.onnx.json").read_text(encoding="utf-8"))
    assert description["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert description["classes"] == list(CLASSES)
    assert description["parity"]["source"].endswith(", val")
    assert "1e-3" in description["parity"]["rule"] or "0.001" in description["parity"]["rule"]


def test_without_data_it_is_checked_on_noise_and_says_so(tmp_path: Path) -> None:
    done = export_network(fake_trained(), tmp_path / "network.onnx", QUIET)
    assert "noise" in done.parity.source
    assert done.parity.network_top1 is None
    with pytest.raises(ExportError, match="add --data with the data that the network was"):
        export_network(fake_trained(), tmp_path / "int8.onnx", INT8)
    assert not (tmp_path / "int8.onnx").exists()


def test_int8_is_calibrated_on_training_images_and_compared_on_test_images(tmp_path: Path) -> None:
    data = splits(tmp_path / "data", CLASSES, "train", "val", "test")
    done = export_network(fake_trained(), tmp_path / "int8.onnx", INT8, data=data)
    assert done.description.quantisation["images"] == 6
    assert done.parity.source.endswith(", test")
    assert 0 < done.parity.rms_difference < 0.25


class Stages:
    """The stages and how far each went."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int]] = {}

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages[name] = []

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        self.stages[list(self.stages)[-1]].append(done)

    def note(self, text: str) -> None:
        pass


def test_as_many_images_as_asked_for_though_classes_are_more(tmp_path: Path) -> None:
    """A thousand classes made a thousand images of a few that were asked for."""
    reported = Stages()
    asked = ExportSettings(int8=Quantisation(), timed=False, calibration_images=2, check_images=1)
    done = export_network(
        fake_trained(), tmp_path / "int8.onnx", asked, data=splits(tmp_path / "data"), progress=reported
    )
    assert done.description.quantisation["images"] == 2
    assert done.parity.images == 1
    assert [(name, steps[-1]) for name, steps in reported.stages.items() if steps] == [
        ("reading training images to quantise on", 2),
        ("quantising: ranges found on training images", 2),
        ("comparing it with the network", 1),
    ]


def test_labels_are_brought_into_the_networks_order(tmp_path: Path) -> None:
    trained = fake_trained()
    order = ("class_2", "class_0", "class_1")  # folders are read in the order of their names
    data = splits(tmp_path / "data", order)
    parity = export_network(trained, tmp_path / "a.onnx", QUIET, data=data).parity
    images = next(pixel_chunks(data.val, trained.preprocessing))
    says = ExportedModel(export_onnx(trained)).logits(images.pixels).argmax(axis=1)
    assert parity.model_top1 == pytest.approx(100.0 * np.mean(says == images.labels))
    with pytest.raises(DataError, match=r"'stranger'"):
        export_network(trained, tmp_path / "b.onnx", QUIET, data=splits(tmp_path / "more", (*CLASSES, "stranger")))
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize("settings", [QUIET, INT8], ids=["fp32", "int8"])
def test_a_model_that_differs_leaves_no_file(
    settings: ExportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, out, data = fake_trained(), tmp_path / "network.onnx", splits(tmp_path / "data")

    def broken(export: Callable[..., bytes], weight: str, factor: float) -> Callable[..., bytes]:
        return lambda *a, **k: other_weights(export(*a, **k), weight, factor)

    monkeypatch.setattr(module, "export_onnx", broken(export_onnx, "stem.conv.weight", 1.01))
    monkeypatch.setattr(module, "export_int8", broken(export_int8, "head.classifier.weight_scale", -1.0))
    with pytest.raises(ExportError, match=r"root mean square.* so no file was written"):
        export_network(trained, out, settings, data=data)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "data"]


def test_what_stood_there_is_kept_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "network.onnx"
    out.write_bytes(b"before")

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mnv3search.files._fill", full)
    with pytest.raises(RunError, match="No space left on device"):
        export_network(fake_trained(), out, QUIET)
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def test_names_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    for out, words in (
        (tmp_path / "network.pb", "must end in .onnx"),
        (tmp_path / "nowhere" / "network.onnx", "make the folder"),
    ):
        with pytest.raises(ExportError, match=words):
            export_network(fake_trained(), out, QUIET)
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(ExportError, match="there is a folder of that name"):
        export_network(fake_trained(), tmp_path / "taken.onnx", QUIET)
    with pytest.raises(ExportError, match="give at least 1"):
        ExportSettings(calibration_images=0)


def test_differences_by_hand() -> None:
    trained = fake_trained()
    images = next(noise_chunks(4, SIDE))
    labels = np.array([0, 1, 2, 0])

    class Shifted:
        description = ExportedModel(export_onnx(trained)).description

        def logits(self, pixels: np.ndarray) -> np.ndarray:
            found = ExportedModel(export_onnx(trained)).logits(pixels)
            found[0] = [9.0, 0.0, 0.0]
            return found

    truth = ExportedModel(export_onnx(trained)).logits(images.pixels)
    rms = np.sqrt(np.mean(truth**2))
    parity = compare(trained, Shifted(), [PixelChunk(images.pixels, labels)], "by hand")  # type: ignore[arg-type]
    assert parity.max_difference == pytest.approx(np.abs(np.array([9.0, 0, 0]) - truth[0]).max() / rms, rel=1e-4)
    says = truth.argmax(axis=1)
    assert parity.network_top1 == pytest.approx(25.0 * np.sum(says == labels))
    assert parity.agreement == pytest.approx(100.0 if says[0] == 0 else 75.0)


def test_the_rules_by_hand() -> None:
    check_parity(Parity("fp32", "x", 10, 9e-4, 1e-4, 100.0))
    check_parity(Parity("int8", "x", 400, 0.5, 0.2, 90.0, 80.0, 75.5, 0.5))
    check_parity(Parity("int8", "x", 10, 0.5, 0.2, 90.0, 80.0, 60.0, 6.0))  # ten images cannot tell
    for refused in (
        Parity("fp32", "x", 10, 2e-3, 1e-4, 100.0),
        Parity("fp32", "x", 10, 1e-5, 1e-6, 90.0),
        Parity("int8", "x", 400, 3.0, 0.6, 90.0),
        Parity("int8", "x", 400, 0.5, 0.2, 90.0, 80.0, 70.0, 0.5),
    ):
        with pytest.raises(ExportError, match="no file was written"):
            check_parity(refused)
