"""The rows that a belief thinks best within a budget: a multiple-choice knapsack over units, by dynamic programming.

Beliefs and latencies are both sums over places, so the best row is found exactly, up to the rounding of latencies to a
grid; evolution would need many coordinated changes to step from one good filling of the budget to a better one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.block_search.surrogates import AccuracyBelief

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace
    from mnv3search.space.tables import Axes, StageTable

Rows = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GRID = 800


@dataclass(slots=True)
class _Step:
    """One decision for every grid time: which option was best, and how much of the grid it took."""

    chosen: Ints
    ticks: Ints


@dataclass(slots=True)
class _StageTrace:
    """Decisions of one stage for one output width."""

    depth: Ints
    first: Ints
    first_ticks: Ints
    later: list[_Step]


class BudgetedOptimum:
    """Fills a budget as a belief likes best.

    Attributes:
        prices: milliseconds of each unit of the space, and 0 for no unit; shape (units + 1,).
        fixed_ms: what every network takes beside its units.
    """

    def __init__(self, space: SearchSpace, prices: Floats, fixed_ms: float) -> None:
        self._space = space
        self.prices = prices
        self.fixed_ms = fixed_ms

    def rows(self, belief: AccuracyBelief, budget_ms: float, count: int) -> Rows:
        """About ``count`` distinct rows near ``budget_ms``, for budgets falling by steps of the grid; shape (n, P).

        Latencies are rounded on the way, so a few of the rows exceed the budget slightly: the caller prices them.
        """
        tables = self._space.tables
        tick = budget_ms / GRID
        ends = self.fixed_ms + self.prices[tables.stem]
        ticks = np.rint(self.prices / tick).astype(np.int64)
        values = np.zeros((1, GRID + 1))
        values[:, : round(float(ends / tick))] = -np.inf
        place, traces = 1, []
        for stage in tables.stages:
            values, trace = self._stage(stage, place, values, belief, ticks)
            traces.append(trace)
            place += len(stage.slots)
        values = _shifted(values, ticks[tables.heads]) + belief.effects[place, tables.heads][:, None]
        found = []
        for time in range(GRID, max(0, GRID - count), -1):
            width = int(values[:, time].argmax())
            if values[width, time] > -np.inf:
                found.append(self._traced(traces, width, time - int(ticks[tables.heads[width]])))
        rows = np.array(found, dtype=np.int64).reshape(-1, len(self._space.parameters))
        return self._space.canonical(rows)

    def _stage(
        self, stage: StageTable, place: int, entering: Floats, belief: AccuracyBelief, ticks: Ints
    ) -> tuple[Floats, list[_StageTrace]]:
        """Best values after a stage (widths, grid), and how to walk back."""
        values, traces = [], []
        depth_effects = _effects(stage.depth, belief, len(stage.depths))
        out_effects = _effects(stage.out, belief, len(stage.choices.out_channels))
        for o, out_effect in enumerate(out_effects):
            run = self._shared if stage.per_stage else self._independent
            by_depth, first, first_ticks, later = run(stage, place, entering, belief, ticks, o)
            totals = by_depth + depth_effects[:, None]
            depth = totals.argmax(axis=0)
            values.append(np.take_along_axis(totals, depth[None, :], axis=0)[0] + out_effect)
            traces.append(_StageTrace(depth, first, first_ticks, later))
        return np.stack(values), traces

    def _independent(
        self, stage: StageTable, place: int, entering: Floats, belief: AccuracyBelief, ticks: Ints, o: int
    ) -> tuple[Floats, Ints, Ints, list[_Step]]:
        pad = self._space.tables.pad
        empty, effects = [], []
        for b, axes in enumerate(stage.slots):
            codes = _effects(axes, belief, stage.units[b].shape[2])
            effects.append(codes)
            empty.append(codes[0] + belief.effects[place + b, pad])
        ids = stage.units[0][:, o]
        scores = effects[0] + belief.effects[place, ids]
        current, first = _best_of(_shifted_each(entering, ticks[ids]), scores)
        reached, later = [current], []
        for b in range(1, len(stage.slots)):
            ids = stage.units[b][:1, o]
            scores = effects[b] + belief.effects[place + b, ids]
            current, chosen = _best_of(_shifted_each(current[None, :], ticks[ids]), scores)
            reached.append(current)
            later.append(_Step(chosen, ticks[ids[0]]))
        by_depth = [reached[blocks - 1] + sum(empty[blocks:]) for blocks in stage.depths.tolist()]
        return np.stack(by_depth), first, ticks[stage.units[0][:, o]].reshape(-1), later

    def _shared(
        self, stage: StageTable, place: int, entering: Floats, belief: AccuracyBelief, ticks: Ints, o: int
    ) -> tuple[Floats, Ints, Ints, list[_Step]]:
        """A stage whose blocks share one code: each depth is decided at once, ``first`` holds (depth, grid)."""
        pad = self._space.tables.pad
        codes = _effects(stage.slots[0], belief, stage.units[0].shape[2])
        by_depth, first, taken = [], [], []
        for blocks in stage.depths.tolist():
            scores = np.broadcast_to(codes, stage.units[0][:, o].shape).copy()
            times = np.zeros(scores.shape, dtype=np.int64)
            for b, units in enumerate(stage.units):
                ids = units[:, o] if b < blocks else np.full((1, scores.shape[1]), pad)
                scores, times = scores + belief.effects[place + b, ids], times + ticks[ids]
            current, chosen = _best_of(_shifted_each(entering, times), scores)
            by_depth.append(current)
            first.append(chosen)
            taken.append(times.reshape(-1))
        return np.stack(by_depth), np.stack(first), np.stack(taken), []

    def _traced(self, traces: list[list[_StageTrace]], width: int, time: int) -> list[int]:
        row = np.zeros(len(self._space.parameters), dtype=np.int64)
        stages = self._space.tables.stages
        for stage, trace in zip(reversed(stages), reversed(traces), strict=True):
            here = trace[width]
            depth = int(here.depth[time])
            _write(row, stage.out, width)
            _write(row, stage.depth, depth)
            for b in range(int(stage.depths[depth]) - 1, 0, -1):
                if not stage.per_stage:
                    step = here.later[b - 1]
                    code = int(step.chosen[time])
                    _write(row, stage.slots[b], code)
                    time -= int(step.ticks[code])
            chosen = int(here.first[depth, time] if stage.per_stage else here.first[time])
            taken = here.first_ticks[depth] if stage.per_stage else here.first_ticks
            codes = stage.units[0].shape[2]
            _write(row, stage.slots[0], chosen % codes)
            width, time = chosen // codes, time - int(taken[chosen])
        return [int(choice) for choice in row]


def _effects(axes: Axes, belief: AccuracyBelief, count: int) -> Floats:
    """What the choices behind each code of ``axes`` add; shape (count,)."""
    codes, found = np.arange(count), np.zeros(count)
    choices = belief.choices
    for column, stride, size in zip(axes.columns, axes.strides, axes.sizes, strict=True):
        found += choices.effects[choices.offsets[column] + codes // stride % size]
    return found


def _write(row: Ints, axes: Axes, code: int) -> None:
    for column, choice in axes.values(code):
        row[column] = choice


def _shifted(values: Floats, ticks: Ints) -> Floats:
    """Each line of ``values`` (n, grid) moved later by its own ticks (n,)."""
    return _shifted_each(values, ticks[:, None])[:, 0]


def _shifted_each(values: Floats, ticks: Ints) -> Floats:
    """``values`` (widths, grid) moved later by ``ticks`` (widths, options); shape (widths, options, grid)."""
    source = np.arange(values.shape[1]) - ticks[:, :, None]
    moved = np.take_along_axis(values[:, None, :], np.maximum(source, 0), axis=2)
    return np.where(source >= 0, moved, -np.inf)


def _best_of(moved: Floats, scores: Floats) -> tuple[Floats, Ints]:
    """The best over (widths, options) for every grid time, and which it was, numbered row by row."""
    totals = (moved + scores[:, :, None]).reshape(-1, moved.shape[2])
    chosen = totals.argmax(axis=0)
    return np.take_along_axis(totals, chosen[None, :], axis=0)[0], chosen
