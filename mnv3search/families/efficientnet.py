"""EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) and EfficientNet-Lite0 (tensorflow/tpu)."""

from __future__ import annotations

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import SqueezeExciteSpec
from mnv3search.families.rows import stages

_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


def efficientnet_b0() -> Architecture:
    """B0: swish, and squeeze-excite in every block with a squeeze of a quarter of the block's input."""
    se = SqueezeExciteSpec(1, activation="swish", gate="sigmoid", relative_to="input", divisor=1)
    return Architecture(
        StemSpec(32, activation="swish"),
        stages(32, _STAGES, activation="swish", squeeze_excite=se, se_stages=range(7)),
        HeadSpec(1280, activation="swish"),
    )


def efficientnet_lite0() -> Architecture:
    """Lite0: B0 with ReLU6 and no squeeze-excite."""
    return Architecture(
        StemSpec(32, activation="relu6"),
        stages(32, _STAGES, activation="relu6"),
        HeadSpec(1280, activation="relu6"),
    )


NETWORKS = (efficientnet_b0, efficientnet_lite0)
