"""The true optimum of an additive surrogate under a latency budget: a multiple-choice knapsack, solved by HiGHS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Capabilities, Evaluation, Evaluator
from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.latency.model import UnitLatencyModel
from mnv3search.layers import Unit, units
from mnv3search.space import SearchSpace

Floats = NDArray[np.float64]
Place = tuple[int, int]


@dataclass(frozen=True)
class PlaceOptions:
    """What may stand at one place: the distinct units of the ``position``-th block of a stage."""

    place: Place
    units: tuple[Unit, ...]


def place_options(space: SearchSpace) -> list[PlaceOptions]:
    """Every place of a space whose stages have one width each, in order.

    Raises:
        ValueError: a stage chooses its width or shares one choice, so that its blocks are not independent.
    """
    tables = space.tables
    found = []
    for s, stage in enumerate(tables.stages):
        if stage.per_stage or len(stage.choices.out_channels) > 1 or stage.choices.block.can_skip:
            raise ValueError(f"stage {s + 1} of {space.name} is no row of independent blocks")
        for b, table in enumerate(stage.units):
            found.append(PlaceOptions((s, b), tuple(tables.units[i] for i in dict.fromkeys(table[0, 0].tolist()))))
    return found


class AdditiveSurrogate:
    """``top1 = fixed + Σ effect[place, unit]``, fitted by ridge regression to an evaluator's answers.

    Attributes:
        effects: for each place the effects of its options, in points.
    """

    capabilities = Capabilities(cheap=True)

    def __init__(self, space: SearchSpace, fixed: float, effects: Sequence[Floats]) -> None:
        self._options = place_options(space)
        self.fixed = fixed
        self.effects = list(effects)
        self._stage_of = {unit: p.place[0] for p in self._options for unit in p.units}
        self._value = {
            (p.place, unit): float(value)
            for p, values in zip(self._options, effects, strict=True)
            for unit, value in zip(p.units, values, strict=True)
        }

    @classmethod
    def fitted(
        cls, space: SearchSpace, evaluator: Evaluator, samples: int, seed: int
    ) -> tuple[AdditiveSurrogate, float]:
        """The surrogate of ``evaluator`` and its RMSE in points on as many fresh networks again / 4."""
        blank = cls(space, 0.0, [np.zeros(len(p.units)) for p in place_options(space)])
        rng = np.random.default_rng(seed)
        sizes = [len(parameter.choices) for parameter in space.parameters]
        rows = space.canonical(rng.integers(0, sizes, size=(samples + samples // 4, len(sizes))))
        architectures = space.architectures(rows)
        truths = np.array([answer.top1 for answer in evaluator.evaluate(architectures)])
        design = blank.design(architectures)
        train, held = design[:samples], design[samples:]
        mean = float(truths[:samples].mean())
        gram = train.T @ train + 1.0 * np.eye(design.shape[1])
        effects = np.linalg.solve(gram, train.T @ (truths[:samples] - mean))
        rmse = float(np.sqrt(np.mean((held @ effects + mean - truths[samples:]) ** 2)))
        cuts = np.cumsum([len(values) for values in blank.effects])[:-1]
        return cls(space, mean, np.split(effects, cuts)), rmse

    def design(self, architectures: Sequence[Architecture]) -> Floats:
        """One-hot of the options that stand at each place; shape (n, Σ options)."""
        column = {key: i for i, key in enumerate(self._value)}
        design = np.zeros((len(architectures), len(column)))
        for line, architecture in enumerate(architectures):
            design[line, [column[key] for key in self._keys(architecture)]] = 1.0
        return design

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """The sum of effects of each architecture."""
        return [Evaluation(self.fixed + sum(self._value[k] for k in self._keys(a))) for a in architectures]

    def _keys(self, architecture: Architecture) -> list[tuple[Place, Unit]]:
        keys, before, position = [], -1, 0
        for unit in units(architecture)[1:-1]:
            stage = self._stage_of[unit]
            position = position + 1 if stage == before else 0
            keys.append(((stage, position), unit))
            before = stage
        return keys


@dataclass(frozen=True)
class Optimum:
    """The best value within the budget, its proven bound, latency and blocks."""

    value: float
    bound: float
    latency_ms: float
    blocks: tuple[BlockSpec, ...]


def optimum(space: SearchSpace, surrogate: AdditiveSurrogate, latency: UnitLatencyModel, budget_ms: float) -> Optimum:
    """Maximise the surrogate within the budget: one binary for each (place, option) and each (stage, depth).

    A place is filled exactly where the stage's depth reaches it; each stage has one depth.

    Raises:
        ValueError: HiGHS did not prove an optimum.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    options = place_options(space)
    milliseconds = [latency.unit_latency_ms(p.units) for p in options]
    links, ones = _constraints(space, options)
    depth_start, count = sum(len(p.units) for p in options), links.shape[1]
    cost = np.concatenate([*milliseconds, np.zeros(count - depth_start)])
    gain = np.concatenate([*surrogate.effects, np.zeros(count - depth_start)])
    ends = units(space.architecture(np.zeros(len(space.parameters), dtype=np.int64)))
    rest = latency.fixed_ms + float(latency.unit_latency_ms([ends[0], ends[-1]]).sum())
    found = milp(
        -gain,
        integrality=np.ones(count, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(links, 0, 0),
            LinearConstraint(ones, 1, 1),
            LinearConstraint(cost[None, :], -np.inf, budget_ms - rest),
        ],
        options={"mip_rel_gap": 1e-7, "time_limit": 300},
    )
    if found.status != 0:
        raise ValueError(f"HiGHS proved no optimum: {found.message}")
    chosen = np.flatnonzero(np.round(found.x[:depth_start]))
    flat = [unit.spec for p in options for unit in p.units]
    blocks = tuple(spec for spec in (flat[i] for i in chosen) if isinstance(spec, BlockSpec))
    return Optimum(
        value=surrogate.fixed + float(gain[chosen].sum()),
        bound=surrogate.fixed - float(found.mip_dual_bound),
        latency_ms=rest + float(cost[chosen].sum()),
        blocks=blocks,
    )


def _constraints(space: SearchSpace, options: Sequence[PlaceOptions]) -> tuple[Floats, Floats]:
    """Rows that must sum to 0 (a place is filled as its stage's depth says) and to 1 (a stage has one depth)."""
    stages = space.tables.stages
    sizes = [len(p.units) for p in options]
    depths = [(s, depth) for s, stage in enumerate(stages) for depth in stage.depths.tolist()]
    start = sum(sizes)
    links, ones = np.zeros((len(options), start + len(depths))), np.zeros((len(stages), start + len(depths)))
    for column, (s, depth) in enumerate(depths, start=start):
        ones[s, column] = 1
        for line, p in enumerate(options):
            if p.place[0] == s and p.place[1] < depth:
                links[line, column] = -1
    for line, (first, size) in enumerate(zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)):
        links[line, first : first + size] = 1
    return links, ones
