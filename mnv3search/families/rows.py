"""How the families write their layer tables: rows of inverted residuals and stages of equal ones."""

from __future__ import annotations

from collections.abc import Iterable

from mnv3search.blocks import Activation, BlockSpec, Expansion, Shortcut, SqueezeExciteSpec, make_divisible

Row = tuple[int, int, int, bool, Activation, int]
"""kernel size, expanded channels, out channels, squeeze-excite, activation, stride."""


def paper_squeeze_excite(expanded_channels: int) -> SqueezeExciteSpec:
    """V3's squeeze-excite: a quarter of the expansion rounded to 8, ReLU inside, hard-sigmoid gate."""
    return SqueezeExciteSpec(make_divisible(expanded_channels / 4))


def inverted_residuals(rows: Iterable[Row]) -> tuple[BlockSpec, ...]:
    """The blocks of a V3 layer table."""
    return tuple(
        BlockSpec(kernel, expanded, out, stride, activation, paper_squeeze_excite(expanded) if use_se else None)
        for kernel, expanded, out, use_se, activation, stride in rows
    )


def stage(
    in_channels: int,
    repeats: int,
    kernel_size: int,
    stride: int,
    expansion_ratio: int,
    out_channels: int,
    *,
    activation: Activation = "relu",
    squeeze_excite: SqueezeExciteSpec | None = None,
    expansion: Expansion = "where_needed",
    shortcut: Shortcut = "identity",
) -> tuple[BlockSpec, ...]:
    """``repeats`` inverted residuals, the first with the stride; ``squeeze_excite`` gives the rule to follow."""
    blocks = []
    for index in range(repeats):
        expanded = in_channels * expansion_ratio
        se = squeeze_excite.following(in_channels, expanded, out_channels) if squeeze_excite else None
        block_stride = stride if index == 0 else 1
        blocks.append(
            BlockSpec(kernel_size, expanded, out_channels, block_stride, activation, se, expansion, shortcut=shortcut)
        )
        in_channels = out_channels
    return tuple(blocks)


def stages(
    stem_channels: int,
    table: Iterable[tuple[int, int, int, int, int]],
    *,
    activation: Activation = "relu",
    squeeze_excite: SqueezeExciteSpec | None = None,
    se_stages: Iterable[int] = (),
    expansion: Expansion = "where_needed",
) -> tuple[BlockSpec, ...]:
    """Stages of (repeats, kernel size, stride, expansion ratio, out channels); ``se_stages`` counts from 0."""
    blocks: tuple[BlockSpec, ...] = ()
    channels, with_se = stem_channels, set(se_stages)
    for index, (repeats, kernel, stride, ratio, out) in enumerate(table):
        blocks += stage(
            channels, repeats, kernel, stride, ratio, out, activation=activation, expansion=expansion,
            squeeze_excite=squeeze_excite if index in with_se else None,
        )  # fmt: skip
        channels = out
    return blocks
