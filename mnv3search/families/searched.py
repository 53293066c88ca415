"""Other networks that were found by search: FBNet-C and Single-Path NAS."""

from __future__ import annotations

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.families.rows import stages


def fbnet_c() -> Architecture:
    """FBNet-C (Wu et al. 2019, arXiv:1812.03443); its expansion convolution stands at ratio 1 too."""
    table = (
        (1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (2, 3, 1, 1, 24), (1, 5, 2, 6, 32), (1, 5, 1, 3, 32), (1, 5, 1, 6, 32),
        (1, 3, 1, 6, 32), (1, 5, 2, 6, 64), (1, 5, 1, 3, 64), (2, 5, 1, 6, 64), (3, 5, 1, 6, 112), (1, 5, 1, 3, 112),
        (4, 5, 2, 6, 184), (1, 3, 1, 6, 352),
    )  # fmt: skip
    return Architecture(
        StemSpec(16, activation="relu"), stages(16, table, expansion="always"), HeadSpec(1984, activation="relu"),
        norm_eps=1e-5, norm_momentum=0.1,
    )  # fmt: skip


def single_path_nas() -> Architecture:
    """Single-Path NAS (Stamoulis et al. 2019, arXiv:1904.02877)."""
    table = (
        (1, 3, 1, 1, 16), (3, 3, 2, 3, 24), (1, 5, 2, 6, 40), (3, 3, 1, 3, 40), (1, 5, 2, 6, 80), (3, 3, 1, 3, 80),
        (1, 5, 1, 6, 96), (3, 5, 1, 3, 96), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
    )  # fmt: skip
    return Architecture(
        StemSpec(32, activation="relu"), stages(32, table), HeadSpec(1280, activation="relu"),
        norm_eps=1e-5, norm_momentum=0.1,
    )  # fmt: skip


NETWORKS = (fbnet_c, single_path_nas)
