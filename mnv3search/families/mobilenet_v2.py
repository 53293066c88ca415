"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

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
    """The Keras re-implementation: biases in every convolution, expansion always, TensorFlow padding.

    Its author prints no counts; conventions are those of the same author's V3, and not checked against another run.
    """
    return Architecture(
        StemSpec(32, activation="relu6"),
        stages(32, _STAGES, activation="relu6", expansion="always"),
        HeadSpec(1280, activation="relu6", dropout=0.3),
        padding="same", conv_bias=True,
    )  # fmt: skip
