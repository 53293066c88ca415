"""Hypothesis strategies of the whole range of architectures, small enough to be run."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from mnv3search.architecture import Architecture, HeadSpec, Padding, StemSpec
from mnv3search.blocks import Activation, BlockSpec, Expansion, Gate, Shortcut, SqueezeExciteSpec

MAX_CHANNELS = 24
activations = st.sampled_from(get_args(Activation))
channels = st.integers(1, MAX_CHANNELS)
kernels = st.sampled_from((1, 3, 5, 7))


def squeeze_excites(position: str | None = None) -> st.SearchStrategy[SqueezeExciteSpec]:
    """Any squeeze-excite; at ``position`` where one is given."""
    positions = ("depthwise", "projection") if position is None else (position,)
    return st.builds(
        SqueezeExciteSpec,
        channels,
        activations,
        st.sampled_from(get_args(Gate)),
        st.sampled_from(positions),
        st.booleans(),
        st.booleans(),
        st.sampled_from((0.25, 0.5, 1.0, 1 / 3)),
        st.sampled_from(("input", "expanded", "output")),
        st.sampled_from((1, 4, 8)),
    )


@st.composite
def blocks(draw: st.DrawFn, in_channels: int) -> BlockSpec:
    """Any block that can follow ``in_channels``; a third of them keep the width, so that residuals are common."""
    expansion: Expansion = draw(st.sampled_from(get_args(Expansion)))
    if expansion == "depthwise":
        expanded = in_channels * draw(st.integers(1, 3))
    else:
        expanded = draw(st.one_of(st.just(in_channels), channels))
    return BlockSpec(
        draw(kernels),
        expanded,
        draw(st.one_of(st.just(in_channels), channels)),
        draw(st.sampled_from((1, 1, 2, 3))),
        draw(activations),
        draw(st.none() | squeeze_excites()),
        expansion,
        draw(st.booleans()),
        draw(st.sampled_from(get_args(Shortcut))),
    )


def stems() -> st.SearchStrategy[StemSpec]:
    """Any stem."""
    return st.builds(StemSpec, channels, kernels, st.integers(1, 3), activations)


@st.composite
def heads(draw: st.DrawFn) -> HeadSpec:
    """Any head."""
    feature = draw(st.none() | channels)
    return HeadSpec(
        feature,
        draw(st.none() | channels),
        draw(activations),
        None if feature is None else draw(st.none() | squeeze_excites("depthwise")),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from((0.0, 0.2))),
        draw(st.sampled_from((0.01, 0.001))),
    )


@st.composite
def architectures(draw: st.DrawFn, max_blocks: int = 4, max_resolution: int = 40) -> Architecture:
    """Any architecture of at most ``max_blocks`` blocks, every field of every spec among what varies."""
    stem = draw(stems())
    found, width = [], stem.out_channels
    for _ in range(draw(st.integers(1, max_blocks))):
        found.append(draw(blocks(width)))
        width = found[-1].out_channels
    return Architecture(
        stem,
        tuple(found),
        draw(heads()),
        draw(st.integers(1, max_resolution)),
        draw(st.integers(1, 12)),
        draw(st.sampled_from(get_args(Padding))),
        draw(st.booleans()),
        draw(st.sampled_from((1e-3, 1e-5))),
        draw(st.sampled_from((0.1, 0.01))),
    )
