"""Latency targets as people write them: ``50ms``, ``0.05s``, ``800us``, ``0.8x``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mnv3search.errors import TargetError
from mnv3search.records import real

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
    """The target that ``text`` states.

    Raises:
        TargetError: no number, no unit, or a value that is not positive and finite.
    """
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
    """``target_latency_ms`` where it is a positive, finite number of milliseconds, Python's or numpy's.

    Raises:
        TargetError: it is not.
    """
    value = real(target_latency_ms)
    if value is None:
        raise TargetError(f"target_latency_ms is {target_latency_ms!r}; it must be a number of milliseconds above 0")
    if not math.isfinite(value) or value <= 0:
        raise TargetError(f"target_latency_ms is {target_latency_ms!r}; it must be finite and above 0, such as 50.0")
    return value
