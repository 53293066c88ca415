"""MobileNetV3 (Howard et al. 2019, arXiv:1905.02244): both versions, their variants and two re-implementations."""

from __future__ import annotations

from dataclasses import replace

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import SqueezeExciteSpec
from mnv3search.families.rows import Row, inverted_residuals, paper_squeeze_excite

_LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
_LARGE_PREPRINT: tuple[Row, ...] = (
    *_LARGE[:12],
    (5, 672, 160, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
)
_SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)
_C4_OF_LARGE, _C4_OF_SMALL = 12, 8


def mobilenet_v3_large() -> Architecture:
    """V3-Large 1.0 of the ICCV version."""
    return Architecture(StemSpec(16), inverted_residuals(_LARGE), HeadSpec(960, 1280))


def mobilenet_v3_small() -> Architecture:
    """V3-Small 1.0 of the ICCV version."""
    return Architecture(StemSpec(16), inverted_residuals(_SMALL), HeadSpec(576, 1024))


def mobilenet_v3_large_preprint() -> Architecture:
    """V3-Large of the first preprint: its last stride 2 stands one block later.

    The preprint prints 217 M MAdds; its table gives 245.6 M.
    """
    return Architecture(StemSpec(16), inverted_residuals(_LARGE_PREPRINT), HeadSpec(960, 1280))


def mobilenet_v3_small_preprint() -> Architecture:
    """V3-Small of the first preprint: squeeze-excite on the 576 convolution, 1280 in place of 1024.

    The preprint prints 66 M MAdds and 2.9 M parameters; its table gives 57.1 M and 3.1 M (56.9 M and 2.9 M without
    the squeeze-excite on the 576 convolution).
    """
    head = HeadSpec(576, 1280, squeeze_excite=paper_squeeze_excite(576))
    return Architecture(StemSpec(16), inverted_residuals(_SMALL), head)


def _minimalistic(architecture: Architecture) -> Architecture:
    """3×3 kernels, ReLU, no squeeze-excite (model zoo, mobilenet/README.md)."""
    plain = architecture.map_blocks(lambda b: replace(b, kernel_size=3, activation="relu", squeeze_excite=None))
    return _relu_at_the_ends(plain)


def _relu_at_the_ends(architecture: Architecture) -> Architecture:
    stem, head = architecture.stem, architecture.head
    return replace(architecture, stem=replace(stem, activation="relu"), head=replace(head, activation="relu"))


def mobilenet_v3_large_minimalistic() -> Architecture:
    """V3-Large with 3×3 kernels, ReLU and no squeeze-excite."""
    return _minimalistic(mobilenet_v3_large())


def mobilenet_v3_small_minimalistic() -> Architecture:
    """V3-Small with 3×3 kernels, ReLU and no squeeze-excite."""
    return _minimalistic(mobilenet_v3_small())


def _reduced_tail(architecture: Architecture, c4: int) -> Architecture:
    """From block ``c4`` on out channels, and after it expanded channels, halved; the head too (torchvision)."""
    blocks = list(architecture.blocks)
    for index, in_channels in enumerate(architecture.in_channels()):
        block, divisor = blocks[index], 2 if index > c4 else 1
        if index >= c4:
            expanded = block.expanded_channels // divisor
            blocks[index] = block.resized(in_channels // divisor, expanded, block.out_channels // 2)
    head = architecture.head
    feature, hidden = head.feature_channels or 0, head.hidden_channels or 0
    half = replace(head, feature_channels=feature // 2, hidden_channels=hidden // 2)
    return replace(architecture, blocks=tuple(blocks), head=half)


def mobilenet_v3_large_reduced_tail() -> Architecture:
    """V3-Large for detection and segmentation: channels halved from C4 on."""
    return _reduced_tail(mobilenet_v3_large(), _C4_OF_LARGE)


def mobilenet_v3_small_reduced_tail() -> Architecture:
    """V3-Small for detection and segmentation: channels halved from C4 on."""
    return _reduced_tail(mobilenet_v3_small(), _C4_OF_SMALL)


def _xiaolai(rows: tuple[Row, ...], feature_channels: int) -> Architecture:
    """SE after the projection with norms and no biases, projected shortcuts, expansion always, a normed 1280 head."""
    se = SqueezeExciteSpec(1, position="projection", use_norm=True, use_bias=False, relative_to="output", divisor=1)
    head = HeadSpec(feature_channels, 1280, hidden_norm=True, dropout=0.0, linear_std=0.001)
    blocks = inverted_residuals(rows, se, "always", "projected")
    return Architecture(StemSpec(16), blocks, head, norm_eps=1e-5, norm_momentum=0.1)


def mobilenet_v3_large_xiaolai() -> Architecture:
    """The PyTorch re-implementation of the preprint's V3-Large."""
    return _xiaolai(_LARGE_PREPRINT, 960)


def mobilenet_v3_small_xiaolai() -> Architecture:
    """The PyTorch re-implementation of V3-Small."""
    return _xiaolai(_SMALL, 576)


def mobilenet_v3_small_fanrencli() -> Architecture:
    """The Keras re-implementation: ReLU6, biases everywhere, an h-swish gate, an unrounded squeeze."""
    se = SqueezeExciteSpec(1, activation="relu6", gate="hard_swish", divisor=1)
    blocks = inverted_residuals(_SMALL, se, "always")
    network = Architecture(StemSpec(16), blocks, HeadSpec(576, 1024, dropout=0.0), padding="same", conv_bias=True)
    return network.map_blocks(lambda b: replace(b, activation="relu6") if b.activation == "relu" else b)


def _with_hard_swish_from(channels: int) -> Architecture:
    """V3-Large with h-swish in the blocks of at least ``channels`` output channels, ReLU in the others."""
    return mobilenet_v3_large().map_blocks(
        lambda b: replace(b, activation="hard_swish" if b.out_channels >= channels else "relu")
    )


def mobilenet_v3_large_relu() -> Architecture:
    """V3-Large with ReLU everywhere, an ablation of the paper's Table 5."""
    base = mobilenet_v3_large()
    return _relu_at_the_ends(base.map_blocks(lambda b: replace(b, activation="relu")))


def mobilenet_v3_large_hswish16() -> Architecture:
    """V3-Large with h-swish in every block, an ablation of the paper's Table 5."""
    return _with_hard_swish_from(16)


def mobilenet_v3_large_hswish112() -> Architecture:
    """V3-Large with h-swish from 112 channels on, an ablation of the paper's Table 5."""
    return _with_hard_swish_from(112)


NETWORKS = (
    mobilenet_v3_large, mobilenet_v3_large_minimalistic, mobilenet_v3_large_preprint,
    mobilenet_v3_large_reduced_tail, mobilenet_v3_large_relu, mobilenet_v3_large_hswish16,
    mobilenet_v3_large_hswish112, mobilenet_v3_large_xiaolai, mobilenet_v3_small, mobilenet_v3_small_minimalistic,
    mobilenet_v3_small_preprint, mobilenet_v3_small_reduced_tail, mobilenet_v3_small_xiaolai,
    mobilenet_v3_small_fanrencli,
)  # fmt: skip
