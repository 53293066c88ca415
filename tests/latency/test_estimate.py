from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.cost import count
from mnv3search.errors import DeviceError
from mnv3search.families import published
from mnv3search.families.scaling import scale_width
from mnv3search.latency.devices import PROFILES, load_device
from mnv3search.latency.estimated import FEATURE_NAMES, EstimatedDevice, architecture_features
from mnv3search.layers import units

SIZE = len(FEATURE_NAMES) + 1
IDENTITY = tuple(tuple(float(i == j) for j in range(SIZE)) for i in range(SIZE))
LARGE = published("mobilenet_v3_large")


def device(fixed: float = 0.0, spread: float = 0.0, **coefficients: float) -> EstimatedDevice:
    return EstimatedDevice(
        "toy", fixed, tuple(coefficients.get(name, 0.0) for name in FEATURE_NAMES), 0.1, spread, IDENTITY
    )


def tiny() -> Architecture:
    """Stem 8×8 to 4×4×8; one block k5, 16 wide, h-swish, SE of 4; feature 32 at 4×4; 10 classes."""
    block = BlockSpec(5, 16, 8, 1, "hard_swish", SqueezeExciteSpec(4))
    return Architecture(StemSpec(8, activation="relu"), (block,), HeadSpec(32), resolution=8, classes=10)


def test_features_by_hand() -> None:
    found = dict(zip(FEATURE_NAMES, (1e6 * architecture_features([tiny()])[0]).tolist(), strict=True))
    stem, expansion, depthwise, projection, feature = (
        3 * 9 * 8 * 16,
        8 * 16 * 16,
        25 * 16 * 16,
        16 * 8 * 16,
        8 * 32 * 16,
    )
    squeeze, classifier = 16 * 4 + 4 * 16, 32 * 10
    assert found["madds"] == pytest.approx(stem + expansion + depthwise + projection + feature + squeeze + classifier)
    assert found["stem_madds"] == pytest.approx(stem)
    assert found["depthwise_madds"] == 0
    assert found["wide_depthwise_madds"] == pytest.approx(depthwise)
    assert found["linear_madds"] == pytest.approx(classifier)
    convolved = (192 + 128) + (128 + 256) + (256 + 256) + (256 + 128) + (128 + 512)
    assert found["elements"] == pytest.approx(convolved + 512 + 32 + 10)
    assert found["weights"] == pytest.approx(count(tiny()).parameters)
    assert found["channels"] == pytest.approx(1e3 * ((8 + 16) + (16 + 8) + (8 + 32)))
    assert found["squeeze_excite_elements"] == pytest.approx(2 * 16 * 16)
    assert found["squeeze_excites"] == pytest.approx(1e6)
    assert found["hard_swish_elements"] == pytest.approx(256 + 256 + 512)
    assert found["layers"] == pytest.approx(6e6)


def test_latency_is_fixed_and_rate_times_madds() -> None:
    toy = device(fixed=2.0, madds=0.5)
    expected = [2 + 0.5 * count(a).madds / 1e6 for a in (LARGE, tiny())]
    assert toy.latency_ms([LARGE, tiny()]) == pytest.approx(expected)


def test_stated_error_by_hand() -> None:
    toy = device(spread=4.0, squeeze_excites=3.0)
    x = np.concatenate([[1.0], architecture_features([tiny()])[0]])
    assert toy.latency_ms([tiny()]) == pytest.approx([3.0])
    assert toy.latency_error_ms([tiny()]) == pytest.approx([0.1 * math.sqrt(9 + 4 * float(x @ x))])


@pytest.mark.parametrize("name", PROFILES)
def test_error_share_grows_away_from_what_was_fitted(name: str) -> None:
    pixel = load_device(name)
    wide_kernels = LARGE.map_blocks(lambda b: replace(b, kernel_size=7))
    squeezed = published("mobilenet_v2").map_blocks(
        lambda b: replace(b, activation="hard_swish", squeeze_excite=SqueezeExciteSpec(8))
    )
    networks = [LARGE, wide_kernels, squeezed]
    share = pixel.latency_error_ms(networks) / pixel.latency_ms(networks)
    assert share[1] > 1.1 * share[0]
    assert share[2] > 1.1 * share[0]


@pytest.mark.parametrize("name", PROFILES)
def test_neither_squeeze_excite_nor_h_swish_nor_kernels_are_free(name: str) -> None:
    pixel = load_device(name)
    relu = published("mobilenet_v3_large_relu")
    plain = relu.map_blocks(lambda b: replace(b, squeeze_excite=None))
    small = plain.map_blocks(lambda b: replace(b, kernel_size=3))
    full, without_swish, without_se, without_kernels = pixel.latency_ms([LARGE, relu, plain, small])
    assert full - without_swish > 0.01 * full
    assert without_swish - without_se > 0.03 * full
    assert without_se - without_kernels > 0.01 * full


def test_profiles_speak_for_the_iccv_version() -> None:
    large, small = load_device("pixel1").latency_ms([LARGE, published("mobilenet_v3_small")])
    assert large == pytest.approx(51, rel=0.03)
    assert small == pytest.approx(15.8, rel=0.03)


def _never_raises(before: Architecture, after: Architecture) -> None:
    for name in PROFILES:
        slow, fast = load_device(name).latency_ms([before, after])
        assert fast <= slow + 1e-9


@settings(max_examples=60, deadline=None)
@given(
    index=st.integers(0, 14),
    expanded=st.integers(1, 15),
    network=st.sampled_from(["mobilenet_v3_large", "mobilenet_v2", "mnasnet_a1", "mobilenet_v3_small"]),
)
def test_narrower_expansion_never_raises_latency(index: int, expanded: int, network: str) -> None:
    before = published(network)
    blocks = list(before.blocks)
    index %= len(blocks)
    channels = list(before.in_channels())
    block = blocks[index]
    if not block.has_expansion(channels[index]):
        return  # narrowing it would add an expansion, which is more work
    width = max(channels[index] + 1, block.expanded_channels * expanded // 16)
    blocks[index] = block.resized(channels[index], min(width, block.expanded_channels), block.out_channels)
    _never_raises(before, replace(before, blocks=tuple(blocks)))


@settings(max_examples=40, deadline=None)
@given(index=st.integers(0, 14), out=st.integers(1, 160), classes=st.integers(1, 1000), hidden=st.integers(1, 1280))
def test_narrower_bottleneck_and_head_never_raise_latency(index: int, out: int, classes: int, hidden: int) -> None:
    blocks = list(LARGE.blocks)
    # a bottleneck that meets the next block's width exactly would take its expansion away, or give it one
    width = min(out, blocks[index].out_channels)
    blocks[index] = replace(blocks[index], out_channels=width)
    if index + 1 < len(blocks) and blocks[index + 1].expanded_channels == LARGE.blocks[index].out_channels:
        return
    head = replace(LARGE.head, hidden_channels=hidden)
    _never_raises(LARGE, replace(LARGE, blocks=tuple(blocks), head=head, classes=classes))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 2.0), st.floats(0.1, 2.0))
def test_narrower_network_is_never_slower(one: float, other: float) -> None:
    base = published("mobilenet_v3_large")
    blocks = base.map_blocks(lambda b: replace(b, expansion="always"))
    _never_raises(scale_width(blocks, max(one, other)), scale_width(blocks, min(one, other)))


def test_prices_do_not_depend_on_the_batch() -> None:
    pixel = load_device("pixel1")
    networks = [LARGE, published("mobilenet_v2"), tiny(), LARGE]
    alone = [float(pixel.latency_ms([n])[0]) for n in networks]
    assert pixel.latency_ms(networks).tolist() == alone


def test_units_of_nothing() -> None:
    pixel = device(madds=1.0)
    assert pixel.unit_latency_ms([]).shape == (0,)
    assert len(pixel.unit_latency_ms(units(LARGE))) == 17


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_bad_coefficients_are_refused(bad: float) -> None:
    with pytest.raises(DeviceError, match="hard_swish_elements is"):
        device(hard_swish_elements=bad)
    with pytest.raises(DeviceError, match="fixed_ms is"):
        device(fixed=bad, madds=1.0)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(DeviceError, match="all coefficients are 0"):
        device()
    with pytest.raises(DeviceError, match="has 1 coefficients"):
        EstimatedDevice("toy", 0.0, (1.0,), 0.1, 1.0, IDENTITY)
    with pytest.raises(DeviceError, match=f"must have {SIZE} rows"):
        replace(device(madds=1.0), covariance=IDENTITY[1:])
    with pytest.raises(DeviceError, match="not finite"):
        replace(device(madds=1.0), covariance=((math.nan,) * SIZE, *IDENTITY[1:]))
