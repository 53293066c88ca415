"""An exported model is evaluated as its network is: on the same images, by the same rule, in calls of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_fakes import make_image_folder
from trained_fakes import CLASSES, fake_trained

from mnv3search.errors import DataError
from mnv3search.export import ExportedModel, export_int8, export_onnx
from mnv3search.export.exported import Batch, noise_chunks, pixel_chunks
from mnv3search.export.predictor import evaluate_predictor
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.open_data import open_images


@pytest.fixture
def images(tmp_path: Path) -> LabelledImages:
    return open_images(str(make_image_folder(tmp_path, CLASSES, per_class=4, side=20, split=())), CLASSES)


@pytest.mark.parametrize("batch", ["1", "dynamic"])
@pytest.mark.parametrize("with_preprocessing", [False, True])
def test_a_file_scores_what_its_network_scores(images: LabelledImages, batch: Batch, with_preprocessing: bool) -> None:
    trained = fake_trained()
    truth = evaluate_predictor(trained, images)
    model = ExportedModel(export_onnx(trained, batch=batch, with_preprocessing=with_preprocessing))
    reported: list[tuple[int, int]] = []
    found = evaluate_predictor(model, images, batch_size=5, progress=lambda done, total: reported.append((done, total)))
    assert (found.images, found.top1, found.top5) == (12, truth.top1, truth.top5)
    np.testing.assert_array_equal(found.confusion, truth.confusion)
    assert found.loss == pytest.approx(truth.loss, rel=1e-4)
    assert reported == [(5, 12), (10, 12), (12, 12)]


def test_int8_is_evaluated_by_its_own_logits(images: LabelledImages) -> None:
    trained = fake_trained()
    model = ExportedModel(export_int8(trained, noise_chunks(6, trained.preprocessing.resolution)))
    found = evaluate_predictor(model, images)
    logits = np.concatenate([model.logits(part.pixels) for part in pixel_chunks(images, trained.preprocessing)])
    assert found.top1 == pytest.approx(100 * np.mean(logits.argmax(axis=1) == images.labels))
    shares = np.log(np.exp(logits.astype(float)).sum(axis=1)) - logits[np.arange(12), images.labels]
    assert found.loss == pytest.approx(shares.mean(), rel=1e-5)
    assert found.loss != evaluate_predictor(trained, images).loss


def test_other_classes_and_no_images_are_refused(tmp_path: Path, images: LabelledImages) -> None:
    model = ExportedModel(export_onnx(fake_trained()))
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluate_predictor(model, images.subset([]))
    more = open_images(str(make_image_folder(tmp_path / "more", 4, per_class=1, side=20, split=())))
    with pytest.raises(DataError, match="has 4 classes, but the network has 3 logits"):
        evaluate_predictor(model, more)
