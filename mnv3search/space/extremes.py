"""The row of least total price, by dynamic programming from the last stage to the first over the width that enters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnv3search.space.tables import Rows, SpaceTables, StageTable

_Plan = tuple[int, int, list[int]]


def cheapest_row(tables: SpaceTables, prices: NDArray[np.float64]) -> Rows:
    """A row with the least sum; ``prices`` has an entry for each unit and one more, 0, for no unit."""
    costs = prices[tables.heads].tolist()
    plans: list[list[_Plan]] = []
    for stage in reversed(tables.stages):
        best = [_cheapest_stage(stage, prices, i, costs) for i in range(len(stage.widths_in))]
        costs = [cost for cost, _ in best]
        plans.append([plan for _, plan in best])
    row: Rows = np.zeros((1, len(tables.parameters)), dtype=np.int16)
    entering = 0
    for stage, choices in zip(tables.stages, reversed(plans), strict=True):
        out, depth, codes = choices[entering]
        stage.out.write(row, np.array([out]))
        stage.depth.write(row, np.array([depth]))
        for axes, code in zip(stage.slots, codes, strict=False):
            axes.write(row, np.array([code]))
        entering = out
    found: Rows = row[0]
    return found


def _cheapest_stage(
    stage: StageTable, prices: NDArray[np.float64], i: int, following: list[float]
) -> tuple[float, _Plan]:
    best: tuple[float, _Plan] | None = None
    for o, after in enumerate(following):
        lines = [prices[table[i if b == 0 else 0, o]] for b, table in enumerate(stage.units)]
        for d, blocks in enumerate(stage.depths.tolist()):
            if stage.per_stage:
                sums = np.sum(lines[:blocks], axis=0)
                codes = [int(sums.argmin())]
                cost = float(sums[codes[0]]) + after
            else:
                codes = [int(line.argmin()) for line in lines[:blocks]]
                cost = sum(float(line[c]) for line, c in zip(lines, codes, strict=False)) + after
            if best is None or cost < best[0]:
                best = (cost, (o, d, codes))
    assert best is not None  # every stage has a width and a depth
    return best
