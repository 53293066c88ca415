"""Depthwise convolution with a weight gradient that is fast on small maps of a CPU.

oneDNN's weight gradient of a depthwise convolution over a batch of small maps costs many times its forward pass: most
taps of a 5×5 kernel never meet a 2×2 map. There the sums are taken tap by tap, or over all pairs of positions at once.
"""

from __future__ import annotations

from functools import lru_cache
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
    side = min(gradient.shape[-2:])
    if max(gradient.shape[-2:]) <= 2:
        return _by_taps(features, gradient, kernel, stride, padding)
    if kernel >= 5 and side * side <= 16 and max(features.shape[-2:]) <= 8:
        return _by_pairs(features, gradient, kernel, stride, padding)
    weight = features.new_empty(features.shape[1], 1, kernel, kernel)
    _, found, _ = torch.ops.aten.convolution_backward(
        gradient, features, weight, None, (stride, stride), (padding, padding), (1, 1), False, (0, 0),
        features.shape[1], (False, True, False),
    )  # fmt: skip
    return found


def _by_taps(features: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """One product and sum for each tap that ever meets the map: few, where the map is smaller than the kernel."""
    found = features.new_zeros(features.shape[1], 1, kernel, kernel)
    pixels, towards = features.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    for row in range(kernel):
        rows_in, rows_out = _meeting(row, features.shape[2], gradient.shape[2], stride, padding)
        for column in range(kernel):
            columns_in, columns_out = _meeting(column, features.shape[3], gradient.shape[3], stride, padding)
            product = pixels[:, rows_in, columns_in] * towards[:, rows_out, columns_out]
            if product.numel():
                found[:, 0, row, column] = product.sum((0, 1, 2))
    return found


def _meeting(tap: int, side_in: int, side_out: int, stride: int, padding: int) -> tuple[slice, slice]:
    """The input positions that a tap meets within the map, and the outputs that they go to."""
    offset = tap - padding
    first = max(0, -(offset // stride))
    last = min(side_out - 1, (side_in - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(start, last * stride + offset + 1, stride), slice(first, last + 1)


def _by_pairs(features: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """All pairs of input and output positions by a product of matrices for each channel, then summed by tap."""
    channels = features.shape[1]
    by_channel = features.permute(1, 2, 3, 0).reshape(channels, -1, features.shape[0])
    towards = gradient.permute(1, 2, 3, 0).reshape(channels, -1, gradient.shape[0])
    pairs = torch.bmm(towards, by_channel.transpose(1, 2)).reshape(channels, -1)
    sides = (features.shape[2], features.shape[3], gradient.shape[2], gradient.shape[3])
    tap_of = _tap_of_pair(*sides, kernel, stride, padding)
    return (pairs @ tap_of.to(pairs.dtype)).reshape(channels, 1, kernel, kernel)


@lru_cache(maxsize=256)
def _tap_of_pair(
    height: int, width: int, rows: int, columns: int, kernel: int, stride: int, padding: int
) -> Tensor:  # fmt: skip
    """One-hot (output positions × input positions, k²): the tap through which a pair is connected, if any."""
    row_tap = torch.arange(height)[None, :] - torch.arange(rows)[:, None] * stride + padding
    column_tap = torch.arange(width)[None, :] - torch.arange(columns)[:, None] * stride + padding
    rows_hot = (row_tap[..., None] == torch.arange(kernel)).double()
    columns_hot = (column_tap[..., None] == torch.arange(kernel)).double()
    return torch.einsum("abk,cdl->acbdkl", rows_hot, columns_hot).reshape(-1, kernel * kernel).float()
