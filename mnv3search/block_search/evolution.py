"""The sampler behind ``auto``: evolution within the budget, led by a model of what was evaluated.

For searches of few networks the model is a Gaussian process, and batches begin at one network and grow with what is
known; for thousands it is additive, and batches are large.

Every generation is a function of the seed, its number and the outcomes before it, so a search that is replayed with the
same outcomes asks for the same rows: a resumed search goes the way of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.block_search.budgeted_optimum import BudgetedOptimum
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.block_search.stopping import expected_top1
from mnv3search.block_search.study import Outcome
from mnv3search.block_search.surrogates import AccuracyModel, AccuracyPosterior, Floats, GaussianProcess, Rows
from mnv3search.threads import on_one_blas_thread

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

BATCH = 64
OPENING_SHARE = 0.2
FEW, FEW_CHEAP = 256, 128
"""A Gaussian process leads up to so many answers (what it costs grows with their cube), or in so short a search."""
PER_ASK = 16
"""While it leads, a batch is one network for so many that are known."""
ELITES = 48
POPULATION = 256
ROUNDS = 3
FILLINGS = 40
SMALL_SPACE = 4096
_BY_MEAN, _BY_DRAW, _FILLED_BY_MEAN, _FILLED_BY_DRAW = 26, 12, 8, 6
DRAWS = 4
"""Upper confidence bounds of one generation."""
_CROSSOVER_SHARE = 0.6
_EXPECTED_CHANGES = np.array([1.0, 2.0, 4.0])


class Variation:
    """Operators over the rows of one space; every answer is canonical."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._sizes = space.tables.sizes.astype(np.int64)
        self.combinations = math.prod(self._sizes.tolist())

    def children(self, parents: Rows, count: int, rng: np.random.Generator) -> Rows:
        """``count`` children of ``parents`` (best first, which are chosen more often); shape (count, P).

        Crossover takes a parameter from the parent that uses it; what neither uses is drawn anew, so that a block that
        mutation brings back is not always the same. One pass over the population: the space's own operators make rows
        canonical after each step, which would be most of the search's time.
        """
        used = self._space.tables.used(parents)
        # winners of tournaments of two: a lower index is a better parent
        first, second = (rng.integers(0, len(parents), (count, 2)).min(axis=1) for _ in range(2))
        a, b, in_a, in_b = parents[first], parents[second], used[first], used[second]
        swap = (rng.random(a.shape) < 0.5) & (rng.random((count, 1)) < _CROSSOVER_SHARE)
        crossed = np.where(np.where(in_a & in_b, swap, swap & in_b | ~in_a), b, a)
        drawn = (rng.random(a.shape) * self._sizes).astype(np.int64)
        crossed = np.where(in_a | in_b, crossed, drawn)
        rate = rng.choice(_EXPECTED_CHANGES, size=(count, 1)) / max(1, len(self._sizes))
        shift = 1 + (rng.random(a.shape) * (self._sizes - 1)).astype(np.int64)
        mutated = np.where(rng.random(a.shape) < rate, (crossed + shift) % self._sizes, crossed)
        return self._space.canonical(mutated)

    def neighbours(self, row: Rows) -> Rows:
        """Every row that differs from ``row`` in one parameter, made canonical."""
        changed = []
        for column, size in enumerate(self._sizes.tolist()):
            for choice in range(size):
                if choice != row[column]:
                    other = row.copy()
                    other[column] = choice
                    changed.append(other)
        return self._space.canonical(np.stack(changed)) if changed else row[None, :]

    def every_row(self) -> Rows:
        """All canonical rows; for spaces of few combinations only."""
        rows = np.array(list(product(*(range(size) for size in self._sizes.tolist()))), dtype=np.int64)
        return np.unique(self._space.canonical(rows.reshape(-1, len(self._sizes))), axis=0)


class EvolutionSampler:
    """Asks for batches of rows that should be accurate within the budget.

    The first fifth of a search, 64 or 128 networks at most, is random. Then, while a Gaussian process leads, a
    generation is bred under upper confidence bounds of random width. Under the additive model it is made of rows bred
    under the mean, rows bred under a draw (to explore), rows that fill the budget best under either, and plain children
    of the best networks seen. All are kept where their latency (exact, or itself modelled where units have no prices)
    is within the budget.
    """

    name = "evolution"
    replays = True
    trial = None

    def __init__(
        self, space: SearchSpace, latencies: RowLatency, objective: Objective, seed: int, first: Rows,
        fastest_ms: float, trials: int, *, cheap: bool,
    ) -> None:  # fmt: skip
        """``first`` (k, P): rows to ask for first, the fastest known one the last; ``cheap``: in large batches."""
        self._space, self._latencies, self._objective, self._seed = space, latencies, objective, seed
        self._variation = Variation(space)
        self._first, self._fastest, self._fastest_ms = first, first[-1], fastest_ms
        self._few = not cheap or trials <= FEW_CHEAP
        self._opening_size = min(BATCH if self._few else 2 * BATCH, max(4, round(OPENING_SHARE * trials)))
        self._accuracy = AccuracyModel(space)
        self._process = GaussianProcess(space)
        self._outcomes: list[Outcome] = []
        self._rows: list[Rows] = []
        self._top1: list[float] = []
        self._ms: list[float] = []
        self._seen: set[bytes] = set()
        self._population = first[-1:]
        self._generation = 0
        prices = latencies.unit_prices
        self._knapsack = None if prices is None else BudgetedOptimum(space, *prices)

    @on_one_blas_thread
    def ask(self) -> Rows:
        """Up to 64 canonical rows never asked before, shape (n, P); none where the search can find no more."""
        rng = np.random.default_rng([self._seed, 1, self._generation])
        missing = self._opening_size - len(self._rows)
        if (missing > 0 and len(self._outcomes) < 4 * self._opening_size) or len(self._rows) < 2:
            count = min(BATCH, max(1, missing))
            asked = self._opening(rng)
        elif self._few and len(self._rows) <= FEW:
            count = min(BATCH, 1 + len(self._rows) // PER_ASK)
            asked = self._explored(rng, self._budget(), count)
        else:
            count = BATCH
            asked = self._bred(rng, self._budget())
        asked = self._unseen(asked)
        asked = (self._unseen(np.concatenate([asked, self._fill(rng, BATCH)])) if len(asked) < count else asked)[:count]
        self._seen.update(row.tobytes() for row in asked)
        self._generation += 1
        return asked

    @on_one_blas_thread
    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from the outcomes of the rows of the last :meth:`ask`."""
        self._outcomes += outcomes
        evaluated = [outcome for outcome in outcomes if outcome.status == "evaluated"]
        if evaluated:
            rows = np.stack([outcome.row for outcome in evaluated])
            top1 = [float(outcome.top1 or 0.0) for outcome in evaluated]
            self._accuracy.add(rows, np.array(top1))
            self._rows += list(rows)
            self._top1 += top1
            self._ms += [outcome.latency_ms for outcome in evaluated]

    def _budget(self) -> float:
        """The latency to stay within; with two objectives lower in every other generation, to spread the front."""
        limit = self._objective.limit_ms
        if self._objective.objectives == 1 or self._generation % 2 == 0:
            return limit
        top = min(limit, self._objective.target_latency_ms)
        share, number, base = 0.0, self._generation // 2 + 1, 0.5
        while number:  # van der Corput: evenly spread at every length
            share, number, base = share + base * (number % 2), number // 2, base / 2
        return self._fastest_ms + share * max(0.0, top - self._fastest_ms)

    def _times(self) -> Callable[[Rows], Floats]:
        """Milliseconds of rows (n, P): exact, or by a model of the latest where units have no prices."""
        if self._latencies.exact:
            return self._latencies.of_rows
        latest = self._outcomes[-FEW:]
        return self._process.fit(np.stack([o.row for o in latest]), np.array([o.latency_ms for o in latest])).mean

    def _worth(self, top1: Floats, ms: Floats, budget: float) -> Floats:
        """What selection maximises; -inf beyond the budget."""
        objective, worth = self._objective, top1
        if not objective.hard and objective.objectives == 1:
            worth = top1 * (np.maximum(ms, 1e-9) / objective.target_latency_ms) ** objective.reward_exponent
        return np.where(ms <= budget, worth, -np.inf)

    def _opening(self, rng: np.random.Generator) -> Rows:
        """The first rows and random ones, brought within the budget where units have prices."""
        first = self._first if self._generation == 0 else self._first[:0]
        return np.concatenate([first, self._random(rng, 4 * BATCH)])

    def _random(self, rng: np.random.Generator, count: int) -> Rows:
        rows = self._space.sample_indices(count, rng)
        if not self._latencies.exact:
            half, shares = rows[: count // 2], rng.random((count // 2, 1))  # of columns that the fastest row gives
            half = self._space.canonical(np.where(rng.random(half.shape) < shares, self._fastest, half))
            return rng.permutation(np.concatenate([rows[count // 2 :], half]))
        return self._within(rows, rng)

    def _within(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Rows over the limit take the fastest row's choices, a growing share of them, until they fit."""
        rows = rows.copy()
        order = rng.random(rows.shape)
        for share in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.01):
            over = np.flatnonzero(self._latencies.of_rows(rows) > self._objective.limit_ms)
            if not len(over):
                break
            mixed = np.where(order[over] < share, self._fastest, rows[over])
            rows[over] = self._space.canonical(mixed)
        return rows

    def _explored(self, rng: np.random.Generator, budget: float, count: int) -> Rows:
        """About ``count`` rows that a Gaussian process finds promising within the budget."""
        expected = zip(self._outcomes, expected_top1(self._outcomes), strict=True)
        rows, top1 = zip(*((o.row, value) for o, value in expected if value is not None), strict=True)
        posterior = self._process.fit(np.stack(rows), np.array(top1))
        times = self._times()
        start = np.concatenate([self._elites(budget), self._population])
        population = self._population = self._evolved(start, posterior.mean, times, budget, rng, ROUNDS)
        asked = population[:0]
        for _ in range(min(count, DRAWS)):
            bred = self._evolved(population, posterior.draw(rng).mean, times, budget, rng, ROUNDS)
            asked = self._joined(asked, bred, -(-count // DRAWS))
        return asked

    def _bred(self, rng: np.random.Generator, budget: float) -> Rows:
        posterior = self._accuracy.fit()
        times = self._times()
        elites = self._elites(budget)
        start = np.concatenate([elites, self._population])
        population = self._population = self._evolved(start, posterior.mean, times, budget, rng, ROUNDS)
        drawn = posterior.draw(rng)
        explored = self._evolved(population, drawn.mean, times, budget, rng, ROUNDS)
        asked = population[:0]
        for rows, count in (
            (population, _BY_MEAN),
            (explored, _BY_DRAW),
            (self._filled(posterior, times, budget, rng), _FILLED_BY_MEAN),
            (self._filled(drawn, times, budget, rng), _FILLED_BY_DRAW),
        ):
            asked = self._joined(asked, rows, count)
        children = self._variation.children(elites, 2 * BATCH, rng)
        children = children[times(children) <= budget]
        return self._unseen(np.concatenate([asked, children]))

    def _filled(
        self, posterior: AccuracyPosterior, times: Callable[[Rows], Floats], budget: float, rng: np.random.Generator
    ) -> Rows:
        """Rows that fill the budget best under ``posterior``, best first; none without priced units or a budget.

        They get a share of a batch only: far from what was seen a posterior mean is wrong most where it is highest.
        """
        if self._knapsack is None or not np.isfinite(budget):
            return self._population[:0]
        rows = self._knapsack.rows(posterior, budget, FILLINGS)
        return self._evolved(rows, posterior.mean, times, budget, rng, 1)

    def _elites(self, budget: float) -> Rows:
        """The best seen within the budget, best first."""
        worth = self._worth(np.array(self._top1), np.array(self._ms), budget)
        order = np.argsort(-worth, kind="stable")[:ELITES]
        chosen = [self._rows[i] for i in order if worth[i] > -np.inf]
        return np.stack(chosen) if chosen else self._fastest[None, :]

    def _evolved(
        self, start: Rows, top1: Callable[[Rows], Floats], times: Callable[[Rows], Floats], budget: float,
        rng: np.random.Generator, rounds: int,
    ) -> Rows:  # fmt: skip
        """A population after ``rounds`` of selection by expected ``top1`` within the budget, best first."""
        pool = _distinct(start)
        ms = times(pool)
        for number in range(rounds + 1):
            if number:
                children = self._variation.children(pool, POPULATION, rng)
                ms = np.concatenate([ms, times(children)])
                pool = np.concatenate([pool, children])
            worth = self._worth(top1(pool), ms, budget)
            order = np.argsort(-worth, kind="stable")
            order = order[_first_indices(pool[order])][:POPULATION]
            order = order[worth[order] > -np.inf]
            if not len(order):
                return np.asarray(self._fastest)[None, :]
            pool, ms = pool[order], ms[order]
        return pool

    def _fill(self, rng: np.random.Generator, count: int) -> Rows:
        """More rows where breeding found too few new ones: neighbours of the best, then random ones."""
        best = self._elites(self._objective.limit_ms)[:4] if self._rows else self._fastest[None, :]
        rows = np.concatenate([*(self._variation.neighbours(row) for row in best), self._random(rng, 4 * count)])
        if self._variation.combinations <= SMALL_SPACE:
            rows = np.concatenate([rows, self._variation.every_row()])
        if self._latencies.exact:
            rows = rows[self._latencies.of_rows(rows) <= self._objective.limit_ms]
        return rows

    def _joined(self, asked: Rows, rows: Rows, count: int) -> Rows:
        """``asked`` (all unseen) and the first ``count`` of ``rows`` that are new."""
        return self._unseen(np.concatenate([asked, rows]))[: len(asked) + count]

    def _unseen(self, rows: Rows) -> Rows:
        """Rows never asked before, each once, in order."""
        rows = _distinct(rows)
        return rows[[i for i, row in enumerate(rows) if row.tobytes() not in self._seen]]


def _first_indices(rows: Rows) -> list[int]:
    """The index at which each distinct row appears first, in order."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(np.ascontiguousarray(rows, dtype=np.int64)):
        first.setdefault(row.tobytes(), i)
    return list(first.values())


def _distinct(rows: Rows) -> Rows:
    """Each row once, in order of first appearance, in one integer type so that equal rows have equal bytes."""
    return np.ascontiguousarray(rows, dtype=np.int64)[_first_indices(rows)]
