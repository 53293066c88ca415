"""Width multipliers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.architecture import Architecture
from mnv3search.blocks import make_divisible
from mnv3search.errors import ArchitectureError, UnknownNameError
from mnv3search.families import NETWORKS, parse_network, published
from mnv3search.families.scaling import WidthRule, scale_width
from strategies import architectures

RULES: tuple[WidthRule, ...] = ("paper", "torchvision", "out_channels")
widths = st.floats(0.1, 3.0)


@given(architectures(), widths, st.sampled_from(RULES))
def test_what_is_no_width_stays(architecture: Architecture, width: float, rule: WidthRule) -> None:
    scaled = scale_width(architecture, width, rule)
    assert (scaled.resolution, scaled.classes, scaled.padding) == (
        architecture.resolution, architecture.classes, architecture.padding
    )  # fmt: skip
    for old, new in zip(architecture.blocks, scaled.blocks, strict=True):
        assert (new.kernel_size, new.stride, new.activation, new.shortcut) == (
            old.kernel_size, old.stride, old.activation, old.shortcut
        )  # fmt: skip
        assert (new.squeeze_excite is None) == (old.squeeze_excite is None)


@given(st.sampled_from(sorted(NETWORKS)), widths)
def test_the_papers_rule(name: str, width: float) -> None:
    base = parse_network(name)
    scaled = scale_width(base, width, "paper")
    assert scaled.stem.out_channels == make_divisible(width * base.stem.out_channels)
    pairs = zip(base.blocks, scaled.blocks, base.in_channels(), scaled.in_channels(), strict=True)
    for old, new, old_in, new_in in pairs:
        assert new.out_channels == make_divisible(width * old.out_channels)
        if old.expansion == "depthwise":
            assert new.expanded_channels * old_in == new_in * old.expanded_channels
        else:
            assert new.expanded_channels == make_divisible(new_in * old.expanded_channels / old_in)
    old_last, new_last = (a.head.hidden_channels or a.head.feature_channels or 0 for a in (base, scaled))
    assert new_last >= old_last


@given(architectures(), st.sampled_from(RULES))
def test_a_multiplier_of_1_changes_nothing(architecture: Architecture, rule: WidthRule) -> None:
    assert scale_width(architecture, 1.0, rule) is architecture


@given(st.sampled_from(sorted(NETWORKS)), st.tuples(widths, widths).map(sorted))
def test_a_larger_multiplier_never_narrows(name: str, pair: list[float]) -> None:
    narrow, wide = (scale_width(parse_network(name), width) for width in pair)
    for less, more in zip(narrow.blocks, wide.blocks, strict=True):
        assert less.out_channels <= more.out_channels


def test_v3_large_at_075_by_hand() -> None:
    """16·¾ = 12 → 16 (8 would be 67 %); 24 → 18 → 24; 40 → 30 → 32; expanded 64/16·16 = 64; 72/24·24 = 72."""
    scaled = published("mobilenet_v3_large", 0.75)
    assert scaled.stem.out_channels == 16
    assert [b.out_channels for b in scaled.blocks[:4]] == [16, 24, 24, 32]
    assert [b.expanded_channels for b in scaled.blocks[:4]] == [16, 64, 72, 72]
    assert (scaled.head.feature_channels, scaled.head.hidden_channels) == (720, 1280)


def test_torchvision_scales_the_hidden_layer_too() -> None:
    scaled = published("mobilenet_v3_large", 0.75, width_rule="torchvision")
    assert (scaled.head.feature_channels, scaled.head.hidden_channels) == (720, 960)
    assert [b.expanded_channels for b in scaled.blocks[:4]] == [16, 48, 56, 56]


def test_out_channels_alone() -> None:
    """V3-Small's Keras re-implementation at 0.75: 16 → 12, 24 → 18, untouched expansions, stem and head."""
    base, scaled = published("mobilenet_v3_small_fanrencli"), published("mobilenet_v3_small_fanrencli", 0.75)
    assert [b.out_channels for b in scaled.blocks[:4]] == [12, 18, 18, 30]
    assert [b.expanded_channels for b in scaled.blocks] == [b.expanded_channels for b in base.blocks]
    assert (scaled.stem, scaled.head) == (base.stem, base.head)


@pytest.mark.parametrize("width", [0, -1.0, math.nan, math.inf, 17, 1e308])
def test_a_multiplier_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(ArchitectureError, match=r"width multiplier .* is not a number above 0 and at most 16"):
        published("mobilenet_v2", width)


@pytest.mark.parametrize("width", ["0.5", None, True, [0.5]])
def test_a_multiplier_is_a_number(width: Any) -> None:
    with pytest.raises(ArchitectureError, match="width multiplier"):
        scale_width(parse_network("mobilenet_v2"), width)


def test_an_unknown_rule_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="width rule"):
        scale_width(parse_network("mobilenet_v2"), 0.5, "papr")  # type: ignore[arg-type]
