from __future__ import annotations

import math

import numpy as np
import pytest

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.cost import count
from mnv3search.errors import DeviceError
from mnv3search.families import published
from mnv3search.latency.estimated import COMPUTE_ERROR, MEMORY_ERROR, RooflineDevice
from mnv3search.layers import Unit, units

V2 = published("mobilenet_v2")


def block() -> Unit:
    """Expansion 8→16, depthwise 3×3 at 16, projection 16→8, on 10×10, with a residual."""
    return Unit(BlockSpec(3, 16, 8), 8, 10)


def test_compute_bound_block_by_hand() -> None:
    device = RooflineDevice("toy", gmadds_per_s=0.001, gbytes_per_s=1000.0)
    madds = 100 * (8 * 16 + 9 * 16 + 16 * 8)
    assert device.unit_latency_ms([block()]) == pytest.approx([madds / 1e6 * 1e3])


def test_memory_bound_block_by_hand() -> None:
    device = RooflineDevice("toy", gmadds_per_s=1e6, gbytes_per_s=0.001)
    elements = 100 * (8 + 16) + 100 * (16 + 16) + 100 * (16 + 8)
    weights = (8 * 16 + 2 * 16) + (9 * 16 + 2 * 16) + (16 * 8 + 2 * 8)
    assert device.unit_latency_ms([block()]) == pytest.approx([4 * (elements + weights) / 1e6 * 1e3])


def test_each_layer_takes_its_own_bound() -> None:
    # per MAdd 1 ns, per byte 1 ns: pointwise 12,800 MAdds against 4·(2,400 + 160) = 10,240 bytes; the depthwise
    # 14,400 against 4·(3,200 + 176) = 13,504; the projection 12,800 against 4·(2,400 + 144) = 10,176
    fast_memory = RooflineDevice("toy", 1.0, 1.0)
    assert fast_memory.bound_ms(block()) == pytest.approx((0.0128 + 0.0144 + 0.0128, 0.0))
    mixed = RooflineDevice("toy", 1.0, 0.8)  # bytes 1.25 ns: 12,800 and 16,880 and 12,720
    assert mixed.bound_ms(block()) == pytest.approx((0.0128 + 0.0128, 0.01688))


def test_overhead_is_paid_by_every_layer_but_additions() -> None:
    with_overhead = RooflineDevice("toy", 1.0, 1.0, 0.5).unit_latency_ms([block()])
    assert with_overhead - RooflineDevice("toy", 1.0, 1.0).unit_latency_ms([block()]) == pytest.approx([1.5])


def test_a_slow_multiplier_gives_madds_over_speed() -> None:
    device = RooflineDevice("toy", gmadds_per_s=0.01, gbytes_per_s=1e6)
    assert device.latency_ms([V2])[0] == pytest.approx(count(V2).madds / 1e4, rel=1e-4)


def test_error_adds_the_two_bounds_as_independent() -> None:
    device = RooflineDevice("toy", 10.0, 5.0)
    compute, memory = np.sum([device.bound_ms(unit) for unit in units(V2)], axis=0)
    assert compute > 0
    assert memory > 0
    assert device.latency_ms([V2]) == pytest.approx([compute + memory])
    assert device.latency_error_ms([V2]) == pytest.approx([math.hypot(COMPUTE_ERROR * compute, MEMORY_ERROR * memory)])


def test_error_is_no_fixed_share() -> None:
    device = RooflineDevice("toy", 10.0, 5.0)
    deep = Architecture(StemSpec(16), (BlockSpec(7, 960, 512),), HeadSpec(1280), resolution=64)
    thin = Architecture(StemSpec(8), (BlockSpec(3, 8, 8),) * 4, HeadSpec(None), resolution=224, classes=10)
    share = device.latency_error_ms([deep, thin]) / device.latency_ms([deep, thin])
    assert share[1] > share[0] + 0.05


def test_more_speed_or_bandwidth_is_never_slower() -> None:
    base = RooflineDevice("toy", 10.0, 5.0).latency_ms([V2])[0]
    assert RooflineDevice("toy", 20.0, 5.0).latency_ms([V2])[0] < base
    assert RooflineDevice("toy", 10.0, 10.0).latency_ms([V2])[0] < base


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_figures_must_be_positive_and_finite(bad: float) -> None:
    with pytest.raises(DeviceError, match="gmadds_per_s is"):
        RooflineDevice("toy", bad, 1.0)
    with pytest.raises(DeviceError, match="gbytes_per_s is"):
        RooflineDevice("toy", 1.0, bad)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_overhead_must_be_finite_and_at_least_0(bad: float) -> None:
    with pytest.raises(DeviceError, match="overhead_ms_per_layer is"):
        RooflineDevice("toy", 1.0, 1.0, bad)
