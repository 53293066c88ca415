"""Latencies of a space's rows, and the range of latencies that tells whether a target can be met."""

from __future__ import annotations

import hashlib
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.cost import unit_cost
from mnv3search.errors import InfeasibleError, SpaceError
from mnv3search.latency.measured.calibration import prepare_for_space
from mnv3search.latency.model import (
    LatencyModel,
    Progress,
    UnitLatencyModel,
    check_latency_model,
    checked_latencies,
    checked_milliseconds,
)

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

Rows = NDArray[np.integer[Any]]
BOUND_SAMPLES = 64


def row_key(row: Rows) -> bytes:
    """Equal for equal rows of any integer type."""
    return np.ascontiguousarray(row, dtype=np.int64).tobytes()


def check_space_and_model(space: SearchSpace, model: LatencyModel) -> None:
    """Raises SpaceError or DeviceError where either is something else, such as its name."""
    from mnv3search.space import SearchSpace

    if not isinstance(space, SearchSpace):
        raise SpaceError(f"space is {reprlib.repr(space)}, not a search space; give what load_space gives")
    check_latency_model(model)


class RowLatency:
    """Milliseconds of index rows under one latency model.

    A model that prices units prices every unit of the space once; a row's latency is then a sum of its units' prices.
    Any other model prices whole networks, each canonical row once.
    """

    def __init__(self, space: SearchSpace, model: LatencyModel, progress: Progress | None = None) -> None:
        self._space, self._model = space, model
        self._known: dict[bytes, float] = {}
        self._priced, self._fixed_ms = None, 0.0
        if isinstance(model, UnitLatencyModel):
            prepare_for_space(space, model, progress)
            self._priced = space.priced(model.unit_latency_ms)
            self._fixed_ms = float(model.fixed_ms)

    @property
    def exact(self) -> bool:
        """Whether units are priced, so that bounds are exact and rows cost next to nothing."""
        return self._priced is not None

    @property
    def unit_prices(self) -> tuple[NDArray[np.float64], float] | None:
        """Milliseconds of the space's units with a last 0 for no unit, and the fixed part; None without prices."""
        return None if self._priced is None else (np.append(self._priced.prices, 0.0), self._fixed_ms)

    @property
    def identity(self) -> str:
        """The model's name; where it prices units without measuring them, also a digest of the space's prices."""
        name = str(getattr(self._model, "name", type(self._model).__name__))
        if self._priced is None or getattr(self._model, "kind", "estimated") != "estimated":
            return name
        prices = " ".join(f"{price:.9g}" for price in (self._fixed_ms, *self._priced.prices.tolist()))
        return f"{name} {hashlib.sha256(prices.encode()).hexdigest()[:16]}"

    def of_rows(self, rows: Rows) -> NDArray[np.float64]:
        """Milliseconds of canonical ``rows`` (n, P); shape (n,)."""
        if len(rows) == 0:
            return np.zeros(0)
        if self._priced is not None:
            return checked_milliseconds(self._model, self._fixed_ms + self._priced.sums(rows), len(rows))
        keys = [row.tobytes() for row in np.ascontiguousarray(rows, dtype=np.int64)]
        missing = list({key: i for i, key in enumerate(keys) if key not in self._known}.values())
        if missing:
            found = checked_latencies(self._model, self._space.architectures(rows[missing]))
            self._known.update((keys[i], float(ms)) for i, ms in zip(missing, found, strict=True))
        return np.array([self._known[key] for key in keys])

    def remember(self, row: Rows, latency_ms: float) -> None:
        """Take over a latency from an earlier session; priced rows need none."""
        if self._priced is None:
            self._known[row_key(row)] = latency_ms

    def bounds(self, seed: int) -> tuple[Rows, Rows]:
        """The fastest and the slowest row: exact where units are priced, else of a seeded sample.

        The rows of fewest and most multiply-adds are in the sample.
        """
        if self._priced is not None:
            return np.asarray(self._priced.fastest()[0]), np.asarray(self._priced.slowest()[0])
        by_madds = self._space.priced(lambda parts: np.array([float(unit_cost(unit).madds) for unit in parts]))
        sample = self._space.sample_indices(BOUND_SAMPLES, np.random.default_rng([seed, 0]))
        rows = np.concatenate([np.stack([by_madds.fastest()[0], by_madds.slowest()[0]]), sample])
        latencies = self.of_rows(rows)
        return rows[int(latencies.argmin())], rows[int(latencies.argmax())]


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The range of latencies of a space under one latency model.

    Attributes:
        exact: whether the bounds are the whole space's; else a sample's.
    """

    fastest_ms: float
    slowest_ms: float
    exact: bool
    fastest: Architecture
    slowest: Architecture

    def binds(self, target_latency_ms: float) -> bool:
        """Whether the target excludes anything."""
        return target_latency_ms < self.slowest_ms

    def require(self, target_latency_ms: float) -> None:
        """Raises InfeasibleError where no network meets the target."""
        if target_latency_ms < self.fastest_ms:
            raise InfeasibleError(target_latency_ms, self.fastest_ms, self.slowest_ms, exact=self.exact)


def latency_range(
    space: SearchSpace, latency: LatencyModel, seed: int = 0, progress: Progress | None = None
) -> Feasibility:
    """The range of latencies of ``space`` under ``latency``, which is prepared first where it must measure."""
    check_space_and_model(space, latency)
    return assess(space, RowLatency(space, latency, progress), seed)


def assess(space: SearchSpace, latencies: RowLatency, seed: int) -> Feasibility:
    """The fastest and the slowest network of ``space``; see :meth:`RowLatency.bounds`."""
    fastest, slowest = latencies.bounds(seed)
    low, high = latencies.of_rows(np.stack([fastest, slowest])).tolist()
    return Feasibility(low, high, latencies.exact, space.architecture(fastest), space.architecture(slowest))
