"""Prices between measured widths: on lines, on curves, on stairs, and in a device that layer search asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency_fakes import KnownRuntime, KnownSession, known_device, tiny, variants

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, SqueezeExciteSpec, StemSpec
from mnv3search.cost.units import Unit, units
from mnv3search.errors import DeviceError
from mnv3search.latency.keys import unit_key
from mnv3search.latency.measured.interpolation import (
    Axis,
    BetweenWidths,
    PricesNarrowed,
    at_width,
    axes,
    grid_neighbours,
    interpolated,
    width_of,
)
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.runtimes import Session, Subject
from mnv3search.layer_search import netadapt

PLAIN = Unit(BlockSpec(3, 240, 24, stride=2), 40, 28)
EXCITED = Unit(BlockSpec(5, 240, 40, squeeze_excite=SqueezeExciteSpec(64)), 40, 28)
SEPARABLE = Unit(BlockSpec(3, 32, 16), 32, 112)
STEM = Unit(StemSpec(16), 3, 224)
HEAD = Unit(HeadSpec(960, 1280), 160, 7, classes=1000)

Shape = Callable[[int], float]


def smooth(width: int) -> float:
    return 0.05 + 0.002 * width


def curved(width: int) -> float:
    return 0.05 + 0.002 * width + 1e-6 * width**2


def stairs(width: int) -> float:
    return smooth(math.ceil(width / 16) * 16)


def high_stairs(width: int) -> float:
    return smooth(math.ceil(width / 32) * 32)


def saw(width: int) -> float:
    """Slower at the odd multiples of 8 than at the next even one."""
    return smooth(width) * (1.15 if width % 16 else 1.0)


def measured(unit: Unit, widths: Sequence[int], shape: Shape, axis: Axis = "expanded") -> dict[Unit, float]:
    return {of(unit, axis, width): shape(width) for width in widths}


def of(unit: Unit, axis: Axis, width: int) -> Unit:
    found = at_width(unit, axis, width)
    assert found is not None
    return found


def test_axes_follow_what_narrowing_changes() -> None:
    assert axes(PLAIN) == ("expanded", "out", "in")
    assert axes(EXCITED) == ("expanded", "bottleneck")  # the residual ties its two ends
    assert axes(SEPARABLE) == ("out", "in")
    assert axes(STEM) == ("out",)
    assert axes(HEAD) == ("in",)
    fixed = EXCITED._replace(spec=BlockSpec(5, 240, 40, squeeze_excite=SqueezeExciteSpec(32)))
    assert axes(fixed) == ()  # its squeeze-excite does not follow from its widths


def test_families_are_what_narrowing_makes() -> None:
    narrow = of(EXCITED, "expanded", 64)
    assert narrow == Unit(BlockSpec(5, 64, 40, squeeze_excite=SqueezeExciteSpec(16)), 40, 28)
    assert of(EXCITED, "bottleneck", 24) == Unit(BlockSpec(5, 240, 24, squeeze_excite=SqueezeExciteSpec(64)), 24, 28)
    assert of(SEPARABLE, "in", 24) == Unit(BlockSpec(3, 24, 16), 24, 112)  # the depthwise convolution follows
    assert of(STEM, "out", 8) == Unit(StemSpec(8), 3, 224)
    assert of(HEAD, "in", 120) == HEAD._replace(in_channels=120)


@pytest.mark.parametrize(("axis", "width"), [("expanded", 40), ("expanded", 0), ("out", 0), ("expanded", 70_000)])
def test_families_end_where_the_unit_would_be_of_another_kind(axis: Axis, width: int) -> None:
    assert at_width(PLAIN, axis, width) is None  # 40: an expansion to its own input is none
    joined = PLAIN._replace(spec=BlockSpec(3, 240, 24))
    assert at_width(joined, "out", 40) is None  # a residual would appear


def test_grid_neighbours_are_the_multiples_around() -> None:
    asked = of(PLAIN, "expanded", 120)
    assert grid_neighbours(asked, 32) == (of(PLAIN, "expanded", 96), of(PLAIN, "expanded", 128))
    assert grid_neighbours(asked, 8) == (asked, asked)
    assert grid_neighbours(PLAIN, 16, "in") == (of(PLAIN, "in", 32), of(PLAIN, "in", 48))
    assert grid_neighbours(of(PLAIN, "expanded", 8), 32) is None  # nothing below
    with pytest.raises(DeviceError, match="at least 1"):
        grid_neighbours(asked, 0)


@given(
    widths=st.sets(st.integers(1, 40).map(lambda n: 8 * n), min_size=3, max_size=20),
    asked=st.integers(1, 40).map(lambda n: 8 * n),
    prices=st.lists(st.floats(0.01, 10.0), min_size=20, max_size=20),
)
def test_prices_lie_between_measured_neighbours(widths: set[int], asked: int, prices: list[float]) -> None:
    widths -= {40}  # a block without expansion, of another family
    known = dict(zip((of(PLAIN, "expanded", width) for width in sorted(widths)), prices, strict=False))
    found = interpolated(of(PLAIN, "expanded", asked if asked != 40 else 48), known)
    if found is not None:
        assert min(known.values()) <= found.ms * (1 + 1e-12)
        assert found.ms <= max(known.values()) * (1 + 1e-12)
        assert found.error >= 0


@given(widths=st.sets(st.integers(6, 40).map(lambda n: 8 * n), min_size=3, max_size=20))
def test_measured_widths_keep_their_prices(widths: set[int]) -> None:
    known = measured(PLAIN, sorted(widths), curved)
    assert [interpolated(unit, known) for unit in known] == [(ms, 0.0) for ms in known.values()]


@given(
    widths=st.sets(st.integers(6, 40).map(lambda n: 8 * n), min_size=5, max_size=20),
    rises=st.lists(st.floats(0.0, 1.0), min_size=40, max_size=40),
)
def test_growing_times_stay_so_between_one_pair_of_neighbours(widths: set[int], rises: list[float]) -> None:
    times = 0.1 + np.cumsum(rises)
    known = measured(PLAIN, sorted(widths), lambda width: float(times[width // 8 - 1]))
    narrow, wide = sorted(widths)[0], sorted(widths)[-1]
    for width in range(narrow, wide, 8):
        found = interpolated(of(PLAIN, "expanded", width), known)
        if found is not None:
            assert known[of(PLAIN, "expanded", narrow)] - 1e-9 <= found.ms
            assert found.ms <= known[of(PLAIN, "expanded", wide)] + 1e-9


@pytest.mark.parametrize(("unit", "axis"), [(PLAIN, "expanded"), (PLAIN, "in"), (EXCITED, "bottleneck"), (HEAD, "in")])
def test_straight_times_are_recovered(unit: Unit, axis: Axis) -> None:
    found = interpolated(of(unit, axis, 88), measured(unit, [56, 72, 104, 120], smooth, axis))
    assert found is not None
    assert found.ms == pytest.approx(smooth(88))
    assert found.error == pytest.approx(0, abs=1e-9)


def test_a_curve_departs_by_no_more_than_is_stated() -> None:
    for asked in range(72, 232, 8):
        known = measured(PLAIN, [w for w in range(56, 264, 8) if w != asked], curved)
        found = interpolated(of(PLAIN, "expanded", asked), known)
        assert found is not None
        assert abs(found.ms - curved(asked)) <= found.error * found.ms + 1e-12


@pytest.mark.parametrize("widths", [[64, 72], [64, 72, 80], [96, 104, 112], [16, 64]])
def test_nothing_is_told_without_neighbours_on_both_sides_and_a_third(widths: list[int]) -> None:
    assert interpolated(of(PLAIN, "expanded", 88), measured(PLAIN, widths, smooth)) is None


@pytest.mark.parametrize("shape", [stairs, saw])
def test_stairs_are_not_hidden_by_widths_on_their_edges(shape: Shape) -> None:
    odd = of(PLAIN, "expanded", 88)
    assert interpolated(odd, measured(PLAIN, [64, 80, 96, 112, 128], shape)) is None
    # a width between the edges shows the stair, so the line is too uncertain to be used
    shown = interpolated(odd, measured(PLAIN, [64, 80, 96, 104, 112, 128], shape))
    assert shown is not None
    assert shown.error > 0.03
    assert abs(shown.ms - shape(88)) <= shown.error * shown.ms + 1e-12


@pytest.mark.parametrize("shape", [stairs, saw])
def test_widths_that_stand_alike_on_their_stairs_make_good_lines(shape: Shape) -> None:
    found = interpolated(of(PLAIN, "expanded", 88), measured(PLAIN, [56, 64, 72, 80, 96, 104, 112, 120], shape))
    assert found is not None
    assert found.ms == pytest.approx(shape(88))
    assert found.error < 1e-9


@given(
    widths=st.sets(st.integers(6, 40).map(lambda n: 8 * n), min_size=4, max_size=30),
    asked=st.integers(6, 40).map(lambda n: 8 * n),
    shape=st.sampled_from([stairs, high_stairs]),
)
def test_no_stair_errs_by_more_than_is_stated(widths: set[int], asked: int, shape: Shape) -> None:
    found = interpolated(of(PLAIN, "expanded", asked), measured(PLAIN, sorted(widths - {asked}), shape))
    if found is not None:
        assert abs(found.ms - shape(asked)) <= 1.001 * found.error * found.ms + 1e-9


def test_times_that_are_none_are_refused() -> None:
    for ms in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DeviceError, match="above 0"):
            interpolated(of(PLAIN, "expanded", 88), {PLAIN: ms})


EVERY = [width for width in range(48, 240, 8) if width != 88]


def uneven(width: int) -> float:
    return smooth(width) * (1.01 if width // 8 % 3 == 0 else 1.0)


def test_what_errs_most_is_measured_until_each_network_is_known_well_enough() -> None:
    between = BetweenWidths(unit_error=0.03, network_error=0.003)
    known = measured(PLAIN, EVERY, uneven) | measured(EXCITED, EVERY, uneven)
    first, second = of(PLAIN, "expanded", 88), of(EXCITED, "expanded", 88)
    unknown = of(PLAIN, "expanded", 600)
    assert between.lacking([first, second, unknown, first], known) == [unknown]
    assert first in between
    assert len(between) == 2
    assert 0.003 < between.error_ms([first], [1.0]) < 0.03
    assert between.error_ms([first, second], [1.0, 1.0]) == pytest.approx(
        between.error_ms([first], [1.0]) + between.error_ms([second], [1.0])
    )
    assert set(between.doubtful([([first, second], [1.0, 1.0])])) == {first, second}
    assert between.doubtful([([first, second, unknown], [2.0, 0.1, 0.0])]) == [first]
    assert between.doubtful([([first, second, unknown], [1.0, 1.0, 100.0])]) == []  # too small a part to matter
    between.measured([first])
    assert between.lacking([first], known | {first: 0.2}) == []
    assert between.error_ms([first], [1.0]) == 0


def test_no_line_is_used_before_lines_have_proved_themselves() -> None:
    asked = of(PLAIN, "expanded", 88)
    few = measured(PLAIN, [56, 72, 104, 120], smooth)
    assert interpolated(asked, few) is not None
    assert BetweenWidths().lacking([asked], few) == [asked]
    assert BetweenWidths().lacking([asked], few | measured(EXCITED, range(48, 240, 8), smooth)) == []
    noise = np.random.default_rng(0)
    rough = measured(EXCITED, range(48, 800, 8), lambda width: smooth(width) * math.exp(0.08 * noise.normal()))
    assert BetweenWidths().lacking([asked], few | rough) == [asked]  # good lines were lucky on this machine


class ShapedRuntime(KnownRuntime):
    """Blocks whose times follow their expanded channels by ``shape``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def prepare(self, subject: Subject) -> Session:
        self.prepared.append(subject)
        parts = units(subject) if isinstance(subject, Architecture) else [subject]
        return KnownSession(self, sum(self._ms(unit) for unit in parts))

    def _ms(self, unit: Unit) -> float:
        spec = unit.spec
        middle = self.shape(spec.expanded_channels) if isinstance(spec, BlockSpec) else 0.3
        return middle + 1e-4 * unit.in_channels

    @property
    def measured(self) -> set[Unit]:
        return {subject for subject in self.prepared if isinstance(subject, Unit)}


def interpolating(runtime: KnownRuntime, cache_dir: Path) -> TableDevice:
    device = known_device(runtime, cache_dir)
    device.interpolates = True
    return device


def at_expanded(network: Architecture, width: int) -> Architecture:
    """``network``, the expansion of its last block but one at another width."""
    old = network.blocks[-2]
    assert isinstance(old, BlockSpec)
    new = replace(old, expanded_channels=width, squeeze_excite=None)
    return replace(network, blocks=(*network.blocks[:-2], new, network.blocks[-1]))


NETWORK = variants(1)[0]
MEASURED = [at_expanded(NETWORK, width) for width in range(24, 240, 8) if width != 88]
ASKED = at_expanded(NETWORK, 88)


def test_narrowed_units_are_priced_between_measured_ones_and_not_kept(tmp_path: Path) -> None:
    runtime = ShapedRuntime(smooth)
    device = interpolating(runtime, tmp_path)
    assert isinstance(device, PricesNarrowed)
    device.latency_ms(MEASURED)
    new = units(ASKED)[-3]
    assert new not in runtime.measured
    device.prepare_narrowed(units(ASKED))
    told = float(device.latency_ms([ASKED])[0])
    assert new not in runtime.measured
    assert device.table.rounds_of(unit_key(new)) == 0
    device.prepare(units(ASKED))  # whoever asks plainly gets it measured
    assert new in runtime.measured
    assert new not in device.between
    assert float(device.latency_ms([ASKED])[0]) == pytest.approx(told, rel=1e-3)


def test_what_is_asked_plainly_is_measured(tmp_path: Path) -> None:
    runtime = ShapedRuntime(smooth)
    device = interpolating(runtime, tmp_path)
    device.latency_ms([*MEASURED, ASKED])
    assert units(ASKED)[-3] in runtime.measured
    runtime = ShapedRuntime(smooth)
    device = known_device(runtime, tmp_path / "default")  # and by default also what layer search asks
    device.latency_ms(MEASURED)
    device.prepare_narrowed(units(ASKED))
    assert units(ASKED)[-3] in runtime.measured


def test_stairs_are_measured(tmp_path: Path) -> None:
    runtime = ShapedRuntime(lambda width: 10 * stairs(width) * (1 + 0.1 * (width // 8 % 3)))
    device = interpolating(runtime, tmp_path)
    device.latency_ms([at_expanded(NETWORK, width) for width in range(16, 256, 8) if width != 88])
    device.prepare_narrowed(units(ASKED))
    assert units(ASKED)[-3] in runtime.measured


def test_the_error_of_lines_is_part_of_a_network_s(tmp_path: Path) -> None:
    device = interpolating(ShapedRuntime(uneven), tmp_path)
    device.between.network_error = 1.0
    device.latency_ms(MEASURED)
    device.prepare_narrowed(units(ASKED))
    assert len(device.between) == 1
    before = float(device.latency_error_ms([ASKED])[0])
    line_ms = device.between.error_ms(units(ASKED), device.unit_latency_ms(units(ASKED)).tolist())
    assert 0 < line_ms <= before
    device.between.network_error = 0.0
    device.latency_ms([ASKED])  # nothing may err now
    assert len(device.between) == 0
    assert float(device.latency_error_ms([ASKED])[0]) < before


class Flat:
    """Every network alike: the fastest proposal is kept."""

    cheap = True

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        return [Evaluation(top1=75.0, top1_std=None) for _ in architectures]


def test_layer_search_measures_less_and_ends_where_it_would(tmp_path: Path) -> None:
    seed = tiny(1)[0]
    found = {}
    for interpolates in (False, True):
        runtime = ShapedRuntime(smooth)
        device = known_device(runtime, tmp_path / str(interpolates))
        device.interpolates = interpolates
        device.prepare(units(seed))
        before = len(runtime.measured)
        result = netadapt(seed, device, Flat(), 0.9 * float(device.latency_ms([seed])[0]))
        found[interpolates] = (len(runtime.measured) - before, result.final.architecture)
    assert found[True][0] < found[False][0]
    assert found[True][1] == found[False][1]


def test_widths_are_those_of_their_axis() -> None:
    for unit in (PLAIN, EXCITED, SEPARABLE, STEM, HEAD):
        for axis in axes(unit):
            assert width_of(of(unit, axis, 48), axis) == 48
            assert of(of(unit, axis, 48), axis, width_of(unit, axis)) == unit
