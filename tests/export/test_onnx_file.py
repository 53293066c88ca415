"""A trained network's ONNX model computes what the network does, in every shape that can be asked for."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from trained_fakes import ARCHITECTURE, CLASSES, SIDE, fake_trained

from mnv3search.errors import ExportError
from mnv3search.export import ExportedModel, export_int8, export_onnx
from mnv3search.export.exported import PREFIX, Batch, PixelChunk, noise_chunks
from mnv3search.graph import INPUT_NAME, OUTPUT_NAME
from mnv3search.latency.runtimes.int8 import Quantisation


def some_pixels(count: int = 5, side: int = SIDE) -> PixelChunk:
    return next(noise_chunks(count, side))


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(found - truth).max() / np.sqrt(np.mean(truth**2)))


@pytest.mark.parametrize("with_preprocessing", [False, True], ids=["normalised", "pixels"])
@pytest.mark.parametrize("batch", ["1", "dynamic"])
def test_logits_are_the_networks(batch: Batch, with_preprocessing: bool) -> None:
    trained, images = fake_trained(), some_pixels()
    model = ExportedModel(export_onnx(trained, batch=batch, with_preprocessing=with_preprocessing), threads=1)
    assert relative(model.logits(images.pixels), trained.logits(images.pixels)) < 1e-4
    assert model.classes == CLASSES
    assert model.preprocessing == trained.preprocessing
    assert model.description.facts == {"val_accuracy": 12.5, "epoch": 3}
    assert model.description.architecture == ARCHITECTURE


@pytest.mark.parametrize(("batch", "first"), [("1", 1), ("dynamic", "batch")])
def test_inputs_and_outputs_say_what_they_take(batch: Batch, first: int | str) -> None:
    for pixels, shape, kind in ((False, [3, SIDE, SIDE], "tensor(float)"), (True, [SIDE, SIDE, 3], "tensor(uint8)")):
        session = onnxruntime.InferenceSession(export_onnx(fake_trained(), batch=batch, with_preprocessing=pixels))
        (given,), (made,) = session.get_inputs(), session.get_outputs()
        assert (given.name, given.shape, given.type) == (INPUT_NAME, [first, *shape], kind)
        assert (made.name, made.shape, made.type) == (OUTPUT_NAME, [first, len(CLASSES)], "tensor(float)")


def test_preprocessing_in_the_graph_by_hand() -> None:
    trained = fake_trained()
    model = onnx.load_from_string(export_onnx(trained, with_preprocessing=True))
    model.graph.output.append(onnx.helper.make_tensor_value_info("normalised", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    pixels = np.full((1, SIDE, SIDE, 3), (255, 0, 51), dtype=np.uint8)
    (found,) = session.run(["normalised"], {INPUT_NAME: pixels})
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(found[0, :, 3, 7], expected, rtol=1e-6)


def test_a_network_works_at_the_side_that_its_images_are_prepared_at() -> None:
    trained, images = fake_trained(side=24), some_pixels(3, 24)
    assert trained.architecture.resolution == SIDE
    model = ExportedModel(export_onnx(trained))
    assert relative(model.logits(images.pixels), trained.logits(images.pixels)) < 1e-4


def test_equal_networks_give_equal_bytes_and_training_mode_is_left_as_it_was() -> None:
    trained = fake_trained()
    trained.network.train()
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    first = export_onnx(trained)
    assert first == export_onnx(fake_trained())
    assert trained.network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.network.state_dict().items())


def test_other_programs_can_read_what_travels() -> None:
    model = onnx.load_from_string(export_onnx(fake_trained()))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata[f"{PREFIX}classes"]) == list(CLASSES)
    assert json.loads(metadata[f"{PREFIX}preprocessing"])["resolution"] == SIDE
    assert metadata[f"{PREFIX}precision"] == "fp32"


@pytest.mark.parametrize("with_preprocessing", [False, True], ids=["normalised", "pixels"])
@pytest.mark.parametrize("batch", ["1", "dynamic"])
def test_int8_stays_near_the_network(batch: Batch, with_preprocessing: bool) -> None:
    trained, images = fake_trained(), some_pixels(8)
    content = export_int8(trained, [images], batch=batch, with_preprocessing=with_preprocessing)
    kinds = {tensor.data_type for tensor in onnx.load_from_string(content).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    model = ExportedModel(content)
    assert model.description.precision == "int8"
    assert model.description.quantisation["images"] == 8
    found, truth = model.logits(images.pixels), trained.logits(images.pixels)
    assert np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)) < 0.2


@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_other_calibrations_say_nothing_and_give_other_ranges(
    calibration: str, capfd: pytest.CaptureFixture[str]
) -> None:
    trained, images = fake_trained(), [some_pixels(8)]
    quantisation = Quantisation(calibration=calibration, percentile=99.0)  # type: ignore[arg-type]
    assert export_int8(trained, images, quantisation=quantisation) != export_int8(trained, images)
    assert capfd.readouterr().out == ""


def test_nodes_and_ranges_can_be_chosen() -> None:
    trained, images = fake_trained(), [some_pixels(4)]

    def weights(quantisation: Quantisation) -> dict[str, np.ndarray]:
        graph = onnx.load_from_string(export_int8(trained, images, quantisation=quantisation)).graph
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}

    kept = weights(Quantisation(excluded=("stem.conv",)))
    assert kept["stem.conv.weight"].dtype == np.float32
    full, reduced = weights(Quantisation()), weights(Quantisation(reduce_range=True))
    assert np.abs(full["stem.conv.weight_quantized"]).max() == 127
    assert np.abs(reduced["stem.conv.weight_quantized"]).max() <= 64


def test_int8_without_images_is_refused() -> None:
    with pytest.raises(ExportError, match="give at least one image"):
        export_int8(fake_trained(), [])
