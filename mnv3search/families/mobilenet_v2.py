"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

from dataclasses import replace

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.families.rows import stages

_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 3, 2, 6, 32), (4, 3, 2, 6, 64), (3, 3, 1, 6, 96), (3, 3, 2, 6, 160),
    (1, 3, 1, 6, 320),
)  # fmt: skip


def mobilenet_v2() -> Architecture:
    """V2 1.0; batch norm's eps and momentum are torchvision's."""
    return Architecture(
        StemSpec(32, activation="relu6"), stages(32, _STAGES, activation="relu6"), HeadSpec(1280, activation="relu6"),
        norm_eps=1e-5, norm_momentum=0.1,
    )  # fmt: skip


def mobilenet_v2_fanrencli() -> Architecture:
    """The Keras re-implementation: V2 with other norms and dropout.

    It pads a pixel of zeros on every side before a valid convolution at stride 2, which is symmetric padding, and has
    no expansion in the first block and no bias but the classifier's. Keras' momentum of 0.999 is 0.001 here.
    """
    base = mobilenet_v2()
    return replace(base, head=replace(base.head, dropout=0.3), norm_eps=1e-3, norm_momentum=0.001)


NETWORKS = (mobilenet_v2, mobilenet_v2_fanrencli)
