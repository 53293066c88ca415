"""Convolutions as a CPU trains them fast: 1×1 ones as matrix products, depthwise ones with own gradients.

oneDNN's weight gradient over a batch of small maps costs many times its forward pass: most taps of a 5×5 kernel never
meet a 2×2 map. On small maps the same sums are products of positions, with no tap searched: every input position times
every output position is summed over the batch, and each tap then takes the pairs that it connects.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class DepthwiseConv(torch.autograd.Function):
    """Convolution of every channel with its own square kernel; what ``conv2d`` gives with ``groups=channels``."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """Maps (N, C, H, W) by kernels (C, 1, k, k) to (N, C, H', W')."""
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        if _one_pixel(features, weight, padding):
            return features * _centre(weight)
        return functional.conv2d(features, weight, None, stride, padding, 1, features.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The gradients of features and kernels."""
        features, weight = ctx.saved_tensors
        to_features = to_weight = None
        if ctx.needs_input_grad[0] and _one_pixel(features, weight, ctx.padding):
            to_features = gradient * _centre(weight)
        elif ctx.needs_input_grad[0]:
            to_features = _torch_gradients(gradient, features, weight, ctx.stride, ctx.padding, of_weight=False)
        if ctx.needs_input_grad[1]:
            to_weight = _depthwise_weight_gradient(gradient, features, weight, ctx.stride, ctx.padding)
        return to_features, to_weight, None, None


def _depthwise_weight_gradient(
    gradient: Tensor, features: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:  # fmt: skip
    """The gradient of the kernels (C, 1, k, k), from that of the outputs (N, C, H', W') and the inputs (N, C, H, W).

    The rule depends on shapes alone, so that a repeated run takes the same way and rounds alike. It was fitted to the
    published networks' shapes at batch 128 on one and two threads of an AVX-512 CPU; ``benchmarks/training.py`` times
    whole steps with and without it.
    """
    kernel = weight.shape[-1]
    (height, width), (rows, columns) = features.shape[2:], gradient.shape[2:]
    geometry = height, width, rows, columns, kernel, stride, padding
    pairs = height * width * rows * columns
    if pairs <= 16 or (kernel >= 5 and pairs <= 64):
        sums = _pairs_by_channel_last(gradient, features)
        return (_taps_of_pairs(*geometry).to(sums) @ sums).t().reshape(weight.shape)
    if kernel >= 5 and pairs <= 1024:
        sums = _pairs_by_matrices(gradient, features)
        return (sums @ _taps_of_pairs(*geometry).to(sums).t()).reshape(weight.shape)
    return _torch_gradients(gradient, features, weight, stride, padding, of_weight=True)


def _one_pixel(features: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether only the centre of a kernel ever meets the map."""
    return features.shape[2:].numel() == 1 and 2 * padding + 1 == weight.shape[-1]


def _centre(weight: Tensor) -> Tensor:
    middle = weight.shape[-1] // 2
    return weight[:, 0, middle, middle].view(1, -1, 1, 1)


def _pairs_by_channel_last(gradient: Tensor, features: Tensor) -> Tensor:
    """Sums over the batch of every output position times every input position: (H'·W'·H·W, C)."""
    batch, channels = features.shape[:2]
    outputs = gradient.permute(0, 2, 3, 1).reshape(batch, -1, 1, channels)
    inputs = features.permute(0, 2, 3, 1).reshape(batch, 1, -1, channels)
    # A product with ones sums over the batch faster than sum(0) does.
    return torch.mm(outputs.new_ones(1, batch), (outputs * inputs).reshape(batch, -1)).view(-1, channels)


def _pairs_by_matrices(gradient: Tensor, features: Tensor) -> Tensor:
    """The same sums as one matrix product for each channel: (C, H'·W'·H·W)."""
    batch, channels = features.shape[:2]
    # Transposing a matrix is a fast copy in torch, permuting four dimensions is not.
    outputs = gradient.permute(0, 2, 3, 1).reshape(-1, channels).t().contiguous().view(channels, batch, -1)
    inputs = features.permute(0, 2, 3, 1).reshape(-1, channels).t().contiguous().view(channels, batch, -1)
    return torch.bmm(outputs.transpose(1, 2), inputs).view(channels, -1)


@lru_cache(maxsize=256)
def _taps_of_pairs(
    height: int, width: int, rows: int, columns: int, kernel: int, stride: int, padding: int
) -> Tensor:  # fmt: skip
    """One-hot (k², H'·W'·H·W): the tap through which a pair of positions is connected, if any."""
    row_tap = torch.arange(height) - torch.arange(rows)[:, None] * stride + padding
    column_tap = torch.arange(width) - torch.arange(columns)[:, None] * stride + padding
    by_row = (row_tap[..., None] == torch.arange(kernel)).float()
    by_column = (column_tap[..., None] == torch.arange(kernel)).float()
    return torch.einsum("abk,cdl->klacbd", by_row, by_column).reshape(kernel * kernel, -1)


def _torch_gradients(
    gradient: Tensor, features: Tensor, weight: Tensor, stride: int, padding: int, *, of_weight: bool
) -> Tensor:  # fmt: skip
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, features, weight, None, (stride, stride), (padding, padding), (1, 1), False, (0, 0),
        features.shape[1], (not of_weight, of_weight, False),
    )[int(of_weight)]  # fmt: skip
    return found


class FastGradientConv2d(nn.Conv2d):
    """A convolution whose gradients take less time on a CPU, equal up to float rounding; torch's own elsewhere."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        if not _trains_on_cpu(self, input):
            return super().forward(input)
        if self.kernel_size == self.stride == (1, 1) and self.groups == 1:
            return pointwise(input, self.weight, self.bias)
        square = self.kernel_size[0] == self.kernel_size[1] and self.dilation == (1, 1)
        if not (self.groups == self.in_channels == self.out_channels > 1 and square):
            return super().forward(input)
        convolved: Tensor = DepthwiseConv.apply(input, self.weight, self.stride[0], self.padding[0])
        return convolved if self.bias is None else convolved + self.bias.view(1, -1, 1, 1)


def pointwise(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1×1 convolution of (N, C, H, W) by (C', C, 1, 1) as a product of matrices; free of copies on channels-last."""
    pixels = functional.linear(features.permute(0, 2, 3, 1), weight.flatten(1), bias)
    return pixels.permute(0, 3, 1, 2)


def _trains_on_cpu(conv: nn.Conv2d, features: Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        and features.device.type == "cpu"
        and features.dtype == conv.weight.dtype
        and features.dtype in {torch.float32, torch.float64}
        and not torch.is_autocast_enabled("cpu")
    )
