"""What the Pareto plot of a run shows, as values: which networks, and how far the axes reach. No drawing here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnv3search.candidate import Candidate
from mnv3search.latency.confidence import z_of
from mnv3search.report.summary import Judged, RunSummary

MAX_SHOWN = 2_000
FEW = 100  # networks that can be drawn large
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A run's Pareto picture.

    Attributes:
        candidates: what is drawn as dots beside the front; every one, or an even selection in order of evaluation.
        front: the run's Pareto front, fastest first, all of it where ``MAX_SHOWN`` allows.
        trajectory: NetAdapt's path from its seed to its end: (latency in ms, top-1 in percent).
        best, finalists, references: those that have a top-1.
        limit_ms: what a network as sure as the best may be predicted at, for the confidence that was asked for; None
            where that is the target itself, or the best was timed.
        x, y: the axes' ranges, in ms and percent.
        evaluated: how many networks the block search judged.
        outside: how many of the drawn dots lie beyond the axes.
    """

    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    trajectory: tuple[tuple[float, float], ...]
    best: Judged | None
    finalists: tuple[Judged, ...]
    references: tuple[Judged, ...]
    target_latency_ms: float
    limit_ms: float | None
    x: Interval
    y: Interval
    evaluated: int
    outside: int

    @property
    def limit_label(self) -> str:
        """The limit's line in the legend."""
        return f"limit for the confidence asked for, {self.limit_ms or 0:.4g} ms"

    @property
    def candidates_label(self) -> str:
        """The dots' line in the legend, saying what is left out."""
        shown = len(self.candidates) + len(self.front)
        words = f"{self.evaluated:,} networks judged"
        left_out = [f"{shown:,} drawn"] if shown < self.evaluated else []
        left_out += [f"{self.outside:,} beyond the axes"] if self.outside else []
        return f"{words} ({', '.join(left_out)})" if left_out else words


def picture(summary: RunSummary, limit: int = MAX_SHOWN) -> Picture:
    """Choose what is drawn of ``summary``: at most ``limit`` networks of the block search, the front first."""
    # without a block search there is no front: the best alone is no line
    front, rest = shown_candidates(summary.candidates, summary.front if summary.candidates else (), limit)
    trajectory = tuple((step.latency_ms, step.top1) for step in summary.steps)
    if summary.seed is not None:
        trajectory = ((summary.seed.latency_ms, summary.seed.top1), *trajectory)
    references = tuple(j for j in summary.references if j.top1 is not None)
    finalists = tuple(j for j in summary.finalists if j.top1 is not None)
    best = summary.best if summary.best.top1 is not None else None
    named = [*references, *finalists, *([best] if best else [])]
    x, y = _ranges(named, trajectory, [*front, *rest], summary.target_latency_ms)
    outside = sum(not (x[0] <= c.latency_ms <= x[1] and y[0] <= c.top1 <= y[1]) for c in [*rest, *front])
    return Picture(
        rest, front, trajectory, best, finalists, references, summary.target_latency_ms, _limit_ms(summary), x, y,
        max(len(summary.candidates), len(front)), outside,
    )  # fmt: skip


def _limit_ms(summary: RunSummary) -> float | None:
    best, verdict = summary.best, summary.verdict
    if verdict is None or best.measured_ms is not None or not best.latency_error_ms or z_of(verdict.confidence) == 0:
        return None
    return summary.target_latency_ms / (1 + z_of(verdict.confidence) * best.latency_error_ms / best.latency_ms)


def shown_candidates(
    candidates: Sequence[Candidate], front: Sequence[Candidate], limit: int = MAX_SHOWN
) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    """The front and the others that a picture shows, at most ``limit`` in all; the others evenly, as evaluated."""
    kept = tuple(front[i] for i in _evenly(len(front), limit))
    on_front = {candidate.architecture for candidate in front}
    rest = [candidate for candidate in candidates if candidate.architecture not in on_front]
    return kept, tuple(rest[i] for i in _evenly(len(rest), limit - len(kept)))


def _evenly(count: int, limit: int) -> list[int]:
    if count <= limit:
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, limit)}) if limit > 0 else []


def _ranges(
    named: Sequence[Judged], trajectory: Sequence[tuple[float, float]], dots: Sequence[Candidate], target_ms: float
) -> tuple[Interval, Interval]:
    """Axes around what has a name; the dots may widen them, but not squeeze the named ones into a corner."""
    xs = [target_ms, *(j.latency_ms for j in named), *(point[0] for point in trajectory)]
    ys = [point[1] for point in trajectory]
    for judged in named:
        error = judged.latency_error_ms or 0.0
        xs += [judged.latency_ms - error, judged.latency_ms + error]
        top1, std = judged.top1 or 0.0, judged.top1_std or 0.0
        ys += [top1 - std, top1 + std]
    ys = ys or [candidate.top1 for candidate in dots] or [0.0, 100.0]
    x, y = (min(xs), max(xs)), (min(ys), max(ys))
    if dots:
        x = _widened(x, [c.latency_ms for c in dots], 0.35 * target_ms)
        y = _widened(y, [c.top1 for c in dots], 0.8 * max(y[1] - y[0], 0.5))
    return _padded(x), _padded(y)


def _widened(interval: Interval, values: Sequence[float], at_most: float) -> Interval:
    low, high = interval
    return max(min(low, float(np.quantile(values, 0.02))), low - at_most), min(max(high, *values), high + at_most)


def _padded(interval: Interval) -> Interval:
    low, high = interval
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def ticks(interval: Interval, about: int = 7) -> list[float]:
    """Round numbers within ``interval``, about ``about`` of them."""
    low, high = interval
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(magnitude * m for m in (1, 2, 2.5, 5, 10) if magnitude * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
