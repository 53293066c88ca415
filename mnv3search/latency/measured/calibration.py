"""From the times of units alone to the time of a network: what networks timed whole say of the units' sum.

A unit that is timed alone reads its input from cold memory and, in some runtimes, re-orders it into the runtime's own
layout; inside a network the layer before has left it warm and in order. So what a unit takes alone is too much by a
share of the elements that enter it, and by what a call costs whatever it computes; a network pays a higher such cost,
once. The rest is a scale. Kinds of units (by kernel, size, stride, activation, squeeze-excite) and single units differ
by a few percent more, which a prior keeps near 0: Bayesian linear regression on relative errors.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.cost import unit_cost
from mnv3search.errors import MeasurementError
from mnv3search.latency.measured.measuring import FloatArray
from mnv3search.latency.model import CalibratedOnNetworks, LatencyModel, Preparable, Progress
from mnv3search.layers import Unit, unit_layers
from mnv3search.space import SearchSpace

MIN_NETWORKS = 5
FLAT = 10.0  # standard deviation of the scale, the boundary, the call and the fixed cost: nothing is assumed of them
KIND_STD, UNIT_STD = 0.04, 0.05  # of the corrections, as shares of a unit's time
NOISE_STD = 0.008  # of a network timed whole, beyond its units; leave-one-out errors correct it
MOST_SAVED = 0.75  # of a unit's scaled time that its call and boundary can save: no unit costs nothing
CAP_STEPS = 12
UNITS = np.array([1e-6, 0.1, 0.1])  # of the boundary, the call and the fixed cost, so that their priors are as flat
OWN = (1, 2, 3)  # the columns of these costs, after the scale's
OF_ALL = 4
ALIKE = 0.35  # standard deviation, in the logarithm of their time, of networks with like errors


@dataclass(frozen=True, slots=True)
class Calibration:
    """``price(unit) = alone · (scale + Σ corrections of its kinds + its own) − boundary · elements − call``.

    The elements are those that enter it; they and the call save at most :data:`MOST_SAVED` of its scaled time. A
    network takes ``fixed_ms`` more than its units.

    Attributes:
        scale: milliseconds in a network for one of units alone.
        boundary_ms: milliseconds for each element that enters a unit.
        call_ms: milliseconds of a unit's call, whatever it computes.
        fixed_ms: milliseconds of a network's call, whatever it computes.
        relative_std: of whole networks, each predicted by a fit without it (leave-one-out), as a share.
        networks: how many were fitted.
    """

    scale: float
    boundary_ms: float
    call_ms: float
    fixed_ms: float
    relative_std: float
    networks: int
    _columns: dict[str | Unit, int]
    _weights: FloatArray
    _covariance: FloatArray
    _log_ms: FloatArray
    _surprises: FloatArray

    def price(self, parts: Sequence[Unit], alone_ms: FloatArray) -> FloatArray:
        """Milliseconds of units inside a network, shape (n,), from their times alone."""
        share = np.full(len(parts), self.scale)
        for row, unit in enumerate(parts):
            for column, std in _corrections(unit):
                if column in self._columns:
                    share[row] += std * self._weights[self._columns[column]]
        elements, calls = self._limits().counted(parts, alone_ms)
        price: FloatArray = np.maximum(alone_ms * share - self.boundary_ms * elements - self.call_ms * calls, 0.0)
        return price

    def relative_error(self, parts: Sequence[Unit], alone_ms: FloatArray, latency_ms: float) -> float:
        """One standard deviation of a network's latency, as a share; it grows away from the networks of the fit."""
        row, unseen = _row(self._columns, parts, alone_ms, self._limits())
        row /= latency_ms
        variance = NOISE_STD**2 + float(row @ self._covariance @ row) + unseen / latency_ms**2
        return self._widening(latency_ms) * float(np.sqrt(variance))

    def _limits(self) -> _Limits:
        return _Limits(self.scale, self.boundary_ms, self.call_ms)

    def _widening(self, latency_ms: float) -> float:
        """How much further than the fit supposes networks of about this time were off when left out; at least 1."""
        alike = np.exp(-0.5 * ((self._log_ms - math.log(latency_ms)) / ALIKE) ** 2)
        everywhere = float(np.mean(self._surprises**2))
        return math.sqrt(max(1.0, float(alike @ self._surprises**2 + everywhere) / float(alike.sum() + 1)))


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a unit can save, by the scale, boundary and call of the fit before; all of it where the scale is 0."""

    scale: float = 0.0
    boundary: float = 0.0
    call: float = 0.0

    def counted(self, parts: Sequence[Unit], alone_ms: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The entering elements and the calls, of one each, that count; shapes (n,)."""
        elements, calls = entering_elements(parts), np.ones(len(parts))
        most = MOST_SAVED * self.scale * alone_ms if self.scale > 0 else np.full(len(parts), np.inf)
        if self.call > 0:
            calls = np.minimum(calls, most / self.call)
        if self.boundary > 0:
            elements = np.minimum(elements, (most - self.call * calls) / self.boundary)
        return elements, calls

    def row(self, parts: Sequence[Unit], alone_ms: FloatArray) -> FloatArray:
        """A network's columns of the boundary, the call and the fixed cost."""
        elements, calls = self.counted(parts, alone_ms)
        found: FloatArray = np.array([-elements.sum(), -calls.sum(), 1.0]) * UNITS
        return found


def entering_elements(parts: Sequence[Unit]) -> FloatArray:
    """Elements of each unit's input where another unit made it, shape (n,); 0 for a stem, which reads the image."""
    return np.array([0 if u.part == "stem" else u.in_channels * u.in_size**2 for u in parts], dtype=np.float64)


def fit(networks: Sequence[Sequence[Unit]], alone_ms: Sequence[FloatArray], latency_ms: FloatArray) -> Calibration:
    """Least squares on the relative errors of networks timed whole, shape (n,), by what their units take alone."""
    if len(networks) < MIN_NETWORKS:
        raise MeasurementError(
            f"{len(networks)} whole networks cannot calibrate a latency table; measure at least {MIN_NETWORKS}"
        )
    names = dict.fromkeys(column for parts in networks for unit in parts for column, _ in _corrections(unit))
    columns: dict[str | Unit, int] = {name: OF_ALL + index for index, name in enumerate(names)}
    rows = np.stack([_row(columns, parts, alone)[0] for parts, alone in zip(networks, alone_ms, strict=True)])
    for size in range(len(OWN), -1, -1):  # as many of these costs as are seen
        alternatives = combinations(OWN, size)
        fits = [_fit_costs(costs, rows, networks, alone_ms, latency_ms) for costs in alternatives]
        if seen := [one for one in fits if one is not None]:
            break
    solved = min(seen, key=lambda one: one.relative_std)
    weights = solved.weights
    if weights[0] <= 0:
        raise MeasurementError("the networks' times do not grow with their units'; measure the table again")
    boundary, call, fixed = (weights[1:OF_ALL] * UNITS).tolist()
    return Calibration(
        float(weights[0]), boundary, call, fixed, solved.relative_std, len(networks), columns, weights,
        solved.covariance, np.log(latency_ms), solved.held_out / solved.spread,
    )  # fmt: skip


def _fit_costs(
    costs: Sequence[int], rows: FloatArray, networks: Sequence[Sequence[Unit]], alone_ms: Sequence[FloatArray],
    latency_ms: FloatArray,
) -> _Solved | None:  # fmt: skip
    """The fit with the costs of these columns alone; None where one of them does not come out above 0."""
    prior = np.ones(rows.shape[1])
    prior[:OF_ALL] = 0.0
    prior[[0, *costs]] = FLAT**2
    limits, rows = _Limits(), rows.copy()
    for _ in range(CAP_STEPS):
        rows[:, 1:OF_ALL] = [limits.row(parts, alone) for parts, alone in zip(networks, alone_ms, strict=True)]
        solved = _solve(rows / latency_ms[:, None], prior)
        if any(solved.weights[column] <= 0 for column in costs):
            return None
        boundary, call, _ = solved.weights[1:OF_ALL] * UNITS
        limits = _Limits(float(solved.weights[0]), float(boundary), float(call))
        if not boundary and not call:
            break
    return solved


def _corrections(unit: Unit) -> list[tuple[str | Unit, float]]:
    """The columns that correct a unit, and the prior's deviation of each."""
    spec = unit.spec
    if isinstance(spec, BlockSpec):
        se = "squeeze-excite" if spec.squeeze_excite else "plain"
        named = ["block", f"{spec.kernel_size}x{spec.kernel_size}", f"size {unit.in_size}", f"stride {spec.stride}",
                 spec.activation, se]  # fmt: skip
    else:
        named = [unit.part, getattr(spec, "kind", "")] if unit.part == "block" else [unit.part]
    return [*((name, KIND_STD) for name in named), (unit, UNIT_STD)]


def _row(
    columns: dict[str | Unit, int], parts: Sequence[Unit], alone_ms: FloatArray, limits: _Limits = _Limits()
) -> tuple[FloatArray, float]:
    """A network's row before division by its latency, and the prior variance of what has no column."""
    row = np.zeros(OF_ALL + len(columns))
    unseen: dict[str | Unit, float] = {}
    row[:OF_ALL] = alone_ms.sum(), *limits.row(parts, alone_ms)
    for unit, ms in zip(parts, alone_ms.tolist(), strict=True):
        for column, std in _corrections(unit):
            if column in columns:
                row[columns[column]] += std * ms
            else:
                unseen[column] = unseen.get(column, 0.0) + std * ms
    return row, sum(share**2 for share in unseen.values())


class _Solved(NamedTuple):
    """Weights that bring every row to 1, their covariance, and the leave-one-out errors with their deviations."""

    weights: FloatArray
    covariance: FloatArray
    held_out: FloatArray
    spread: FloatArray

    @property
    def relative_std(self) -> float:
        return float(np.sqrt(np.mean(self.held_out**2)))


def _solve(rows: FloatArray, prior: FloatArray) -> _Solved:
    spread = rows * prior
    inverse = np.linalg.inv(rows @ spread.T + NOISE_STD**2 * np.eye(len(rows)))
    expected = np.zeros(rows.shape[1])
    expected[0] = 1.0
    dual = inverse @ (1 - rows @ expected)
    weights = expected + spread.T @ dual
    covariance = np.diag(prior) - spread.T @ inverse @ spread
    return _Solved(weights, covariance, dual / np.diag(inverse), 1 / np.sqrt(np.diag(inverse)))


MAX_REPEATS = 3  # blocks in a row that keep width and size: about what stages have
MAX_STEPS = 64
TRIES = 50

_Input = tuple[int, int, str, bool]


def assembled_networks(parts: Iterable[Unit], count: int, seed: int = 0) -> list[Architecture]:
    """Up to ``count`` distinct networks, each a random chain of ``parts`` from a stem to a head where there is one."""
    rng = random.Random(seed)  # noqa: S311 - draws networks, keeps no secret
    stems: list[Unit] = []
    blocks: dict[_Input, list[Unit]] = defaultdict(list)
    heads: dict[_Input, list[Unit]] = defaultdict(list)
    for unit in dict.fromkeys(parts):
        if unit.part == "stem":
            stems.append(unit)
        else:
            shape = (unit.in_channels, unit.in_size, unit.padding, unit.conv_bias)
            (blocks if unit.part == "block" else heads)[shape].append(unit)
    found: dict[Architecture, None] = {}
    for _ in range(count * TRIES if stems else 0):
        if len(found) == count:
            break
        network = _random_network(rng, rng.choice(stems), blocks, heads)
        if network is not None:
            found[network] = None
    return list(found)


def _output_of(unit: Unit) -> _Input:
    last = unit_layers(unit)[-1]
    return last.out_channels, last.out_size, unit.padding, unit.conv_bias


def _random_network(
    rng: random.Random, stem: Unit, blocks: Mapping[_Input, list[Unit]], heads: Mapping[_Input, list[Unit]]
) -> Architecture | None:
    shape, repeats = _output_of(stem), 0
    chosen: list[Unit] = []
    for _ in range(MAX_STEPS):
        staying = [u for u in blocks.get(shape, ()) if _output_of(u) == shape]
        leaving = [u for u in blocks.get(shape, ()) if _output_of(u) != shape]
        at_end = chosen and heads.get(shape)
        if repeats == MAX_REPEATS or not staying or (rng.random() < 1 / (MAX_REPEATS + 1) and (leaving or at_end)):
            if at_end and (not leaving or rng.random() < 0.5):
                return _network(stem, chosen, rng.choice(heads[shape]))
            if not leaving:
                return None
            unit, repeats = rng.choice(leaving), 0
        else:
            unit, repeats = rng.choice(staying), repeats + 1
        chosen.append(unit)
        shape = _output_of(unit)
    return None


def _network(stem: Unit, chosen: list[Unit], head: Unit) -> Architecture:
    assert isinstance(stem.spec, StemSpec)
    assert isinstance(head.spec, HeadSpec)
    blocks = tuple(unit.spec for unit in chosen)
    return Architecture(
        stem.spec, blocks, head.spec, resolution=stem.in_size, classes=head.classes, padding=stem.padding,
        conv_bias=stem.conv_bias,
    )  # fmt: skip


CALIBRATION_NETWORKS = 32
CALIBRATION_SEED = 1905  # apart from the seeds of searches and checks
NEARLY = 0.5  # standard deviation of the logarithm of a unit's MAdds, by which the smallest networks differ


def prepare_for_space(space: SearchSpace, model: LatencyModel, progress: Progress | None = None) -> None:
    """Let ``model`` measure what it lacks for ``space``; a model that measures nothing is left as it is."""
    if isinstance(model, CalibratedOnNetworks):
        model.calibrate_for(networks_of_all_sizes(space, CALIBRATION_NETWORKS, CALIBRATION_SEED))
    if isinstance(model, Preparable):
        model.prepare(space.all_units(), progress)


def networks_of_all_sizes(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Up to ``count`` distinct networks of ``space``; the same for the same seed.

    Half are drawn evenly among all networks, mostly deep and wide ones; a quarter evenly by choice, so that depths and
    widths differ; and a quarter are about the smallest, which show what a network costs that hardly computes.
    """
    rng = np.random.default_rng(seed)
    evenly = space.sample_indices(count, rng)
    found: dict[Architecture, None] = {}
    for rows, wanted in (
        (np.stack([_nearly_smallest(space, rng) for _ in range(count)]), count // 4),
        (space.mutate(evenly, rng, 1.0), count // 2),
        (evenly, count),
    ):
        for network in space.architectures(rows):
            if len(found) < wanted:
                found[network] = None
    return list(found)


def _nearly_smallest(space: SearchSpace, rng: np.random.Generator) -> NDArray[np.int16]:
    """The row of least MAdds, had every unit some more or fewer than it has."""

    def price(parts: Sequence[Unit]) -> NDArray[np.float64]:
        madds = np.array([unit_cost(unit).madds for unit in parts], dtype=np.float64)
        return madds * np.exp(NEARLY * rng.standard_normal(len(parts)))

    return space.priced(price).fastest()[0]
