"""What a runtime is: something that prepares a unit or a whole network and times one call of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mnv3search.architecture import Architecture
from mnv3search.cost.units import Unit

MAX_RESOLUTION = 1e-6  # seconds: a hundredth of the smallest block
Subject = Unit | Architecture
"""What can be timed: one unit of a network, or a whole network; batch 1, float32."""


@runtime_checkable
class Session(Protocol):
    """A prepared unit or network, with its input in place."""

    def time_once(self) -> float:
        """Run once; the seconds that it took, by the runtime's best clock."""
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

    def prepare(self, subject: Subject) -> Session:
        """A session that is ready to be timed; activations in it stay near 1.

        Raises:
            MissingDependencyError: a package that this runtime needs is not installed.
            MeasurementError: the runtime refuses the subject.
        """
        ...


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
    """A session around a function without arguments, timed by ``clock``."""

    call: Callable[[], object]
    clock: Callable[[], float] = time.perf_counter

    def time_once(self) -> float:
        """Seconds of one call."""
        start = self.clock()
        self.call()
        return self.clock() - start
