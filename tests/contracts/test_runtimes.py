"""What every runtime must keep to; one joins by being listed in ``RUNTIMES``, or in a package of its own.

Such a package subclasses :class:`RuntimeContract` and overrides the fixture ``runtime``.
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import time
import types
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, MeasurementError, MissingDependencyError, UnknownNameError
from mnv3search.families import published
from mnv3search.latency.remote.agent import clock_of
from mnv3search.latency.runtimes import registry
from mnv3search.latency.runtimes.base import (
    CallSession,
    Precision,
    Runtime,
    Session,
    Subject,
    input_shape,
    is_whole_only,
)
from mnv3search.latency.runtimes.check import MAX_FP32_DIFFERENCE, MAX_INT8_ERROR, PROBES, SAME_PADDED, check_outputs
from mnv3search.latency.runtimes.onnx_runtime import OnnxRuntime
from mnv3search.latency.runtimes.registry import RUNTIMES, load_runtime, runtime_names
from mnv3search.latency.runtimes.torch_eager import exact_output
from mnv3search.layers import Unit, units

PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch",),
    "openvino": ("openvino",),
    "mnn": ("MNN",),
    "litert": ("ai_edge_litert", "litert_torch"),
}
REMEDIES = {
    "onnxruntime": "pip install onnxruntime",
    "torch": "pip install torch",
    "openvino": r"pip install 'mnv3search\[openvino\]'",
    "mnn": r"pip install 'mnv3search\[mnn\]'",
    "litert": r"pip install 'mnv3search\[litert\]'",
}
INT8 = ("onnxruntime", "openvino")
PLUGGED = "plugged"


class Plugged(OnnxRuntime):
    """A runtime of an installed package; it borrows the work of another."""

    name = PLUGGED


CASES: list[tuple[str, Precision]] = [(name, "fp32") for name in (*RUNTIMES, PLUGGED)]
CASES += [(name, "int8") for name in INT8]


@pytest.fixture(autouse=True)
def _one_test_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test may have one runtime with several threads, as each process may."""
    monkeypatch.setattr(registry, "_with_threads", [])


def plug_in(monkeypatch: pytest.MonkeyPatch, **factories: object) -> None:
    """Let an installed package register ``factories``."""
    module = "mnv3search_test_package"
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**factories))
    points = [EntryPoint(name, f"{module}:{name}", registry.ENTRY_POINT_GROUP) for name in factories]
    points.append(EntryPoint("gone", "mnv3search_no_such_package:Runtime", registry.ENTRY_POINT_GROUP))

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == "mnv3search.runtimes"
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)


class RuntimeContract:
    """The tests; ``runtime`` gives the one under test, at one thread."""

    @pytest.fixture(params=CASES, ids=",".join)
    def runtime(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runtime:
        name, precision = request.param
        for package in PACKAGES.get(name, ()):
            pytest.importorskip(package)
        plug_in(monkeypatch, **{PLUGGED: Plugged})
        return load_runtime(name, precision=precision)

    @pytest.fixture
    def networks(self) -> tuple[Architecture, ...]:
        return SAME_PADDED, published("mobilenet_v3_small", resolution=64)

    def test_states_what_it_is(self, runtime: Runtime) -> None:
        assert isinstance(runtime, Runtime)
        assert runtime.name
        assert runtime.version
        assert runtime.threads == 1
        assert runtime.precision in ("fp32", "int8")

    def test_its_outputs_are_torchs(self, runtime: Runtime) -> None:
        allowed = MAX_FP32_DIFFERENCE if runtime.precision == "fp32" else MAX_INT8_ERROR
        assert 0 <= check_outputs(runtime) <= allowed

    def test_times_and_outputs_of_units_and_whole_networks(
        self, runtime: Runtime, networks: tuple[Architecture, ...]
    ) -> None:
        subjects: list[Subject] = [*networks]
        subjects += [] if is_whole_only(runtime) else units(networks[0])
        for subject in subjects:
            self.is_a_session(runtime.prepare(subject), exact_output(subject).shape)

    def is_a_session(self, session: Session, shape: tuple[int, ...]) -> None:
        assert isinstance(session, Session)
        times = [session.time_once() for _ in range(3)]
        assert all(math.isfinite(seconds) and 0 < seconds < 10 for seconds in times)
        assert session.output().shape == shape

    def test_signals_are_answered_on_the_stack_that_they_had(self, runtime: Runtime) -> None:
        """A native library may leave the thread a signal stack that it frees: the next Ctrl-C would crash."""
        sigaltstack = ctypes.CDLL(None).sigaltstack
        before, after = ctypes.create_string_buffer(24), ctypes.create_string_buffer(24)
        sigaltstack(None, before)
        session = runtime.prepare(SAME_PADDED)
        session.time_once()
        sigaltstack(None, after)
        assert after.raw == before.raw

    def test_a_session_keeps_its_input_and_output(self, runtime: Runtime) -> None:
        session = runtime.prepare(SAME_PADDED)
        first = session.output()
        gc.collect()
        others = [np.full(input_shape(SAME_PADDED), np.nan, dtype=np.float32) for _ in range(50)]
        other = runtime.prepare(published("mobilenet_v3_small", resolution=32))
        other.time_once()
        session.time_once()
        np.testing.assert_array_equal(session.output(), first)
        assert len(others) == 50

    def test_at_one_thread_the_whole_call_runs_in_the_calling_thread(self, runtime: Runtime) -> None:
        """Only then is that thread's CPU time the time of the call."""
        session = runtime.prepare(published("mobilenet_v3_small", resolution=96))
        for _ in range(3):
            session.time_once()
        process, thread = time.process_time(), time.thread_time()
        for _ in range(20):
            session.time_once()
        thread, process = time.thread_time() - thread, time.process_time() - process
        assert process <= 1.2 * thread + 1e-3


class TestRuntimes(RuntimeContract):
    """Those of this package, in every precision, and one that another package registers."""


class Altered:
    """A runtime whose outputs something is done to."""

    version, threads, name = "1", 1, "altered"

    def __init__(self, alter: object, precision: Precision = "fp32") -> None:
        self._inner, self._alter, self.precision = load_runtime("onnxruntime"), alter, precision

    def prepare(self, subject: Subject) -> Session:
        inner, alter = self._inner.prepare(subject), self._alter
        assert callable(alter)
        return CallSession(inner.time_once, lambda: alter(inner.output()))


def subnormal(output: np.ndarray) -> np.ndarray:
    output.flat[0] = 1e-40
    return output


def perturbed(output: np.ndarray) -> np.ndarray:
    output.flat[-1] += 0.01 * output.std()
    return output


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (perturbed, "away from torch's; 0.001 is allowed in fp32"),
        (lambda output: output.astype(np.float16).astype(np.float32) * np.float32(1.001), "away from torch's"),
        (lambda output: output * np.nan, "not finite"),
        (lambda output: output * 0, "0 throughout"),
        (lambda output: output[..., :-1], "of shape"),
        (subnormal, "subnormal"),
    ],
)
def test_a_runtime_that_computes_otherwise_is_refused(alter: object, words: str) -> None:
    with pytest.raises(MeasurementError, match=f"altered 1 computes wrongly.*{words}.*use another version"):
        check_outputs(Altered(alter))


def test_outputs_are_read_after_several_calls() -> None:
    calls: list[int] = []

    class WritesOverItsInput(Altered):
        def prepare(self, subject: Subject) -> Session:
            inner = self._inner.prepare(subject)
            calls.clear()
            return CallSession(lambda: calls.append(1), lambda: inner.output() * np.float32(len(calls)))

    with pytest.raises(MeasurementError, match="away from torch's"):
        check_outputs(WritesOverItsInput(None))


def test_int8_may_be_less_exact_but_not_another_network() -> None:
    assert check_outputs(Altered(lambda output: output * np.float32(1.05), "int8")) == pytest.approx(0.05, abs=1e-4)
    with pytest.raises(MeasurementError, match=r"0\.2 is allowed in int8"):
        check_outputs(Altered(lambda output: np.roll(output, 1, axis=1), "int8"))


def test_a_check_leaves_torchs_threads_alone() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        check_outputs(load_runtime("torch"))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_check_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="pip install torch"):
        check_outputs(load_runtime("onnxruntime"))


def test_probes_have_every_kind_of_layer() -> None:
    blocks = [block for network in PROBES for block in network.blocks]
    squeezes = [block.squeeze_excite for block in blocks if block.squeeze_excite is not None]
    assert {network.padding for network in PROBES} == {"same", "symmetric"}
    assert {network.conv_bias for network in PROBES} == {True, False}
    assert {network.head.hidden_channels is None for network in PROBES} == {True, False}
    assert {block.kernel_size for block in blocks} == {3, 5, 7}
    assert {block.stride for block in blocks} == {1, 2}
    assert {block.activation for block in blocks} == {"relu", "relu6", "swish", "hard_swish"}
    assert {squeeze.gate for squeeze in squeezes} == {"hard_sigmoid", "sigmoid", "hard_swish"}
    assert {squeeze.position for squeeze in squeezes} == {"depthwise", "projection"}
    pairs = [pair for network in PROBES for pair in zip(network.blocks, network.in_channels(), strict=True)]
    assert any(block.has_residual(channels) and not block.has_projected_shortcut(channels) for block, channels in pairs)
    assert any(block.has_projected_shortcut(channels) for block, channels in pairs)
    assert {block.has_expansion(channels) for block, channels in pairs} == {True, False}


def test_clocks() -> None:
    assert clock_of(1) is time.thread_time
    assert clock_of(2) is time.perf_counter


@pytest.mark.parametrize("name", RUNTIMES)
def test_missing_packages_are_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=REMEDIES[name]):
        load_runtime(name)


def test_an_unknown_runtime_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean onnxruntime"):
        load_runtime("onnxruntme")


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, 10**6])
def test_what_is_no_number_of_threads_is_refused(threads: object) -> None:
    with pytest.raises(DeviceError, match="whole number from 1"):
        load_runtime("onnxruntime", threads)  # type: ignore[arg-type]


def test_more_threads_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "usable_cores", lambda: 2)
    with pytest.raises(DeviceError, match=r"threads is 64, but this machine has 2 cores to give.*at most 2"):
        load_runtime("onnxruntime", 64)


def test_one_process_has_one_runtime_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "usable_cores", lambda: 2)
    plug_in(monkeypatch, **{PLUGGED: Plugged})
    assert load_runtime("onnxruntime", 2).threads == 2
    assert load_runtime("onnxruntime", 2).threads == 2
    assert load_runtime(PLUGGED).threads == 1
    with pytest.raises(MeasurementError, match=r"works in onnxruntime with several threads already.*of its own"):
        load_runtime(PLUGGED, 2)


def test_what_is_no_precision_is_refused() -> None:
    with pytest.raises(DeviceError, match="'int4'; it must be fp32 or int8"):
        load_runtime("onnxruntime", precision="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name not in INT8])
def test_int8_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(DeviceError, match=f"{name} works here in fp32 alone.*onnxruntime and openvino"):
        load_runtime(name, precision="int8")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(threads: int, precision: str) -> object:
        raise OSError("no such board")

    def refuses(threads: int, precision: str) -> object:
        raise DeviceError("the board is asleep")

    plug_in(
        monkeypatch, plugged=Plugged, broken=broken, refuses=refuses, none=lambda threads, precision: object(),
        other=lambda threads, precision: load_runtime("onnxruntime"), torch=broken,
    )  # fmt: skip


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_one_and_replaces_none() -> None:
    assert type(load_runtime(PLUGGED)) is Plugged
    assert runtime_names() == [*RUNTIMES, "broken", "gone", "none", "other", "plugged", "refuses"]
    assert load_runtime("torch").name == "torch"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "cannot be made.*no such board.*mend or reinstall"),
        ("gone", "mnv3search_no_such_package"),
        ("refuses", "the board is asleep"),
        ("none", "it needs name, version"),
        ("other", r"asked for \('other', 1, 'fp32'\) and states \('onnxruntime', 1, 'fp32'\)"),
    ],
)
def test_what_is_registered_and_is_none_is_said(name: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        load_runtime(name)


def test_a_quantiser_that_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime import quantization

    def fails(*_: object, **__: object) -> None:
        raise ValueError("no such operator")

    monkeypatch.setattr(quantization, "quantize_static", fails)
    subject: Unit = units(SAME_PADDED)[0]
    with pytest.raises(MeasurementError, match=r"cannot quantise.*no such operator"):
        load_runtime("onnxruntime", precision="int8").prepare(subject)
