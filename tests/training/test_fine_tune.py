"""Fine-tuning: so many steps, repeatable, and one call goes on where another ended."""

from __future__ import annotations

import math

import pytest
import torch
from training_fakes import PREPROCESSING, images, same_weights, tiny_network, weights_of

from mnv3search.errors import DivergedError, TrainingError
from mnv3search.network.build import MobileNetwork
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.batches import Batches
from mnv3search.training.fine_tune import fine_tune


def batches(size: int = 8) -> Batches:
    return Batches(
        images(8), PREPROCESSING, size, augmentation=Augmentation(flip=True), seed=3, shuffle=True, drop_last=True
    )


def tuned(steps: int, **options: float) -> MobileNetwork:
    network = tiny_network().eval()
    fine_tune(network, batches(), steps, 0.05, **options)  # type: ignore[arg-type]
    return network


def test_equal_calls_give_equal_weights() -> None:
    torch.manual_seed(1)
    first = weights_of(tuned(5))
    torch.manual_seed(2)
    assert same_weights(first, weights_of(tuned(5)))
    assert not same_weights(first, weights_of(tuned(5, seed=1)))
    assert not same_weights(first, weights_of(tuned(5, first_step=1)))


def test_it_takes_as_many_steps_as_asked_across_epochs() -> None:
    network, done = tiny_network(), list[int]()
    fine_tune(network, batches(), 7, 0.05, on_step=done.append)  # 3 steps an epoch
    assert done == [1, 2, 3, 4, 5, 6, 7]
    assert network.state_dict()["stem.norm.num_batches_tracked"].item() == 7


def test_without_momentum_two_halves_are_the_whole() -> None:
    network = tiny_network().eval()
    fine_tune(network, batches(), 2, 0.05, momentum=0.0)
    fine_tune(network, batches(), 3, 0.05, momentum=0.0, first_step=2)
    assert same_weights(weights_of(network), weights_of(tuned(5, momentum=0.0)))


def test_the_loss_falls_and_the_mode_stays() -> None:
    network = tiny_network().eval()
    batch = next(batches(24).epoch(0))

    def loss() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(network.train()(batch.images), batch.labels))

    before = loss()
    fine_tune(network.eval(), batches(24), 25, 0.2)
    assert not network.training
    assert loss() < 0.8 * before


def test_no_steps_change_nothing() -> None:
    assert same_weights(weights_of(tuned(0)), weights_of(tiny_network()))


@pytest.mark.parametrize(("steps", "rate"), [(-1, 0.1), (1, 0.0), (1, math.nan), (1, math.inf)])
def test_figures_out_of_range(steps: int, rate: float) -> None:
    with pytest.raises(TrainingError):
        fine_tune(tiny_network(), batches(), steps, rate)


def test_a_loss_that_is_nan() -> None:
    network = tiny_network().eval()
    torch.nn.init.constant_(network.head.classifier.bias, math.nan)
    with pytest.raises(DivergedError, match=r"nan at step 1 of 2 .* learning rate of 0\.05"):
        fine_tune(network, batches(), 2, 0.05)
    assert not network.training  # as it was
