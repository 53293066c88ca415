"""Plots in PNG and SVG by matplotlib: a run, runs compared with networks, a device's profile."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnv3search.candidate import Candidate
from mnv3search.errors import Mnv3SearchError
from mnv3search.files import write_atomic
from mnv3search.latency.measured.profiling import NEAR, CheckedNetwork, DeviceProfile, percent
from mnv3search.report.labels import LEADER_FROM, Box, Label, along, nearest_point, place_labels
from mnv3search.report.pareto import FEW, Picture, picture
from mnv3search.report.summary import (
    LATENCY_WORDS,
    Judged,
    RunSummary,
    accuracy_unit,
    latency_text,
    top1_text,
    x_label,
    y_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from mnv3search.block_search import SearchResult

SIZE_INCHES = (9.0, 6.0)
DPI = 150
SCALE = DPI / 100
MAX_NAME = 34
TARGET = "target"
INK, QUIET, FRONT, BEST, PATH, DOTS = "#1f2328", "#59636e", "#1f6feb", "#d1440c", "#1a7f5a", "#9db7dc"
GROUP_COLOURS = ("#1f6feb", "#d1440c", "#1a7f5a", "#8250df", "#9a6700", "#bf3989", "#0b7285", "#59636e")
GROUP_MARKERS = "osD^vPX*"


class _Name(NamedTuple):
    """A text beside a mark, with the errors of the mark's figures (0 where unknown)."""

    x: float
    y: float
    x_error: float
    y_error: float
    text: str
    colour: str
    bold: bool = False


def _name(judged: Judged, text: str, colour: str, *, bold: bool = False) -> _Name:
    errors = (judged.latency_error_ms or 0.0, judged.top1_std or 0.0)
    return _Name(judged.latency_ms, judged.top1 or 0.0, *errors, text, colour, bold)


def draw_pareto(summary: RunSummary, png: Path, svg: Path) -> None:
    """Draw a run: the judged networks, their front, NetAdapt's path, the best, the target and the references.

    Both axes are the run's own figures, so predicted stands beside predicted; the same summary gives the same bytes.

    Raises:
        RunError: a file cannot be written; what stood there before is untouched.
    """
    shown = picture(summary)
    figure, axes = canvas(x_label(summary), y_label(summary), summary.title)
    axes.set_xlim(*shown.x)
    axes.set_ylim(*shown.y)
    _draw_search(axes, shown)
    names = _draw_references(axes, shown) + _draw_best(axes, summary, shown)
    _draw_target(axes, shown.target_latency_ms)
    if shown.limit_ms is not None:
        axes.axvline(shown.limit_ms, color=QUIET, lw=0.8, ls=(0, (1, 3)), zorder=2.4, label=shown.limit_label)
    lines = [[(c.latency_ms, c.top1) for c in shown.front], list(shown.trajectory)]
    _place_names(figure, axes, names, lines, [(c.latency_ms, c.top1) for c in shown.candidates])
    save(figure, png, svg)


def draw_comparison(
    groups: Mapping[str, Sequence[Judged]],
    png: Path,
    svg: Path,
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    fronts: Mapping[str, Sequence[Candidate]] | None = None,
    target_latency_ms: float | None = None,
) -> list[str]:
    """Draw groups of networks (runs, published networks) on one plot, each figure with its error bars.

    Args:
        groups: a legend line each, in order; every network of it is labelled with its name.
        png: where to write the picture in pixels.
        svg: where to write the vectors.
        x_label: the latency axis, with its unit and kind.
        y_label: the accuracy axis, with its unit.
        title: above the plot.
        fronts: a run's Pareto front by its group, drawn as a line in the group's colour.
        target_latency_ms: a dashed vertical line.

    Returns:
        Names of the networks that have no top-1 and are therefore not drawn.

    Raises:
        RunError: a file cannot be written; what stood there before is untouched.
    """
    figure, axes = canvas(x_label, y_label, title)
    names: list[_Name] = []
    lines = []
    missing: list[str] = []
    for index, (group, members) in enumerate(groups.items()):
        colour, marker = GROUP_COLOURS[index % len(GROUP_COLOURS)], GROUP_MARKERS[index % len(GROUP_MARKERS)]
        drawn = [j for j in members if j.top1 is not None]
        missing += [j.name for j in members if j.top1 is None]
        if front := (fronts or {}).get(group, ()):
            lines.append([(c.latency_ms, c.top1) for c in front])
        _draw_group(axes, _short(group), drawn, front, colour, marker)
        names += [_name(j, _short(j.name), colour) for j in drawn]
    if target_latency_ms is not None:
        _draw_target(axes, target_latency_ms)
    axes.margins(0.12)
    _place_names(figure, axes, names, lines, [])
    save(figure, png, svg)
    return missing


def _draw_group(
    axes: Axes, group: str, members: Sequence[Judged], front: Sequence[Candidate], colour: str, marker: str
) -> None:
    if front:
        x, y = [c.latency_ms for c in front], [c.top1 for c in front]
        axes.plot(x, y, color=colour, lw=1.2, alpha=0.6, zorder=2, label=f"{group}: Pareto front")
    _error_bars(axes, members, colour)
    x, y = [j.latency_ms for j in members], [j.top1 or 0.0 for j in members]
    axes.scatter(x, y, marker=marker, s=60, color=colour, ec="white", lw=0.8, zorder=4, label=group)


def comparison_labels(summary: RunSummary) -> tuple[str, str]:
    """Axis labels for a comparison on ``summary``'s device and evaluator: (x, y)."""
    return f"Latency on {summary.device}, ms ({LATENCY_WORDS[summary.device_kind]})", y_label(summary)


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
    axes.grid(color="#eaeef2", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d0d7de")
    return figure, axes


def _draw_search(axes: Axes, shown: Picture) -> None:
    dots = [*shown.candidates, *shown.front]
    if dots:
        axes.scatter(
            [c.latency_ms for c in dots], [c.top1 for c in dots], s=9 if len(dots) > FEW else 30, color=DOTS, alpha=0.5,
            lw=0, zorder=2, label=shown.candidates_label,
        )  # fmt: skip
    if shown.front:
        axes.plot(
            [c.latency_ms for c in shown.front], [c.top1 for c in shown.front], color=FRONT, lw=2, marker="o", ms=3.2,
            zorder=3, label="Pareto front",
        )  # fmt: skip
    if len(shown.trajectory) > 1:
        x, y = zip(*shown.trajectory, strict=True)
        axes.plot(x, y, color=PATH, lw=1.2, marker=".", ms=4, zorder=3.5, label="NetAdapt, step by step")


def _draw_references(axes: Axes, shown: Picture) -> list[_Name]:
    _error_bars(axes, shown.references, "#afb8c1")
    x, y = [j.latency_ms for j in shown.references], [j.top1 or 0.0 for j in shown.references]
    if shown.references:
        axes.scatter(
            x, y, marker="D", s=42, color=QUIET, ec="white", lw=0.8, zorder=4, label="published networks, judged alike"
        )
    if shown.finalists:
        axes.scatter(
            [j.latency_ms for j in shown.finalists], [j.top1 or 0.0 for j in shown.finalists], marker="*", s=70,
            color="white", ec=BEST, lw=1, zorder=4, label="the other finalists",
        )  # fmt: skip
    return [_name(j, _short(j.name), INK) for j in shown.references]


def _draw_best(axes: Axes, summary: RunSummary, shown: Picture) -> list[_Name]:
    best = shown.best
    if best is None or best.top1 is None:
        return []
    _error_bars(axes, [best], BEST, width=1.4)
    axes.scatter(
        [best.latency_ms], [best.top1], marker="*", s=230, color=BEST, ec="white", lw=1, zorder=6,
        label="the best (bars: ±1 standard deviation)",
    )  # fmt: skip
    top1 = top1_text(best.top1, best.top1_std, estimated=summary.top1_estimated, unit=accuracy_unit(summary))
    latency = latency_text(best.latency_ms, best.latency_error_ms, summary.device_kind, "ms")
    return [_name(best, f"best: {top1}\n{latency}", BEST, bold=True)]


def _error_bars(axes: Axes, members: Sequence[Judged], colour: str, width: float = 0.9) -> None:
    for judged in members:
        axes.errorbar(
            [judged.latency_ms], [judged.top1 or 0.0], xerr=judged.latency_error_ms, yerr=judged.top1_std, fmt="none",
            ecolor=colour, elinewidth=width, capsize=2.5, capthick=width, zorder=3.8,
        )  # fmt: skip


def _draw_target(axes: Axes, target_ms: float) -> None:
    axes.axvline(target_ms, color=INK, lw=1, ls=(0, (5, 4)), zorder=2.5, gid=TARGET, label=f"target {target_ms:g} ms")


def _place_names(
    figure: Figure, axes: Axes, names: Sequence[_Name], lines: Sequence[Any], dots: Sequence[tuple[float, float]]
) -> None:
    """Write ``names`` beside their marks, the last first, off one another, the lines, the error bars and the dots."""
    write_legend(figure, axes)
    figure.set_layout_engine("none")  # the axes must not move once labels are placed
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    ordered = list(reversed(names))
    texts = [_text(axes, name) for name in ordered]
    labels = []
    for name, text in zip(ordered, texts, strict=True):
        size, (x, y) = text.get_window_extent(renderer), _to_pixels(axes, name.x, name.y)
        labels.append(Label(x, y, size.width / SCALE, size.height / SCALE))
    obstacles = [along([_to_pixels(axes, *point) for point in line], 15.0) for line in [*lines, *_bars(axes, names)]]
    obstacles += [np.array([(*_to_pixels(axes, *point), 0.6)]) for point in dots]
    bounds = Box(*(v / SCALE for v in axes.get_window_extent(renderer).extents))
    boxes = place_labels(labels, np.concatenate([np.empty((0, 3)), *obstacles]), bounds)
    for text, box, label in zip(texts, boxes, labels, strict=True):
        text.set_position((box.x0 * SCALE, box.y0 * SCALE))
        _leader(axes, box, label)


def _text(axes: Axes, name: _Name) -> Text:
    """A name at the origin, in pixels, still to be placed; its ground keeps it readable over a line."""
    return axes.text(
        0, 0, name.text, fontsize=9, color=name.colour, weight="bold" if name.bold else "normal", zorder=7, ha="left",
        va="bottom", linespacing=1.25, transform=None, parse_math=False,
        bbox={"fc": "white", "lw": 0, "alpha": 0.7, "pad": 0.4},
    )  # fmt: skip


def write_legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it hides nothing, in as many columns as the width allows; lays the figure out."""
    handles = axes.get_legend_handles_labels()[0]
    for columns in (4, 3, 2, 1):
        if not handles:
            break
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), fontsize=8.5, frameon=False
        )
        figure.draw_without_rendering()
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()
    figure.draw_without_rendering()


def _to_pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """A point of the data in pixels of a picture at 100 dots an inch."""
    found = axes.transData.transform((x, y)) / SCALE
    return float(found[0]), float(found[1])


def _bars(axes: Axes, names: Sequence[_Name]) -> list[list[tuple[float, float]]]:
    """The error bars of ``names`` and the target's line, as lines that a label should not cover."""
    bars = [[(n.x - n.x_error, n.y), (n.x + n.x_error, n.y)] for n in names]
    bars += [[(n.x, n.y - n.y_error), (n.x, n.y + n.y_error)] for n in names]
    low, high = axes.get_ylim()
    targets = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_gid() == TARGET]
    return bars + [[(x, low), (x, high)] for x in targets]


def _leader(axes: Axes, box: Box, label: Label) -> None:
    end = nearest_point(box, label.x, label.y)
    if abs(end[0] - label.x) + abs(end[1] - label.y) > LEADER_FROM:
        inverse = axes.transData.inverted()
        (x0, y0), (x1, y1) = (inverse.transform((px * SCALE, py * SCALE)) for px, py in ((label.x, label.y), end))
        axes.plot([x0, x1], [y0, y1], color="#8c959f", lw=0.6, zorder=3.7, scalex=False, scaley=False)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write both files, each whole or not at all, with no date and no random ids in them."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "mnv3search", "svg.fonttype": "none"}):
        write_atomic(png, lambda path: figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None}))
        write_atomic(svg, lambda path: figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}))


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
    ax.scatter([c.latency_ms for c in candidates], [c.top1 for c in candidates], s=8, color=DOTS, label="candidates")
    ax.plot([c.latency_ms for c in front], [c.top1 for c in front], "o-", ms=4, color=FRONT, label="Pareto front")
    ax.plot([best.latency_ms], [best.top1], "*", ms=14, color=BEST, label="best")
    ax.set_xlabel("latency, ms")
    ax.set_ylabel("top-1, %")
    ax.legend(loc="lower right")
    return ax


BAND = "#eaeef2"


def runtime_text(profile: DeviceProfile) -> str:
    """In what the networks were timed: ``onnxruntime 1.22.0, fp32, 1 thread``."""
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    return f"{profile.runtime} {profile.runtime_version}, {profile.precision}, {threads}"


def draw_profile(profile: DeviceProfile, png: Path, svg: Path) -> None:
    """Draw each network's prediction and measurement, with bars of one deviation, the diagonal and a band of ±5 %.

    Networks of the calibration are hollow, unseen ones filled; the same profile gives the same bytes.

    Raises:
        RunError: a file cannot be written; what stood there before is untouched.
    """
    title = f"{profile.space} on {profile.device}: predicted against measured"
    machine = f"{profile.machine}; {runtime_text(profile)}; batch 1"
    figure, axes = canvas(f"measured, whole networks, ms\n{machine}", "predicted by the layers' table, ms", title)
    low, high = _limits(profile.networks)
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - NEAR), line * (1 + NEAR), color=BAND, lw=0, zorder=1, label="within ±5 %")
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
