"""Depthwise convolution with a weight gradient that is fast on small maps of a CPU.

oneDNN's weight gradient of a depthwise convolution over a batch of small maps costs many times its forward pass. The
same sums are a depthwise *forward* convolution: batch and channels become the groups, the output's gradient the kernel,
the stride its dilation, and what is left is summed over the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class DepthwiseConv(torch.autograd.Function):
    """Convolution of every channel with its own square kernel; what ``conv2d`` gives with ``groups=channels``."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """Maps (N, C, H, W) by kernels (C, 1, k, k) to (N, C, H', W')."""
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(features, weight, None, stride, padding, 1, features.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The gradients of features and kernels; torch's own for the former."""
        features, weight = ctx.saved_tensors
        stride, padding = (ctx.stride, ctx.stride), (ctx.padding, ctx.padding)
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            to_features, _, _ = torch.ops.aten.convolution_backward(
                gradient, features, weight, None, stride, padding, (1, 1), False, (0, 0), features.shape[1],
                (True, False, False),
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            to_weight = depthwise_weight_gradient(features, gradient, weight.shape[-1], ctx.stride, ctx.padding)
        return to_features, to_weight, None, None


def depthwise_weight_gradient(features: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The gradient (C, 1, k, k) of the kernels, from features (N, C, H, W) and the output's gradient (N, C, H', W')."""
    batch, channels, height, width = features.shape
    groups = batch * channels
    sums = functional.conv2d(
        features.reshape(1, groups, height, width),
        gradient.reshape(groups, 1, *gradient.shape[-2:]),
        None, 1, padding, stride, groups,
    )  # fmt: skip
    # Rows and columns that the stride leaves over at the bottom and right give sums beyond the kernel.
    by_image = sums[..., :kernel, :kernel].reshape(batch, channels, 1, kernel, kernel)
    return by_image.sum(0)
