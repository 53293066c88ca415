"""The Pareto plot of a run: which networks it shows and how far its axes reach, and the figure itself."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.candidate import Candidate
from mnv3search.errors import Mnv3SearchError
from mnv3search.files import write_text
from mnv3search.latency.confidence import z_of
from mnv3search.report import plots
from mnv3search.report.summary import (
    RunSummary,
    ScoredNetwork,
    x_label,
    y_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mnv3search.block_search import SearchResult

MAX_SHOWN = 2_000
FEW = 100  # networks that can be drawn large
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ParetoPlot:
    """What a run's Pareto plot shows."""

    candidates: tuple[Candidate, ...]  # dots apart from the front: all, or an even selection in order of evaluation
    front: tuple[Candidate, ...]  # fastest first, all of it where MAX_SHOWN allows
    trajectory: tuple[tuple[float, float], ...]  # NetAdapt's, from its seed to its end: ms and top-1 in percent
    best: ScoredNetwork | None  # where it has a top-1, like the finalists and references
    finalists: tuple[ScoredNetwork, ...]
    references: tuple[ScoredNetwork, ...]
    target_latency_ms: float
    # the largest prediction with the confidence asked for, at the best's relative error; None where that is the target
    # itself, or the best was timed
    limit_ms: float | None
    x: Interval  # the axes' ranges, in ms and percent
    y: Interval
    evaluated: int  # networks by the block search

    def within_axes(self, candidate: Candidate) -> bool:
        """Whether the axes reach a candidate."""
        return self.x[0] <= candidate.latency_ms <= self.x[1] and self.y[0] <= candidate.top1 <= self.y[1]

    @property
    def candidates_label(self) -> str:
        """The dots' line in the legend, saying what is left out."""
        shown = len(self.candidates) + len(self.front)
        words = f"{self.evaluated:,} networks evaluated"
        left_out = [f"{shown:,} drawn"] if shown < self.evaluated else []
        outside = shown - sum(map(self.within_axes, [*self.candidates, *self.front]))
        left_out += [f"{outside:,} beyond the axes"] if outside else []
        return f"{words} ({', '.join(left_out)})" if left_out else words


def pareto_plot(summary: RunSummary, limit: int = MAX_SHOWN) -> ParetoPlot:
    """Choose what is drawn of ``summary``: at most ``limit`` networks of the block search, the front first."""
    # without a block search there is no front: the best alone is no line
    front, rest = shown_candidates(summary.candidates, summary.front if summary.candidates else (), limit)
    trajectory = tuple((step.latency_ms, step.top1) for step in summary.steps)
    if summary.seed is not None:
        trajectory = ((summary.seed.latency_ms, summary.seed.top1), *trajectory)
    references = tuple(n for n in summary.references if n.top1 is not None)
    finalists = tuple(n for n in summary.finalists if n.top1 is not None)
    best = summary.best if summary.best.top1 is not None else None
    named = [*references, *finalists, *([best] if best else [])]
    x, y = _ranges(named, trajectory, [*front, *rest], summary.target_latency_ms)
    return ParetoPlot(
        rest, front, trajectory, best, finalists, references, summary.target_latency_ms, _limit_ms(summary), x, y,
        max(len(summary.candidates), len(front)),
    )  # fmt: skip


def _limit_ms(summary: RunSummary) -> float | None:
    best, verdict = summary.best, summary.verdict
    if verdict is None or best.measured_ms is not None or not best.latency_error_ms or z_of(verdict.confidence) == 0:
        return None
    return summary.target_latency_ms / (1 + z_of(verdict.confidence) * best.latency_error_ms / best.latency_ms)


def shown_candidates(
    candidates: Sequence[Candidate], front: Sequence[Candidate], limit: int = MAX_SHOWN
) -> tuple[tuple[Candidate, ...], tuple[Candidate, ...]]:
    """The front and the others that a plot shows, at most ``limit`` in all; the others evenly, as evaluated."""
    kept = tuple(front[i] for i in _evenly(len(front), limit))
    on_front = {candidate.architecture for candidate in front}
    rest = [candidate for candidate in candidates if candidate.architecture not in on_front]
    return kept, tuple(rest[i] for i in _evenly(len(rest), limit - len(kept)))


def _evenly(count: int, limit: int) -> list[int]:
    if count <= limit:
        return list(range(count))
    return sorted({round(i) for i in np.linspace(0, count - 1, limit)}) if limit > 0 else []


def _ranges(
    named: Sequence[ScoredNetwork],
    trajectory: Sequence[tuple[float, float]],
    dots: Sequence[Candidate],
    target_ms: float,
) -> tuple[Interval, Interval]:
    """Axes around what has a name; the dots may widen them, but not squeeze the named ones into a corner."""
    xs, ys = [target_ms, *(x for x, _ in trajectory)], [y for _, y in trajectory]
    for label in (plots.point_label(network, "", "") for network in named):
        xs += [label.x - label.x_error, label.x + label.x_error]
        ys += [label.y - label.y_error, label.y + label.y_error]
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


class ParetoFigure:
    """The plot: the evaluated networks, their front, NetAdapt's path, the best, the target and the references.

    Both axes are the run's own figures: predictions with predictions. The same summary gives the same bytes.
    """

    def __init__(self, summary: RunSummary) -> None:
        self.summary, self.shown = summary, pareto_plot(summary)
        shown = self.shown
        self.figure, self.axes = plots.canvas(x_label(summary), y_label(summary), summary.title)
        self.axes.set_xlim(*shown.x)
        self.axes.set_ylim(*shown.y)
        _draw_search(self.axes, shown)
        labels = _draw_references(self.axes, shown) + _draw_best(self.axes, summary, shown)
        plots.draw_target(self.axes, shown.target_latency_ms)
        if shown.limit_ms is not None:
            label = f"limit for the confidence asked for, {shown.limit_ms:.4g} ms"
            self.axes.axvline(shown.limit_ms, color=plots.QUIET, lw=0.8, ls=(0, (1, 3)), zorder=2.4, label=label)
        lines = [[(c.latency_ms, c.top1) for c in shown.front], list(shown.trajectory)]
        plots.label_points(self.figure, self.axes, labels, lines, [(c.latency_ms, c.top1) for c in shown.candidates])

    @cached_property
    def svg(self) -> str:
        """The plot as an SVG document."""
        return plots.svg_text(self.figure)

    def save(self, png: Path, svg: Path) -> None:
        """Write both files, each whole or not at all."""
        plots.save_png(self.figure, png)
        write_text(svg, self.svg)


def _draw_search(axes: Axes, shown: ParetoPlot) -> None:
    dots = [*shown.candidates, *shown.front]
    if dots:
        size = 9 if len(dots) > FEW else 30
        x, y = plots.coordinates(dots)
        axes.scatter(x, y, s=size, color=plots.DOTS, alpha=0.5, lw=0, zorder=2, label=shown.candidates_label)
    if shown.front:
        x, y = plots.coordinates(shown.front)
        axes.plot(x, y, color=plots.FRONT, lw=2, marker="o", ms=3.2, zorder=3, label="Pareto front")
    if len(shown.trajectory) > 1:
        x, y = map(list, zip(*shown.trajectory, strict=True))
        axes.plot(x, y, color=plots.PATH, lw=1.2, marker=".", ms=4, zorder=3.5, label="NetAdapt, step by step")


def _draw_references(axes: Axes, shown: ParetoPlot) -> list[plots.PointLabel]:
    plots.error_bars(axes, shown.references, plots.REFERENCE_BARS)
    if shown.references:
        label = "published networks, by the same evaluator"
        x, y = plots.coordinates(shown.references)
        axes.scatter(x, y, marker="D", s=42, color=plots.QUIET, ec="white", lw=0.8, zorder=4, label=label)
    if shown.finalists:
        x, y = plots.coordinates(shown.finalists)
        axes.scatter(x, y, marker="*", s=70, color="white", ec=plots.BEST, lw=1, zorder=4, label="the other finalists")
    return [plots.point_label(n, plots.short_name(n.name), plots.INK) for n in shown.references]


def _draw_best(axes: Axes, summary: RunSummary, shown: ParetoPlot) -> list[plots.PointLabel]:
    best = shown.best
    if best is None or best.top1 is None:
        return []
    plots.error_bars(axes, [best], plots.BEST, width=1.4)
    label = "the best (bars: ±1 standard deviation)"
    axes.scatter(
        best.latency_ms, best.top1, marker="*", s=230, color=plots.BEST, ec="white", lw=1, zorder=6, label=label
    )
    text = f"best: {summary.top1_of(best)}\n{summary.latency_of(best)}"
    return [plots.point_label(best, text, plots.BEST, bold=True)]


def plot_pareto(result: SearchResult, ax: Axes | None = None) -> Axes:
    """Draw every candidate of ``result``, the Pareto front and the best: top-1 over latency in ms.

    Args:
        result: what :func:`mnv3search.search` gave.
        ax: where to draw; new axes of pyplot where not given.

    Returns:
        The axes, for titles, limits and further points.

    Raises:
        Mnv3SearchError: ``result`` is something else.
    """
    from mnv3search.block_search import SearchResult

    if not isinstance(result, SearchResult):
        raise Mnv3SearchError(f"result is {reprlib.repr(result)}, not a SearchResult; give what search gives")

    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots()
    candidates, front, best = result.candidates, result.pareto_front, result.best
    ax.scatter(*plots.coordinates(candidates), s=8, color=plots.DOTS, label="candidates")
    ax.plot(*plots.coordinates(front), "o-", ms=4, color=plots.FRONT, label="Pareto front")
    ax.plot([best.latency_ms], [best.top1], "*", ms=14, color=plots.BEST, label="best")
    ax.set_xlabel("latency, ms")
    ax.set_ylabel("top-1, %")
    ax.legend(loc="lower right")
    return ax
