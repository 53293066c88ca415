"""What a latency model is, what one that can price a network's units adds, and latency targets as people write them."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError, TargetError
from mnv3search.layers import Unit
from mnv3search.records import real

if TYPE_CHECKING:
    from mnv3search.graph.model_file import OnnxModel

LatencyKind = Literal["estimated", "table", "measured"]
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) while something long runs."""


@runtime_checkable
class LatencyModel(Protocol):
    """Anything that says how long networks take."""

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Milliseconds at batch 1, one for each architecture, in order; shape (n,)."""
        ...


def check_latency_model(model: object) -> None:
    """Refuse what is no latency model, such as a device's name."""
    if isinstance(model, type) or not isinstance(model, LatencyModel):
        raise DeviceError(
            f"latency is {reprlib.repr(model)}, not a latency model; give what load_device gives, "
            "or an object with latency_ms(architectures)"
        )


def checked_latencies(model: LatencyModel, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """The model's answers in milliseconds, shape (n,), each checked to be finite and above 0."""
    return checked_milliseconds(model, model.latency_ms(architectures), len(architectures))


def checked_milliseconds(model: LatencyModel, latencies: object, count: int) -> NDArray[np.float64]:
    """``latencies`` that ``model`` gave for ``count`` networks, as in :func:`checked_latencies`."""
    name = type(model).__name__
    try:
        found = np.asarray(latencies, dtype=np.float64)
    except (TypeError, ValueError):
        raise DeviceError(f"{name} gave latencies that are no numbers; it must give one for each network") from None
    if found.shape != (count,):
        raise DeviceError(f"{name} gave latencies of shape {found.shape} for {count} networks, not ({count},)")
    wrong = ~(np.isfinite(found) & (found > 0))
    if wrong.any():
        raise DeviceError(f"{name} gave a latency of {found[wrong][0]} ms; it must be finite and above 0")
    return found


@runtime_checkable
class UnitLatencyModel(LatencyModel, Protocol):
    """A latency model that is a sum over units: ``latency = fixed_ms + Σ unit_latency_ms``, exactly.

    Bounds over a space are then exact, and large populations are priced by gathering.
    """

    @property
    def fixed_ms(self) -> float:
        """Milliseconds that every network takes in addition to its units."""
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


@runtime_checkable
class CalibratedOnNetworks(Protocol):
    """A latency model whose sum over units is fitted on networks timed whole."""

    def calibrate_for(self, architectures: Sequence[Architecture]) -> None:
        """From now on fit on these networks, which are like those to be predicted."""
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
        self, architectures: Sequence[Architecture | OnnxModel], progress: Progress | None = None
    ) -> Sequence[WholeMeasurement]:
        """Whole networks, or model files, timed in turn with a reference network; one answer for each, in order."""
        ...


_MILLISECONDS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3, "μs": 1e-3}
_PATTERN = re.compile(
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?))\s*([A-Za-zµμ]*)\s*", re.I
)
_EXAMPLES = "write it as 50ms, 0.05s, 800us or 0.8x (times the reference)"


@dataclass(frozen=True, slots=True)
class LatencyTarget:
    """A target in milliseconds, or relative to a reference network's latency by the same model."""

    value: float
    relative: bool
    text: str

    def milliseconds(self, reference_ms: float) -> float:
        """The target in milliseconds; ``reference_ms`` matters only where the target is relative."""
        return self.value * reference_ms if self.relative else self.value


def parse_target(text: str) -> LatencyTarget:
    """The target that ``text`` states, such as ``50ms`` or ``0.8x``."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise TargetError(f"target latency {text!r} is not a number with a unit; {_EXAMPLES}")
    number, unit = float(match[1]), match[2]
    relative = unit in ("x", "X")
    if not relative and unit not in _MILLISECONDS:
        problem = f"has the unit {unit!r}, which is none of ms, s, us, µs, x" if unit else "has no unit"
        raise TargetError(f"target latency {text!r} {problem}; {_EXAMPLES}")
    value = number if relative else number * _MILLISECONDS[unit]
    if not (math.isfinite(value) and value > 0):
        raise TargetError(f"target latency {text!r} must be a positive, finite number; {_EXAMPLES}")
    return LatencyTarget(value, relative, text.strip())


def checked_target(target_latency_ms: float) -> float:
    """``target_latency_ms`` as a float, refused unless it is a positive, finite number, Python's or numpy's."""
    value = real(target_latency_ms)
    if value is None:
        raise TargetError(f"target_latency_ms is {target_latency_ms!r}; it must be a number of milliseconds above 0")
    if not math.isfinite(value) or value <= 0:
        raise TargetError(f"target_latency_ms is {target_latency_ms!r}; it must be finite and above 0, such as 50.0")
    return value
