"""MnasNet (Tan et al. 2019, arXiv:1807.11626)."""

from __future__ import annotations

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import SqueezeExciteSpec
from mnv3search.families.rows import stages

_SQUEEZE = SqueezeExciteSpec(1, gate="sigmoid", relative_to="input", divisor=1)


def _mnasnet(
    stem_channels: int, table: tuple[tuple[int, int, int, int, int], ...], se_stages: tuple[int, ...]
) -> Architecture:
    return Architecture(
        StemSpec(stem_channels, activation="relu"),
        stages(stem_channels, table, squeeze_excite=_SQUEEZE, se_stages=se_stages),
        HeadSpec(1280, activation="relu"),
        norm_eps=1e-5, norm_momentum=0.0003,
    )  # fmt: skip


def mnasnet_a1() -> Architecture:
    """MnasNet-A1: squeeze-excite in three stages, its squeeze a quarter of the block's input."""
    table = (
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 5, 2, 3, 40), (4, 3, 2, 6, 80), (2, 3, 1, 6, 112), (3, 5, 2, 6, 160),
        (1, 3, 1, 6, 320),
    )  # fmt: skip
    return _mnasnet(32, table, se_stages=(2, 4, 5))


def mnasnet_b1() -> Architecture:
    """MnasNet-B1: no squeeze-excite; torchvision's ``mnasnet1_0``."""
    table = (
        (1, 3, 1, 1, 16), (3, 3, 2, 3, 24), (3, 5, 2, 3, 40), (3, 5, 2, 6, 80), (2, 3, 1, 6, 96), (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )  # fmt: skip
    return _mnasnet(32, table, se_stages=())


def mnasnet_small() -> Architecture:
    """MnasNet-small, the small reference of the V3 paper."""
    table = (
        (1, 3, 1, 1, 8), (1, 3, 2, 3, 16), (2, 3, 2, 6, 16), (4, 5, 2, 6, 32), (3, 3, 1, 6, 32), (3, 5, 2, 6, 88),
        (1, 3, 1, 6, 144),
    )  # fmt: skip
    return _mnasnet(8, table, se_stages=(3, 4, 5))


NETWORKS = (mnasnet_a1, mnasnet_b1, mnasnet_small)
