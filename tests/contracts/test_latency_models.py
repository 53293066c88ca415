"""What every latency model must keep to; a model joins by being added to ``DEVICES``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.families import published
from mnv3search.latency.devices import load_device
from mnv3search.latency.fitted.device import fit_whole_networks
from mnv3search.latency.fitted.unit_prices import fit_prices
from mnv3search.latency.keys import unit_key
from mnv3search.latency.layer_files.imported import ImportedDevice, WholeTime
from mnv3search.latency.model import Device, LatencyModel, UnitLatencyModel
from mnv3search.layers import units
from mnv3search.space import load_space


def fitted_device() -> Device:
    """To whole networks of a space."""
    networks = load_space("ofa_mbv3").sample(12, 0)
    return fit_whole_networks(networks, load_device("pixel1").latency_ms(networks).tolist(), "fitted").device


def imported_device() -> Device:
    """Of a space's layers, a fifth too slow alone, and a few of its networks."""
    true, parts = load_device("pixel1"), load_space("ofa_mbv3").all_units()
    assert isinstance(true, UnitLatencyModel)
    alone = 1.2 * true.unit_latency_ms(parts)
    whole = load_space("ofa_mbv3").sample(8, 0)
    timed = zip(whole, true.latency_ms(whole).tolist(), strict=True)
    times = dict(zip(map(unit_key, parts), alone.tolist(), strict=True))
    near = fit_prices([(unit,) for unit in parts], alone)
    return ImportedDevice("imported", times, tuple(WholeTime(a, ms) for a, ms in timed), near, 1.0)


DEVICES: dict[str, Callable[[], Device]] = {
    name: partial(load_device, name) for name in ("pixel1", "pixel2", "pixel3", "roofline:10,5")
} | {"fitted": fitted_device, "imported": imported_device}
NETWORKS = (
    published("mobilenet_v3_large"),
    published("mobilenet_v3_small", 0.5, 96),
    published("mobilenet_v2"),
    published("mobilenet_v1"),
    published("mobilenet_v3_large_xiaolai"),
    published("efficientnet_b0"),
    Architecture(StemSpec(1, 1, 1), (BlockSpec(1, 1, 1),), HeadSpec(None), resolution=1, classes=1),
)


@pytest.fixture(params=DEVICES, scope="module")
def device(request: pytest.FixtureRequest) -> Device:
    return DEVICES[request.param]()


@pytest.fixture
def by_units(device: Device) -> UnitLatencyModel:
    if not isinstance(device, UnitLatencyModel):
        pytest.skip("prices whole networks only")
    return device


class TestLatencyModel:
    def test_is_one(self, device: Device) -> None:
        assert isinstance(device, LatencyModel)

    def test_one_positive_finite_figure_for_each_network(self, device: Device) -> None:
        latency = device.latency_ms(NETWORKS)
        assert latency.shape == (len(NETWORKS),)
        assert latency.dtype == np.float64
        assert np.all(np.isfinite(latency))
        assert np.all(latency > 0)

    def test_keeps_the_order(self, device: Device) -> None:
        forward, backward = device.latency_ms(NETWORKS), device.latency_ms(NETWORKS[::-1])
        assert forward.tolist() == backward[::-1].tolist()

    def test_is_deterministic_and_independent_of_the_batch(self, device: Device) -> None:
        together = device.latency_ms(NETWORKS).tolist()
        assert device.latency_ms(list(NETWORKS)).tolist() == together
        assert [device.latency_ms([n])[0] for n in NETWORKS] == together

    def test_nothing_asked_nothing_answered(self, device: Device) -> None:
        assert device.latency_ms([]).shape == (0,)

    def test_larger_networks_take_longer(self, device: Device) -> None:
        sizes = [published("mobilenet_v3_large", width, size) for width, size in ((0.5, 128), (1.0, 224), (1.4, 288))]
        assert np.all(np.diff(device.latency_ms(sizes)) > 0)


class TestUnitLatencyModel:
    def test_latency_is_fixed_plus_the_sum_of_its_units(self, by_units: UnitLatencyModel) -> None:
        for network in NETWORKS:
            expected = by_units.fixed_ms + by_units.unit_latency_ms(units(network)).sum()
            assert by_units.latency_ms([network])[0] == pytest.approx(expected, rel=1e-12)

    def test_units_are_never_negative(self, by_units: UnitLatencyModel) -> None:
        assert by_units.fixed_ms >= 0
        for network in NETWORKS:
            prices = by_units.unit_latency_ms(units(network))
            assert prices.shape == (len(network.blocks) + 2,)
            assert np.all(prices >= 0)

    def test_equal_units_have_one_price(self, by_units: UnitLatencyModel) -> None:
        unit = units(NETWORKS[0])[3]
        prices = by_units.unit_latency_ms([unit, *units(NETWORKS[2]), unit])
        assert prices[0] == prices[-1]

    def test_no_units_no_prices(self, by_units: UnitLatencyModel) -> None:
        assert by_units.unit_latency_ms([]).shape == (0,)


class TestDevice:
    def test_is_one_with_a_name_and_a_kind(self, device: Device, request: pytest.FixtureRequest) -> None:
        assert isinstance(device, Device)
        assert device.name in request.node.name
        assert device.kind in ("estimated", "table", "measured")

    def test_states_a_positive_finite_error_for_each_network(self, device: Device) -> None:
        error = device.latency_error_ms(NETWORKS)
        assert error.shape == (len(NETWORKS),)
        assert np.all(np.isfinite(error))
        assert np.all(error > 0)
        assert device.latency_error_ms([]).shape == (0,)

    def test_the_error_is_no_fixed_share(self, device: Device) -> None:
        share = device.latency_error_ms(NETWORKS) / device.latency_ms(NETWORKS)
        assert share.max() > 1.05 * share.min()
