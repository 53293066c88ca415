"""Width multipliers: the papers' rule, torchvision's, and the one that touches output channels alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from mnv3search.architecture import Architecture
from mnv3search.blocks import Block, BlockSpec, make_divisible
from mnv3search.errors import ArchitectureError, UnknownNameError

WidthRule = Literal["paper", "torchvision", "out_channels"]
MAX_WIDTH_MULT = 16.0


def scale_width(architecture: Architecture, width_mult: float, rule: WidthRule = "paper") -> Architecture:
    """The network with its channels multiplied by ``width_mult``.

    Rules:
        ``paper``: stem and block widths are ``make_divisible(w·channels)``, expanded channels keep their ratio to the
        (scaled) input, the last layer before the classifier is not scaled below 1.0 (tensorflow/models, slim).
        ``torchvision``: every number is scaled, that last layer too, where a hidden layer follows the pool.
        ``out_channels``: only the blocks' output channels, truncated.

    Raises:
        ArchitectureError: ``width_mult`` is not a number in (0, 16].
    """
    is_number = isinstance(width_mult, (int, float)) and not isinstance(width_mult, bool)
    if not (is_number and 0 < width_mult <= MAX_WIDTH_MULT):  # false for NaN
        raise ArchitectureError(
            f"width multiplier {width_mult!r} is not a number above 0 and at most {MAX_WIDTH_MULT:g}"
        )
    if rule not in get_args(WidthRule):
        raise UnknownNameError("width rule", rule, get_args(WidthRule))
    if width_mult == 1.0:
        return architecture
    stem, head = architecture.stem, architecture.head
    if rule == "out_channels":
        return replace(architecture, blocks=_scaled_blocks(
            architecture, stem.out_channels,
            lambda b, _old, _new: (b.expanded_channels, max(1, int(width_mult * b.out_channels))),
        ))  # fmt: skip

    def scaled(channels: int) -> int:
        return make_divisible(width_mult * channels)

    stem = replace(stem, out_channels=scaled(stem.out_channels))
    # torchvision's V2 and MnasNet, which have no hidden layer, scale as the papers do
    every_number = rule == "torchvision" and head.hidden_channels is not None
    blocks = _scaled_blocks(
        architecture, stem.out_channels,
        lambda b, old, new: (
            scaled(b.expanded_channels) if every_number else make_divisible(new * b.expanded_channels / old),
            scaled(b.out_channels),
        ),
    )  # fmt: skip
    feature, hidden = head.feature_channels, head.hidden_channels
    last = width_mult if every_number else max(width_mult, 1.0)  # of the last layer before the classifier
    if feature is not None and every_number:  # torchvision keeps its ratio (6) to the last block's width
        feature = round(blocks[-1].out_channels * feature / architecture.blocks[-1].out_channels)
    elif feature is not None:
        feature = make_divisible((last if hidden is None else width_mult) * feature)
    if hidden is not None:
        hidden = make_divisible(last * hidden)
    se = head.squeeze_excite
    if se is not None and feature is not None:
        se = se.following(feature, feature, feature)
    head = replace(head, feature_channels=feature, hidden_channels=hidden, squeeze_excite=se)
    return replace(architecture, stem=stem, blocks=blocks, head=head)


def _scaled_blocks(
    architecture: Architecture, stem_channels: int, scale: Callable[[Block, int, int], tuple[int, int]]
) -> tuple[Block, ...]:
    """Blocks with widths from ``scale(block, old_in, new_in) -> (expanded, out)``; a depth multiplier stays."""
    blocks: list[Block] = []
    channels = stem_channels
    for block, in_channels in zip(architecture.blocks, architecture.in_channels(), strict=True):
        expanded, out = scale(block, in_channels, channels)
        if isinstance(block, BlockSpec) and block.expansion == "depthwise":
            expanded = channels * (block.expanded_channels // in_channels)
        blocks.append(block.resized(channels, expanded, out))
        channels = out
    return tuple(blocks)
