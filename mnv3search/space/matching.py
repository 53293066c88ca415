"""Reading an architecture back as a row: the lexicographically first row that makes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnv3search.blocks import Block
from mnv3search.space.tables import Rows, SpaceTables, StageTable

StageCodes = tuple[int, ...]
"""Index of the out width, index of the depth, then the code of each block (one code where choices are the stage's)."""


class _StageMatcher:
    """Finds the blocks of a sequence in one stage."""

    def __init__(self, tables: SpaceTables, stage: StageTable) -> None:
        self.stage = stage
        self.pad = tables.pad
        self.entering = {width: i for i, width in enumerate(stage.widths_in)}
        self.out = {width: o for o, width in enumerate(stage.choices.out_channels)}
        self.codes: dict[tuple[int, int, int], dict[Block, list[int]]] = {}
        self.skips: dict[tuple[int, int, int], int] = {}
        for b, table in enumerate(stage.units):
            for i in range(table.shape[0]):
                for o in range(table.shape[1]):
                    self._index(tables, (b, i, o), table[i, o].tolist())

    def _index(self, tables: SpaceTables, slot: tuple[int, int, int], units: list[int]) -> None:
        found: dict[Block, list[int]] = {}
        for code, unit in enumerate(units):
            if unit == self.pad:
                self.skips.setdefault(slot, code)
            else:
                found.setdefault(tables.block_spec(unit), []).append(code)
        self.codes[slot] = found

    def segments(self, blocks: Sequence[Block], start: int, in_channels: int) -> dict[int, StageCodes]:
        """For each end that the stage can reach from block ``start``, its first codes."""
        i = self.entering.get(in_channels)
        if i is None:
            return {}
        found: dict[int, StageCodes] = {}
        widths = {in_channels}
        if start < len(blocks):
            widths.add(blocks[start].out_channels)
        for width in widths:
            o = self.out.get(width)
            if o is None:
                continue
            make = self._shared if self.stage.per_stage else self._independent
            for end, codes in make(blocks, start, i, o):
                if end not in found or codes < found[end]:
                    found[end] = codes
        return found

    def _independent(self, blocks: Sequence[Block], start: int, i: int, o: int) -> list[tuple[int, StageCodes]]:
        """Blocks chosen one by one: the first codes that reach each end, block after block."""
        reached: dict[int, StageCodes] = {start: ()}
        found: list[tuple[int, StageCodes]] = []
        slots = len(self.stage.slots)
        depths = self.stage.depths.tolist()
        for b in range(slots):
            slot = (b, i if b == 0 else 0, o)
            after: dict[int, StageCodes] = {}
            for position, codes in reached.items():
                steps = []
                if slot in self.skips:
                    steps.append((position, self.skips[slot]))
                if position < len(blocks) and (matched := self.codes[slot].get(blocks[position])):
                    steps.append((position + 1, matched[0]))
                for end, code in steps:
                    longer = (*codes, code)
                    if end not in after or longer < after[end]:
                        after[end] = longer
            reached = after
            if not reached:
                break
            for d, depth in enumerate(depths):
                if depth == b + 1:
                    found += [(end, (o, d, *codes, *(0,) * (slots - depth))) for end, codes in reached.items()]
        return found

    def _shared(self, blocks: Sequence[Block], start: int, i: int, o: int) -> list[tuple[int, StageCodes]]:
        """One choice for the whole stage: the codes that every block so far allows."""
        found: list[tuple[int, StageCodes]] = []
        allowed: set[int] | None = None
        depths = self.stage.depths.tolist()
        for b, block in enumerate(blocks[start : start + len(self.stage.slots)]):
            matched = self.codes[b, i if b == 0 else 0, o].get(block, [])
            allowed = set(matched) if allowed is None else allowed & set(matched)
            if not allowed:
                break
            for d, depth in enumerate(depths):
                if depth == b + 1:
                    found.append((start + depth, (o, d, min(allowed))))
        return found


class Matcher:
    """Finds rows for sequences of blocks."""

    def __init__(self, tables: SpaceTables) -> None:
        self.tables = tables
        self.stages = tuple(_StageMatcher(tables, stage) for stage in tables.stages)

    def row(self, blocks: Sequence[Block]) -> Rows | None:
        """The lexicographically first row that makes these blocks, or None; shape (parameters,)."""
        known: dict[tuple[int, int], tuple[StageCodes, ...] | None] = {}
        found = self._rest(blocks, 0, 0, known)
        if found is None:
            return None
        row = np.zeros(len(self.tables.parameters), dtype=np.int16)
        for stage, (out, depth, *codes) in zip(self.tables.stages, found, strict=True):
            for axes, code in ((stage.out, out), (stage.depth, depth), *zip(stage.slots, codes, strict=False)):
                for column, index in axes.values(code):
                    row[column] = index
        return row

    def furthest(self, blocks: Sequence[Block]) -> int:
        """How many leading blocks some network of the space shares."""
        frontier, far = {0}, 0
        for stage in self.stages:
            following: set[int] = set()
            for start in frontier:
                width = self._width(blocks, start)
                for end in range(len(blocks), start, -1):
                    if end in (found := stage.segments(blocks[:end], start, width)):
                        following |= set(found)
                        far = max(far, *found)
                        break
            frontier = following
        return far

    def _width(self, blocks: Sequence[Block], start: int) -> int:
        return blocks[start - 1].out_channels if start else self.tables.skeleton.stem.out_channels

    def _rest(
        self,
        blocks: Sequence[Block],
        number: int,
        start: int,
        known: dict[tuple[int, int], tuple[StageCodes, ...] | None],
    ) -> tuple[StageCodes, ...] | None:
        if number == len(self.stages):
            return () if start == len(blocks) else None
        if (number, start) in known:
            return known[number, start]
        best: tuple[StageCodes, ...] | None = None
        for end, codes in self.stages[number].segments(blocks, start, self._width(blocks, start)).items():
            rest = self._rest(blocks, number + 1, end, known)
            if rest is not None and (best is None or (codes, *rest) < best):
                best = (codes, *rest)
        known[number, start] = best
        return best
