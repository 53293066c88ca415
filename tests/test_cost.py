"""Counts of whole networks: sums of their layers, whatever was counted before."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.cost import count, total_cost, unit_cost
from mnv3search.families import parse_network
from mnv3search.layers import unit_names, units
from strategies import architectures


def test_a_whole_network_by_hand() -> None:
    """Stem 3×8×8 → 4×4×4; block 4 → 8 → 6 with stride 2 → 6×2×2; head: pool, 6 → 3.

    Stem: 1728 MAdds, 116 parameters, 64 activations. Expansion at 4×4: 512, 48, 128; depthwise to 2×2: 288, 88, 32;
    projection: 192, 60, 24. Classifier: 18, 21, 3. Most is alive in the stem: 192 + 64 elements of 4 bytes.
    """
    counts = count(Architecture(StemSpec(4), (BlockSpec(3, 8, 6, 2),), HeadSpec(None), 8, 3))
    assert counts.madds == 1728 + 512 + 288 + 192 + 18
    assert counts.parameters == 116 + 48 + 88 + 60 + 21
    assert counts.activations == 64 + 128 + 32 + 24 + 3
    assert counts.peak_memory_bytes == 4 * 256
    assert [layer.name for layer in counts.layers] == [
        "stem.conv", "blocks.0.expansion", "blocks.0.depthwise", "blocks.0.projection", "head.pool", "head.classifier",
    ]  # fmt: skip


@given(architectures())
def test_a_network_is_the_sum_of_its_layers(architecture: Architecture) -> None:
    counts = count(architecture)
    assert counts.madds == sum(layer.madds for layer in counts.layers)
    assert counts.parameters == sum(layer.parameters for layer in counts.layers)
    assert counts.activations == sum(layer.activations for layer in counts.layers)
    assert counts.peak_memory_bytes == 4 * max(layer.live_elements for layer in counts.layers)


@given(architectures())
def test_each_layer_takes_what_the_one_before_gives(architecture: Architecture) -> None:
    chain = [
        layer
        for layer in count(architecture).layers
        if layer.kernel_size and layer.kind not in {"squeeze_reduce", "squeeze_expand", "shortcut"}
    ]
    assert chain[0].in_channels == 3
    assert chain[-1].out_channels == architecture.classes
    for before, after in pairwise(chain):
        assert after.in_channels == before.out_channels
        assert after.in_size == (1 if after.kind in {"hidden", "classifier"} else before.out_size)


@given(architectures())
def test_what_was_counted_before_changes_nothing(architecture: Architecture) -> None:
    warm = count(architecture)
    unit_cost.cache_clear()
    assert count(architecture) == warm


@given(architectures())
def test_units_are_named_one_by_one(architecture: Architecture) -> None:
    names = unit_names(architecture)
    assert len(set(names)) == len(names) == len(units(architecture))
    assert total_cost(units(architecture)).madds == count(architecture).madds


@pytest.mark.parametrize("resolution", [1, 97, 225])
def test_padding_changes_no_count(resolution: int) -> None:
    symmetric = parse_network("mobilenet_v3_small").with_resolution(resolution)
    same = replace(symmetric, padding="same")
    counts, other = count(symmetric), count(same)
    assert (counts.madds, counts.parameters, counts.peak_memory_bytes) == (
        other.madds, other.parameters, other.peak_memory_bytes
    )  # fmt: skip
