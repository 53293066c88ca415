"""Dropout from cheap random bits: rates, scale, gradients and repeatability."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mnv3search.network.dropout import drop


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_as_many_are_dropped_as_the_rate_says_and_the_rest_is_scaled_up(rate: float) -> None:
    torch.manual_seed(0)
    kept = drop(nn.Dropout(rate), torch.ones(1000, 300))
    # 300,000 draws: five standard deviations are below 0.005.
    assert (kept == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    left = kept[kept != 0]
    torch.testing.assert_close(left, torch.full_like(left, 1 / (1 - rate)), rtol=1e-3, atol=0)


def test_what_is_dropped_is_independent_between_features_and_images() -> None:
    torch.manual_seed(0)
    kept = (drop(nn.Dropout(0.5), torch.ones(40_000, 8)) != 0).double()
    torch.testing.assert_close(torch.corrcoef(kept.t()), torch.eye(8, dtype=torch.float64), rtol=0, atol=0.025)
    torch.testing.assert_close(kept.mean(0), torch.full((8,), 0.5, dtype=torch.float64), rtol=0, atol=0.0125)


def test_a_seed_repeats_it_and_gradients_pass_where_features_do() -> None:
    features = torch.randn(5, 7, requires_grad=True)
    torch.manual_seed(3)
    first = drop(nn.Dropout(0.5), features)
    torch.manual_seed(3)
    assert torch.equal(drop(nn.Dropout(0.5), features), first)
    (gradient,) = torch.autograd.grad(first.sum(), features)
    assert torch.equal(gradient != 0, first != 0)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_are_torchs_own(rate: float) -> None:
    features = torch.randn(5, 7)
    assert torch.equal(drop(nn.Dropout(rate), features), nn.Dropout(rate)(features))


def test_evaluation_drops_nothing() -> None:
    features = torch.randn(5, 7)
    assert torch.equal(drop(nn.Dropout(0.5).eval(), features), features)
