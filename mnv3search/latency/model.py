"""What a latency model is, and what one that can price a network's units adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.cost.units import Unit

LatencyKind = Literal["estimated", "table", "measured"]
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) while something long runs."""


@runtime_checkable
class LatencyModel(Protocol):
    """Anything that tells how long networks take."""

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Milliseconds at batch 1, one for each architecture, in order; shape (n,)."""
        ...


@runtime_checkable
class UnitLatencyModel(LatencyModel, Protocol):
    """A latency model that is a sum over units: ``latency = fixed_ms + Σ unit_latency_ms``, exactly.

    Bounds over a space are then exact, and large populations are priced by gathering.
    """

    @property
    def fixed_ms(self) -> float:
        """Milliseconds that every network takes beside its units."""
        ...

    def unit_latency_ms(self, parts: Sequence[Unit]) -> NDArray[np.float64]:
        """Milliseconds of each unit, shape (n,); at least 0."""
        ...


@runtime_checkable
class Device(LatencyModel, Protocol):
    """A latency model with a name, a kind and an error: what ``load_device`` gives."""

    @property
    def name(self) -> str:
        """As the user wrote it: ``pixel1``, ``host``, a file's stem."""
        ...

    @property
    def kind(self) -> LatencyKind:
        """``estimated`` (fitted to published figures), ``table`` (a sum of measured units) or ``measured`` (whole)."""
        ...

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """One standard deviation in milliseconds for each architecture, from held-out networks; shape (n,)."""
        ...


@runtime_checkable
class Preparable(Protocol):
    """A latency model that must measure units before it can price them."""

    def prepare(self, parts: Sequence[Unit], progress: Progress | None = None) -> None:
        """Make sure that every unit has a price; what is already known is not measured again."""
        ...


class WholeMeasurement(Protocol):
    """One network timed whole."""

    @property
    def latency_ms(self) -> float:
        """The median, in milliseconds."""
        ...

    @property
    def error_ms(self) -> float:
        """One standard deviation of the median."""
        ...


@runtime_checkable
class WholeMeasurer(Protocol):
    """A device that can be timed here and now."""

    def measure(
        self, architectures: Sequence[Architecture], progress: Progress | None = None
    ) -> Sequence[WholeMeasurement]:
        """Whole networks timed in turn, interleaved with a reference network; one answer for each, in order."""
        ...
