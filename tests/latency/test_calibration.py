"""From the times of units alone to those of networks: what the fit finds, says of its error, and refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from latency_fakes import alone_ms, parts_of, tiny, variants, whole_ms

from mnv3search.architecture import Architecture
from mnv3search.errors import MeasurementError
from mnv3search.families import published
from mnv3search.latency.measured.calibration import Calibration, entering_elements, fit
from mnv3search.latency.measured.measuring import FloatArray
from mnv3search.layers import Unit, units


def alone_of(parts: Sequence[Unit]) -> FloatArray:
    return np.array([alone_ms(unit) for unit in parts])


def mixed(count: int) -> list[Architecture]:
    """Variants at three resolutions: what enters their units is then no fixed share of their times."""
    return [variants(1, seed=i, resolution=(96, 160, 224)[i % 3])[0] for i in range(count)]


def fitted(networks: Sequence[Architecture], latency_ms: FloatArray) -> Calibration:
    parts = [units(a) for a in networks]
    return fit(parts, [alone_of(p) for p in parts], latency_ms)


def predicted(model: Calibration, network: Architecture) -> float:
    parts = units(network)
    return model.fixed_ms + float(model.price(parts, alone_of(parts)).sum())


def relative_error(model: Calibration, network: Architecture) -> float:
    parts = units(network)
    return model.relative_error(parts, alone_of(parts), predicted(model, network))


def test_entering_elements_by_hand() -> None:
    stem, block, *_, head = units(published("mobilenet_v3_small", resolution=32))
    assert entering_elements([stem]).tolist() == [0]  # reads the image
    assert entering_elements([block]).tolist() == [16 * 16 * 16]  # 16 channels of half the resolution
    assert entering_elements([head]).tolist() == [96]  # 96 channels of one pixel
    assert entering_elements([]).shape == (0,)


def test_scale_and_boundary_are_found_where_no_correction_is_needed() -> None:
    some = mixed(24)
    model = fitted(some, whole_ms(some))
    # alone = 1.25 · true + 2e-6 · elements, so true = 0.8 · alone - 1.6e-6 · elements
    # the priors share a little of it among the sizes, and give some to what a network's call costs
    assert model.scale == pytest.approx(0.8, rel=0.01)
    assert model.boundary_ms == pytest.approx(1.6e-6, rel=0.1)
    assert model.relative_std < 2e-4
    assert model.networks == 24
    unseen = variants(6, seed=100, resolution=128)
    np.testing.assert_allclose([predicted(model, a) for a in unseen], whole_ms(unseen), rtol=2e-3)


def test_times_alone_that_add_up_need_neither_boundary_nor_corrections() -> None:
    some = mixed(12)
    alone = [alone_of(units(a)) for a in some]
    model = fitted(some, np.array([ms.sum() for ms in alone]))
    assert model.scale == pytest.approx(1, abs=1e-9)
    assert model.boundary_ms == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(model.price(units(some[0]), alone[0]), alone[0], rtol=1e-9)


def test_what_a_call_costs_is_paid_once_by_a_network_and_by_every_unit_alone() -> None:
    """Networks of few layers tell what a call costs; without it they come out too short, and long ones too long."""
    call_ms = 0.02
    large, small = variants(24), tiny(8)
    some, unseen = [*large, *small], [*variants(4, seed=1), *tiny(4, seed=1)]
    parts = [units(a) for a in some]
    model = fit(parts, [alone_of(p) + call_ms for p in parts], whole_ms(some) + 3 * call_ms)  # the caches are cold
    assert model.call_ms == pytest.approx(call_ms, rel=0.3)
    assert model.fixed_ms == pytest.approx(3 * call_ms, rel=0.3)
    for network in unseen:
        of_it = units(network)
        found = model.fixed_ms + float(model.price(of_it, alone_of(of_it) + call_ms).sum())
        assert found == pytest.approx(whole_ms([network])[0] + 3 * call_ms, rel=0.03)


def test_the_stated_error_is_that_of_networks_of_that_size() -> None:
    """Small networks that scatter more than large ones are said to."""
    noise = np.random.default_rng(0)
    large, small = variants(24, resolution=64), tiny(8)
    latency = np.append(whole_ms(large), whole_ms(small) * (1 + 0.08 * noise.standard_normal(8)))
    model = fitted([*large, *small], latency)
    of_large = relative_error(model, variants(1, seed=3, resolution=64)[0])
    assert relative_error(model, tiny(1, seed=3)[0]) > 1.5 * of_large


def test_boundary_is_never_below_0() -> None:
    some = variants(12)
    elements = np.array([entering_elements(units(a)).sum() for a in some])
    alone = np.array([alone_of(units(a)).sum() for a in some])
    # more inside than alone, for each element: the scale has to do
    model = fitted(some, 0.9 * alone + 1e-5 * elements)
    assert model.boundary_ms == 0
    assert model.scale > 0.9


def test_a_boundary_saves_at_most_three_quarters_of_a_unit() -> None:
    some = mixed(24)
    model = fitted(some, whole_ms(some))
    block = units(some[0])[1]
    (price,) = model.price([block], np.array([1e-6]))  # it has far more elements than such a time can save
    assert price == pytest.approx(0.25 * 0.8e-6, rel=0.05)
    assert model.price([], np.zeros(0)).shape == (0,)


def test_prices_sum_to_the_networks_where_boundaries_outweigh_units() -> None:
    """What a unit cannot save must not be saved in the fit either, or every sum comes out too long."""
    some = mixed(24)

    def saved(network: Architecture) -> float:
        parts = units(network)
        alone = alone_of(parts)
        return float(np.maximum(alone - 6e-6 * entering_elements(parts), 0.25 * alone).sum())

    model = fitted(some, np.array([saved(a) for a in some]))
    ratios = [predicted(model, a) / saved(a) for a in some]
    assert np.mean(ratios) == pytest.approx(1, abs=0.005)


def test_elements_beyond_what_a_unit_can_save_add_no_error() -> None:
    some = mixed(24)
    model = fitted(some, np.array([float((alone_of(p) - 6e-6 * entering_elements(p)).sum()) for p in map(units, some)]))
    assert model.boundary_ms > 0
    block, short = units(some[0])[1], np.array([1e-3])
    one, other = (block._replace(in_channels=width) for width in (961, 1922))  # no network of the fit has them
    error = model.relative_error([one], short, 1.0)
    assert model.relative_error([other], short, 1.0) == pytest.approx(error, rel=1e-9)
    assert model.relative_error([other], 1e6 * short, 1.0) > error


def test_a_kind_that_differs_is_corrected() -> None:
    def latency(network: Architecture) -> float:
        parts = units(network)
        dear = [1.1 if getattr(u.spec, "activation", "") == "hard_swish" else 1.0 for u in parts]
        return float((alone_of(parts) * dear).sum())

    some, unseen = variants(40), variants(20, seed=1)
    model = fitted(some, np.array([latency(a) for a in some]))
    found = np.array([predicted(model, a) / latency(a) for a in unseen])
    one_factor = np.array([alone_of(units(a)).sum() / latency(a) for a in unseen])
    assert np.std(found) < 0.25 * np.std(one_factor)


def test_held_out_error_is_that_of_refitting_without_each_network() -> None:
    some = mixed(10)
    measured = whole_ms(some) * (1 + 0.002 * np.random.default_rng(0).standard_normal(10))
    errors = []
    for index in range(10):
        others = [i for i in range(10) if i != index]
        without = fitted([some[i] for i in others], measured[others])
        assert without.boundary_ms > 0
        errors.append(predicted(without, some[index]) / measured[index] - 1)
    assert fitted(some, measured).relative_std == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)


def test_unseen_units_raise_the_stated_error() -> None:
    some = variants(12)
    model = fitted(some, whole_ms(some))
    seen = relative_error(model, some[0])
    blocks = list(some[0].blocks)
    errors = []
    for changed in (1, 4, 8):  # so many blocks that no network of the fit had
        other = [replace(b, expanded_channels=b.expanded_channels + 4) for b in blocks[:changed]]
        network = replace(some[0], blocks=tuple(other + blocks[changed:]))
        assert len(set(parts_of([network])) - set(parts_of(some))) == changed
        errors.append(relative_error(model, network))
    assert seen < errors[0] < errors[1] < errors[2]
    assert relative_error(model, published("mobilenet_v1")) > errors[0]


def test_unseen_units_are_independent_of_one_another_by_hand() -> None:
    some = variants(12)
    model = fitted(some, whole_ms(some))
    one, other = (units(replace(some[0], stem=replace(some[0].stem, out_channels=width)))[0] for width in (24, 40))
    single, halves = (model.relative_error(parts, np.array([0.5, 0.5]), 1.0) for parts in ([one, one], [one, other]))
    # alike but for their own corrections, of 5 % each: 0.05² of one that is all, 2 · 0.025² of two halves
    assert single**2 - halves**2 == pytest.approx(0.05**2 - 2 * 0.025**2)


def test_noise_above_what_is_expected_widens_the_stated_error() -> None:
    some = variants(24)
    noise = np.random.default_rng(0).standard_normal(24)
    errors = [relative_error(fitted(some, whole_ms(some) * (1 + share * noise)), some[0]) for share in (0, 0.03, 0.1)]
    assert errors[0] < errors[1] < errors[2]
    assert errors[2] > 2.5 * errors[1]


def test_stated_errors_cover_networks_that_were_not_fitted() -> None:
    """Units that differ by what the prior supposes, networks timed as well as it supposes: 95 % intervals hold."""
    within = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        train, test = variants(24, seed=2 * seed), variants(12, seed=2 * seed + 1)
        own = {unit: 1 + 0.05 * rng.standard_normal() for unit in parts_of([*train, *test])}

        def latency(network: Architecture, own: dict[Unit, float] = own, rng: np.random.Generator = rng) -> float:
            true = sum(own[unit] * (0.8 * alone_ms(unit)) for unit in units(network))
            return float(true * (1 + 0.008 * rng.standard_normal()))

        model = fitted(train, np.array([latency(a) for a in train]))
        for network in test:
            ms = predicted(model, network)
            within.append(abs(latency(network) - ms) < 1.96 * relative_error(model, network) * ms)
    assert np.mean(within) >= 0.93


def test_too_few_networks_are_refused() -> None:
    some = variants(4)
    with pytest.raises(MeasurementError, match=r"4 whole networks cannot calibrate.*at least 5"):
        fitted(some, whole_ms(some))


def test_times_that_do_not_add_up_are_refused() -> None:
    some = variants(6)
    with pytest.raises(MeasurementError, match="do not grow"):
        fitted(some, -whole_ms(some))
