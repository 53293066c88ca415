"""What every runtime must do; a new one is added to the list below."""

from __future__ import annotations

import math
import sys
import time

import pytest

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, SqueezeExciteSpec, StemSpec
from mnv3search.cost.units import units
from mnv3search.errors import DeviceError, MissingDependencyError, UnknownNameError
from mnv3search.families import published
from mnv3search.latency.runtimes import RUNTIMES, Runtime, Session, Subject, load_runtime
from mnv3search.latency.runtimes.base import clock_of

PACKAGES = {"onnxruntime": ("onnxruntime", "onnx"), "torch": ("torch",)}

TINY = Architecture(
    StemSpec(8),
    (
        BlockSpec(3, 8, 8, 1, "relu", expansion="depthwise", linear_bottleneck=False),
        BlockSpec(3, 24, 8, 1, "relu6", SqueezeExciteSpec(8, use_norm=True, position="projection")),
        BlockSpec(5, 24, 16, 2, "hard_swish", SqueezeExciteSpec(8), shortcut="projected"),
    ),
    HeadSpec(32, 16, squeeze_excite=SqueezeExciteSpec(8), hidden_norm=True),
    resolution=32,
    classes=5,
    padding="same",
    conv_bias=True,
)


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    return load_runtime(request.param)


def test_states_name_version_and_threads(runtime: Runtime) -> None:
    assert isinstance(runtime, Runtime)
    assert runtime.name in RUNTIMES
    assert runtime.version
    assert runtime.threads == 1
    assert load_runtime(runtime.name, threads=2).threads == 2


def test_at_one_thread_the_whole_call_runs_in_the_calling_thread(runtime: Runtime) -> None:
    """Only then is that thread's CPU time the time of the call."""
    session = runtime.prepare(published("mobilenet_v3_small", resolution=96))
    for _ in range(3):
        session.time_once()
    process, thread = time.process_time(), time.thread_time()
    for _ in range(20):
        session.time_once()
    thread, process = time.thread_time() - thread, time.process_time() - process
    assert process <= 1.2 * thread + 1e-3


def test_clocks() -> None:
    assert clock_of(1) is time.thread_time
    assert clock_of(2) is time.perf_counter


@pytest.mark.parametrize("architecture", [TINY, published("mobilenet_v3_small", resolution=32)], ids=["tiny", "small"])
def test_times_units_and_whole_networks(runtime: Runtime, architecture: Architecture) -> None:
    subjects: list[Subject] = [*units(architecture), architecture]
    for subject in subjects:
        session = runtime.prepare(subject)
        assert isinstance(session, Session)
        times = [session.time_once() for _ in range(3)]
        assert all(math.isfinite(seconds) and 0 < seconds < 10 for seconds in times)


def test_missing_packages_are_said(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PACKAGES[runtime.name][0]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        load_runtime(runtime.name)


def test_unknown_runtimes_and_thread_counts_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean onnxruntime"):
        load_runtime("onnxruntme")
    for threads in (0, -1, 1.5, True, 10**6):
        with pytest.raises(DeviceError, match="whole number from 1"):
            load_runtime("onnxruntime", threads)  # type: ignore[arg-type]
