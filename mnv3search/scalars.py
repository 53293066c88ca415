"""Numbers as callers have them: Python's own, or numpy's scalars."""

from __future__ import annotations

from numbers import Integral, Real


def real(value: object) -> float | None:
    """``value`` as a float; None where it is no real number: a text, a bool, an array."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def whole(value: object) -> int | None:
    """``value`` as an int; None where it is no integer: 8.0, a text, a bool."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
