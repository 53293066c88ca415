"""What a runtime is: something that prepares a unit or a whole network and times one call of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mnv3search.architecture import Architecture
from mnv3search.cost.units import Unit

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


@dataclass(frozen=True, slots=True)
class CallSession:
    """A session around a function without arguments, timed by ``time.perf_counter``."""

    call: Callable[[], object]

    def time_once(self) -> float:
        """Seconds of one call."""
        start = time.perf_counter()
        self.call()
        return time.perf_counter() - start
