"""What a runtime is: something that prepares a unit or a whole network and times one call of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.graph import network_graph, unit_graph
from mnv3search.latency.keys import Fingerprint, this_machine
from mnv3search.layers import Unit

SHORTEST_CALL, LONGEST_CALL = 1e-7, 1e5  # seconds: beyond these no call was timed, whatever a runtime or board says
WEIGHT_SEED, IMAGE_SEED = 0, 1
Precision = Literal["fp32", "int8"]
Subject = Unit | Architecture
"""What can be timed: one unit of a network, or a whole network; batch 1."""
Image = NDArray[np.float32]


def input_shape(subject: Subject) -> tuple[int, int, int, int]:
    """(1, channels, size, size) of what enters a subject."""
    if isinstance(subject, Architecture):
        return 1, 3, subject.resolution, subject.resolution
    return 1, subject.in_channels, subject.in_size, subject.in_size


def input_image(subject: Subject) -> Image:
    """The input on which every runtime times ``subject``: standard normal, NCHW."""
    return np.random.default_rng(IMAGE_SEED).standard_normal(input_shape(subject), dtype=np.float32)


def graph_of(subject: Subject) -> bytes:
    """The serialised ONNX model by which every runtime times ``subject``."""
    if isinstance(subject, Architecture):
        return network_graph(subject, WEIGHT_SEED)
    return unit_graph(subject, WEIGHT_SEED)


def import_onnxruntime() -> Any:
    """The package without its telemetry, which from 1.29 on is on by default and runs while models are timed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


@runtime_checkable
class Session(Protocol):
    """A prepared unit or network and its input."""

    def time_once(self) -> float:
        """Run once; the seconds that it took, by the runtime's best clock."""
        ...

    def output(self) -> Image:
        """What one call gives on :func:`input_image`, NCHW or (1, classes), weights of :data:`WEIGHT_SEED`."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Times units and networks; one file a runtime, checked by ``tests/contracts/test_runtimes.py``."""

    @property
    def name(self) -> str:
        """As the user writes it: ``onnxruntime``."""
        ...

    @property
    def version(self) -> str:
        """The runtime's own version; times of different versions are not mixed."""
        ...

    @property
    def threads(self) -> int:
        """How many threads one call may use."""
        ...

    @property
    def precision(self) -> Precision:
        """Of weights and activations: ``fp32``, or ``int8`` with fp32 input and output."""
        ...

    def prepare(self, subject: Subject) -> Session:
        """A session that is ready to be timed; activations in it stay near 1.

        Raises:
            MissingDependencyError: a package that this runtime needs is not installed.
            MeasurementError: the runtime refuses the subject.
        """
        ...


@runtime_checkable
class LoadsGraphs(Runtime, Protocol):
    """A runtime that takes any ONNX graph of one input and one output, as it stands."""

    def load(self, graph: bytes, image: NDArray[Any], what: str) -> Session:
        """A session of ``graph`` on ``image``, float32 or uint8; ``what`` names the graph in messages.

        Raises:
            MeasurementError: the runtime refuses the graph.
        """
        ...


@runtime_checkable
class TakesTurns(Protocol):
    """A runtime that times several sessions in one request, because a request takes long (another machine)."""

    def time_in_turn(self, sessions: Sequence[Session]) -> list[float]:
        """Each session run once, in this order; seconds."""
        ...


@runtime_checkable
class Elsewhere(Protocol):
    """A runtime that works on another machine."""

    @property
    def machine(self) -> Fingerprint:
        """What that machine is."""
        ...


@runtime_checkable
class WholeOnly(Protocol):
    """A runtime that may take whole networks alone, because it takes long to prepare anything."""

    @property
    def whole_only(self) -> bool:
        """Whether :meth:`Runtime.prepare` refuses units."""
        ...


def time_in_turn(sessions: Sequence[Session]) -> list[float]:
    """Each session run once, in this order, in this process; seconds."""
    return [session.time_once() for session in sessions]


def turns_of(runtime: Runtime) -> Callable[[Sequence[Session]], list[float]]:
    """How ``runtime`` times several sessions one after another."""
    return runtime.time_in_turn if isinstance(runtime, TakesTurns) else time_in_turn


def is_whole_only(runtime: Runtime) -> bool:
    """Whether ``runtime`` can time whole networks alone, so that no table of units can be made with it."""
    return isinstance(runtime, WholeOnly) and runtime.whole_only


def machine_of(runtime: Runtime) -> Fingerprint:
    """The machine on which ``runtime`` times: its own, or this one."""
    return runtime.machine if isinstance(runtime, Elsewhere) else this_machine()


@dataclass(frozen=True, slots=True)
class CallSession:
    """A session around a function without arguments, timed by ``clock``; ``read`` gives the output of a call.

    ``memory`` is what a call works in: runtimes do not keep a bound array from being freed.
    """

    call: Callable[[], object]
    read: Callable[[], Image]
    clock: Callable[[], float] = time.perf_counter
    memory: object = None

    def time_once(self) -> float:
        """Seconds of one call."""
        start = self.clock()
        self.call()
        return self.clock() - start

    def output(self) -> Image:
        """The output of one more call."""
        self.call()
        return self.read()


def only_fp32(name: str, precision: Precision) -> None:
    """For a runtime without int8.

    Raises:
        DeviceError: ``precision`` is another than fp32.
    """
    if precision != "fp32":
        raise DeviceError(f"{name} works here in fp32 alone, not in {precision}; int8 is of onnxruntime and openvino")
