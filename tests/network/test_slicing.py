"""A slice keeps what it should: where the removed channels were zero, it computes what the network does."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from randomised_weights import randomise

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.errors import UnknownNameError, WeightsError
from mnv3search.families import NETWORKS, published
from mnv3search.layer_search.proposals import narrow, sites
from mnv3search.network.build import build_network
from mnv3search.network.slicing import LayerChannels, SliceRule, SlicingPlan, apply_slicing, plan_slicing, slice_network
from strategies import architectures

RULES: tuple[SliceRule, ...] = get_args(SliceRule)
TOLERANCE = 2e-5  # of the largest logit: sums over fewer terms are added in another order
TINY = Architecture(StemSpec(4), (BlockSpec(3, 8, 4), BlockSpec(3, 8, 4)), HeadSpec(8, 8), resolution=9, classes=3)


def _random_narrowing(architecture: Architecture, seed: int, divisor: int) -> Architecture:
    """A few sites narrowed one after another as NetAdapt does, and the head's layers with them."""
    source, given_widths = random.Random(seed), architecture.blocks
    for _ in range(source.randint(1, 12)):
        open_sites = [site for site in sites(architecture) if site.widths(divisor)]
        if not open_sites:
            break
        site = source.choice(open_sites)
        architecture = narrow(architecture, site, source.choice(site.widths(divisor)))
    # a squeeze that was given freely may grow by the rule that it follows; none is wider in a narrowing
    blocks = [_squeezed_at_most(block, given) for block, given in zip(architecture.blocks, given_widths, strict=True)]
    head = architecture.head
    feature, hidden = (
        width and source.randint(max(1, width // 2), width) for width in (head.feature_channels, head.hidden_channels)
    )
    return replace(
        architecture, blocks=tuple(blocks), head=replace(head, feature_channels=feature, hidden_channels=hidden)
    )


def _squeezed_at_most(block: BlockSpec, given: BlockSpec) -> BlockSpec:
    if block.squeeze_excite is None or given.squeeze_excite is None:
        return block
    least = min(block.squeeze_excite.squeeze_channels, given.squeeze_excite.squeeze_channels)
    return replace(block, squeeze_excite=replace(block.squeeze_excite, squeeze_channels=least))


def _shortcut_falls_away(wide: Architecture, narrowed: Architecture) -> bool:
    pairs = zip(wide.blocks, wide.in_channels(), narrowed.blocks, narrowed.in_channels(), strict=True)
    return any(a.has_projected_shortcut(n) and not b.has_projected_shortcut(m) for a, n, b, m in pairs)


def _switch_off(network: Any, plan: SlicingPlan) -> None:
    """Makes every channel that ``plan`` leaves out zero, by the layers that write it."""
    kept = {
        name.removesuffix(".conv"): channels.outputs for name, channels in plan.items()
        if not name.endswith("squeeze_excite.expand")
    }  # fmt: skip
    for name, tensor in network.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        place = owner.removesuffix(".conv").removesuffix(".norm").removesuffix("_norm")
        channels = kept.get(place)
        if channels is not None and leaf in {"weight", "bias", "running_mean"}:
            tensor[[c for c in range(len(tensor)) if c not in channels]] = 0.0


def _assert_slice_agrees(wide: Architecture, narrowed: Architecture, rule: SliceRule, side: int) -> None:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    network = build_network(wide)
    randomise(network, images, seed=2)
    plan = plan_slicing(wide, network.state_dict(), narrowed, rule)
    _switch_off(network, plan)
    # what was switched off is now least by every rule but `first`, which looks at no weight
    assert plan_slicing(wide, network.state_dict(), narrowed, rule) == plan
    sliced = slice_network(network, narrowed, rule)
    assert sliced.architecture == narrowed
    with torch.inference_mode():
        expected, found = network(images), sliced(images)
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= TOLERANCE * max(scale, 1e-3)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_slices_of_published_networks_compute_what_the_networks_do(name: str) -> None:
    wide = published(name, 0.5).with_classes(10)
    _assert_slice_agrees(wide, _random_narrowing(wide, seed=sum(name.encode()), divisor=8), "l2", side=33)


@settings(max_examples=50)
@given(architectures(max_resolution=12), st.integers(0, 1000), st.sampled_from(RULES))
def test_slices_of_any_network_compute_what_the_network_does(wide: Architecture, seed: int, rule: SliceRule) -> None:
    narrowed = _random_narrowing(wide, seed, divisor=1)
    assume(not _shortcut_falls_away(wide, narrowed))
    _assert_slice_agrees(wide, narrowed, rule, side=9)


@settings(max_examples=25)
@given(architectures(max_resolution=12), st.sampled_from(RULES))
def test_a_slice_of_the_same_widths_is_the_network_itself_in_memory_of_its_own(
    architecture: Architecture, rule: SliceRule
) -> None:
    network = build_network(architecture)
    copied = slice_network(network, architecture, rule)
    state = copied.state_dict()
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert tensor.data_ptr() != state[name].data_ptr() or not tensor.numel()


def _by_hand() -> Any:
    """A residual of widths 4, in which stem and both projections have filters of known norms."""
    network = build_network(TINY)
    with torch.no_grad():
        for path, norms in (
            ("stem", (3.0, 0.0, 1.0, 0.0)), ("blocks.0.projection", (0.0, 2.0, 0.0, 0.0)),
            ("blocks.1.projection", (0.0, 0.0, 2.0, 4.0)),
        ):  # fmt: skip
            weight = network.get_parameter(f"{path}.conv.weight")
            weight.fill_(1.0).mul_(torch.tensor(norms).reshape(4, 1, 1, 1) / weight[0].numel() ** 0.5)
        network.get_parameter("stem.norm.weight").copy_(torch.tensor([1.0, -9.0, 1.0, 1.0]))
        expansion = network.get_parameter("blocks.1.expansion.conv.weight")
        signs = torch.tensor([1.0, -1.0] * 4)  # a norm does not see them
        expansion.copy_((signs * torch.arange(8.0)).reshape(8, 1, 1, 1).expand(8, 4, 1, 1))
    return network


@pytest.mark.parametrize(
    ("rule", "stem"),
    [
        # squared norms of the stem and both projections together: 9, 4, 1 + 4 = 5, 16
        ("l2", (0, 3)),
        ("first", (0, 1)),
        # |γ| of the three norms, summed: 3, 11, 3, 3; of equals the first
        ("norm_scale", (0, 1)),
    ],
)
def test_a_residual_group_keeps_one_choice_by_all_its_filters(rule: SliceRule, stem: tuple[int, ...]) -> None:
    site = next(site for site in sites(TINY) if site.kind == "bottleneck")
    narrowed = narrow(TINY, site, 2)
    plan = plan_slicing(TINY, _by_hand().state_dict(), narrowed, rule)
    assert plan["stem.conv"].outputs == stem
    for block in ("blocks.0", "blocks.1"):
        assert (plan[f"{block}.expansion"].inputs, plan[f"{block}.projection"].outputs) == (stem, stem)
        assert plan[f"{block}.expansion"].outputs == tuple(range(8))


def test_the_norm_of_filters_is_l2_and_not_l1() -> None:
    """Of two filters over 4 inputs, (3, 0, 0, 0) has L2² 9 and L1 3, (1, 1, 1, 1) has L2² 4 and L1 4: the first stays.

    In a group of several filters L2² add up: 3² + 0² is more than 2² + 2², though 3 + 0 is less than 2 + 2.
    """
    network = build_network(TINY)
    with torch.no_grad():
        expansion = network.get_parameter("blocks.0.expansion.conv.weight").zero_()
        expansion[2, 0] = 3.0
        expansion[5] = 1.0
        for path, norms in (("stem", (0.0, 2.0, 3.0, 0.0)), ("blocks.0.projection", (0.0, 2.0, 0.0, 0.0))):
            weight = network.get_parameter(f"{path}.conv.weight").zero_()
            weight[:, 0, 0, 0] = torch.tensor(norms)
        network.get_parameter("blocks.1.projection.conv.weight").zero_()
    one_expanded = replace(TINY, blocks=(replace(TINY.blocks[0], expanded_channels=1), TINY.blocks[1]))
    assert plan_slicing(TINY, network.state_dict(), one_expanded)["blocks.0.expansion"].outputs == (2,)
    bottleneck = next(site for site in sites(TINY) if site.kind == "bottleneck")
    plan = plan_slicing(TINY, network.state_dict(), narrow(TINY, bottleneck, 1))
    assert plan["stem.conv"].outputs == (2,)


def test_an_expanded_channel_is_kept_by_its_expansion_and_taken_along_by_all_that_follows() -> None:
    network = _by_hand()
    block = replace(TINY.blocks[1], expanded_channels=3)
    sliced = slice_network(network, replace(TINY, blocks=(TINY.blocks[0], block)))
    for name, dimension in (
        ("expansion.conv.weight", 0), ("expansion.norm.running_var", 0), ("depthwise.conv.weight", 0),
        ("depthwise.norm.bias", 0), ("projection.conv.weight", 1),
    ):  # fmt: skip
        ours, theirs = (net.state_dict()[f"blocks.1.{name}"] for net in (sliced, network))
        assert torch.equal(ours, theirs.index_select(dimension, torch.tensor([5, 6, 7]))), name


def test_a_depth_multiplier_keeps_the_best_outputs_of_each_channel_that_enters() -> None:
    """Channels 0 and 2 of 3 enter; each had two depthwise outputs, of which the larger one stays."""
    block = BlockSpec(1, 6, 5, expansion="depthwise", linear_bottleneck=False, shortcut="none")
    wide = Architecture(StemSpec(3), (block,), HeadSpec(None), resolution=8, classes=2)
    network = build_network(wide)
    with torch.no_grad():
        network.get_parameter("stem.conv.weight").fill_(1.0)[1] = 0.0
        depthwise = network.get_parameter("blocks.0.depthwise.conv.weight")
        depthwise.copy_(torch.tensor([1.0, 2.0, 9.0, 9.0, 4.0, 3.0]).reshape(6, 1, 1, 1))
    narrowed = replace(wide, stem=StemSpec(2), blocks=(replace(block, expanded_channels=2),))
    plan = plan_slicing(wide, network.state_dict(), narrowed)
    assert plan["blocks.0.depthwise"] == ((1, 4), (0, 2))
    assert plan["blocks.0.projection"].inputs == (1, 4)


def test_a_projected_shortcut_whose_widths_came_to_agree_falls_away() -> None:
    block = BlockSpec(3, 8, 6, shortcut="projected")
    wide = replace(TINY, blocks=(block,))
    narrowed = replace(wide, blocks=(replace(block, out_channels=4),))
    sliced = slice_network(build_network(wide).eval(), narrowed)
    assert not any("shortcut" in name for name in sliced.state_dict())
    with torch.inference_mode():
        assert sliced(torch.randn(1, 3, 9, 9)).shape == (1, 3)


def test_mode_frozen_parameters_and_the_network_itself_stay_as_they_are() -> None:
    network = build_network(TINY).eval()
    network.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sliced = slice_network(network, narrow(TINY, sites(TINY)[0], 5))
    assert not sliced.training
    assert {n for n, p in sliced.named_parameters() if not p.requires_grad} == {
        "stem.conv.weight", "stem.norm.weight", "stem.norm.bias",
    }  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    sliced.train()(torch.randn(2, 3, 9, 9)).sum().backward()
    assert sliced.get_parameter("blocks.1.projection.conv.weight").grad is not None


def test_a_plan_is_a_value_that_can_be_made_by_hand() -> None:
    network = build_network(TINY)
    narrowed = narrow(TINY, sites(TINY)[0], 2)
    plan = plan_slicing(TINY, network.state_dict(), narrowed, "first")
    plan["blocks.0.depthwise"] = LayerChannels(outputs=(2, 7), inputs=(2, 7))
    sliced = apply_slicing(network, narrowed, plan)
    weight = network.state_dict()["blocks.0.depthwise.conv.weight"]
    assert torch.equal(sliced.state_dict()["blocks.0.depthwise.conv.weight"], weight[[2, 7]])


GATED = BlockSpec(3, 8, 4, squeeze_excite=SqueezeExciteSpec(2))
WIDER = replace(TINY, stem=StemSpec(6), blocks=(BlockSpec(3, 8, 6),) * 2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (WIDER, r"the stem has conv.out_channels 4, .* 6 \(and 2 more differ\); a slice has"),
        (replace(TINY, blocks=(TINY.blocks[0], BlockSpec(3, 9, 4))), "block 1 has expansion.out_channels 8, .* 9;"),
        (replace(TINY, blocks=(BlockSpec(5, 8, 4), TINY.blocks[1])), r"block 0 has depthwise.kernel_size 3, .* 5"),
        (replace(TINY, blocks=(BlockSpec(3, 8, 4, 1, "relu6"), TINY.blocks[1])), "expansion.activation relu, .* relu6"),
        (replace(TINY, blocks=TINY.blocks[:1]), "the network has block count 2, .* 1"),
        (replace(TINY, blocks=(TINY.blocks[0], BlockSpec(3, 4, 4))), "block 1 has expansion, .* none"),
        (replace(TINY, blocks=(TINY.blocks[0], BlockSpec(3, 8, 3))), "block 1 has residual, .* none"),
        (replace(TINY, blocks=(GATED, TINY.blocks[1])), "block 0 has no squeeze_excite"),
        (replace(TINY, head=HeadSpec(8)), "the head has hidden, .* none"),
        (replace(TINY, head=HeadSpec(9, 8)), r"the head has feature.out_channels 8, .* 9; a slice"),
        (replace(TINY, norm_eps=1e-5), "the network has norm_eps 0.001, .* 1e-05"),
        (TINY.with_classes(2), "the network has classes 3, .* 2"),
    ],
)  # fmt: skip
def test_what_is_no_narrowing_is_refused_by_block_and_widths(changed: Architecture, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        slice_network(build_network(TINY), changed)


def test_a_squeeze_excite_that_stands_elsewhere_is_no_narrowing() -> None:
    wide = replace(TINY, blocks=(GATED, TINY.blocks[1]))
    moved = replace(GATED, squeeze_excite=SqueezeExciteSpec(2, position="projection"))
    with pytest.raises(WeightsError, match=r"block 0 has squeeze_excite.pool.source depthwise, .* projection"):
        slice_network(build_network(wide), replace(wide, blocks=(moved, TINY.blocks[1])))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="l2"):
        slice_network(build_network(TINY), TINY, "l3")  # type: ignore[arg-type]
