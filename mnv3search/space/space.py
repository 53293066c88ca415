"""A search space as a value: sampling, encoding, mutation and crossover, counts and sums over many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, check_architecture
from mnv3search.blocks import Block, ChoiceValue
from mnv3search.cost import BYTES_PER_ELEMENT, unit_cost, unit_peak_elements
from mnv3search.errors import SpaceError, UnknownNameError
from mnv3search.layers import Unit
from mnv3search.records import whole
from mnv3search.space.choices import Parameter, Skeleton
from mnv3search.space.counting import Automaton, LocalCounter, may_be_ambiguous
from mnv3search.space.matching import Matcher
from mnv3search.space.tables import Rows, SpaceTables, cheapest_row

Price = Callable[[Sequence[Unit]], NDArray[np.float64]]


class CountBatch(NamedTuple):
    """Counts of a population, each of shape (n,); conventions as in :func:`mnv3search.cost.count`."""

    madds: NDArray[np.int64]
    parameters: NDArray[np.int64]
    activations: NDArray[np.int64]
    peak_memory_bytes: NDArray[np.int64]


class PricedSpace:
    """A space whose units have ``prices`` (of shape (units,)), for sums over many rows and for exact extremes."""

    def __init__(self, space: SearchSpace, price: Price) -> None:
        self.space = space
        units = space.all_units()
        prices = np.asarray(price(units), dtype=np.float64)
        if prices.shape != (len(units),):
            raise SpaceError(f"pricing gave an array of shape {prices.shape} for {len(units)} units")
        for worst in np.flatnonzero(~np.isfinite(prices)):
            raise SpaceError(f"pricing gave {prices[worst]}, which is not finite, for {units[worst]}")
        self.prices = prices
        self._padded = np.append(prices, 0.0)

    def sums(self, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        """The latency (or other price) of each row: the sum over its units; shape (n,)."""
        found: NDArray[np.float64] = self._padded[self.space.tables.unit_ids(indices)].sum(axis=1)
        return found

    def fastest(self) -> tuple[Rows, float]:
        """The canonical row of the smallest sum, and that sum: exact, by dynamic programming."""
        return self._extreme(self._padded)

    def slowest(self) -> tuple[Rows, float]:
        """The canonical row of the largest sum, and that sum: exact, by dynamic programming."""
        return self._extreme(-self._padded)

    def _extreme(self, prices: NDArray[np.float64]) -> tuple[Rows, float]:
        row = self.space.canonical(cheapest_row(self.space.tables, prices).reshape(1, -1))
        return row[0], float(self.sums(row)[0])


MAX_ENUMERATED = 1_000_000
ENUMERATED_AT_ONCE = 2048
MIN_ACCEPTED_SHARE = 0.2
MAX_KNOWN_TWINS = 50_000


@dataclass(frozen=True)
class SearchSpace:
    """A space of architectures over one skeleton.

    A network of the space is a *row*: for each of :attr:`parameters` the index of its choice, as int16. Rows are
    *canonical*: parameters of blocks past the depth are 0, and of several rows that make one architecture only the
    lexicographically first is used; canonical rows are equal where, and only where, their architectures are.

    Attributes:
        name, description: as the file says.
        skeleton: all that makes its networks.
        reference: the network that results are compared with, in the space's resolution, classes and stem stride.
        reference_name: its published name; None where the space changed it or names none.
        reference_label: what to call it in a table.
        device, evaluator: a run's defaults; ``evaluator`` is None where the user must name one.
    """

    name: str
    description: str
    skeleton: Skeleton
    reference: Architecture
    reference_name: str | None
    reference_label: str
    device: str = "pixel1"
    evaluator: str | None = "prior"

    @cached_property
    def tables(self) -> SpaceTables:
        """The space as arrays."""
        return SpaceTables(self.skeleton)

    @cached_property
    def _local(self) -> LocalCounter:
        return LocalCounter(self.tables)

    @cached_property
    def _automaton(self) -> Automaton | None:
        if not may_be_ambiguous(self.tables):
            return None
        automaton = Automaton(self.tables)
        return automaton if automaton.size != self._local.size else None

    @cached_property
    def _first_twins(self) -> dict[bytes, Rows]:
        """Canonical rows by locally canonical ones: a search meets the same rows again and again."""
        return {}

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.tables)

    @cached_property
    def _indices_of_choices(self) -> tuple[Mapping[tuple[bool, object], int], ...]:
        return tuple({_key(value): i for i, value in enumerate(p.choices)} for p in self.parameters)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What may be chosen, in the order of a row's columns."""
        return self.tables.parameters

    @property
    def size(self) -> int:
        """The exact number of distinct architectures."""
        return self._automaton.size if self._automaton else self._local.size

    def all_units(self) -> tuple[Unit, ...]:
        """Every distinct stem, block and head that a network of the space can contain."""
        return self.tables.units

    def _rows(self, indices: NDArray[np.integer] | Sequence[Sequence[int]]) -> Rows:
        rows = np.asarray(indices)
        if rows.ndim != 2 or rows.shape[1] != len(self.parameters) or rows.dtype.kind not in "iu":
            raise SpaceError(
                f"rows of {self.name} are integers of shape (n, {len(self.parameters)}), "
                f"not {rows.dtype} of shape {rows.shape}"
            )
        wrong = (rows < 0) | (rows >= self.tables.sizes)
        if wrong.any():
            line, column = map(int, np.argwhere(wrong)[0])
            parameter = self.parameters[column]
            raise SpaceError(
                f"index {rows[line, column]} of {parameter.name} is out of range; "
                f"it has {len(parameter.choices)} choices, numbered from 0"
            )
        return rows.astype(np.int16, copy=False)

    def canonical(self, indices: NDArray[np.integer] | Sequence[Sequence[int]]) -> Rows:
        """The canonical row of each row; shape (n, parameters).

        Raises:
            SpaceError: another shape, or an index without a choice.
        """
        rows = self.tables.locally_canonical(self._rows(indices))
        if self._automaton is None:
            return rows
        ids = self.tables.unit_ids(rows)
        if len(self._first_twins) > MAX_KNOWN_TWINS:
            self._first_twins.clear()
        for line in np.flatnonzero(self._may_have_twins(rows, ids)).tolist():
            key = rows[line].tobytes()
            if key not in self._first_twins:
                self._first_twins[key] = self._own_row(self._blocks(ids[line].tolist()))
            rows[line] = self._first_twins[key]
        return rows

    def _own_row(self, blocks: Sequence[Block]) -> Rows:
        """The canonical row of blocks that come from the space."""
        row = self._matcher.row(blocks)
        assert row is not None
        return row

    def _may_have_twins(self, rows: Rows, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Rows that leave a block out, or whose neighbouring stages join at one width; only these can have equals."""
        found = np.zeros(len(rows), dtype=np.bool_)
        entering = np.zeros(len(rows), dtype=np.int64)
        first = 1
        for number, stage in enumerate(self.tables.stages):
            out = stage.out.codes(rows)
            if stage.choices.block.can_skip:
                found |= (ids[:, first : first + len(stage.slots)] == self.tables.pad).any(axis=1)
            if number and stage.choices.stride == 1:
                found |= np.array(stage.widths_in)[entering] == np.array(stage.choices.out_channels)[out]
            entering = out
            first += len(stage.slots)
        return found

    def _blocks(self, ids: Sequence[int]) -> tuple[Block, ...]:
        pad, units = self.tables.pad, self.tables.units
        return tuple([units[i].spec for i in ids[1:-1] if i != pad])  # type: ignore[misc]

    def architecture(self, row: NDArray[np.integer] | Sequence[int]) -> Architecture:
        """The architecture of one row."""
        return self.architectures(np.asarray(row).reshape(1, -1))[0]

    def architectures(self, indices: NDArray[np.integer] | Sequence[Sequence[int]]) -> list[Architecture]:
        """The architecture of each row, canonical or not, in order."""
        ids = self.tables.unit_ids(self._rows(indices)).tolist()
        return [self.skeleton.architecture(self._blocks(line)) for line in ids]

    def indices(self, architecture: Architecture) -> Rows:
        """The canonical row of an architecture; shape (parameters,).

        What matters in training alone is no choice and may differ: dropout, the classifier's initial weights, the
        norms' momentum. The row is that of the network with the space's.

        Raises:
            SpaceError: the architecture is not in the space; the message says where it leaves it.
        """
        check_architecture(architecture)
        skeleton, outside = self.skeleton, f"the network is not in space {self.name}"
        head = replace(architecture.head, dropout=skeleton.head.dropout, linear_std=skeleton.head.linear_std)
        for field in ("stem", "head", "resolution", "classes", "padding", "conv_bias", "norm_eps"):
            theirs, ours = head if field == "head" else getattr(architecture, field), getattr(skeleton, field)
            if theirs != ours:
                raise SpaceError(f"{outside}: its {field} is {theirs}, the space's {ours}")
        blocks = architecture.blocks
        if (row := self._matcher.row(blocks)) is not None:
            return row
        shared = self._matcher.furthest(blocks)
        if shared == len(blocks):
            raise SpaceError(f"{outside}: it ends after block {shared}, where every network of the space goes on")
        raise SpaceError(f"{outside}: no network of it goes on from {shared} blocks with {blocks[shared]}")

    def contains(self, architecture: Architecture) -> bool:
        """Whether the architecture is one of the space's, its head and resolution included; see :meth:`indices`."""
        try:
            self.indices(architecture)
        except SpaceError:
            return False
        return True

    def decode(self, choices: Mapping[str, object]) -> Architecture:
        """The architecture of a plain mapping from parameters' names to values.

        Parameters of blocks past the depth may be left out.

        Raises:
            UnknownNameError: a name that is no parameter.
            SpaceError: a value that is no choice, or a missing parameter.
        """
        row = np.zeros(len(self.parameters), dtype=np.int16)
        for name, value in choices.items():
            column = self.tables.names.get(name)
            if column is None:
                raise UnknownNameError(f"parameter of space {self.name}", str(name), self.tables.names)
            row[column] = _index_of(self.parameters[column], self._indices_of_choices[column], value)
        missing = [p.name for p in self._used(row) if p.name not in choices]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise SpaceError(f"choices for space {self.name} lack {', '.join(missing[:3])}{more}")
        return self.architecture(row)

    def encode(self, architecture: Architecture) -> dict[str, ChoiceValue]:
        """The choices that make an architecture, by parameters' names; unused parameters are absent.

        Raises:
            SpaceError: the architecture is not in the space.
        """
        row = self.indices(architecture)
        return {p.name: p.choices[row[self.tables.names[p.name]]] for p in self._used(row)}

    def _used(self, row: Rows) -> list[Parameter]:
        """The parameters that matter in one row."""
        return [p for p, used in zip(self.parameters, self.tables.used(row[None])[0], strict=True) if used]

    def sample_indices(self, n: int, rng: np.random.Generator) -> Rows:
        """``n`` canonical rows, with every distinct architecture equally likely; shape (n, parameters)."""
        if self._automaton is None:
            return self._local.sample(n, rng)
        if self.size / self._local.size < MIN_ACCEPTED_SHARE:
            return self._sampled_by_automaton(self._automaton, n, rng)
        kept = np.zeros((0, len(self.parameters)), dtype=np.int16)
        while len(kept) < n:  # each sample is kept with a probability known to be at least the bound above
            drawn = self._local.sample(n - len(kept) + 16, rng)
            kept = np.concatenate([kept, drawn[(self.canonical(drawn) == drawn).all(axis=1)]])
        return kept[:n]

    def _sampled_by_automaton(self, automaton: Automaton, n: int, rng: np.random.Generator) -> Rows:
        rows = np.zeros((n, len(self.parameters)), dtype=np.int16)
        for line in range(n):
            rows[line] = self._own_row([self.tables.block_spec(unit) for unit in automaton.sample(rng)])
        return rows

    def sample(self, n: int, seed: int) -> list[Architecture]:
        """``n`` architectures, each equally likely, repetitions possible; the same for the same seed.

        Raises:
            SpaceError: ``n`` or ``seed`` is no integer of at least 0.
        """
        for name, value in (("n", n), ("seed", seed)):
            if (found := whole(value)) is None or found < 0:
                raise SpaceError(f"{name} is {value!r}; it must be an integer of at least 0")
        return self.architectures(self.sample_indices(n, np.random.default_rng(seed)))

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in the order of canonical rows.

        Raises:
            SpaceError: there are more than 1,000,000.
        """
        if self._local.size > MAX_ENUMERATED:
            size, most = f"{self._local.size:.3g}", f"{MAX_ENUMERATED:,}"
            raise SpaceError(f"space {self.name} has {size} rows; at most {most} are enumerated: sample it")
        return self._enumerated()

    def _enumerated(self) -> Iterator[Architecture]:
        local = self._local.rows()
        while chunk := list(islice(local, ENUMERATED_AT_ONCE)):
            rows = np.stack(chunk)
            yield from self.architectures(rows[(self.canonical(rows) == rows).all(axis=1)])

    def mutate(self, indices: NDArray[np.integer], rng: np.random.Generator, rate: float) -> Rows:
        """Rows whose parameters each changed with probability ``rate``; blocks that appear are random."""
        rows, sizes = self._rows(indices), self.tables.sizes
        if not 0 <= rate <= 1:
            raise SpaceError(f"the mutation rate is {rate!r}; it must be a number from 0 to 1")
        shift = 1 + (rng.random(rows.shape) * (sizes - 1)).astype(np.int16)
        changed = np.where(rng.random(rows.shape) < rate, (rows + shift) % sizes, rows)
        return self.canonical(np.where(self.tables.used(rows), changed, self._random(len(rows), rng)))

    def crossover(self, a: NDArray[np.integer], b: NDArray[np.integer], rng: np.random.Generator) -> Rows:
        """Row by row, each parameter from one of the two parents (from the one that uses it, where only one does)."""
        a, b = self._rows(a), self._rows(b)
        if a.shape != b.shape:
            raise SpaceError(f"crossover needs as many rows on both sides, not {len(a)} and {len(b)}")
        in_a, in_b = self.tables.used(a), self.tables.used(b)
        found = np.where(np.where(in_a & in_b, rng.random(a.shape) < 0.5, in_a), a, b)
        return self.canonical(np.where(in_a | in_b, found, self._random(len(a), rng)))

    def _random(self, count: int, rng: np.random.Generator) -> Rows:
        drawn: Rows = (rng.random((count, len(self.parameters))) * self.tables.sizes).astype(np.int16)
        return drawn

    def priced(self, price: Price) -> PricedSpace:
        """The space with a price for each of :meth:`all_units`, asked once: ``price(units) -> (units,)``."""
        return PricedSpace(self, price)

    def count_batch(self, indices: NDArray[np.integer]) -> CountBatch:
        """Exact counts of each row: MAdds, parameters, activations, peak memory; arrays of shape (n,)."""
        unit_costs = [(*unit_cost(unit), unit_peak_elements(unit)) for unit in self.tables.units]
        costs = np.array([*unit_costs, (0, 0, 0, 0)], dtype=np.int64)
        ids = self.tables.unit_ids(self._rows(indices))
        madds, parameters, activations = (costs[:, k][ids].sum(axis=1) for k in range(3))
        return CountBatch(madds, parameters, activations, costs[:, 3][ids].max(axis=1) * BYTES_PER_ELEMENT)


def _key(value: object) -> tuple[bool, object]:
    """What tells choices apart: by value, but true is not 1."""
    return isinstance(value, (bool, np.bool_)), value


def _index_of(parameter: Parameter, known: Mapping[tuple[bool, object], int], value: object) -> int:
    try:
        return known[_key(value)]
    except (KeyError, TypeError):
        valid = ", ".join(str(c).lower() if isinstance(c, bool) else str(c) for c in parameter.choices)
        raise SpaceError(f"{parameter.name} is {value!r}; it must be one of {valid}") from None
