"""One table in several processes: the level of each, who may measure, and the check of the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from latency_fakes import QUICK, REFERENCE, KnownRuntime, known_device, parts_of, variants, whole_ms

from mnv3search.errors import MeasurementError
from mnv3search.latency.measured.calibration import CALIBRATION_NETWORKS
from mnv3search.latency.measured.sessions import Steps
from mnv3search.latency.measured.table_device import SCALE_NETWORKS, TableDevice
from mnv3search.latency.runtimes.base import Runtime, Session, time_in_turn
from mnv3search.layers import Unit

SOME = variants(12)


def test_a_machine_that_became_slower_is_predicted_at_its_new_speed(tmp_path: Path) -> None:
    first = known_device(KnownRuntime(), tmp_path)
    first.prepare(parts_of(SOME))
    before = first.latency_ms(SOME)
    assert (first.session_scale.factor, first.session_scale.error) == (1.0, 0.0)
    assert first.session_scale.networks >= CALIBRATION_NETWORKS
    slower = known_device(KnownRuntime(drift=lambda _: 1.25), tmp_path)
    np.testing.assert_allclose(slower.latency_ms(SOME), 1.25 * before, rtol=1e-4)
    assert slower.session_scale.factor == pytest.approx(1.25, rel=1e-4)
    assert slower.session_scale.networks == SCALE_NETWORKS
    assert slower.session_scale.error < 1e-4
    measured = [one.latency_ms for one in slower.measure(SOME)]
    np.testing.assert_allclose(measured, 1.25 * whole_ms(SOME), rtol=1e-4)


def test_units_that_are_new_are_at_the_drift_of_the_process_as_well(tmp_path: Path) -> None:
    known_device(KnownRuntime(), tmp_path).prepare(parts_of(SOME))
    slower = known_device(KnownRuntime(drift=lambda _: 1.25), tmp_path)
    new = variants(2, seed=9)
    np.testing.assert_allclose(slower.latency_ms(new), 1.25 * whole_ms(new), rtol=0.02)


def test_networks_that_changed_unlike_one_another_make_the_level_uncertain(tmp_path: Path) -> None:
    known_device(KnownRuntime(), tmp_path).prepare(parts_of(SOME))
    steady = known_device(KnownRuntime(), tmp_path)
    calls = np.random.default_rng(0)
    unsteady = known_device(KnownRuntime(drift=lambda _: 1 + 0.5 * calls.random()), tmp_path)
    assert unsteady.session_scale.error > steady.session_scale.error
    assert (
        unsteady.latency_error_ms(SOME) / unsteady.latency_ms(SOME)
        > steady.latency_error_ms(SOME) / steady.latency_ms(SOME)
    ).all()


def test_how_much_is_measured_and_how_long_it_takes_is_told_from_the_first_parts() -> None:
    told: list[str] = []
    now = [0.0]
    steps = Steps(100, lambda done, total, what: told.append(what), clock=lambda: now[0])

    def takes_two_seconds(times: int) -> None:
        for _ in range(times):
            now[0] += 2
            steps.add(1)

    steps.phase("preparing 100 layers", 100)
    takes_two_seconds(7)
    assert told[:4] == ["preparing 100 layers"] * 4
    assert told[4] == "preparing 100 layers, about 3 min"
    steps.phase("timing 3 whole networks", 4)
    takes_two_seconds(4)
    assert told[7:10] == ["timing 3 whole networks"] * 3
    assert told[-1] == "timing 3 whole networks, about 8 s"


def test_the_device_tells_what_it_measures(tmp_path: Path) -> None:
    told: list[str] = []
    device = known_device(KnownRuntime(), tmp_path)
    device.prepare(parts_of(SOME), lambda done, total, what: told.append(what))
    device.measure(SOME[:3], lambda done, total, what: told.append(what))
    for begin in (
        f"preparing {len(parts_of(SOME))} layers for known",
        f"timing {len(parts_of(SOME))} layers on known, 40 calls of each",
        "preparing 32 whole networks for known",
        "timing 32 whole networks on known, 40 calls of each",
        "timing 3 whole networks on known, 40 calls of each or more, about ",
    ):
        assert any(what.startswith(begin) for what in told), begin


def test_drift_within_a_process_is_divided_out(tmp_path: Path) -> None:
    drift = [1.0]
    device = known_device(KnownRuntime(drift=lambda _: drift[0]), tmp_path)
    first = [one.latency_ms for one in device.measure(SOME[:3])]
    assert device.session_reference is not None
    assert device.session_reference.reference_ms == pytest.approx(whole_ms([REFERENCE])[0])
    drift[0] = 1.4
    later = device.measure(SOME[:3])
    np.testing.assert_allclose([one.latency_ms for one in later], first)
    np.testing.assert_allclose([one.minimum_ms for one in later], 1.4 * whole_ms(SOME[:3]))  # as it was
    assert later[0].reference_ms == pytest.approx(1.4 * whole_ms([REFERENCE])[0])
    device.prepare(parts_of(SOME))  # sums as well are at the first drift
    np.testing.assert_allclose(device.latency_ms(SOME), whole_ms(SOME), rtol=0.02)


def test_a_table_that_another_process_completed_is_taken_and_corrected(tmp_path: Path) -> None:
    runtime = KnownRuntime(drift=lambda _: 1.25)
    waiting = known_device(runtime, tmp_path)
    known_device(KnownRuntime(), tmp_path).prepare(parts_of(SOME))
    waiting.prepare(parts_of(SOME))
    assert not any(isinstance(subject, Unit) for subject in runtime.prepared)
    assert waiting.session_scale.networks == SCALE_NETWORKS
    np.testing.assert_allclose(waiting.latency_ms(SOME), 1.25 * whole_ms(SOME), rtol=0.02)


def test_a_runtime_that_computes_wrong_measures_nothing(tmp_path: Path) -> None:
    def refuse(runtime: Runtime) -> float:
        raise MeasurementError(f"{runtime.name} gives other outputs than torch")

    runtime = KnownRuntime()
    device = TableDevice(runtime, cache_dir=tmp_path, plan=QUICK, reference=REFERENCE, check=refuse)
    for ask in (lambda: device.prepare(parts_of(SOME)), lambda: device.measure(SOME), lambda: device.latency_ms(SOME)):
        with pytest.raises(MeasurementError, match="other outputs"):
            ask()
    assert runtime.prepared == []
    assert runtime.calls == 0
    assert not device.path.exists()


def test_a_runtime_is_checked_once_for_a_table(tmp_path: Path) -> None:
    checked: list[Runtime] = []

    def check(runtime: Runtime) -> float:
        checked.append(runtime)
        return 2e-7

    def device() -> TableDevice:
        return TableDevice(KnownRuntime(), cache_dir=tmp_path, plan=QUICK, reference=REFERENCE, check=check)

    first = device()
    assert checked == []  # not before it is used
    first.measure(SOME[:1])
    first.prepare(parts_of(SOME))
    first.prepare(parts_of(variants(1, seed=9)))
    assert checked == [first.runtime]
    assert first.table.output_difference == 2e-7
    again = device()
    again.prepare(parts_of(variants(1, seed=11)))
    again.measure(SOME[:1])
    assert len(checked) == 1
    assert again.table.output_difference == 2e-7


class InTurn(KnownRuntime):
    """The same machine, asked for a whole slot at once."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[int] = []

    def time_in_turn(self, sessions: Sequence[Session]) -> list[float]:
        self.slots.append(len(sessions))
        return time_in_turn(sessions)


def test_a_runtime_that_takes_turns_gives_the_same_table(tmp_path: Path) -> None:
    here, there = KnownRuntime(), InTurn()
    expected = known_device(here, tmp_path / "here")
    device = known_device(there, tmp_path / "there")
    np.testing.assert_array_equal(device.latency_ms(SOME), expected.latency_ms(SOME))
    assert there.calls == here.calls == sum(there.slots)
    assert [one.latency_ms for one in device.measure(SOME[:3])] == [
        one.latency_ms for one in expected.measure(SOME[:3])
    ]
    assert there.slots[-40:] == [8] * 40  # the reference and three networks in every round, each after the reference
