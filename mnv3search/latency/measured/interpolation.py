"""Prices between measured widths: what layer search asks of many units that differ in one number of channels.

A unit varies along axes: its expanded channels, its bottleneck (in and out together where a residual joins them), its
output or its input. Units that are equal but for the width on one axis are a family; a squeeze-excite follows.

Between two measured widths of a family a straight line is drawn. Runtimes work in vectors, so times climb stairs, and
some runtimes are slower at odd multiples of 8 than at the next even one. Lines between widths that are equal modulo 16
keep off such stairs; lines between any two are drawn too, and the better one is taken. How wrong a line is, is read
from measured widths that such a line misses. A stair lies hidden between widths that all stand on its edges (of
multiples of 32, none shows a stair of 16), so a width speaks for another only where each stair that parts that one from
its line parts this one too. Where none speaks, nothing is said, and the unit is to be measured.

What the widths around say of one line is little, and the best-looking line was often lucky. So lines are used only
where those on the same machine have been tried on enough measured units, and none is said to err less than these did.

The measured widths are those that the search itself asked for before. Measuring grids of widths ahead was tried: it
costs more units than it spares, as each narrowing makes new families.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from mnv3search.architecture import MAX_CHANNELS, BlockSpec, HeadSpec, StemSpec
from mnv3search.cost.units import Unit
from mnv3search.errors import DeviceError
from mnv3search.latency.model import Progress

Axis = Literal["expanded", "bottleneck", "out", "in"]

REACH = 64  # channels; no further away is a measured width looked for, of wider units than their own width
STAIRS = (16, 32)  # channels: multiples of the vector in which runtimes work
COMBS = (STAIRS[0], 1)  # a line joins widths that are equal modulo this
HIDDEN = 0.5  # channels: a line that parts less from a stair shows nothing of it
PROOFS = 10  # measured units that lines must have been tried on before any is used
HELD_OUT = 2  # measured widths, the nearest, from which a line's error is read
UNIT_ERROR, NETWORK_ERROR = 0.03, 0.003  # shares: above these, units are measured


class Interpolated(NamedTuple):
    """A price between measured ones: milliseconds, and one standard deviation as a share of it."""

    ms: float
    error: float


class _Point(NamedTuple):
    width: int
    ms: float


@lru_cache(maxsize=1 << 15)
def axes(unit: Unit) -> tuple[Axis, ...]:
    """What can vary in a unit while it stays of one kind, with its expansion and its residual.

    Nothing can where the squeeze-excite is another than follows from the widths.
    """
    spec = unit.spec
    if isinstance(spec, StemSpec):
        return ("out",)
    if isinstance(spec, HeadSpec):
        return ("in",)
    if spec.resized(unit.in_channels, spec.expanded_channels, spec.out_channels) != spec:
        return ()
    ends: tuple[Axis, ...] = ("bottleneck",) if _joined(unit) else ("out", "in")
    return ("expanded", *ends) if spec.has_expansion(unit.in_channels) else ends


def _joined(unit: Unit) -> bool:
    spec = unit.spec
    return isinstance(spec, BlockSpec) and spec.has_residual(unit.in_channels) and unit.in_channels == spec.out_channels


def width_of(unit: Unit, axis: Axis) -> int:
    """The channels of a unit on one of its :func:`axes`."""
    spec = unit.spec
    if axis == "in" or isinstance(spec, HeadSpec):
        return unit.in_channels
    if axis == "expanded" and isinstance(spec, BlockSpec):
        return spec.expanded_channels
    return spec.out_channels


def at_width(unit: Unit, axis: Axis, width: int) -> Unit | None:
    """The unit of the same family that is ``width`` wide on ``axis``.

    None where there is none: it would lose its expansion or gain a residual, say.
    """
    spec = unit.spec
    if not 1 <= width <= MAX_CHANNELS:
        return None
    if isinstance(spec, StemSpec):
        return unit._replace(spec=replace(spec, out_channels=width))
    if isinstance(spec, HeadSpec):
        return unit._replace(in_channels=width)
    return _block_at(unit, spec, axis, width)


def _block_at(unit: Unit, spec: BlockSpec, axis: Axis, width: int) -> Unit | None:
    into, expanded, out = unit.in_channels, spec.expanded_channels, spec.out_channels
    new_in = width if axis in ("in", "bottleneck") else into
    new_out = width if axis in ("out", "bottleneck") else out
    if axis == "expanded":
        expanded = width
    elif not spec.has_expansion(into):  # the depthwise convolution is as wide as its input, or a multiple of it
        expanded = new_in * (expanded // into)
    found = Unit(spec.resized(new_in, expanded, new_out), new_in, unit.in_size, unit.padding, unit.conv_bias)
    return found if _kind(found) == _kind(unit) else None


def _kind(unit: Unit) -> tuple[bool, ...]:
    spec, into = unit.spec, unit.in_channels
    if not isinstance(spec, BlockSpec):
        return ()
    return spec.has_expansion(into), spec.has_residual(into), spec.has_projected_shortcut(into), _joined(unit)


def grid_neighbours(unit: Unit, step: int, axis: Axis | None = None) -> tuple[Unit, Unit] | None:
    """The units of its family at the multiples of ``step`` below and above; ``unit`` twice where it is on one itself.

    Args:
        unit: any.
        step: channels, at least 1.
        axis: the first of its :func:`axes` where not given.

    Returns:
        None where the family ends before.

    Raises:
        DeviceError: ``step`` is below 1.
    """
    if step < 1:
        raise DeviceError(f"a grid of {step} channels has no points; give a step of at least 1")
    axis = axis or axes(unit)[0]
    width = width_of(unit, axis)
    if width % step == 0:
        return unit, unit
    below, above = (at_width(unit, axis, edge) for edge in (width // step * step, (width // step + 1) * step))
    return None if below is None or above is None else (below, above)


def interpolated(unit: Unit, known: Mapping[Unit, float]) -> Interpolated | None:
    """The price of ``unit`` from measured ones of its families, on that axis where it is known best.

    Args:
        unit: any; one that is known has its own price and no error.
        known: milliseconds of measured units, above 0.

    Returns:
        None where no measured width is near on either side, or none from which to tell the error.

    Raises:
        DeviceError: a price that is not finite and above 0.
    """
    return Families(known).interpolated(unit)


class Families:
    """Measured units by family, so that many can be asked for against many.

    Args:
        known: milliseconds of measured units, above 0.

    Raises:
        DeviceError: a price that is not finite and above 0.
    """

    def __init__(self, known: Mapping[Unit, float]) -> None:
        self._known = known
        self._widths: dict[tuple[object, ...], dict[int, float]] = {}
        for unit, ms in known.items():
            if not (math.isfinite(ms) and ms > 0):
                raise DeviceError(f"a layer's time of {ms} ms cannot be interpolated; times are finite and above 0")
            for axis in axes(unit):
                self._widths.setdefault(family(unit, axis), {})[width_of(unit, axis)] = ms

    def interpolated(self, unit: Unit) -> Interpolated | None:
        """As :func:`interpolated`."""
        if unit in self._known:
            return Interpolated(self._known[unit], 0.0)
        return self._past(unit)

    def proven_error(self, within: float) -> float | None:
        """By how much lines that state an error ``within`` this miss measured units: root mean square, a share.

        None where fewer than :data:`PROOFS` can be tried.
        """
        missed = []
        for unit, ms in self._known.items():
            if any(len(self._widths[family(unit, axis)]) > HELD_OUT + 1 for axis in axes(unit)):
                line = self._past(unit)
                if line is not None and line.error <= within:
                    missed.append(line.ms / ms - 1)
        return math.sqrt(sum(miss**2 for miss in missed) / len(missed)) if len(missed) >= PROOFS else None

    def _past(self, unit: Unit) -> Interpolated | None:
        """The best line through others, whether or not ``unit`` is measured."""
        lines = (self._on_axis(unit, axis, comb) for axis in axes(unit) for comb in COMBS)
        found = [line for line in lines if line is not None]
        return min(found, key=lambda one: one.error, default=None)

    def _on_axis(self, unit: Unit, axis: Axis, comb: int) -> Interpolated | None:
        width = width_of(unit, axis)
        points = [point for point in self._around(unit, axis) if (point.width - width) % comb == 0]
        above = next((i for i, point in enumerate(points) if point.width > width), None)
        if not above:  # none above, or none below the first above
            return None
        low, high = points[above - 1], points[above]
        error_ms, ms = _error_ms(points, low, high, width), _line(low, high, width)
        return None if error_ms is None else Interpolated(ms, error_ms / ms)

    def _around(self, unit: Unit, axis: Axis) -> list[_Point]:
        """Measured widths of a family near a unit's, but not its own; narrowest first."""
        width, widths = width_of(unit, axis), self._widths.get(family(unit, axis), {})
        reach = max(REACH, width)
        return [_Point(*item) for item in sorted(widths.items()) if 0 < abs(item[0] - width) <= reach]


@runtime_checkable
class PricesNarrowed(Protocol):
    """A latency model that may price narrowed units from measured ones, instead of measuring each."""

    def prepare_narrowed(self, parts: Sequence[Unit], progress: Progress | None = None) -> None:
        """As :meth:`~mnv3search.latency.model.Preparable.prepare`, for units that layer search made by narrowing."""
        ...


class BetweenWidths:
    """The prices that a device took from between measured ones: apart from these, and never kept on disk.

    Attributes:
        unit_error: a unit whose line may be wrong by a larger share is measured.
        network_error: of each network's latency, so much may come from its lines' errors; what errs most is measured.
    """

    def __init__(self, unit_error: float = UNIT_ERROR, network_error: float = NETWORK_ERROR) -> None:
        self.unit_error, self.network_error = unit_error, network_error
        self._prices: dict[Unit, Interpolated] = {}

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._prices

    def __len__(self) -> int:
        return len(self._prices)

    def ms(self, unit: Unit) -> float:
        """Milliseconds of a unit alone that was priced by :meth:`lacking`."""
        return self._prices[unit].ms

    def measured(self, parts: Iterable[Unit]) -> None:
        """These are measured now, or are to be."""
        for unit in parts:
            self._prices.pop(unit, None)

    def lacking(self, asked: Iterable[Unit], known: Mapping[Unit, float]) -> list[Unit]:
        """Prices those that lie well between measured ones; gives those that are to be measured.

        No line is used before lines have been tried on measured units of this machine, and have missed them by no more
        than :attr:`unit_error`: what a few widths around say of one line is often luck.

        Args:
            asked: units.
            known: milliseconds of measured units alone, above 0.
        """
        new = [unit for unit in dict.fromkeys(asked) if unit not in known and unit not in self]
        if not new:
            return []
        families = Families(known)
        proven = families.proven_error(self.unit_error)
        if proven is None or proven > self.unit_error:
            return new
        for unit in new:
            line = families.interpolated(unit)
            if line is not None and line.error <= self.unit_error:
                self._prices[unit] = Interpolated(line.ms, max(line.error, proven))
        return [unit for unit in new if unit not in self]

    def error_ms(self, parts: Sequence[Unit], ms: Sequence[float]) -> float:
        """What lines may be wrong by in a network whose units cost ``ms``: they bend alike, so their errors add."""
        return sum(self._errors_ms(parts, ms).values())

    def _errors_ms(self, parts: Sequence[Unit], ms: Sequence[float]) -> dict[Unit, float]:
        found: dict[Unit, float] = {}
        for unit, price in zip(parts, ms, strict=True):
            if unit in self._prices:
                found[unit] = found.get(unit, 0.0) + price * self._prices[unit].error
        return found

    def doubtful(self, networks: Iterable[tuple[Sequence[Unit], Sequence[float]]]) -> list[Unit]:
        """What is to be measured so that no network, (units, prices), errs by more than :attr:`network_error`."""
        found: dict[Unit, None] = {}
        for parts, ms in networks:
            errors = {unit: error for unit, error in self._errors_ms(parts, ms).items() if unit not in found}
            left = sum(errors.values())
            for unit in sorted(errors, key=lambda unit: -errors[unit]):
                if left <= self.network_error * sum(ms):
                    break
                left -= errors[unit]
                found[unit] = None
        return list(found)


@lru_cache(maxsize=1 << 15)
def family(unit: Unit, axis: Axis) -> tuple[object, ...]:
    """What units have in common between whose times on an axis a line may be drawn."""
    spec, into = unit.spec, unit.in_channels
    place = (axis, unit.in_size, unit.padding, unit.conv_bias, unit.classes)
    if isinstance(spec, StemSpec):
        return (*place, replace(spec, out_channels=1))
    if isinstance(spec, HeadSpec):
        return (*place, spec)
    fixed_in = into if axis in ("expanded", "out") else None
    fixed_out = spec.out_channels if axis in ("expanded", "in") else None
    wider = spec.expanded_channels if axis != "expanded" else None
    if not spec.has_expansion(into) and axis in ("in", "bottleneck"):
        wider = -(spec.expanded_channels // into)
    se = spec.squeeze_excite and replace(spec.squeeze_excite, squeeze_channels=1)
    plain = replace(spec, expanded_channels=1, out_channels=1, squeeze_excite=se)
    return (*place, _kind(unit), fixed_in, wider, fixed_out, plain)


def _error_ms(points: Sequence[_Point], low: _Point, high: _Point, width: int) -> float | None:
    """What the line from ``low`` to ``high`` may be wrong by at ``width``: as lines past measured widths are.

    These are the nearest that lie between two others, each blown up by as much as a curve or a stair parts further from
    the line that is asked for than from the line that passes it by. None where that cannot be told of some stair.
    """
    inner = sorted(range(1, len(points) - 1), key=lambda i: abs(points[i].width - width))[:HELD_OUT]
    found = []
    for index in inner:
        before, held, after = points[index - 1 : index + 2]
        missed_ms = abs(_line(before, after, held.width) - held.ms)
        shown = _departures(before.width, held.width, after.width)
        sought = _departures(low.width, width, high.width)
        found.append(missed_ms * max(1.0, *(_times(a, b) for a, b in zip(sought, shown, strict=True))))
    told = [error for error in found if math.isfinite(error)]
    return max(told, default=None)


def _departures(low: int, middle: int, high: int) -> tuple[float, ...]:
    """How far a curve, and stairs of each of :data:`STAIRS`, part from a line from ``low`` to ``high``; channels."""

    def above(stair: int, width: int) -> int:
        return -width % stair

    share = (middle - low) / (high - low)
    stairs = (abs(above(s, low) + share * (above(s, high) - above(s, low)) - above(s, middle)) for s in STAIRS)
    return (float((middle - low) * (high - middle)), *stairs)


def _times(sought: float, shown: float) -> float:
    if sought < HIDDEN:
        return 0.0
    return sought / shown if shown >= HIDDEN else math.inf


def _line(low: _Point, high: _Point, width: int) -> float:
    share = (width - low.width) / (high.width - low.width)
    return low.ms + share * (high.ms - low.ms)
