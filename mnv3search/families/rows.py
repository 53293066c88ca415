"""How the families write their layer tables: rows of inverted residuals and stages of equal ones."""

from __future__ import annotations

from collections.abc import Iterable

from mnv3search.blocks import Activation, BlockSpec, Expansion, Shortcut, SqueezeExciteSpec

Row = tuple[int, int, int, bool, Activation, int]
"""kernel size, expanded channels, out channels, squeeze-excite, activation, stride."""


_PAPER_SQUEEZE_EXCITE = SqueezeExciteSpec(1)


def paper_squeeze_excite(channels: int) -> SqueezeExciteSpec:
    """V3's squeeze-excite on ``channels``: a quarter of them rounded to 8, ReLU inside, hard-sigmoid gate."""
    return _PAPER_SQUEEZE_EXCITE.following(channels, channels, channels)


def inverted_residuals(
    rows: Iterable[Row], squeeze_excite: SqueezeExciteSpec = _PAPER_SQUEEZE_EXCITE,
    expansion: Expansion = "where_needed", shortcut: Shortcut = "identity", in_channels: int = 16,
) -> tuple[BlockSpec, ...]:  # fmt: skip
    """The blocks of a V3 layer table behind ``in_channels``; ``squeeze_excite`` gives the rule to follow."""
    blocks = []
    for kernel, expanded, out, use_se, activation, stride in rows:
        se = squeeze_excite.following(in_channels, expanded, out) if use_se else None
        blocks.append(BlockSpec(kernel, expanded, out, stride, activation, se, expansion, shortcut=shortcut))
        in_channels = out
    return tuple(blocks)


def stages(
    in_channels: int, table: Iterable[tuple[int, int, int, int, int]], *, activation: Activation = "relu",
    squeeze_excite: SqueezeExciteSpec | None = None, se_stages: Iterable[int] = (),
    expansion: Expansion = "where_needed",
) -> tuple[BlockSpec, ...]:  # fmt: skip
    """Inverted residuals by stages of (repeats, kernel size, stride of the first, expansion ratio, out channels).

    ``squeeze_excite`` gives the rule to follow in the stages ``se_stages``, counted from 0.
    """
    blocks, with_se = [], set(se_stages)
    for index, (repeats, kernel, stride, ratio, out) in enumerate(table):
        for repeat in range(repeats):
            expanded = in_channels * ratio
            se = squeeze_excite.following(in_channels, expanded, out) if squeeze_excite and index in with_se else None
            blocks.append(BlockSpec(kernel, expanded, out, 1 if repeat else stride, activation, se, expansion))
            in_channels = out
    return tuple(blocks)
