"""Reading an architecture back as a row: the lexicographically first row that makes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mnv3search.blocks import Block
from mnv3search.space.tables import Rows, SpaceTables, StageTable

StageCodes = tuple[int, ...]
"""Index of the out width, index of the depth, then the code of each block (one code where choices are the stage's)."""

_Codes = tuple[StageCodes, ...]


class _StageMatcher:
    """Finds the blocks of a sequence in one stage."""

    def __init__(self, tables: SpaceTables, stage: StageTable) -> None:
        self.stage = stage
        self.entering = {width: i for i, width in enumerate(stage.widths_in)}
        self.out = {width: o for o, width in enumerate(stage.choices.out_channels)}
        self.depths = {depth: d for d, depth in enumerate(stage.choices.depth)}
        self.codes: dict[tuple[int, int, int], dict[Block, list[int]]] = {}
        self.skips: dict[tuple[int, int, int], int] = {}
        for b, table in enumerate(stage.units):
            for i, o in np.ndindex(*table.shape[:2]):
                found = self.codes[b, i, o] = defaultdict(list)
                for code, unit in enumerate(table[i, o].tolist()):
                    if unit == tables.pad:
                        self.skips.setdefault((b, i, o), code)
                    else:
                        found[tables.block_spec(unit)].append(code)

    def segments(self, blocks: Sequence[Block], start: int, in_channels: int) -> dict[int, StageCodes]:
        """For each end that the stage can reach from block ``start``, its first codes."""
        if (i := self.entering.get(in_channels)) is None:
            return {}
        found: dict[int, StageCodes] = {}
        for width in {in_channels, *(block.out_channels for block in blocks[start : start + 1])}:
            if (o := self.out.get(width)) is None:
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
        for b in range(slots):
            slot = (b, 0 if b else i, o)
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
            if (d := self.depths.get(b + 1)) is not None:
                found += [(end, (o, d, *codes, *(0,) * (slots - b - 1))) for end, codes in reached.items()]
        return found

    def _shared(self, blocks: Sequence[Block], start: int, i: int, o: int) -> list[tuple[int, StageCodes]]:
        """One choice for the whole stage: the codes that every block so far allows."""
        found: list[tuple[int, StageCodes]] = []
        allowed: set[int] | None = None
        for b, block in enumerate(blocks[start : start + len(self.stage.slots)]):
            matched = set(self.codes[b, 0 if b else i, o].get(block, ()))
            allowed = matched if allowed is None else allowed & matched
            if not allowed:
                break
            if (d := self.depths.get(b + 1)) is not None:
                found.append((start + b + 1, (o, d, min(allowed))))
        return found


class Matcher:
    """Finds rows for sequences of blocks."""

    def __init__(self, tables: SpaceTables) -> None:
        self.tables = tables
        self.stages = tuple(_StageMatcher(tables, stage) for stage in tables.stages)

    def row(self, blocks: Sequence[Block]) -> Rows | None:
        """The lexicographically first row that makes these blocks, or None; shape (parameters,)."""
        if (found := self._rest(blocks, 0, 0, {})) is None:
            return None
        row = np.zeros(len(self.tables.parameters), dtype=np.int16)
        for stage, (out, depth, *codes) in zip(self.tables.stages, found, strict=True):
            stage.write(row, out, depth, codes)
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
        self, blocks: Sequence[Block], number: int, start: int, known: dict[tuple[int, int], _Codes | None]
    ) -> _Codes | None:
        if number == len(self.stages):
            return () if start == len(blocks) else None
        if (number, start) in known:
            return known[number, start]
        best: _Codes | None = None
        for end, codes in self.stages[number].segments(blocks, start, self._width(blocks, start)).items():
            rest = self._rest(blocks, number + 1, end, known)
            if rest is not None and (best is None or (codes, *rest) < best):
                best = (codes, *rest)
        known[number, start] = best
        return best
