"""What a runtime is: something that prepares a unit or a whole network and times one call of it; and its limits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.graph import network_graph, unit_graph
from mnv3search.latency.keys import Fingerprint, this_machine
from mnv3search.layers import Unit

MAX_RESOLUTION = 1e-6  # seconds: a hundredth of the smallest block
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
    """The input on which every runtime times ``subject``: standard normal, the same for all; NCHW."""
    return np.random.default_rng(IMAGE_SEED).standard_normal(input_shape(subject), dtype=np.float32)


def graph_of(subject: Subject) -> bytes:
    """The serialised ONNX model by which every runtime times ``subject``.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    if isinstance(subject, Architecture):
        return network_graph(subject, WEIGHT_SEED)
    return unit_graph(subject, WEIGHT_SEED)


def import_onnxruntime() -> Any:
    """The package, its telemetry (on by default from 1.29 on) switched off: it sends, and works beside what is timed.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


@runtime_checkable
class Session(Protocol):
    """A prepared unit or network, with its input in place."""

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
class TakesTurns(Protocol):
    """A runtime that times several sessions in one go, because a question to it takes long (another machine)."""

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


def time_in_turn(sessions: Sequence[Session]) -> list[float]:
    """Each session run once, in this order, in this process; seconds."""
    return [session.time_once() for session in sessions]


def turns_of(runtime: Runtime | LoadsGraphs) -> Callable[[Sequence[Session]], list[float]]:
    """How ``runtime`` times several sessions one after another."""
    return runtime.time_in_turn if isinstance(runtime, TakesTurns) else time_in_turn


@runtime_checkable
class LoadsGraphs(Protocol):
    """A runtime that takes any ONNX graph of one input and one output, as it stands."""

    @property
    def name(self) -> str:
        """As the user writes it."""
        ...

    @property
    def version(self) -> str:
        """The runtime's own version."""
        ...

    @property
    def threads(self) -> int:
        """How many threads one call may use."""
        ...

    def load(self, graph: bytes, image: NDArray[Any], what: str) -> Session:
        """A session of ``graph`` on ``image``, float32 or uint8; ``what`` says of what it is, for messages.

        Raises:
            MeasurementError: the runtime refuses the graph.
        """
        ...


@runtime_checkable
class WholeOnly(Protocol):
    """A runtime that may take whole networks alone, because it takes long to prepare anything."""

    @property
    def whole_only(self) -> bool:
        """Whether :meth:`Runtime.prepare` refuses units."""
        ...


def is_whole_only(runtime: Runtime) -> bool:
    """Whether ``runtime`` can time whole networks alone, so that no table of units can be made with it."""
    return isinstance(runtime, WholeOnly) and runtime.whole_only


def machine_of(runtime: Runtime) -> Fingerprint:
    """The machine on which ``runtime`` times: its own, or this one."""
    return runtime.machine if isinstance(runtime, Elsewhere) else this_machine()


def clock_of(threads: int) -> Callable[[], float]:
    """The clock of a runtime that works in so many threads, in seconds.

    At one thread, in the caller's, it is that thread's CPU time: what a call takes when nothing else wants the core. A
    call that the system sets aside for another program's sake is otherwise counted several times too long. At more
    threads, and where the CPU time is coarse (Windows), it is the wall's.
    """
    fine = time.get_clock_info("thread_time").resolution <= MAX_RESOLUTION
    return time.thread_time if threads == 1 and fine else time.perf_counter


@dataclass(frozen=True, slots=True)
class CallSession:
    """A session around a function without arguments, timed by ``clock``; ``read`` gives the output of a call.

    ``held`` is whatever memory a call works in: runtimes do not keep a bound array from being freed.
    """

    call: Callable[[], object]
    read: Callable[[], Image]
    clock: Callable[[], float] = time.perf_counter
    held: object = None

    def time_once(self) -> float:
        """Seconds of one call."""
        start = self.clock()
        self.call()
        return self.clock() - start

    def output(self) -> Image:
        """The output of one more call."""
        self.call()
        return self.read()


MAX_THREADS = 1_024

_with_threads: list[str] = []  # the runtime of this process that works in several threads, once there is one


def check_threads(threads: object) -> None:
    """Refuses what is no number of threads, or more than the cores of this machine that the process may use.

    Raises:
        DeviceError: so it is.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise DeviceError(f"threads is {threads!r}; it must be a whole number from 1 to {MAX_THREADS}")
    cores = usable_cores()
    if threads > cores:
        raise DeviceError(
            f"threads is {threads}, but this machine has {cores} {'core' if cores == 1 else 'cores'} to give; "
            f"threads that wait for one another tell nothing: ask for at most {cores}"
        )


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def check_precision(precision: object) -> None:
    """Refuses what is no precision.

    Raises:
        DeviceError: it is neither fp32 nor int8.
    """
    known: tuple[Any, ...] = get_args(Precision)
    if precision not in known:
        raise DeviceError(f"precision is {precision!r}; it must be {' or '.join(known)}")


def only_fp32(name: str, precision: Precision) -> None:
    """For a runtime without int8.

    Raises:
        DeviceError: another precision than fp32 is asked for.
    """
    if precision != "fp32":
        raise DeviceError(f"{name} works here in fp32 alone, not in {precision}; int8 is of onnxruntime and openvino")


def check_alone(name: str, threads: int) -> None:
    """Two pools of threads in one process take the cores from each other.

    Raises:
        MeasurementError: another runtime was loaded with several threads in this process.
    """
    if threads == 1:
        return
    if _with_threads and _with_threads[0] != name:
        raise MeasurementError(
            f"this process works in {_with_threads[0]} with several threads already, and {name} with {threads} would "
            "share the cores with it: measure each in a process of its own, or at one thread"
        )
    _with_threads[:] = [name]
