"""Judgements by hand: a network whose answers are written down."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from training_fakes import PREPROCESSING, images, same_weights, tiny_network, weights_of

from mnv3search.errors import DataError, DivergedError
from mnv3search.training.evaluation import MetricSums, evaluate_network


def test_figures_by_hand() -> None:
    sums = MetricSums(6)
    logits = torch.zeros(4, 6)
    for row, said in enumerate((0, 1, 1, 5)):
        logits[row, said] = 10.0
    logits[2, 0] = -10.0  # the truth is the last of six: not among the first five
    sums.add(logits[:3], torch.tensor([0, 1, 0]))
    sums.add(logits[3:], torch.tensor([2]))
    found = sums.metrics(2.0)
    assert (found.images, found.top1, found.top5, found.seconds) == (4, 50.0, 75.0, 2.0)
    each = [math.log(math.exp(10) + 5) - 10] * 2
    each += [math.log(math.exp(10) + 4 + math.exp(-10)) + 10, math.log(math.exp(10) + 5)]
    assert found.loss == pytest.approx(sum(each) / 4, rel=1e-5)
    assert found.confusion[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert found.class_accuracy[:3].tolist() == [50.0, 100.0, 0.0]
    assert math.isnan(found.class_accuracy[4])
    assert sorted(found.worst_confusions()) == [(0, 1, 1), (2, 5, 1)]


def test_a_network_is_evaluated_on_every_image_and_left_in_its_mode() -> None:
    network = tiny_network().train()
    network.head.dropout.eval()
    before = weights_of(network)
    found = evaluate_network(network, images(7), PREPROCESSING, batch_size=4)
    assert found.images == 21
    assert found.confusion.sum(axis=1).tolist() == [7, 7, 7]
    assert found.top5 == 100.0  # of three classes
    assert network.training
    assert not network.head.dropout.training
    assert same_weights(weights_of(network), before)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_batches_do_not_matter() -> None:
    network, labelled = tiny_network(), images(7)
    one, other = (evaluate_network(network, labelled, PREPROCESSING, batch_size=size) for size in (5, 21))
    np.testing.assert_array_equal(one.confusion, other.confusion)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)


def test_more_classes_than_logits() -> None:
    with pytest.raises(DataError, match="4 classes, but the network has 3 logits"):
        evaluate_network(tiny_network(), images(2, classes=4), PREPROCESSING)


def test_no_images() -> None:
    with pytest.raises(DataError, match="no images"):
        evaluate_network(tiny_network(), images(2).subset([]), PREPROCESSING)


def test_weights_that_are_nan() -> None:
    network = tiny_network()
    torch.nn.init.constant_(network.head.classifier.bias, math.nan)
    with pytest.raises(DivergedError, match="loss is nan"):
        evaluate_network(network, images(2), PREPROCESSING)


def test_what_is_kept_grows_with_the_images_and_not_with_the_pairs_of_classes() -> None:
    """A matrix of ImageNet-21k's classes has 3.5 GB."""
    sums = MetricSums(200_000)
    logits = torch.zeros(2, 200_000)
    logits[0, 199_999] = logits[1, 7] = 1.0
    sums.add(logits, torch.tensor([199_999, 3]))
    found = sums.metrics(1.0)
    assert found.answers.tolist() == [[3, 7, 1], [199_999, 199_999, 1]]
    assert found.class_accuracy[[3, 199_999]].tolist() == [0.0, 100.0]
    assert found.worst_confusions() == [(3, 7, 1)]
