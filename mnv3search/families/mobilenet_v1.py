"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861)."""

from __future__ import annotations

from dataclasses import replace

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import Activation, BlockSpec

_WIDTHS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def _separable(depth_multiplier: int, activation: Activation) -> tuple[BlockSpec, ...]:
    blocks = []
    channels = 32
    for out, stride in _WIDTHS:
        blocks.append(BlockSpec(
            3, channels * depth_multiplier, out, stride, activation, expansion="depthwise", linear_bottleneck=False,
            shortcut="none",
        ))  # fmt: skip
        channels = out
    return tuple(blocks)


def mobilenet_v1() -> Architecture:
    """V1 1.0: a 32-filter stem and 13 depthwise-separable blocks, ReLU6 as in the published checkpoints."""
    return Architecture(StemSpec(32, activation="relu6"), _separable(1, "relu6"), HeadSpec(None, activation="relu6"))


def mobilenet_v1_fanrencli(depth_multiplier: int = 1) -> Architecture:
    """The Keras re-implementation: ReLU6, TensorFlow padding, a depth multiplier in the depthwise convolutions."""
    base = mobilenet_v1()
    return replace(
        base, blocks=_separable(depth_multiplier, "relu6"), padding="same",
        head=replace(base.head, dropout=0.001),
    )  # fmt: skip


NETWORKS = (mobilenet_v1, mobilenet_v1_fanrencli)
