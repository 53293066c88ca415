"""This machine as a device: with a runtime whose times are known, and with real ones on tiny networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnv3search.architecture import Activation, Architecture, BlockSpec, SqueezeExciteSpec
from mnv3search.cost.units import Unit, units
from mnv3search.errors import DeviceError, MeasurementError, UnknownNameError
from mnv3search.families import published
from mnv3search.latency.assembled import assembled_networks
from mnv3search.latency.calibration import entering_elements, fit
from mnv3search.latency.keys import unit_key
from mnv3search.latency.measure import MeasuringPlan
from mnv3search.latency.model import Device, Preparable, UnitLatencyModel
from mnv3search.latency.runtimes import CallSession, Runtime, Session, Subject, load_runtime
from mnv3search.latency.runtimes.base import Image, Precision
from mnv3search.latency.table_device import TableDevice

QUICK = MeasuringPlan(rounds=40, min_seconds=0, warmup=1)
REFERENCE = published("mobilenet_v3_small", resolution=32)


def variants(count: int, seed: int = 0, resolution: int = 32) -> list[Architecture]:
    """V3-Small with other kernels, widths, activations and squeeze-excites."""
    rng = np.random.default_rng(seed)

    def change(block: BlockSpec) -> BlockSpec:
        expanded = block.expanded_channels + 8 * int(rng.integers(0, 12))
        se = SqueezeExciteSpec(8 * int(rng.integers(1, 4))) if rng.random() < 0.5 else None
        activation: Activation = "relu" if rng.random() < 0.5 else "hard_swish"
        kernel = int(rng.choice((3, 5, 7)))
        return replace(block, kernel_size=kernel, expanded_channels=expanded, activation=activation, squeeze_excite=se)

    base = published("mobilenet_v3_small", resolution=resolution)
    return [base.map_blocks(change) for _ in range(count)]


def tiny(count: int, seed: int = 0) -> list[Architecture]:
    """The first five blocks of the variants."""
    return [replace(a, blocks=a.blocks[:5], head=replace(a.head, hidden_channels=None)) for a in variants(count, seed)]


def parts_of(architectures: Sequence[Architecture]) -> list[Unit]:
    return list(dict.fromkeys(unit for a in architectures for unit in units(a)))


def true_ms(unit: Unit) -> float:
    """A made-up machine: milliseconds of a unit inside a network."""
    spec = unit.spec
    widths = spec.expanded_channels + spec.out_channels if isinstance(spec, BlockSpec) else 100
    return 1e-3 * unit.in_size * (unit.in_channels + widths) + 0.01


class KnownRuntime:
    """Times that follow a rule: units alone take a quarter longer, and 2 ns for each element that enters them."""

    name = "known"
    version = "1"
    threads = 1
    precision: Precision = "fp32"

    def __init__(self, pace: Callable[[int], float] = lambda _: 1.0, stop_after: int | None = None) -> None:
        self.prepared: list[Subject] = []
        self.calls = 0
        self.pace, self.stop_after = pace, stop_after

    def prepare(self, subject: Subject) -> Session:
        self.prepared.append(subject)
        if isinstance(subject, Architecture):
            ms = sum(true_ms(unit) for unit in units(subject))
        else:
            ms = 1.25 * true_ms(subject) + 2e-6 * float(entering_elements([subject])[0])
        return KnownSession(self, ms)


class KnownSession:
    def __init__(self, runtime: KnownRuntime, ms: float) -> None:
        self.runtime, self.ms = runtime, ms

    def time_once(self) -> float:
        self.runtime.calls += 1
        if self.runtime.calls == self.runtime.stop_after:
            raise KeyboardInterrupt
        return self.ms * 1e-3 * self.runtime.pace(self.runtime.calls)

    def output(self) -> Image:
        return np.ones((1, 1), dtype=np.float32)


def known_device(runtime: Runtime, tmp_path: Path, plan: MeasuringPlan = QUICK) -> TableDevice:
    return TableDevice(runtime, cache_dir=tmp_path, plan=plan, reference=REFERENCE)


def test_known_times_are_recovered_through_drift(tmp_path: Path) -> None:
    runtime = KnownRuntime(pace=lambda call: 1 + 0.3 * np.sin(call / 4000))
    device = known_device(runtime, tmp_path)
    seen, unseen = variants(12), variants(6, seed=1)
    device.prepare(parts_of([*seen, *unseen]))
    truth = np.array([sum(true_ms(unit) for unit in units(a)) for a in unseen])
    level = device.table.level_ms / sum(true_ms(unit) for unit in units(REFERENCE))
    np.testing.assert_allclose(device.latency_ms(unseen), truth * level, rtol=0.03)
    assert device.calibration.networks == 12
    assert device.calibration.relative_std < 0.02


def test_latency_is_the_sum_of_its_units_and_the_protocols_hold(tmp_path: Path) -> None:
    device = known_device(KnownRuntime(), tmp_path)
    assert isinstance(device, UnitLatencyModel)
    assert isinstance(device, Device)
    assert isinstance(device, Preparable)
    assert device.kind == "table"
    some = variants(3)
    latency = device.latency_ms(some)
    assert latency.shape == (3,)
    sums = [device.fixed_ms + device.unit_latency_ms(units(a)).sum() for a in some]
    np.testing.assert_allclose(latency, sums, rtol=1e-12)
    assert (device.unit_latency_ms(parts_of(some)) >= 0).all()
    assert device.latency_ms([]).shape == (0,)
    assert device.latency_error_ms([]).shape == (0,)


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    some = variants(12)
    first = known_device(KnownRuntime(), tmp_path)
    first.prepare(parts_of(some))
    expected = first.latency_ms(some)
    runtime = KnownRuntime()
    again = known_device(runtime, tmp_path)
    again.prepare(parts_of(some))
    np.testing.assert_allclose(again.latency_ms(some), expected, rtol=1e-12)
    assert runtime.prepared == []
    new = variants(1, seed=9)
    again.latency_ms(new)
    unknown = set(parts_of(new)) - set(parts_of(some))
    assert unknown
    assert {unit for unit in runtime.prepared if isinstance(unit, Unit)} == unknown
    np.testing.assert_allclose(again.latency_ms(some), expected, rtol=1e-12)  # later sittings move no price


@pytest.mark.parametrize("stop_after", [5, 700, 3_000])
def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path: Path, stop_after: int) -> None:
    some = variants(12)
    whole = KnownRuntime()
    known_device(whole, tmp_path / "whole").prepare(parts_of(some))
    stopped = KnownRuntime(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        known_device(stopped, tmp_path).prepare(parts_of(some))
    runtime = KnownRuntime()
    device = known_device(runtime, tmp_path)
    kept = device.table.rounds_of(unit_key(units(some[0])[0]))
    items = len(whole.prepared) - 1
    calls_a_round = items + -(-items // QUICK.slot_size)
    assert kept == max(0, stop_after - 1 - (items + 1)) // calls_a_round
    assert (kept > 0) == (stop_after > 5)
    device.prepare(parts_of(some))
    assert {device.table.rounds_of(unit_key(unit)) for unit in parts_of(some)} == {40}
    assert runtime.calls == whole.calls - kept * calls_a_round


def test_networks_whose_units_are_missing_calibrate_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.latency.sitting.MAX_SESSIONS", 40)
    some = variants(12)
    stopped = KnownRuntime(stop_after=3_000)  # in the second of the batches; the networks stand in the first
    with pytest.raises(KeyboardInterrupt):
        known_device(stopped, tmp_path).prepare(parts_of(some))
    device = known_device(KnownRuntime(), tmp_path)
    assert sum(device.table.rounds_of(key) == 40 for key in device.table.networks) == 12
    alone = published("mobilenet_v3_small", resolution=32)
    assert device.latency_ms([alone])[0] == pytest.approx(sum(true_ms(unit) for unit in units(alone)), rel=0.05)


def test_too_slow_a_measurement_keeps_its_rounds(tmp_path: Path) -> None:
    some = variants(2)
    device = known_device(KnownRuntime(), tmp_path, replace(QUICK, max_seconds=0.0))
    with pytest.raises(MeasurementError, match="they are kept"):
        device.prepare(parts_of(some))
    assert known_device(KnownRuntime(), tmp_path).table.rounds_of(unit_key(units(some[0])[0])) > 0


def test_progress_runs_from_first_to_last(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    device = known_device(KnownRuntime(), tmp_path)
    device.prepare(parts_of(variants(12)), lambda *step: told.append(step))
    done = [step[0] for step in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1]
    assert "known" in told[0][2]
    told.clear()
    device.measure(variants(2), lambda *step: told.append(step))
    assert told[-1][0] == told[-1][1] == 2 * 41


def test_the_error_depends_on_the_architecture_and_grows_away_from_the_calibration(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    device = known_device(KnownRuntime(pace=lambda _: 1 + 0.05 * noise.random()), tmp_path)
    near, far = variants(12), variants(1, resolution=96)
    device.prepare(parts_of(near))
    error = device.latency_error_ms([*near, *far]) / device.latency_ms([*near, *far])
    assert (error > 0).all()
    assert len(set(np.round(error, 6))) > 6
    assert error[-1] > 1.5 * np.median(error[:-1])


def test_minimum_as_the_statistic(tmp_path: Path) -> None:
    some = variants(12)
    calls = np.random.default_rng(0)
    runtime = KnownRuntime(pace=lambda _: 1.0 if calls.random() < 0.3 else 1.5)
    median = known_device(runtime, tmp_path)
    median.prepare(parts_of(some))
    minimum = TableDevice(KnownRuntime(), cache_dir=tmp_path, plan=QUICK, reference=REFERENCE, statistic="minimum")
    truth = [sum(true_ms(unit) for unit in units(a)) for a in some]
    np.testing.assert_allclose(minimum.latency_ms(some), truth, rtol=0.02)
    np.testing.assert_allclose(median.latency_ms(some), 1.5 * np.array(truth), rtol=0.05)


def test_whole_networks_are_measured_against_the_reference(tmp_path: Path) -> None:
    runtime = KnownRuntime(pace=lambda call: 1.0 if call < 200 else 2.0)
    some = variants(3)
    found = known_device(runtime, tmp_path).measure(some)
    truth = [sum(true_ms(unit) for unit in units(a)) for a in some]
    reference = sum(true_ms(unit) for unit in units(REFERENCE))
    assert [one.architecture for one in found] == some
    ratios = [one.latency_ms / one.reference_ms for one in found]
    np.testing.assert_allclose(ratios, np.array(truth) / reference, rtol=0.02)
    np.testing.assert_allclose([one.minimum_ms for one in found], truth, rtol=0.02)
    assert {one.rounds for one in found} == {40}
    assert known_device(runtime, tmp_path).measure([]) == []
    with pytest.raises(DeviceError, match="at most 400"):
        known_device(runtime, tmp_path).measure(some * 200)


def test_few_units_are_calibrated_on_published_networks_and_once(tmp_path: Path) -> None:
    runtime = KnownRuntime()
    device = known_device(runtime, tmp_path)
    assert device.latency_ms([published("mobilenet_v1")])[0] > 0
    assert published("mobilenet_v2") in runtime.prepared
    runtime.prepared.clear()
    device.latency_ms([published("efficientnet_lite0")])
    assert [s for s in runtime.prepared if isinstance(s, Architecture)] == [REFERENCE]


def test_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        TableDevice("onnxrt", cache_dir=tmp_path)
    assert known_device(KnownRuntime(), tmp_path).name == "host:known"


def test_a_damaged_table_is_said_when_the_device_is_made(tmp_path: Path) -> None:
    device = known_device(KnownRuntime(), tmp_path)
    device.prepare(parts_of(variants(1)))
    device.path.write_text(device.path.read_text()[:100])
    with pytest.raises(DeviceError, match="cut short"):
        known_device(KnownRuntime(), tmp_path)


def test_assembled_networks_are_made_of_the_units() -> None:
    some = variants(8)
    parts = parts_of(some)
    found = assembled_networks(parts, 10)
    assert len(set(found)) == 10
    assert all(set(units(a)) <= set(parts) for a in found)
    assert found == assembled_networks(parts, 10)
    blocks_alone = [unit for unit in parts if isinstance(unit.spec, BlockSpec)]
    assert assembled_networks(blocks_alone, 3) == []
    assert assembled_networks([], 3) == []


def test_calibration_by_hand() -> None:
    sums, elements = np.array([1.0, 2.0, 3.0, 4.0, 2.5]), np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    exact = fit(sums, elements, 0.8 * sums - 0.01 * elements)
    assert exact.scale == pytest.approx(0.8)
    assert exact.boundary_ms == pytest.approx(0.01)
    assert exact.relative_std == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(exact.price(np.array([1.0, 0.001]), np.array([5.0, 9.0])), [0.75, 0.0])
    plain = fit(sums, elements, 0.9 * sums + 0.01 * elements)  # more inside than alone: no boundary then
    assert plain.boundary_ms == 0
    # the scale alone: least squares on relative errors, so Σ s/y over Σ (s/y)²
    x = sums / (0.9 * sums + 0.01 * elements)
    assert plain.scale == pytest.approx(x.sum() / (x**2).sum())
    with pytest.raises(MeasurementError, match="at least 5"):
        fit(sums[:4], elements[:4], sums[:4])


def test_held_out_error_is_that_of_refitting_without_each_network() -> None:
    rng = np.random.default_rng(0)
    sums, elements = rng.uniform(5, 10, 12), rng.uniform(1, 9, 12)
    measured = (0.8 * sums - 0.01 * elements) * (1 + 0.02 * rng.standard_normal(12))
    errors = []
    for index in range(12):
        others = np.arange(12) != index
        one = fit(sums[others], elements[others], measured[others])
        predicted = one.scale * sums[index] - one.boundary_ms * elements[index]
        errors.append(predicted / measured[index] - 1)
    assert fit(sums, elements, measured).relative_std == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)


def test_medians_are_predicted_by_one_factor_over_the_minima() -> None:
    sums, elements = np.array([1.0, 2.0, 3.0, 4.0, 2.5]), np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    minimum = 0.8 * sums - 0.01 * elements
    found = fit(sums, elements, minimum, minimum * np.array([1.1, 1.1, 1.1, 1.1, 1.21]))
    assert found.usual_to_minimum == pytest.approx(1.1)
    assert found.scale == pytest.approx(0.88)
    assert found.boundary_ms == pytest.approx(0.011)
    # the last network is predicted 1.1 / 1.21 of what it takes, the others exactly
    assert found.relative_std == pytest.approx((1 - 1.1 / 1.21) / np.sqrt(5))


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_real_networks_are_measured_priced_and_kept(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name)
    calibrating, some = tiny(5), tiny(2, seed=4)
    device = TableDevice(
        load_runtime(name), cache_dir=tmp_path, plan=replace(QUICK, rounds=6), reference=tiny(1)[0],
        calibrate_on=calibrating,
    )  # fmt: skip
    priced = device.latency_ms(some)
    measured = np.array([one.latency_ms for one in device.measure(some)])
    assert np.isfinite(priced).all()
    assert (priced > 0).all()
    # the same networks, summed and whole: of one size even on a machine that does much else
    assert 0.1 < np.median(priced / measured) < 10
    assert (device.latency_error_ms(some) > 0).all()
    before = device.path.read_bytes()
    again = TableDevice(
        load_runtime(name), cache_dir=tmp_path, plan=replace(QUICK, rounds=6), reference=tiny(1)[0],
        calibrate_on=calibrating,
    )  # fmt: skip
    np.testing.assert_allclose(again.latency_ms(some), priced, rtol=1e-12)
    assert device.path.read_bytes() == before


def test_a_real_session_is_interrupted_and_resumed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    inner, left = load_runtime("onnxruntime"), [400]

    class Interrupted:
        name, version, threads, precision = inner.name, inner.version, 1, inner.precision

        def prepare(self, subject: Subject) -> Session:
            session = inner.prepare(subject)

            def call() -> None:
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                session.time_once()

            return CallSession(call, lambda: np.ones((1, 1), dtype=np.float32))

    calibrating = tiny(5)
    plan = replace(QUICK, rounds=20)

    def device() -> TableDevice:
        return TableDevice(
            Interrupted(), cache_dir=tmp_path, plan=plan, reference=calibrating[0], calibrate_on=calibrating
        )

    with pytest.raises(KeyboardInterrupt):
        device().prepare(parts_of(calibrating))
    resumed = device()
    kept = resumed.table.rounds_of(unit_key(units(calibrating[0])[0]))
    assert 0 < kept < 20
    resumed.prepare(parts_of(calibrating))
    assert resumed.table.rounds_of(unit_key(units(calibrating[0])[0])) == 20
    assert (resumed.latency_ms(calibrating) > 0).all()
