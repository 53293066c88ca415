"""A network that a search has evaluated, and the front of the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from mnv3search.architecture import Architecture

if TYPE_CHECKING:
    from pandas import DataFrame

Origin = Literal["block_search", "netadapt", "reference"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One evaluated network.

    Attributes:
        top1, top1_std: percent, from the run's evaluator; the deviation is None where the evaluator states none.
        latency_ms: by the run's latency model.
        madds, parameters: exact counts.
        origin: which stage made it.
        number: Optuna's trial number in a block search; after NetAdapt the last step's, or in a run the finalist's
            from 0.
    """

    architecture: Architecture
    top1: float
    top1_std: float | None
    latency_ms: float
    madds: int
    parameters: int
    origin: Origin
    number: int


class Candidates(tuple[Candidate, ...]):
    """Evaluated networks in order, which a notebook shows as a table."""

    __slots__ = ()

    def to_frame(self) -> DataFrame:
        """A row a network: ``number`` to ``origin`` as in :class:`Candidate`, ``blocks`` its short line, and itself."""
        names = [f.name for f in fields(Candidate) if f.name not in {"architecture", "number"}]
        return networks_frame(self, ("number", *names))

    def __repr__(self) -> str:
        """The table in plain text."""
        return self._shown().to_string(index=False, max_rows=20) if self else "no networks"

    def _repr_html_(self) -> str:
        """The table in a notebook; pandas escapes it."""
        return str(self._shown().to_html(index=False, max_rows=20, border=0))

    def _shown(self) -> DataFrame:
        frame = self.to_frame().drop(columns=["architecture", "origin"])
        return frame.round({"top1": 2, "top1_std": 2, "latency_ms": 3})


def networks_frame(rows: Sequence[Any], names: Iterable[str]) -> DataFrame:
    """A row a network: the attributes ``names``, the architecture's short line as ``blocks``, and the architecture."""
    import pandas as pd

    columns: dict[str, list[object]] = {name: [getattr(row, name) for row in rows] for name in names}
    columns["blocks"] = [str(row.architecture) for row in rows]
    columns["architecture"] = [row.architecture for row in rows]
    return pd.DataFrame(columns)


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that no other beats in both top-1 and latency, fastest first; of equals the first stays."""
    front: list[Candidate] = []
    best = float("-inf")
    for candidate in sorted(candidates, key=lambda c: (c.latency_ms, -c.top1, c.number)):
        if candidate.top1 > best:
            front.append(candidate)
            best = candidate.top1
    return front
