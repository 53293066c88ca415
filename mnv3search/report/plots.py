"""Plots in PNG and SVG by matplotlib: the axes, legends and labels of all, runs compared, a device's profile."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnv3search.candidate import Candidate
from mnv3search.files import write_atomic, write_text
from mnv3search.latency.measured.profiling import NEAR, CheckedNetwork, DeviceProfile, percent
from mnv3search.report.labels import LEADER_FROM, Box, Label, along, nearest_point, place_labels
from mnv3search.report.summary import ScoredNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

SIZE_INCHES = (9.0, 6.0)
DPI = 150
SCALE = DPI / 100
MAX_NAME = 34
TARGET = "target"
INK, QUIET, FRONT, BEST, PATH, DOTS = "#1f2328", "#59636e", "#1f6feb", "#d1440c", "#1a7f5a", "#9db7dc"
GRID, FRAME, LEADER, REFERENCE_BARS = "#eaeef2", "#d0d7de", "#8c959f", "#afb8c1"
GROUP_COLOURS = ("#1f6feb", "#d1440c", "#1a7f5a", "#8250df", "#9a6700", "#bf3989", "#0b7285", "#59636e")
GROUP_MARKERS = "osD^vPX*"


class PointLabel(NamedTuple):
    """A text at a mark, with the errors of the mark's figures (0 where unknown)."""

    x: float
    y: float
    x_error: float
    y_error: float
    text: str
    colour: str
    bold: bool = False


def point_label(network: ScoredNetwork, text: str, colour: str, *, bold: bool = False) -> PointLabel:
    """The label of a network that has a top-1."""
    errors = (network.latency_error_ms or 0.0, network.top1_std or 0.0)
    return PointLabel(network.latency_ms, network.top1 or 0.0, *errors, text, colour, bold)


def coordinates(networks: Sequence[Candidate | ScoredNetwork]) -> tuple[list[float], list[float]]:
    """Latencies in ms and top-1 of networks that have one."""
    return [n.latency_ms for n in networks], [n.top1 or 0.0 for n in networks]


def draw_comparison(
    groups: Mapping[str, Sequence[ScoredNetwork]],
    png: Path,
    svg: Path,
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    fronts: Mapping[str, Sequence[Candidate]] | None = None,
    target_latency_ms: float | None = None,
) -> list[str]:
    """Draw groups of networks (runs, published networks) with error bars and names, and a Pareto front by its group.

    Gives the names of the networks that have no top-1 and are therefore not drawn.
    """
    figure, axes = canvas(x_label, y_label, title)
    labels: list[PointLabel] = []
    lines = []
    missing: list[str] = []
    for index, (group, members) in enumerate(groups.items()):
        colour, marker = GROUP_COLOURS[index % len(GROUP_COLOURS)], GROUP_MARKERS[index % len(GROUP_MARKERS)]
        drawn = [n for n in members if n.top1 is not None]
        missing += [n.name for n in members if n.top1 is None]
        if front := (fronts or {}).get(group, ()):
            lines.append([(c.latency_ms, c.top1) for c in front])
            label = f"{short_name(group)}: Pareto front"
            axes.plot(*coordinates(front), color=colour, lw=1.2, alpha=0.6, zorder=2, label=label)
        error_bars(axes, drawn, colour)
        x, y = coordinates(drawn)
        axes.scatter(x, y, marker=marker, s=60, color=colour, ec="white", lw=0.8, zorder=4, label=short_name(group))
        labels += [point_label(n, short_name(n.name), colour) for n in drawn]
    if target_latency_ms is not None:
        draw_target(axes, target_latency_ms)
    axes.margins(0.12)
    label_points(figure, axes, labels, lines, [])
    save(figure, png, svg)
    return missing


def canvas(x_text: str, y_text: str, title: str) -> tuple[Figure, Axes]:
    """An empty figure with one pair of labelled axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_text, color=INK, fontsize=10.5, parse_math=False)
    axes.set_ylabel(y_text, color=INK, fontsize=10.5, parse_math=False)
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", parse_math=False)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    return figure, axes


def error_bars(axes: Axes, members: Sequence[ScoredNetwork], colour: str, width: float = 0.9) -> None:
    """Bars of one standard deviation on both axes, where it is known."""
    for network in members:
        axes.errorbar(
            *coordinates([network]), xerr=network.latency_error_ms, yerr=network.top1_std, fmt="none", ecolor=colour,
            elinewidth=width, capsize=2.5, capthick=width, zorder=3.8,
        )  # fmt: skip


def draw_target(axes: Axes, target_ms: float) -> None:
    """The target latency as a dashed vertical line."""
    axes.axvline(target_ms, color=INK, lw=1, ls=(0, (5, 4)), zorder=2.5, gid=TARGET, label=f"target {target_ms:g} ms")


def label_points(
    figure: Figure, axes: Axes, labels: Sequence[PointLabel], lines: Sequence[Any], dots: Sequence[tuple[float, float]]
) -> None:
    """Write ``labels`` at their marks, the last first, off one another, the lines, the error bars and the dots."""
    write_legend(figure, axes)
    figure.set_layout_engine("none")  # the axes must not move once labels are placed
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    ordered = list(reversed(labels))
    texts = [_text(figure, axes, label) for label in ordered]
    sizes = []
    for label, text in zip(ordered, texts, strict=True):
        size, (x, y) = text.get_window_extent(renderer), _to_pixels(axes, label.x, label.y)
        sizes.append(Label(x, y, size.width / SCALE, size.height / SCALE))
    obstacles = [along([_to_pixels(axes, *point) for point in line], 15.0) for line in [*lines, *_bars(axes, labels)]]
    obstacles += [np.array([(*_to_pixels(axes, *point), 0.6)]) for point in dots]
    bounds = Box(*(v / SCALE for v in axes.get_window_extent(renderer).extents))
    boxes = place_labels(sizes, np.concatenate([np.empty((0, 3)), *obstacles]), bounds)
    for text, box, placed in zip(texts, boxes, sizes, strict=True):
        # as shares of the figure: a number of pixels would be another position at the SVG's resolution
        text.set_position(tuple(figure.transFigure.inverted().transform((box.x0 * SCALE, box.y0 * SCALE))))
        _leader(axes, box, placed)


def _text(figure: Figure, axes: Axes, label: PointLabel) -> Text:
    """A label at the origin, still to be placed; its ground keeps it readable over a line."""
    return axes.text(
        0, 0, label.text, fontsize=9, color=label.colour, weight="bold" if label.bold else "normal", zorder=7,
        ha="left", va="bottom", linespacing=1.25, transform=figure.transFigure, parse_math=False,
        bbox={"fc": "white", "lw": 0, "alpha": 0.7, "pad": 0.4},
    )  # fmt: skip


def write_legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it hides nothing, in as many columns as the width allows; lays the figure out."""
    handles = axes.get_legend_handles_labels()[0]
    for columns in (4, 3, 2, 1) if handles else ():
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), fontsize=8.5, frameon=False,
            labelcolor=INK,
        )  # fmt: skip
        figure.draw_without_rendering()
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()
    figure.draw_without_rendering()


def _to_pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """A point of the data in pixels at 100 dots an inch."""
    found = axes.transData.transform((x, y)) / SCALE
    return float(found[0]), float(found[1])


def _bars(axes: Axes, labels: Sequence[PointLabel]) -> list[list[tuple[float, float]]]:
    """The error bars of ``labels`` and the target's line, as lines that a label should not cover."""
    bars = [[(n.x - n.x_error, n.y), (n.x + n.x_error, n.y)] for n in labels]
    bars += [[(n.x, n.y - n.y_error), (n.x, n.y + n.y_error)] for n in labels]
    low, high = axes.get_ylim()
    targets = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_gid() == TARGET]
    return bars + [[(x, low), (x, high)] for x in targets]


def _leader(axes: Axes, box: Box, label: Label) -> None:
    end = nearest_point(box, label.x, label.y)
    if abs(end[0] - label.x) + abs(end[1] - label.y) > LEADER_FROM:
        inverse = axes.transData.inverted()
        (x0, y0), (x1, y1) = (inverse.transform((px * SCALE, py * SCALE)) for px, py in ((label.x, label.y), end))
        axes.plot([x0, x1], [y0, y1], color=LEADER, lw=0.6, zorder=3.7, scalex=False, scaley=False)


def short_name(name: str) -> str:
    """A name as a plot shows it."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write both files, each whole or not at all, with no date and no random ids in them."""
    save_png(figure, png)
    write_text(svg, svg_text(figure))


def save_png(figure: Figure, png: Path) -> None:
    """The plot in pixels, with no date in it."""
    write_atomic(png, lambda path: figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None}))


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document whose texts are texts; the same figure gives the same characters."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "mnv3search", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return stream.getvalue()


def runtime_text(profile: DeviceProfile) -> str:
    """In what the networks were timed: ``onnxruntime 1.22.0, fp32, 1 thread``."""
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    return f"{profile.runtime} {profile.runtime_version}, {profile.precision}, {threads}"


def draw_profile(profile: DeviceProfile, png: Path, svg: Path) -> None:
    """Draw each network's prediction and measurement, with bars of one deviation, the diagonal and a band of ±5 %.

    Networks of the calibration are hollow, unseen ones filled; the same profile gives the same bytes.
    """
    title = f"{profile.space} on {profile.device}: predicted against measured"
    machine = f"{profile.machine}; {runtime_text(profile)}; batch 1"
    figure, axes = canvas(f"measured, whole networks, ms\n{machine}", "predicted by the layers' table, ms", title)
    low, high = _limits(profile.networks)
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - NEAR), line * (1 + NEAR), color=GRID, lw=0, zorder=1, label="within ±5 %")
    axes.plot(line, line, color=QUIET, lw=1, zorder=2, label="predicted = measured")
    fitted = [network for network in profile.networks if network.calibrated_on]
    _points(axes, fitted, FRONT, "white", f"{len(fitted)} of the networks that the table was calibrated on")
    errors = profile.errors
    if errors:
        found = f"mean error {percent(float(np.mean(errors)))}, largest {percent(max(errors))}"
        which = "1 random network" if len(errors) == 1 else f"{len(errors)} random networks"
        _points(axes, profile.unseen, BEST, BEST, f"{which} that it has not seen: {found}")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.text(
        0.02, 0.97, "bars: ±1 standard deviation", transform=axes.transAxes, fontsize=9, color=INK, va="top", ha="left"
    )
    write_legend(figure, axes)
    save(figure, png, svg)


def _points(axes: Axes, networks: Sequence[CheckedNetwork], colour: str, fill: str, label: str) -> None:
    if not networks:
        return
    axes.errorbar(
        [n.measured_ms for n in networks], [n.predicted_ms for n in networks],
        xerr=[n.measured_error_ms for n in networks], yerr=[n.predicted_error_ms for n in networks],
        fmt="o", ms=6, mfc=fill, mec=colour, color=colour, elinewidth=0.9, capsize=2.5, capthick=0.9, zorder=4,
        label=label,
    )  # fmt: skip


def _limits(networks: Sequence[CheckedNetwork]) -> tuple[float, float]:
    """Both axes alike: every bar, and a margin."""
    low = min(min(n.measured_ms - n.measured_error_ms, n.predicted_ms - n.predicted_error_ms) for n in networks)
    high = max(max(n.measured_ms + n.measured_error_ms, n.predicted_ms + n.predicted_error_ms) for n in networks)
    margin = 0.08 * (high - low) or 0.05 * high
    return max(0.0, low - margin), high + margin
