"""Convolutions as a CPU trains them fast: 1×1 ones as products of matrices, depthwise ones with their own gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnv3search.network.depthwise import DepthwiseConv


def convolve(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """What ``conv`` makes of ``features`` (N, C, H, W), up to float rounding.

    On another device, in a lower precision, and where nothing is differentiated, ``conv`` itself runs.
    """
    if not _trains_on_cpu(conv, features):
        whole: Tensor = conv(features)
        return whole
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1:
        return pointwise(features, conv.weight, conv.bias)
    stride, padding = conv.stride[0], conv.padding[0]
    square = conv.kernel_size[0] == conv.kernel_size[1] and conv.dilation == (1, 1)
    if type(conv) is nn.Conv2d and conv.groups == conv.in_channels == conv.out_channels > 1 and square:
        convolved: Tensor = DepthwiseConv.apply(features, conv.weight, stride, padding)
        return convolved if conv.bias is None else convolved + conv.bias.view(1, -1, 1, 1)
    return conv(features)  # type: ignore[no-any-return]


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
