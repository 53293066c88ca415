"""A pruning as a table and a plot: accuracy against latency, step by step, with the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.cost import count
from mnv3search.files import write_text
from mnv3search.layer_search.journal import TrainedStep, TrainedSteps
from mnv3search.report.plots import BEST, FRONT, INK, PATH, QUIET, canvas, save, write_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "number", "kind", "change", "latency_ms", "delta_latency_ms", "required_ms", "top1", "top1_std", "delta_top1",
    "loss", "proposals", "rivals", "trained_images", "seconds", "madds", "parameters", "weights", "blocks",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A network in the plot; top-1 in percent, its deviation None where it is not known."""

    name: str
    latency_ms: float
    top1: float
    top1_std: float | None = None


@dataclass(frozen=True, slots=True)
class PruningPlot:
    """What the plot shows."""

    title: str
    path: Sequence[Point]  # the seed and every step, by the held-out part of the training images
    finished: Sequence[Point]  # the seed and the result on the images of the final evaluation
    baselines: Sequence[Point]  # other networks on the same images, such as width multipliers, joined by a line
    target_ms: float
    latency_label: str
    evaluated_on: str  # the images of finished and baselines, in words
    limit: tuple[float, str] | None = None  # ms and name: the largest latency with the confidence asked for


def write_pruning_steps(path: Path, steps: Sequence[TrainedStep]) -> None:
    """One row a step; ``weights`` is the file of its network, ``top1`` and ``loss`` are of the held-out images."""
    frame = TrainedSteps(steps).to_frame().rename(columns={"trained": "trained_images"})
    counts = [count(found.step.architecture) for found in steps]
    frame["madds"], frame["parameters"] = [c.madds for c in counts], [c.parameters for c in counts]
    frame["weights"] = [f"steps/{found.step.number:03d}.safetensors" for found in steps]
    rounded = frame.round({"top1_std": 4, "seconds": 2})
    write_text(path, rounded.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n"))


def draw_pruning(plot: PruningPlot, png: Path, svg: Path) -> None:
    """Draw it; the same plot gives the same bytes."""
    figure, axes = canvas(plot.latency_label, "top-1 (%)", plot.title)
    _draw(axes, plot.path, PATH, ".", "step by step, after its short fine-tune (held-out training images)")
    _draw(axes, plot.baselines, QUIET, "D", f"other networks ({plot.evaluated_on})", named=True)
    _draw(axes, plot.finished[:1], FRONT, "o", f"before ({plot.evaluated_on})")
    _draw(axes, plot.finished[1:], BEST, "*", f"after ({plot.evaluated_on})", size=14)
    axes.axvline(plot.target_ms, color=INK, lw=1, ls=(0, (5, 4)), zorder=2.5, label=f"target {plot.target_ms:.4g} ms")
    if plot.limit is not None:
        axes.axvline(plot.limit[0], color=INK, lw=1, ls=(0, (1, 3)), zorder=2.5, label=plot.limit[1])
    axes.margins(0.08)
    write_legend(figure, axes)
    save(figure, png, svg)


def _draw(
    axes: Axes, points: Sequence[Point], colour: str, marker: str, label: str, *, named: bool = False, size: float = 6
) -> None:
    if not points:
        return
    ordered = sorted(points, key=lambda p: p.latency_ms) if named else points
    axes.errorbar(
        [p.latency_ms for p in ordered], [p.top1 for p in ordered], yerr=[p.top1_std or 0.0 for p in ordered],
        color=colour, marker=marker, ms=size, lw=1.3, elinewidth=0.8, capsize=2, zorder=4, label=label,
    )  # fmt: skip
    for point in ordered if named else ():
        axes.annotate(
            point.name, (point.latency_ms, point.top1), xytext=(5, -11), textcoords="offset points", fontsize=8.5,
            color=colour, parse_math=False,
        )  # fmt: skip
