"""How many networks a space holds, and sampling them uniformly.

Rows that are canonical block by block are counted and sampled stage by stage. Where two such rows can still make one
network (a block left out, or neighbouring stages of one width), the distinct sequences of blocks are counted instead,
by the subset construction on the space read as an automaton whose letters are units.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import SpaceError
from mnv3search.space.tables import Ints, Rows, SpaceTables, StageTable

MAX_AUTOMATON_STATES = 20_000


def may_be_ambiguous(tables: SpaceTables) -> bool:
    """Whether two rows that are canonical block by block could make the same network."""
    for number, stage in enumerate(tables.stages):
        joins = number > 0 and stage.choices.stride == 1 and set(stage.widths_in) & set(stage.choices.out_channels)
        if stage.choices.block.can_skip or joins:
            return True
    return False


class StageWeights:
    """Exact numbers of canonical continuations, by (in, out, depth) of one stage, and of its canonical codes."""

    def __init__(self, stage: StageTable, following: list[int]) -> None:
        self.stage = stage
        self.codes = tuple(_own_codes(table) for table in stage.canonical)
        ins, outs = len(stage.widths_in), len(stage.choices.out_channels)
        self.weights = [
            [self._choices(i, o, d) * following[o] for o, d in product(range(outs), range(len(stage.depths)))]
            for i in range(ins)
        ]
        self.totals = [sum(line) for line in self.weights]
        shares = [[w / total for w in line] for line, total in zip(self.weights, self.totals, strict=True)]
        self.cumulative = np.cumsum(shares, axis=1)

    def _choices(self, i: int, o: int, d: int) -> int:
        counts = [counts for _, counts in self.codes[: self.stage.depths[d]]]
        return math.prod(int(count[self.stage.line(b, i, o, d)]) for b, count in enumerate(counts))

    def sample(self, rows: Rows, entering: Ints, rng: np.random.Generator) -> Ints:
        """Fill the stage's columns of ``rows``; the index of each row's out width comes back."""
        depths = len(self.stage.depths)
        uniform = rng.random((len(rows), 1))
        picked: Ints = np.minimum((uniform >= self.cumulative[entering]).sum(axis=1), self.cumulative.shape[1] - 1)
        out: Ints = picked // depths
        depth: Ints = picked % depths
        self.stage.out.write(rows, out)
        self.stage.depth.write(rows, depth)
        blocks = self.stage.depths[depth]
        for b, (axes, (codes, counts)) in enumerate(zip(self.stage.slots, self.codes, strict=False)):
            line = self.stage.line(b, entering, out, depth)
            number = (rng.random(len(rows)) * counts[line]).astype(np.int64)
            axes.write(rows, np.where(b < blocks, codes[(*line, number)], 0))
        return out


def _own_codes(canonical: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """The canonical codes of each line, packed to the left, and how many there are."""
    flat = canonical.reshape(-1, canonical.shape[-1])
    packed = np.zeros(flat.shape, dtype=np.int64)
    counts = np.zeros(len(flat), dtype=np.int64)
    for line, own in enumerate(map(np.unique, flat)):
        packed[line, : len(own)] = own
        counts[line] = len(own)
    return packed.reshape(canonical.shape), counts.reshape(canonical.shape[:-1])


class LocalCounter:
    """Rows that are canonical block by block: their exact number, uniform samples, and all of them in order."""

    def __init__(self, tables: SpaceTables) -> None:
        self.tables = tables
        following = [1] * len(tables.heads)
        weights: list[StageWeights] = []
        for stage in reversed(tables.stages):
            weights.append(StageWeights(stage, following))
            following = weights[-1].totals
        self.stages = tuple(reversed(weights))
        self.size = following[0]

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """``n`` rows, each equally likely; shape (n, parameters)."""
        rows = np.zeros((n, len(self.tables.parameters)), dtype=np.int16)
        entering: Ints = np.zeros(n, dtype=np.int64)
        for stage in self.stages:
            entering = stage.sample(rows, entering, rng)
        return rows

    def rows(self) -> Iterator[Rows]:
        """Every row, one at a time, in lexicographic order."""
        return self._rows(np.zeros(len(self.tables.parameters), dtype=np.int16), 0, 0)

    def _rows(self, row: Rows, number: int, entering: int) -> Iterator[Rows]:
        if number == len(self.stages):
            yield row.copy()
            return
        weights = self.stages[number]
        stage = weights.stage
        for out, depth in product(range(len(stage.choices.out_channels)), range(len(stage.depths))):
            for codes in self._codes(weights, entering, out, depth):
                stage.write(row, out, depth, codes)
                yield from self._rows(row, number + 1, out)

    def _codes(self, weights: StageWeights, entering: int, out: int, depth: int) -> Iterator[tuple[int, ...]]:
        lists = []
        for b, (codes, counts) in enumerate(weights.codes):
            line = weights.stage.line(b, entering, out, depth)
            lists.append(codes[line][: counts[line]].tolist() if b < weights.stage.depths[depth] else [0])
        return product(*lists)


State = tuple[int, int, int, int, int, int]
"""stage, block (-1 before the first), in, out, depth, code of the stage."""


def _beginning(stage: int, entering: int) -> State:
    return (stage, -1, entering, 0, 0, 0)


class Automaton:
    """The distinct sequences of units of a space, whatever rows make them."""

    def __init__(self, tables: SpaceTables) -> None:
        self.tables = tables
        self._moves = lru_cache(maxsize=None)(self._find_moves)
        self._counts: dict[frozenset[State], int] = {}
        self.start: frozenset[State] = frozenset({_beginning(0, 0)})
        self.size = self.count(self.start)

    def _contexts(self, number: int, entering: int) -> Iterator[State]:
        stage = self.tables.stages[number]
        for o, d in product(range(len(stage.choices.out_channels)), range(len(stage.depths))):
            codes = np.unique(stage.canonical[0][entering, o, d]).tolist() if stage.per_stage else [0]
            for code in codes:
                yield (number, 0, entering, o, d, code)

    def _find_moves(self, state: State) -> tuple[dict[int, set[State]], bool]:
        """Where each unit leads from a state, and whether the network may end there."""
        number, block, entering, out, depth, stage_code = state
        if number == len(self.tables.stages):
            return {}, True
        if block < 0:
            return self._united(self._contexts(number, entering))
        stage = self.tables.stages[number]
        last = block + 1 == stage.depths[depth]
        # from its second block on a stage forgets what entered it, which keeps the states few
        kept = entering if stage.per_stage else 0
        target = _beginning(number + 1, out) if last else (number, block + 1, kept, out, depth, stage_code)
        line = stage.units[block][0 if block else entering, out]
        letters = [int(line[stage_code])] if stage.per_stage else np.unique(line).tolist()
        moves: dict[int, set[State]] = {letter: {target} for letter in letters if letter != self.tables.pad}
        if self.tables.pad not in letters:
            return moves, False
        skipped, ends = self._moves(target)
        for letter, targets in skipped.items():
            moves[letter] = moves.get(letter, set()) | targets
        return moves, ends

    def _united(self, states: Iterator[State] | frozenset[State]) -> tuple[dict[int, set[State]], bool]:
        united: dict[int, set[State]] = defaultdict(set)
        ends = False
        for state in states:
            moves, end = self._moves(state)
            ends = ends or end
            for letter, targets in moves.items():
                united[letter] |= targets
        return united, ends

    def options(self, states: frozenset[State]) -> tuple[list[tuple[int, frozenset[State]]], bool]:
        """(unit, states after it) pairs, and whether the network may end here."""
        moves, ends = self._united(states)
        return [(letter, frozenset(targets)) for letter, targets in moves.items()], ends

    def count(self, states: frozenset[State]) -> int:
        """Distinct continuations from a set of states."""
        if (known := self._counts.get(states)) is not None:
            return known
        options, ends = self.options(states)
        found = int(ends) + sum(self.count(target) for _, target in options)
        if len(self._counts) >= MAX_AUTOMATON_STATES:
            raise SpaceError(
                "neighbouring stages of this space overlap in too many ways to count its networks; give stages of "
                "stride 1 widths that the stage before does not have"
            )
        self._counts[states] = found
        return found

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """The unit ids of one network's blocks, every network equally likely."""
        states = self.start
        letters: list[int] = []
        while True:
            options, ends = self.options(states)
            total = self.count(states)
            weights = [self.count(target) / total for _, target in options]
            picked = int(np.searchsorted(np.cumsum(weights), rng.random(), side="right"))
            if picked >= len(options):
                if ends:
                    return tuple(letters)
                picked = len(options) - 1
            letters.append(options[picked][0])
            states = options[picked][1]
