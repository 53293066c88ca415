"""Norms calibrated before judging: their statistics are those of the weights as they stand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from training_fakes import PREPROCESSING, RECIPE, images, same_weights, splits, tiny_network, weights_of

from mnv3search.training.evaluation import calibrate_norms, calibration_batches
from mnv3search.training.loop import train_network


def test_statistics_are_the_mean_of_the_batches_and_the_mode_stays() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.01)
    batches = calibration_batches(images(100), PREPROCESSING)
    assert (len(batches), batches.batch_size) == (2, 150)
    calibrate_norms(nn.Sequential(norm).eval(), batches)
    seen = [batch.images for batch in batches.epoch(0)]
    torch.testing.assert_close(
        norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        norm.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0), rtol=1e-4, atol=1e-5
    )
    assert (norm.momentum, norm.training) == (0.01, False)


def test_images_are_bounded_and_of_all_classes() -> None:
    many = images(1_000)
    batches = calibration_batches(many, PREPROCESSING)
    assert 1_900 < len(batches) * batches.batch_size <= 2_000
    assert set(batches.images.labels.tolist()) == {0, 1, 2}


def test_what_is_evaluated_and_kept_does_not_depend_on_the_norms_momentum() -> None:
    kept = []
    for momentum in (0.5, 1e-4):
        recipe = replace(RECIPE, norm_momentum=momentum, ema_decay=None)
        kept.append(train_network(tiny_network(), splits(), recipe, preprocessing=PREPROCESSING).trained.network)
    assert same_weights(*map(weights_of, kept))


def test_frozen_features_keep_their_statistics() -> None:
    network = tiny_network()
    before = {name: t for name, t in weights_of(network).items() if "running" in name}
    found = train_network(network, splits(), RECIPE, preprocessing=PREPROCESSING, freeze="features")
    kept = weights_of(found.trained.network)
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
    assert before


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_images_is_enough(count: int) -> None:
    network = tiny_network()
    calibrate_norms(network, calibration_batches(images(count), PREPROCESSING))
    assert all(bool(t.isfinite().all()) for t in weights_of(network).values())
