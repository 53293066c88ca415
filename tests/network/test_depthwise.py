"""The depthwise convolution's gradients against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mnv3search.network.fast_gradients import DepthwiseConv

# kernel, stride, side: maps of odd sides, of one pixel, and smaller than the kernel are among them
SHAPES = [(3, 1, 4), (3, 2, 4), (3, 2, 5), (5, 1, 1), (5, 1, 2), (5, 2, 2), (5, 2, 7), (7, 1, 4), (7, 2, 3)]


def _operands(kernel: int, side: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel * 100 + side)
    features = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    return features, weight


@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
def test_the_gradient_is_that_of_finite_differences(kernel: int, stride: int, side: int) -> None:
    features, weight = _operands(kernel, side)
    assert torch.autograd.gradcheck(lambda f, w: DepthwiseConv.apply(f, w, stride, kernel // 2), (features, weight))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "stride", "side"), SHAPES)
def test_output_and_gradients_are_those_of_conv2d(
    kernel: int, stride: int, side: int, layout: torch.memory_format
) -> None:
    features, weight = _operands(kernel, side)
    features = features.detach().contiguous(memory_format=layout).requires_grad_()
    mine = DepthwiseConv.apply(features, weight, stride, kernel // 2)
    theirs = functional.conv2d(features, weight, None, stride, kernel // 2, 1, 3)
    assert torch.equal(mine, theirs)
    gradient = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for found, expected in zip(
        torch.autograd.grad(mine, (features, weight), gradient),
        torch.autograd.grad(theirs, (features, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
