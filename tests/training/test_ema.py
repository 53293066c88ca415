"""Moving averages by hand."""

from __future__ import annotations

import pytest
import torch
from training_fakes import tiny_network

from mnv3search.training.optimisers import MovingAverage


def test_by_hand_with_tensorflows_rising_decay() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1.0)
    average = MovingAverage(layer, 0.25)
    expected = 1.0
    for step, value in enumerate((3.0, -1.0, 5.0), start=1):
        torch.nn.init.constant_(layer.weight, value)
        average.update(step)
        decay = min(0.25, (1 + step) / (10 + step))  # 2/11, 3/12, then 0.25
        expected = decay * expected + (1 - decay) * value
        assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_running_statistics_are_averaged_and_counts_copied() -> None:
    network = tiny_network()
    average = MovingAverage(network, 0.5)
    state = network.state_dict()
    state["stem.norm.running_mean"].fill_(8.0)
    state["stem.norm.num_batches_tracked"].fill_(7)
    average.update(1000)
    assert average.tensors["stem.norm.running_mean"].unique().item() == pytest.approx(4.0)
    assert average.tensors["stem.norm.num_batches_tracked"].item() == 7


def test_only_what_is_named_is_averaged() -> None:
    assert list(MovingAverage(tiny_network(), 0.5, ["head.classifier.bias"]).tensors) == ["head.classifier.bias"]
