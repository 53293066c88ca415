"""TensorFlow's RMSProp by hand and beside timm's; what is decayed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from training_fakes import RECIPE, tiny_network

from mnv3search.training.optimisers import decay_groups, make_optimiser
from mnv3search.training.rmsprop import TensorFlowRMSprop


def test_rmsprop_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimiser = TensorFlowRMSprop([weight], 0.1, decay=0.9, momentum=0.5, eps=0.21)
    square, moment, expected = 1.0, 0.0, 2.0
    for gradient, rate in ((3.0, 0.1), (-1.0, 0.1), (2.0, 0.01)):
        optimiser.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor([gradient])
        optimiser.step()
        square = 0.9 * square + 0.1 * gradient**2
        moment = 0.5 * moment + rate * gradient / math.sqrt(square + 0.21)
        expected -= moment
        assert weight.item() == pytest.approx(expected, rel=1e-6)
    # After the first step: s = 0.9 + 0.9 = 1.8, so w = 2 − 0.1 · 3 / √2.01 = 1.7884.
    assert 2 - 0.3 / math.sqrt(2.01) == pytest.approx(1.7884, abs=1e-4)


def test_rmsprop_agrees_with_timm() -> None:
    from timm.optim.rmsprop_tf import RMSpropTF

    torch.manual_seed(0)
    start = [torch.randn(5, 3), torch.randn(4)]
    mine, theirs = ([torch.nn.Parameter(t.clone()) for t in start] for _ in range(2))
    pair = (
        TensorFlowRMSprop(mine, 0.05, decay=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-2),
        RMSpropTF(theirs, 0.05, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-2),
    )
    for _ in range(20):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimiser in pair:
            optimiser.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_rmsprop_skips_what_has_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    TensorFlowRMSprop([weight], 0.1).step()
    assert weight.tolist() == [1.0, 1.0]


def test_only_weights_of_layers_are_decayed() -> None:
    network = tiny_network()
    decayed, plain = decay_groups(network, 0.5)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert all(p.dim() > 1 for p in decayed["params"])
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {id(p) for norm in norms for p in norm.parameters()} <= {id(p) for p in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(network.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    network = tiny_network().requires_grad_(requires_grad=False)
    network.head.classifier.requires_grad_(requires_grad=True)
    assert sum(len(group["params"]) for group in decay_groups(network, 0.1)) == 2


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("rmsprop_tf", "TensorFlowRMSprop", {"momentum": 0.7, "decay": 0.8, "eps": 0.01}),
        ("sgd", "SGD", {"momentum": 0.7, "nesterov": True}),
        ("adamw", "AdamW", {"betas": (0.7, 0.8)}),
    ],
)
def test_each_optimiser_by_name_with_the_recipes_values(name: str, kind: str, options: dict[str, object]) -> None:
    values = replace(RECIPE, optimizer=name, momentum=0.7, squares_decay=0.8, epsilon=0.01)  # type: ignore[arg-type]
    optimiser = make_optimiser(tiny_network(), values)
    assert type(optimiser).__name__ == kind
    assert {option: optimiser.defaults[option] for option in options} == options
