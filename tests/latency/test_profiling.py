"""A space's layers measured on a made-up machine, and the table tried on networks that it has not seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latency_fakes import KnownRuntime, known_device

from mnv3search.errors import MeasurementError
from mnv3search.latency.keys import network_of_key
from mnv3search.latency.measured.measuring import MeasuringPlan
from mnv3search.latency.measured.profiling import (
    DeviceProfile,
    measuring_plan,
    profile_device,
    profile_mapping,
    unseen_networks,
)
from mnv3search.latency.measured.table_device import FormerVersion
from mnv3search.latency.measured.table_file import load_table, table_mapping
from mnv3search.latency.model import Progress
from mnv3search.space import load_space

SPACE = load_space("ofa_mbv3")
PLAN = MeasuringPlan(rounds=17, min_seconds=0, warmup=1)


class Told:
    """Keeps the stages' names."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def __call__(self, stage: str) -> Progress:
        self.stages.append(stage)
        return lambda done, total, what: None


def profiled(cache: Path, runtime: KnownRuntime | None = None, check: int = 4) -> DeviceProfile:
    return profile_device(known_device(runtime or KnownRuntime(), cache, PLAN), SPACE, check, Told())


def test_a_steady_machine_is_predicted_and_nothing_is_measured_twice(tmp_path: Path) -> None:
    first, told = profiled(tmp_path), Told()
    assert (first.layers, first.measured_now) == (93, 93)
    assert max(first.errors) < 0.02
    assert first.warnings() == []
    assert (first.runtime, first.runtime_version, first.threads, first.precision) == ("known", "1", 1, "fp32")
    runtime = KnownRuntime()
    second = profile_device(known_device(runtime, tmp_path, PLAN), SPACE, 4, told)
    assert (second.layers, second.measured_now) == (93, 0)
    assert len(runtime.prepared) == len(runtime.networks)  # whole networks alone
    assert told.stages[0] == "measuring 0 of 93 layers of ofa_mbv3"


def test_unseen_networks_are_of_the_space_and_in_no_calibration(tmp_path: Path) -> None:
    device = known_device(KnownRuntime(), tmp_path, PLAN)
    profile = profile_device(device, SPACE, 4, Told())
    fitted = {network_of_key(key) for key in device.table.networks}
    assert len(profile.unseen) == 4
    assert all(SPACE.contains(n.architecture) and n.architecture not in fitted for n in profile.unseen)
    assert {n.architecture for n in profile.networks if n.calibrated_on} <= fitted
    first = profile.unseen[0].architecture
    others = unseen_networks(SPACE, 4, {first})
    assert first not in others
    assert unseen_networks(SPACE, 4, set()) == [n.architecture for n in profile.unseen]


def test_no_check(tmp_path: Path) -> None:
    profile = profiled(tmp_path, check=0)
    assert (profile.networks, profile.errors, profile.note()) == ([], [], None)
    json.dumps(profile_mapping(profile), allow_nan=False)


def test_an_interrupt_keeps_what_was_measured(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        profiled(tmp_path, KnownRuntime(stop_after=2500))
    device = known_device(KnownRuntime(), tmp_path, PLAN)
    before = len(device.table)
    assert before > 0
    assert profile_device(device, SPACE, 0, Told()).layers == 93


def test_an_unquiet_machine_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    said = " ".join(
        profiled(tmp_path, KnownRuntime(drift=lambda _: float(np.exp(0.3 * rng.standard_normal())))).warnings()
    )
    assert "single calls deviate" in said


def test_each_caveat_begins_above_its_limit(tmp_path: Path) -> None:
    steady = profiled(tmp_path)
    assert replace(steady, halves=0.02, noise=0.10).warnings() == []
    (halves,) = replace(steady, halves=0.021).warnings()
    assert "differ by 2.1 %, more than 2.0 %" in halves
    (noise,) = replace(steady, noise=0.11).warnings()
    assert "single calls deviate by 11.0 %" in noise
    unlike = [replace(n, predicted_ms=1.06 * n.measured_ms, predicted_error_ms=n.measured_ms) for n in steady.networks]
    (off,) = replace(steady, networks=unlike).warnings()
    assert "unseen networks are off by 6.0 % on average, more than 5.0 %" in off
    far = [replace(n, predicted_ms=1.04 * n.measured_ms, predicted_error_ms=0.001) for n in steady.networks]
    far = [replace(n, measured_error_ms=0.01 * n.measured_ms) for n in far]  # 4 % are four deviations
    assert replace(steady, networks=far).warnings() == ["4 of 4 networks lie further off than 3 stated deviations"]


def test_the_mapping_holds_every_figure(tmp_path: Path) -> None:
    profile = profiled(tmp_path)
    content = json.loads(json.dumps(profile_mapping(profile), allow_nan=False))
    assert content["format"] == "mnv3search.profile"
    assert content["unseen"]["networks"] == 4
    assert content["unseen"]["max_error"] == max(profile.errors)
    assert len(content["networks"]) == len(profile.networks)
    note = profile.note()
    assert note is not None
    assert (note.networks, note.space, note.layers, note.max_error) == (4, "ofa_mbv3", 93, max(profile.errors))


@pytest.mark.parametrize(("rounds", "seconds"), [(0, 10.0), (-1, 10.0), (40, 0.0), (40, -1.0), (40, float("nan"))])
def test_plans_that_measure_nothing(rounds: int, seconds: float) -> None:
    with pytest.raises(MeasurementError, match=r"rounds is|seconds is"):
        measuring_plan(rounds, seconds)


def test_a_plan_makes_as_many_rounds_as_a_search_unless_told() -> None:
    usual = MeasuringPlan()
    assert measuring_plan(None, usual.max_seconds) == usual
    assert (measuring_plan(300, 10.0).rounds, measuring_plan(300, 10.0).max_rounds) == (300, 300)


@pytest.mark.parametrize("check", [-1, 101])
def test_checks_out_of_range(tmp_path: Path, check: int) -> None:
    with pytest.raises(MeasurementError, match="check is"):
        profiled(tmp_path, check=check)


def test_a_runtime_of_whole_networks_alone_makes_no_table(tmp_path: Path) -> None:
    class WholeAlone(KnownRuntime):
        whole_only = True

    with pytest.raises(MeasurementError, match=r"known times whole networks alone.*--whole"):
        profiled(tmp_path, WholeAlone())


def test_a_former_versions_table_answers_and_is_not_added_to(tmp_path: Path) -> None:
    profiled(tmp_path)
    upgraded = KnownRuntime(drift=lambda _: 1.1)  # the new version takes a tenth longer
    upgraded.version = "2"
    device = known_device(FormerVersion(upgraded, "1"), tmp_path, PLAN)
    networks = SPACE.sample(3, seed=5)
    old = known_device(KnownRuntime(), tmp_path, PLAN).latency_ms(networks)
    np.testing.assert_allclose(device.latency_ms(networks), 1.1 * old, rtol=0.01)
    content = table_mapping(load_table(device.path))
    with pytest.raises(MeasurementError, match="leave --allow-stale away"):
        device.latency_ms(load_space("mnv3_small_32").sample(1, seed=0))
    assert table_mapping(load_table(device.path)) == content
