"""What NetAdapt did, as values that a notebook shows as a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate, networks_frame

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN_ROWS = 40


@dataclass(frozen=True, slots=True)
class Step:
    """One narrowing that was kept.

    Attributes:
        number: from 1.
        change: what was narrowed, in words; ``kind`` is ``expansion`` or ``bottleneck``.
        top1, top1_std, latency_ms: of the network after the step.
        delta_top1, delta_latency_ms: against the network before it.
        proposals: how many were scored.
        required_ms: the cut that every proposal had to make.
    """

    number: int
    kind: str
    change: str
    architecture: Architecture
    top1: float
    top1_std: float | None
    latency_ms: float
    delta_top1: float
    delta_latency_ms: float
    proposals: int
    required_ms: float


class Steps(tuple[Step, ...]):
    """Steps in order."""

    __slots__ = ()

    def to_frame(self) -> DataFrame:
        """A row a step: the fields of :class:`Step`, with the network's short line as ``blocks`` before itself."""
        return networks_frame(self, (f.name for f in fields(Step) if f.name != "architecture"))

    def __repr__(self) -> str:
        """The table in plain text."""
        return self._shown().to_string(index=False, max_rows=SHOWN_ROWS) if self else "no steps"

    def _repr_html_(self) -> str:
        """The table in a notebook; pandas escapes it."""
        return str(self._shown().to_html(index=False, max_rows=SHOWN_ROWS, border=0)) if self else "<p>no steps</p>"

    def _shown(self) -> DataFrame:
        shown = ["number", "change", "top1", "top1_std", "latency_ms", "delta_top1", "delta_latency_ms", "proposals"]
        digits = {"top1": 2, "top1_std": 2, "delta_top1": 2, "latency_ms": 3, "delta_latency_ms": 3}
        return self.to_frame()[shown].round(digits)


class StepsResult(ABC):
    """What NetAdapt did, with weights or without: one line, and the table of its ``steps``."""

    __slots__ = ()
    if TYPE_CHECKING:
        steps: Any

    @abstractmethod
    def summary(self) -> str:
        """One line on what was done."""

    def to_frame(self) -> DataFrame:
        """Every step as a row; see :meth:`Steps.to_frame`."""
        frame: DataFrame = self.steps.to_frame()
        return frame

    def __repr__(self) -> str:
        """One line on what was done, and the steps as a table."""
        return f"{self.summary()}\n{self.steps!r}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.summary())}</p>{self.steps._repr_html_()}"


@dataclass(frozen=True, slots=True, repr=False)
class NetAdaptResult(StepsResult):
    """What NetAdapt did: where it began, each step, where it ended.

    Attributes:
        reached: whether ``final`` meets the target.
        evaluated: distinct architectures given to the evaluator by this call.
    """

    seed: Candidate
    steps: Steps
    final: Candidate
    reached: bool
    evaluated: int

    def summary(self) -> str:
        """As :class:`StepsResult`."""
        ends = "the target is met" if self.reached else "the target is missed"
        return (
            f"NetAdaptResult: {ends} after {len(self.steps)} steps: {self.seed.latency_ms:.3f} → "
            f"{self.final.latency_ms:.3f} ms, {self.seed.top1:.2f} → {self.final.top1:.2f}; "
            f"{self.evaluated:,} networks evaluated"
        )
