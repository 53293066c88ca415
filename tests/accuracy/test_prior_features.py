"""The prior's features: sums over stages by hand, smoothness where stages merge, independence of the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnv3search.accuracy.prior_features import FEATURE_NAMES, KIND_OF_FEATURE, features
from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.cost import count
from mnv3search.families import parse_network
from strategies import architectures


def named(architecture: Architecture) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, features([architecture])[0].tolist(), strict=True))


def test_one_name_and_kind_for_each_column() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == len(KIND_OF_FEATURE)
    assert features([parse_network("mobilenet_v2")]).shape == (1, len(FEATURE_NAMES))


def test_mobilenet_v3_large_by_hand() -> None:
    seen = named(parse_network("mobilenet_v3_large"))
    assert [seen[f"blocks{stage}"] for stage in ("/2", "/4", "/8", "/32a", "/32b")] == [1, 2, 3, 3, 0]
    assert seen["blocks/16a"] + seen["blocks/16b"] == pytest.approx(6)
    # 80 → 112 is a new stage but for exp(-(ln 1.4 / 0.2)²) of it
    assert seen["blocks/16b"] == pytest.approx(2 * (1 - math.exp(-((math.log(1.4) / 0.2) ** 2))))
    assert seen["se/8"] == 2
    assert seen["entry_se/8"] == 1
    assert seen["entry_kernel/8"] == pytest.approx(math.log2(5 / 3))
    assert seen["entry_ratio/4"] == pytest.approx(math.log2(4.5))
    assert (seen["swish_early"], seen["swish_middle"], seen["swish_late"], seen["swish_ends"]) == (0, 1, 1, 1)
    assert seen["resolution"] == 0
    assert seen["depth"] == pytest.approx(math.log2(15 / 16))


def test_the_whole_network_s_counts_are_the_exact_ones() -> None:
    for name in ("mobilenet_v3_small", "mnasnet_a1", "mobilenet_v2@0.5"):
        network, seen = parse_network(name), named(parse_network(name))
        assert seen["log_madds"] == pytest.approx(math.log2(count(network).madds / 220e6))
        assert seen["log_parameters"] == pytest.approx(math.log2(count(network).parameters / 4e6))


def test_resolution_is_told_apart_from_structure() -> None:
    large, small = named(parse_network("mobilenet_v2")), named(parse_network("mobilenet_v2/112"))
    assert small["resolution"] == -1
    assert small["inverse_resolution"] == 1
    for kind in ("blocks", "ratio", "kernel", "width"):
        assert all(large[f"{kind}{stage}"] == small[f"{kind}{stage}"] for stage in ("/2", "/8", "/16b", "/32a"))


def _two_stages(second: int) -> Architecture:
    se = SqueezeExciteSpec(8)
    first, then = BlockSpec(3, 240, 80, stride=2), BlockSpec(3, 480, second, squeeze_excite=se)
    blocks = (BlockSpec(3, 16, 16), BlockSpec(3, 64, 24, 2), BlockSpec(3, 72, 40, 2), first, then, then)
    return Architecture(StemSpec(16), blocks, HeadSpec(960, 1280))


def test_a_stage_that_merges_with_the_one_before_fades_in_without_a_jump() -> None:
    seen = np.array([named(_two_stages(width))["blocks/16b"] for width in range(80, 121)])
    assert seen[0] == 0
    assert seen[-1] > 1.8
    assert (np.diff(seen) >= 0).all()
    assert np.abs(np.diff(seen)).max() < 0.12


@settings(max_examples=25)
@given(st.lists(architectures(), min_size=1, max_size=4))
def test_a_batch_says_the_same_as_one_by_one(networks: list[Architecture]) -> None:
    together = features(networks)
    assert np.isfinite(together).all()
    assert together == pytest.approx(np.concatenate([features([network]) for network in networks]), abs=1e-9)
