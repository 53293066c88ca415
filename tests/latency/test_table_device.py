"""This machine as a device: with a runtime whose times are known, and with real ones on tiny networks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latency_fakes import (
    QUICK,
    REFERENCE,
    KnownRuntime,
    KnownSession,
    known_device,
    parts_of,
    tiny,
    variants,
    whole_ms,
)

from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.errors import DeviceError, MeasurementError, UnknownNameError
from mnv3search.families import published
from mnv3search.latency.keys import network_key, unit_key
from mnv3search.latency.measured.calibration import CALIBRATION_NETWORKS, MIN_NETWORKS, assembled_networks
from mnv3search.latency.measured.measuring import LOOK, WAITED_SPREAD, Round
from mnv3search.latency.measured.table_device import SCALE_NETWORKS, TableDevice
from mnv3search.latency.measured.table_file import TableFile
from mnv3search.latency.measured.whole_networks import MeasuredLatency, disturbed_sentence, measured_latencies
from mnv3search.latency.model import Device, Preparable, UnitLatencyModel, WholeMeasurer
from mnv3search.latency.runtimes.base import CallSession, Image, Session, Subject
from mnv3search.latency.runtimes.registry import load_runtime
from mnv3search.layers import Unit, units


def test_known_times_are_recovered_through_drift(tmp_path: Path) -> None:
    runtime = KnownRuntime(drift=lambda call: 1 + 0.3 * np.sin(call / 4000))
    device = known_device(runtime, tmp_path)
    seen, unseen = variants(12), variants(6, seed=1)
    device.prepare(parts_of([*seen, *unseen]))
    assert device.session_reference is not None
    truth = whole_ms(unseen) * device.session_reference.reference_ms / whole_ms([REFERENCE])[0]
    np.testing.assert_allclose(device.latency_ms(unseen), truth, rtol=0.03)
    assert device.calibration.networks >= CALIBRATION_NETWORKS
    assert device.calibration.relative_std < 0.02
    assert device.session_scale.factor == pytest.approx(1)  # the networks were measured in this process


def test_latency_is_the_sum_of_its_units_and_the_protocols_hold(tmp_path: Path) -> None:
    device = known_device(KnownRuntime(), tmp_path)
    assert isinstance(device, UnitLatencyModel)
    assert isinstance(device, Device)
    assert isinstance(device, Preparable)
    assert isinstance(device, WholeMeasurer)
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
    np.testing.assert_allclose(again.latency_ms(some), expected, rtol=1e-5)
    assert len(runtime.prepared) == len(runtime.networks) == 1 + SCALE_NETWORKS  # beside the reference
    runtime.prepared.clear()
    new = variants(1, seed=9)
    again.latency_ms(new)
    unknown = set(parts_of(new)) - set(parts_of(some))
    assert unknown
    assert {unit for unit in runtime.prepared if isinstance(unit, Unit)} == unknown
    np.testing.assert_allclose(again.latency_ms(some), expected, rtol=1e-5)  # later sessions move no price


@pytest.mark.parametrize("stop_after", [5, 700, 3_000])
def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path: Path, stop_after: int) -> None:
    some = variants(12)
    items = len(parts_of(some))
    stopped = KnownRuntime(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        known_device(stopped, tmp_path).prepare(parts_of(some))
    runtime = KnownRuntime()
    device = known_device(runtime, tmp_path)
    kept = device.table.rounds_of(unit_key(units(some[0])[0]))
    calls_a_round = items + -(-items // QUICK.slot_size)
    assert kept == max(0, stop_after - 1 - (items + 1)) // calls_a_round
    assert (kept > 0) == (stop_after > 5)
    device.prepare(parts_of(some))
    assert {device.table.rounds_of(unit_key(unit)) for unit in parts_of(some)} == {40}
    np.testing.assert_allclose(device.latency_ms(some), whole_ms(some), rtol=0.02)


def test_networks_whose_units_are_missing_calibrate_nothing(tmp_path: Path) -> None:
    some = variants(12)
    device = known_device(KnownRuntime(), tmp_path)
    device.prepare(parts_of(some))
    fitted = device.calibration.networks
    one = variants(1, seed=5)[0]
    with TableFile(device.path, device.table.key) as file:
        reference_ms = file.table.network_reference_ms
        session = file.table.start_session({network_key(one): 0}, [network_key(one)])
        for _ in range(40):
            file.table.add_round(session, Round(whole_ms([one]) * 3, np.array([reference_ms])))
        file.save()
    assert len(known_device(KnownRuntime(), tmp_path).table.networks) == fitted + 1
    again = known_device(KnownRuntime(), tmp_path)
    np.testing.assert_allclose(again.latency_ms(some), whole_ms(some), rtol=0.02)
    assert again.calibration.networks == fitted


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
    device = known_device(KnownRuntime(drift=lambda _: 1 + 0.05 * noise.random()), tmp_path)
    near, far = variants(12), variants(1, resolution=96)
    device.prepare(parts_of(near))
    error = device.latency_error_ms([*near, *far]) / device.latency_ms([*near, *far])
    assert (error > 0).all()
    assert len(set(np.round(error, 6))) > 6
    assert error[-1] > 1.5 * np.median(error[:-1])


def test_minimum_as_the_statistic(tmp_path: Path) -> None:
    def drift() -> Callable[[int], float]:
        calls = np.random.default_rng(0)
        return lambda _: 1 + 0.5 * calls.random()  # of forty the least is 1.01, and half are above 1.25

    some = variants(12)
    median = known_device(KnownRuntime(drift()), tmp_path)
    median.prepare(parts_of(some))
    minimum = known_device(KnownRuntime(drift()), tmp_path, statistic="minimum")
    np.testing.assert_allclose(minimum.latency_ms(some), whole_ms(some), rtol=0.05)
    np.testing.assert_allclose(median.latency_ms(some), 1.25 * whole_ms(some), rtol=0.05)


class Disturbed(KnownRuntime):
    """Every fourth unit takes half as long again in three of five calls."""

    def prepare(self, subject: Subject) -> Session:
        session = super().prepare(subject)
        return DisturbedSession(session) if isinstance(subject, Unit) and len(self.prepared) % 4 == 0 else session


class DisturbedSession:
    def __init__(self, inner: Session) -> None:
        self.inner, self.factors = inner, itertools.cycle((1.0, 1.5, 1.5, 1.0, 1.5))

    def time_once(self) -> float:
        return self.inner.time_once() * next(self.factors)

    def output(self) -> Image:
        return self.inner.output()


def test_units_are_priced_by_what_they_take_when_little_disturbs_them(tmp_path: Path) -> None:
    some, unseen = variants(12), variants(6, seed=1)
    device = known_device(Disturbed(), tmp_path)
    device.prepare(parts_of([*some, *unseen]))
    timings = [device.table.timing(unit_key(unit)) for unit in parts_of(unseen)]
    assert any(timing.median_ms > 1.4 * timing.lower_ms for timing in timings)
    np.testing.assert_allclose(device.latency_ms(unseen), whole_ms(unseen), rtol=0.02)


def test_whole_networks_are_measured_against_the_reference(tmp_path: Path) -> None:
    runtime = KnownRuntime(drift=lambda call: 1.0 if call < 200 else 2.0)  # of some 320
    some = variants(3)
    found = known_device(runtime, tmp_path).measure(some)
    reference = whole_ms([REFERENCE])[0]
    ratios = [one.latency_ms / one.reference_ms for one in found]
    np.testing.assert_allclose(ratios, whole_ms(some) / reference, rtol=0.02)
    np.testing.assert_allclose([one.latency_ms for one in found], whole_ms(some), rtol=0.02)
    np.testing.assert_allclose([one.minimum_ms for one in found], whole_ms(some), rtol=0.02)
    steady = [np.abs(one.times_ms / one.latency_ms - 1) < 0.02 for one in found]
    assert (np.sum(steady, axis=1) >= 39).all()  # all but the round in which the drift changed
    assert {one.rounds for one in found} == {40}
    assert {one.times_ms.shape for one in found} == {(40,)}
    assert known_device(runtime, tmp_path).measure([]) == []
    with pytest.raises(DeviceError, match="at most 400"):
        known_device(runtime, tmp_path).measure(some * 200)


class Cached(KnownRuntime):
    """A call finds the caches cold after a large network, and reads it all again: a tiny one takes twice as long."""

    def __init__(self) -> None:
        super().__init__()
        self.last_ms = 0.0

    def prepare(self, subject: Subject) -> Session:
        return CachedSession(self, super().prepare(subject).time_once() * 1e3)


class CachedSession(KnownSession):
    def __init__(self, runtime: Cached, ms: float) -> None:
        super().__init__(runtime, ms)
        self.cache = runtime

    def time_once(self) -> float:
        cold = 0.4 if self.cache.last_ms > 1 else 0.0
        self.cache.last_ms = self.ms
        return super().time_once() + cold * 1e-3


def test_a_small_network_takes_the_same_whatever_is_measured_beside_it(tmp_path: Path) -> None:
    one, *others = tiny(12)
    assert whole_ms([one])[0] < 1 < whole_ms([REFERENCE])[0]
    alone = known_device(Cached(), tmp_path).measure([one])[0]
    among = known_device(Cached(), tmp_path).measure([one, *others])[0]
    assert alone.latency_ms == pytest.approx(among.latency_ms, rel=0.01)
    assert alone.reference_ms == pytest.approx(among.reference_ms, rel=0.01)


def measured_in_a_process(cache_dir: Path, drifts: Sequence[float]) -> MeasuredLatency:
    """One network timed whole, the machine at another drift in every burst of rounds."""
    burst = LOOK * 4  # calls: the network's and the reference's, each after one of the reference
    runtime = KnownRuntime(drift=lambda call: drifts[min((call - 1) // burst, len(drifts) - 1)])
    return known_device(runtime, cache_dir, replace(QUICK, rounds=60, max_rounds=60)).measure(variants(1))[0]


def test_the_stated_deviation_holds_between_processes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    found = [measured_in_a_process(tmp_path, np.exp(0.08 * noise.standard_normal(8)).tolist()) for _ in range(24)]
    spread = np.std([one.latency_ms for one in found], ddof=1)
    stated = np.mean([one.error_ms for one in found])
    assert 0.6 * spread < stated < 2 * spread
    sentence = disturbed_sentence(found)
    assert sentence is not None
    assert re.search(r"the machine was busy.*its speed is known within ±\d+\.\d % alone.*measure again", sentence)
    steady = measured_in_a_process(tmp_path, [1.0])
    assert steady.error_ms < 0.001 * steady.latency_ms
    assert disturbed_sentence([steady]) is None


def test_calls_that_waited_for_a_core_are_said_and_widen_what_is_stated() -> None:
    kept = [Round(np.array([2.0]), np.array([8.0]))] * 60
    quiet, busy = (measured_latencies(kept, 12, None, waited)[0] for waited in (0.0, 0.5))
    assert (quiet.latency_ms, busy.latency_ms) == (2.0, 2.0)
    assert quiet.error_ms < 1e-9
    assert busy.error_ms == pytest.approx(2.0 * 0.5 * WAITED_SPREAD)
    assert "waited 50 % of the time for a core" in str(disturbed_sentence([busy]))
    assert disturbed_sentence([quiet]) is None


def test_few_units_are_calibrated_on_published_networks_and_once(tmp_path: Path) -> None:
    runtime = KnownRuntime()
    device = known_device(runtime, tmp_path)
    assert device.latency_ms([published("mobilenet_v1")])[0] > 0
    assert published("mobilenet_v2") in runtime.prepared
    runtime.prepared.clear()
    device.latency_ms([published("efficientnet_lite0")])
    assert set(runtime.networks) <= {REFERENCE}  # nothing to calibrate on anew


def test_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        TableDevice("onnxrt", cache_dir=tmp_path)
    assert known_device(KnownRuntime(), tmp_path).name == "host:known"
    assert TableDevice(KnownRuntime(), cache_dir=tmp_path, name="mine").name == "mine"


def test_a_damaged_table_is_said_when_the_device_is_made(tmp_path: Path) -> None:
    device = known_device(KnownRuntime(), tmp_path)
    device.prepare(parts_of(variants(1)))
    device.path.write_bytes(device.path.read_bytes()[:5000])
    with pytest.raises(DeviceError, match=r"is damaged.*delete it"):
        known_device(KnownRuntime(), tmp_path)


@pytest.mark.parametrize("some", [variants(1), variants(4), variants(1) * 5])
def test_too_few_networks_to_calibrate_on_are_refused_at_once(tmp_path: Path, some: list[Architecture]) -> None:
    said = rf"{len(set(some))} different networks cannot calibrate.*at least {MIN_NETWORKS}"
    with pytest.raises(DeviceError, match=said) as caught:
        TableDevice(KnownRuntime(), cache_dir=tmp_path, calibrate_on=some)
    assert "\n" not in str(caught.value)
    assert TableDevice(KnownRuntime(), cache_dir=tmp_path, calibrate_on=variants(5)).calibrate_on == tuple(variants(5))


def test_a_table_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    device = known_device(KnownRuntime(), tmp_path)
    device.path.parent.parent.joinpath("latency").write_text("a file where the folder should be")
    with pytest.raises(DeviceError, match="cannot write the latency table"):
        device.prepare(parts_of(variants(1)))
    device.path.parent.unlink()
    device.path.parent.mkdir()
    device.path.symlink_to(device.path)  # leads nowhere
    with pytest.raises(DeviceError, match="cannot read the latency table"):
        device.prepare(parts_of(variants(1)))
    device.path.unlink()
    device.path.mkdir()
    with pytest.raises(DeviceError, match="cannot read the latency table"):
        device.prepare(parts_of(variants(1)))


def test_what_a_runtime_fails_of_is_not_taken_for_the_tables(tmp_path: Path) -> None:
    class Dropped(KnownRuntime):
        def prepare(self, subject: Subject) -> Session:
            if len(self.prepared) == 3:
                raise ConnectionResetError("the board hung up")
            return super().prepare(subject)

    device = known_device(Dropped(), tmp_path)
    with pytest.raises(ConnectionResetError, match="hung up"):
        device.prepare(parts_of(variants(1)))
    known_device(KnownRuntime(), tmp_path).prepare(parts_of(variants(1)))  # the table is free again


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
    assert (again.latency_ms(some) > 0).all()
    assert again.session_scale.networks == 5
    np.testing.assert_allclose(  # but for the level of each, the same
        again.latency_ms(some) / again.session_scale.factor, priced / device.session_scale.factor, rtol=1e-12
    )
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
            Interrupted(), cache_dir=tmp_path, plan=plan, reference=calibrating[0], calibrate_on=calibrating,
            check=lambda _: 0.0,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        device().prepare(parts_of(calibrating))
    resumed = device()
    kept = resumed.table.rounds_of(unit_key(units(calibrating[0])[0]))
    assert 0 < kept < 20
    resumed.prepare(parts_of(calibrating))
    assert resumed.table.rounds_of(unit_key(units(calibrating[0])[0])) == 20
    assert (resumed.latency_ms(calibrating) > 0).all()
