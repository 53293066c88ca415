"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861)."""

from __future__ import annotations

from dataclasses import replace

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec

_WIDTHS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def mobilenet_v1() -> Architecture:
    """V1 1.0: a 32-filter stem and 13 depthwise-separable blocks, ReLU6 as in the published checkpoints."""
    blocks, channels = [], 32
    for out, stride in _WIDTHS:
        blocks.append(BlockSpec(
            3, channels, out, stride, "relu6", expansion="depthwise", linear_bottleneck=False, shortcut="none",
        ))  # fmt: skip
        channels = out
    return Architecture(StemSpec(32, activation="relu6"), tuple(blocks), HeadSpec(None, activation="relu6"))


def mobilenet_v1_fanrencli() -> Architecture:
    """The Keras re-implementation: TensorFlow padding and its own dropout."""
    base = mobilenet_v1()
    return replace(base, padding="same", head=replace(base.head, dropout=0.001))


NETWORKS = (mobilenet_v1, mobilenet_v1_fanrencli)
