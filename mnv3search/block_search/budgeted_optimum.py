"""The rows of highest expected top-1 within a latency budget: a multiple-choice knapsack over units.

Expected top-1 and latency are both sums over positions, so dynamic programming finds the best row exactly, up to the
rounding of latencies to a grid; evolution would need many coordinated changes from one good row to a better one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.block_search.surrogates import AccuracyPosterior, Floats, Ints, Rows

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace
    from mnv3search.space.tables import Axes, StageTable

GRID = 800


@dataclass(slots=True)
class _StageTrace:
    """The best choices of one stage for one output width, for every time on the grid.

    Attributes:
        depth: index of the best depth, shape (grid,).
        first, first_ticks: best option of the first block, or of the whole stage at each depth where blocks share one
            code; and what each option takes.
        later: of each later block the best code, shape (grid,), and what each code takes.
    """

    depth: Ints
    first: Ints
    first_ticks: Ints
    later: list[tuple[Ints, Ints]]


class BudgetedOptimum:
    """Finds the best rows of a space within a budget.

    Attributes:
        prices: milliseconds of each unit of the space, and 0 for no unit; shape (units + 1,).
        fixed_ms: what every network takes on top of its units.
    """

    def __init__(self, space: SearchSpace, prices: Floats, fixed_ms: float) -> None:
        self._space = space
        self.prices = prices
        self.fixed_ms = fixed_ms

    def rows(self, posterior: AccuracyPosterior, budget_ms: float, count: int) -> Rows:
        """About ``count`` distinct rows near ``budget_ms``, for budgets falling by steps of the grid; shape (n, P).

        Latencies are rounded on the way, so a few of the rows exceed the budget slightly: the caller prices them.
        """
        tables = self._space.tables
        tick = budget_ms / GRID
        ends = self.fixed_ms + self.prices[tables.stem]
        ticks = np.rint(self.prices / tick).astype(np.int64)
        values = np.zeros((1, GRID + 1))
        values[:, : round(float(ends / tick))] = -np.inf
        position, traces = 1, []
        for stage in tables.stages:
            values, trace = self._stage(stage, position, values, posterior, ticks)
            traces.append(trace)
            position += len(stage.slots)
        values = _shifted(values, ticks[tables.heads][:, None])[:, 0]
        values = values + posterior.effects[position, tables.heads][:, None]
        found = []
        for time in range(GRID, max(0, GRID - count), -1):
            width = int(values[:, time].argmax())
            if values[width, time] > -np.inf:
                found.append(self._traced(traces, width, time - int(ticks[tables.heads[width]])))
        rows = np.array(found, dtype=np.int64).reshape(-1, len(self._space.parameters))
        return self._space.canonical(rows)

    def _stage(
        self, stage: StageTable, position: int, entering: Floats, posterior: AccuracyPosterior, ticks: Ints
    ) -> tuple[Floats, list[_StageTrace]]:
        """Best values after a stage (widths, grid), and the choices that lead to them."""
        values, traces = [], []
        depth_effects = _effects(stage.depth, posterior, len(stage.depths))
        out_effects = _effects(stage.out, posterior, len(stage.choices.out_channels))
        run = self._shared if stage.per_stage else self._independent
        for o, out_effect in enumerate(out_effects):
            by_depth, first, first_ticks, later = run(stage, position, entering, posterior, ticks, o)
            totals = by_depth + depth_effects[:, None]
            depth = totals.argmax(axis=0)
            values.append(np.take_along_axis(totals, depth[None, :], axis=0)[0] + out_effect)
            traces.append(_StageTrace(depth, first, first_ticks, later))
        return np.stack(values), traces

    def _independent(
        self, stage: StageTable, position: int, entering: Floats, posterior: AccuracyPosterior, ticks: Ints, o: int
    ) -> tuple[Floats, Ints, Ints, list[tuple[Ints, Ints]]]:
        """A stage whose blocks have a code each."""
        pad = self._space.tables.pad
        effects = [
            _effects(axes, posterior, units.shape[2]) for axes, units in zip(stage.slots, stage.units, strict=True)
        ]
        empty = [codes[0] + posterior.effects[position + b, pad] for b, codes in enumerate(effects)]
        current, reached, steps = entering, [], []
        for b, units in enumerate(stage.units):
            ids = units[:, o]
            scores = effects[b] + posterior.effects[position + b, ids]
            best, chosen = _best_of(_shifted(current, ticks[ids]), scores)
            current = best[None, :]
            reached.append(best)
            steps.append((chosen, ticks[ids].reshape(-1)))
        by_depth = [reached[blocks - 1] + sum(empty[blocks:]) for blocks in stage.depths.tolist()]
        return np.stack(by_depth), *steps[0], steps[1:]

    def _shared(
        self, stage: StageTable, position: int, entering: Floats, posterior: AccuracyPosterior, ticks: Ints, o: int
    ) -> tuple[Floats, Ints, Ints, list[tuple[Ints, Ints]]]:
        """A stage whose blocks share one code: each depth is decided at once, ``first`` holds (depth, grid)."""
        pad = self._space.tables.pad
        codes = _effects(stage.slots[0], posterior, stage.units[0].shape[2])
        by_depth, first, taken = [], [], []
        for blocks in stage.depths.tolist():
            scores = np.broadcast_to(codes, stage.units[0][:, o].shape).copy()
            times = np.zeros(scores.shape, dtype=np.int64)
            for b, units in enumerate(stage.units):
                ids = units[:, o] if b < blocks else np.full((1, scores.shape[1]), pad)
                scores, times = scores + posterior.effects[position + b, ids], times + ticks[ids]
            current, chosen = _best_of(_shifted(entering, times), scores)
            by_depth.append(current)
            first.append(chosen)
            taken.append(times.reshape(-1))
        return np.stack(by_depth), np.stack(first), np.stack(taken), []

    def _traced(self, traces: list[list[_StageTrace]], width: int, time: int) -> list[int]:
        """The row that ends with output ``width`` at ``time``, followed back stage by stage."""
        row = np.zeros((1, len(self._space.parameters)), dtype=np.int16)
        stages = self._space.tables.stages
        for stage, trace in zip(reversed(stages), reversed(traces), strict=True):
            here = trace[width]
            depth = int(here.depth[time])
            stage.out.write(row, width)
            stage.depth.write(row, depth)
            if not stage.per_stage:
                for b in range(int(stage.depths[depth]) - 1, 0, -1):
                    chosen_later, ticks = here.later[b - 1]
                    code = int(chosen_later[time])
                    stage.slots[b].write(row, code)
                    time -= int(ticks[code])
            chosen = int(here.first[depth, time] if stage.per_stage else here.first[time])
            taken = here.first_ticks[depth] if stage.per_stage else here.first_ticks
            codes = stage.units[0].shape[2]
            stage.slots[0].write(row, chosen % codes)
            width, time = chosen // codes, time - int(taken[chosen])
        return [int(choice) for choice in row[0]]


def _effects(axes: Axes, posterior: AccuracyPosterior, count: int) -> Floats:
    """What the choices behind each code of ``axes`` add; shape (count,)."""
    codes, found = np.arange(count), np.zeros(count)
    choices = posterior.choices
    for column, stride, size in zip(axes.columns, axes.strides, axes.sizes, strict=True):
        found += choices.effects[choices.offsets[column] + codes // stride % size]
    return found


def _shifted(values: Floats, ticks: Ints) -> Floats:
    """``values`` (widths, grid) moved later by ``ticks`` (widths, options); shape (widths, options, grid)."""
    source = np.arange(values.shape[1]) - ticks[:, :, None]
    moved = np.take_along_axis(values[:, None, :], np.maximum(source, 0), axis=2)
    return np.where(source >= 0, moved, -np.inf)


def _best_of(moved: Floats, scores: Floats) -> tuple[Floats, Ints]:
    """The best over (widths, options) for every time on the grid, and its index, row by row."""
    totals = (moved + scores[:, :, None]).reshape(-1, moved.shape[2])
    chosen = totals.argmax(axis=0)
    return np.take_along_axis(totals, chosen[None, :], axis=0)[0], chosen
