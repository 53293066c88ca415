"""Width multipliers: the papers' rule, torchvision's, and the one that touches output channels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from mnv3search.architecture import Architecture, HeadSpec
from mnv3search.blocks import BlockSpec, make_divisible
from mnv3search.errors import ArchitectureError

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
    if width_mult == 1.0:
        return architecture
    return _RULES[rule](architecture, width_mult)


def _scale_blocks(
    architecture: Architecture, stem_channels: int, scale: Callable[[BlockSpec, int, int], tuple[int, int]]
) -> tuple[BlockSpec, ...]:
    """Blocks with widths from ``scale(block, old_in, new_in) -> (expanded, out)``; a depth multiplier stays."""
    blocks = []
    channels = stem_channels
    for block, in_channels in zip(architecture.blocks, architecture.in_channels(), strict=True):
        expanded, out = scale(block, in_channels, channels)
        if block.expansion == "depthwise":
            expanded = channels * (block.expanded_channels // in_channels)
        blocks.append(block.resized(channels, expanded, out))
        channels = out
    return tuple(blocks)


def _expanded_by_ratio(block: BlockSpec, old_in: int, new_in: int) -> int:
    return make_divisible(new_in * block.expanded_channels / old_in)


def _resize_head(head: HeadSpec, feature: int | None, hidden: int | None) -> HeadSpec:
    se = head.squeeze_excite
    if se is not None and feature is not None:
        se = se.following(feature, feature, feature)
    return replace(head, feature_channels=feature, hidden_channels=hidden, squeeze_excite=se)


def _paper(architecture: Architecture, width_mult: float) -> Architecture:
    stem = replace(architecture.stem, out_channels=make_divisible(width_mult * architecture.stem.out_channels))
    blocks = _scale_blocks(
        architecture,
        stem.out_channels,
        lambda b, old, new: (_expanded_by_ratio(b, old, new), make_divisible(width_mult * b.out_channels)),
    )
    head, grow = architecture.head, max(width_mult, 1.0)
    if head.hidden_channels is None:
        feature = make_divisible(grow * head.feature_channels) if head.feature_channels else None
        return replace(architecture, stem=stem, blocks=blocks, head=_resize_head(head, feature, None))
    feature = make_divisible(width_mult * head.feature_channels) if head.feature_channels else None
    new_head = _resize_head(head, feature, make_divisible(grow * head.hidden_channels))
    return replace(architecture, stem=stem, blocks=blocks, head=new_head)


def _torchvision(architecture: Architecture, width_mult: float) -> Architecture:
    head = architecture.head
    if head.hidden_channels is None:  # torchvision's V2 and MnasNet scale as the papers do
        return _paper(architecture, width_mult)
    stem = replace(architecture.stem, out_channels=make_divisible(width_mult * architecture.stem.out_channels))
    blocks = _scale_blocks(
        architecture,
        stem.out_channels,
        lambda b, _old, _new: (
            make_divisible(width_mult * b.expanded_channels),
            make_divisible(width_mult * b.out_channels),
        ),
    )
    feature = None
    if head.feature_channels is not None:  # torchvision keeps its ratio (6) to the last block's width
        feature = round(blocks[-1].out_channels * head.feature_channels / architecture.blocks[-1].out_channels)
    new_head = _resize_head(head, feature, make_divisible(width_mult * head.hidden_channels))
    return replace(architecture, stem=stem, blocks=blocks, head=new_head)


def _out_channels(architecture: Architecture, width_mult: float) -> Architecture:
    blocks = _scale_blocks(
        architecture,
        architecture.stem.out_channels,
        lambda b, _old, _new: (b.expanded_channels, max(1, int(width_mult * b.out_channels))),
    )
    return replace(architecture, blocks=blocks)


_RULES: Mapping[WidthRule, Callable[[Architecture, float], Architecture]] = MappingProxyType(
    {"paper": _paper, "torchvision": _torchvision, "out_channels": _out_channels}
)
