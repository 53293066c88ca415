"""Narrowing keeps networks whole: residual groups agree, squeeze-excite and depthwise widths follow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.cost import count
from mnv3search.families import NETWORKS, published
from mnv3search.layer_search import Site, narrow, sites
from mnv3search.layer_search.proposals import narrowest
from mnv3search.layers import residual_groups

LARGE = published("mobilenet_v3_large")


def test_sites_of_v3_large_are_its_expansions_and_its_residual_groups() -> None:
    found = sites(LARGE)
    expansions = [s for s in found if s.kind == "expansion"]
    bottlenecks = [s for s in found if s.kind == "bottleneck"]
    # 15 blocks, the first without an expansion; groups: stem+0, 1–2, 3–5, 6–9, 10–11, 12–14
    assert [s.members for s in expansions] == [(i,) for i in range(1, 15)]
    assert [s.members for s in bottlenecks] == [(-1, 0), (1, 2), (3, 4, 5), (6, 7, 8, 9), (10, 11), (12, 13, 14)]
    assert [s.channels for s in bottlenecks] == [16, 24, 40, 80, 112, 160]


def test_narrowing_an_expansion_takes_its_squeeze_excite_along() -> None:
    site = next(s for s in sites(LARGE) if s.members == (3,) and s.kind == "expansion")
    block = narrow(LARGE, site, 48).blocks[3]
    assert (block.expanded_channels, block.out_channels) == (48, 40)
    # a quarter of 48 is 12; make_divisible(12) = 16 (nearest multiple of 8, halves up)
    assert block.squeeze_excite is not None
    assert block.squeeze_excite.squeeze_channels == 16


def test_narrowing_a_bottleneck_narrows_every_block_that_shares_it_and_nothing_else() -> None:
    site = next(s for s in sites(LARGE) if s.members == (6, 7, 8, 9))
    narrowed = narrow(LARGE, site, 64)
    assert [b.out_channels for b in narrowed.blocks] == [
        16,
        24,
        24,
        40,
        40,
        40,
        64,
        64,
        64,
        64,
        112,
        112,
        160,
        160,
        160,
    ]
    assert [b.expanded_channels for b in narrowed.blocks] == [b.expanded_channels for b in LARGE.blocks]


def test_narrowing_the_stem_takes_the_unexpanded_first_block_along() -> None:
    site = next(s for s in sites(LARGE) if s.members == (-1, 0))
    narrowed = narrow(LARGE, site, 8)
    assert narrowed.stem.out_channels == 8
    assert (narrowed.blocks[0].expanded_channels, narrowed.blocks[0].out_channels) == (8, 8)
    assert not narrowed.blocks[0].has_expansion(8)


def test_an_expansion_that_comes_to_equal_its_input_stays_a_layer() -> None:
    site = next(s for s in sites(LARGE) if s.members == (2,) and s.kind == "expansion")
    block = narrow(LARGE, site, 24).blocks[2]
    assert block.expanded_channels == 24
    assert block.has_expansion(24)


def test_separable_blocks_have_no_expansion_to_narrow_and_follow_their_input() -> None:
    v1 = published("mobilenet_v1")
    assert {s.kind for s in sites(v1)} == {"bottleneck"}
    site = next(s for s in sites(v1) if s.members == (0,))
    narrowed = narrow(v1, site, 32)
    assert narrowed.blocks[0].out_channels == 32
    assert narrowed.blocks[1].expanded_channels == 32


def test_projected_shortcuts_part_the_residual_groups() -> None:
    # every stride-1 block adds its input, through a convolution where the widths differ: those start a new group
    groups = residual_groups(published("mobilenet_v3_large_xiaolai"))
    # block 12 (112 → 160, stride 1) projects its input; block 13 (160 → 160, stride 2) adds nothing; block 14 adds
    assert groups == ((-1, 0), (1, 2), (3, 4, 5), (6, 7, 8, 9), (10, 11), (12,), (13, 14))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_narrowest_network_has_eight_channels_everywhere(name: str) -> None:
    least = narrowest(published(name), 8)
    assert least.stem.out_channels == 8
    assert {b.out_channels for b in least.blocks} == {8}
    assert count(least).madds < count(published(name)).madds


@given(st.sampled_from(sorted(NETWORKS)), st.data())
def test_any_narrowing_costs_less_and_keeps_the_skeleton(name: str, data: st.DataObject) -> None:
    network = published(name)
    site = data.draw(st.sampled_from([s for s in sites(network) if s.widths(8)]))
    width = data.draw(st.sampled_from(site.widths(8)))
    narrowed = narrow(network, site, width)
    assert count(narrowed).madds < count(network).madds
    assert count(narrowed).parameters < count(network).parameters
    assert residual_groups(narrowed) == residual_groups(network)
    assert [b.stride for b in narrowed.blocks] == [b.stride for b in network.blocks]
    assert replace(narrowed, stem=network.stem, blocks=network.blocks) == network


def test_widths_are_multiples_of_the_divisor_below_the_present_one() -> None:
    assert Site("expansion", (0,), 27).widths(8) == (24, 16, 8)
    assert Site("expansion", (0,), 24).widths(8) == (16, 8)
    assert Site("expansion", (0,), 8).widths(8) == ()


def test_changes_are_described_in_words() -> None:
    assert Site("expansion", (4,), 240).describe(200) == "expansion of block 4: 240 → 200"
    assert Site("bottleneck", (3, 4, 5), 40).describe(32) == "bottleneck of blocks 3–5: 40 → 32"
    assert Site("bottleneck", (-1, 0), 16).describe(8) == "bottleneck of the stem and block 0: 16 → 8"
    assert Site("bottleneck", (-1,), 32).describe(24) == "bottleneck of the stem: 32 → 24"


def test_a_block_without_expansion_has_no_site_of_its_own_not_even_its_squeeze() -> None:
    """V3-Small's first block squeezes 16 channels that the stem made; only the ten others expand."""
    expansions = [site.members for site in sites(published("mobilenet_v3_small")) if site.kind == "expansion"]
    assert expansions == [(index,) for index in range(1, 11)]
