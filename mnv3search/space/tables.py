"""A skeleton as arrays: the unit of each position for each choice, so that numpy reads whole populations.

A row of indices has one column for each parameter. In a stage, ``code`` numbers the whole choices of a block (or, where
choices belong to the stage, of the stage) in row-major order of its axes. Two codes that make the same unit at a
position are one choice: the lower is canonical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import out_size
from mnv3search.blocks import Block
from mnv3search.errors import SpaceError
from mnv3search.layers import Unit
from mnv3search.space.choices import Parameter, Skeleton, StageChoices

Rows = NDArray[np.int16]
Ints = NDArray[np.int64]
MAX_TABLE_ENTRIES = 200_000


@dataclass(frozen=True, eq=False)
class Axes:
    """Columns that together hold one code: ``code = Σ row[column] · stride``, a column's values below its size."""

    columns: tuple[int, ...]
    strides: tuple[int, ...]
    sizes: tuple[int, ...]

    def codes(self, rows: NDArray[np.integer]) -> Ints:
        """The code of each row; shape (n,)."""
        found = np.zeros(len(rows), dtype=np.int64)
        for column, stride in zip(self.columns, self.strides, strict=True):
            found += rows[:, column].astype(np.int64) * stride
        return found

    def write(self, rows: Rows, codes: Ints | int) -> None:
        """Put the codes into the rows' columns."""
        for column, stride, size in zip(self.columns, self.strides, self.sizes, strict=True):
            rows[:, column] = codes // stride % size


@dataclass(frozen=True, eq=False)
class StageTable:
    """One stage as arrays."""

    choices: StageChoices
    widths_in: tuple[int, ...]  # that may enter, in the order of the previous stage's out_channels
    out: Axes  # of one column, or of none where there is one value; so is depth
    depth: Axes
    slots: tuple[Axes, ...]  # of each block's code; the same one for all blocks where per_stage
    # for each block the unit ids (in, out, code); in has one entry from the second block on: the stage's own width
    units: tuple[NDArray[np.int32], ...]
    # for each block (in, out, code), the lowest code with the same unit; where per_stage one array (in, out, depth,
    # code), the lowest code that makes the same stage
    canonical: tuple[NDArray[np.int32], ...]
    depths: Ints  # number of blocks by depth index

    @property
    def per_stage(self) -> bool:
        """Whether all blocks share one code."""
        return self.choices.per_stage

    def line(self, block: int, entering: Any, out: Any, depth: Any) -> tuple[Any, ...]:
        """The indices of a block's line of ``canonical``, from numbers or arrays of them."""
        return (entering, out, depth) if self.per_stage else (0 if block else entering, out)

    def write(self, row: Rows, out: int, depth: int, codes: Sequence[int]) -> None:
        """Put a stage's choices into one row; shape (parameters,)."""
        for axes, code in ((self.out, out), (self.depth, depth), *zip(self.slots, codes, strict=False)):
            axes.write(row[None], code)


class SpaceTables:
    """All stages, the parameters and the distinct units of a space; ``pad`` is the id of no unit."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.parameters: tuple[Parameter, ...] = ()
        self._ids: dict[Unit, int] = {}
        size = skeleton.resolution
        self.stem = self._intern(Unit(skeleton.stem, 3, size, skeleton.padding, skeleton.conv_bias))
        size = out_size(size, skeleton.stem.stride)
        stages = []
        for number, choices in enumerate(skeleton.stages):
            stages.append(self._stage(number, choices, size))
            size = out_size(size, choices.stride)
        self.stages = tuple(stages)
        ends = (
            Unit(skeleton.head, width, size, skeleton.padding, skeleton.conv_bias, skeleton.classes)
            for width in skeleton.stages[-1].out_channels
        )
        self.heads = np.array([self._intern(unit) for unit in ends], dtype=np.int32)
        self.units = tuple(self._ids)
        self.pad = len(self.units)
        for stage in self.stages:
            for table in stage.units:
                table[table < 0] = self.pad
        made: tuple[Parameter, ...] = self.parameters
        self.sizes = np.array([len(p.choices) for p in made], dtype=np.int16)
        self.names = {p.name: i for i, p in enumerate(made)}

    def _intern(self, unit: Unit) -> int:
        return self._ids.setdefault(unit, len(self._ids))

    def _axes(self, prefix: str, axes: tuple[tuple[str, tuple[object, ...]], ...]) -> Axes:
        """Axes of new columns; an axis of one value needs none."""
        columns, strides, sizes = [], [], []
        stride = 1
        for _, values in axes:
            stride *= len(values)
        for name, values in axes:
            stride //= len(values)
            if len(values) == 1:
                continue
            columns.append(len(self.parameters))
            strides.append(stride)
            sizes.append(len(values))
            self.parameters += (Parameter(f"{prefix}.{name}", values),)  # type: ignore[arg-type]
        return Axes(tuple(columns), tuple(strides), tuple(sizes))

    def _stage(self, number: int, choices: StageChoices, size: int) -> StageTable:
        widths_in = self.skeleton.widths_in(number)
        blocks = max(choices.depth)
        entries = (len(widths_in) + blocks) * len(choices.out_channels) * choices.block.combination_count()
        prefix = f"stage{number + 1}"
        if entries > MAX_TABLE_ENTRIES:
            raise SpaceError(
                f"{prefix} has {entries} combinations of choices in its blocks; at most {MAX_TABLE_ENTRIES} are "
                f"possible, so shorten its lists"
            )
        out = self._axes(prefix, (("out_channels", choices.out_channels),))
        depth = self._axes(prefix, (("depth", choices.depth),))
        first_skip = choices.first_skippable(widths_in)
        skippable = [not choices.per_stage and (b > 0 or first_skip) for b in range(blocks)]
        if choices.per_stage:
            slots = (self._axes(prefix, choices.block.axes(skippable=False)),) * blocks
        else:
            slots = tuple(
                self._axes(f"{prefix}.block{b + 1}", choices.block.axes(skippable=skip))
                for b, skip in enumerate(skippable)
            )
        units = tuple(
            self._units(choices, None if b else widths_in, size, skippable=skip) for b, skip in enumerate(skippable)
        )
        depths = np.array(choices.depth, dtype=np.int64)
        canonical = _canonical_of_stage(units, depths) if choices.per_stage else tuple(map(_first_equal, units))
        return StageTable(choices, widths_in, out, depth, slots, units, canonical, depths)

    def _units(
        self, choices: StageChoices, widths_in: tuple[int, ...] | None, size: int, *, skippable: bool
    ) -> NDArray[np.int32]:
        options = choices.block.combinations(skippable=skippable)
        shape = (len(widths_in) if widths_in else 1, len(choices.out_channels), len(options))
        table = np.full(shape, -1, dtype=np.int32)
        stride = choices.stride if widths_in else 1
        here = size if widths_in else out_size(size, choices.stride)
        for o, out in enumerate(choices.out_channels):
            for i, in_channels in enumerate(widths_in or (out,)):
                for code, option in enumerate(options):
                    if option is not None:
                        spec = self.skeleton.block(choices.block, option, in_channels, out, stride)
                        unit = Unit(spec, in_channels, here, self.skeleton.padding, self.skeleton.conv_bias)
                        table[i, o, code] = self._intern(unit)
        return table

    def block_spec(self, unit: int) -> Block:
        """The block of a unit id."""
        return cast(Block, self.units[unit].spec)

    def unit_ids(self, rows: NDArray[np.integer]) -> NDArray[np.int32]:
        """Unit ids of rows: stem, blocks at full depth, head; ``pad`` where there is none. Shape (n, 2 + blocks)."""
        columns = [np.full(len(rows), self.stem, dtype=np.int32)]
        entering: Ints = np.zeros(len(rows), dtype=np.int64)
        for stage in self.stages:
            out = stage.out.codes(rows)
            blocks = stage.depths[stage.depth.codes(rows)]
            shared = stage.slots[0].codes(rows) if stage.per_stage else None
            for b, axes in enumerate(stage.slots):
                code = axes.codes(rows) if shared is None else shared
                found = stage.units[b][0 if b else entering, out, code]
                columns.append(np.where(b < blocks, found, self.pad).astype(np.int32))
            entering = out
        columns.append(self.heads[entering])
        return np.stack(columns, axis=1)

    def used(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which parameters matter in each row: all but those of blocks past the depth. Shape of ``rows``."""
        mask = np.ones(rows.shape, dtype=np.bool_)
        for stage in self.stages:
            if stage.per_stage:
                continue
            blocks = stage.depths[stage.depth.codes(rows)]
            for b, axes in enumerate(stage.slots):
                for column in axes.columns:
                    mask[:, column] = b < blocks
        return mask

    def locally_canonical(self, rows: NDArray[np.integer]) -> Rows:
        """Unused parameters at 0 and, block by block, the first of the choices that make the same unit."""
        found: Rows = np.where(self.used(rows), rows, 0).astype(np.int16)
        entering: Ints = np.zeros(len(rows), dtype=np.int64)
        for stage in self.stages:
            out, depth = stage.out.codes(found), stage.depth.codes(found)
            for b, (axes, canonical) in enumerate(zip(stage.slots, stage.canonical, strict=False)):
                code = canonical[(*stage.line(b, entering, out, depth), axes.codes(found))]
                axes.write(found, np.where(b < stage.depths[depth], code, 0).astype(np.int64))
            entering = out
        return found


def _first_equal(table: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each entry of the last axis the first index that holds the same value."""
    flat = table.reshape(-1, table.shape[-1])
    found = np.empty_like(flat)
    for line, values in enumerate(flat):
        _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        found[line] = first[inverse]
    return found.reshape(table.shape)


def _canonical_of_stage(units: tuple[NDArray[np.int32], ...], depths: Ints) -> tuple[NDArray[np.int32], ...]:
    """(in, out, depth, code): the first code whose blocks, up to the depth, are all the same."""
    shape = (units[0].shape[0], units[0].shape[1], len(depths), units[0].shape[2])
    found = np.zeros(shape, dtype=np.int32)
    for i, o, (d, blocks) in product(range(shape[0]), range(shape[1]), enumerate(depths)):
        seen: dict[tuple[int, ...], int] = {}
        for code in range(shape[3]):
            made = tuple(int(units[b][0 if b else i, o, code]) for b in range(blocks))
            found[i, o, d, code] = seen.setdefault(made, code)
    return (found,)


_Plan = tuple[int, int, list[int]]


def cheapest_row(tables: SpaceTables, prices: NDArray[np.float64]) -> Rows:
    """A row with the least sum; ``prices`` has an entry for each unit and one more, 0, for no unit."""
    costs = prices[tables.heads].tolist()
    plans: list[list[_Plan]] = []
    for stage in reversed(tables.stages):
        best = [_cheapest_stage(stage, prices, i, costs) for i in range(len(stage.widths_in))]
        costs = [cost for cost, _ in best]
        plans.append([plan for _, plan in best])
    row: Rows = np.zeros(len(tables.parameters), dtype=np.int16)
    entering = 0
    for stage, choices in zip(tables.stages, reversed(plans), strict=True):
        stage.write(row, *choices[entering])
        entering = choices[entering][0]
    return row


def _cheapest_stage(
    stage: StageTable, prices: NDArray[np.float64], i: int, following: list[float]
) -> tuple[float, _Plan]:
    found: list[tuple[float, _Plan]] = []
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
            found.append((cost, (o, d, codes)))
    return min(found, key=lambda plan: plan[0])  # of equals the first
