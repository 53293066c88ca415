"""The report's picture: inline SVG that stands without a script and carries an index on every mark for one with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mnv3search.report.labels import LEADER_FROM, Box, Label, along, nearest_point, place_labels
from mnv3search.report.picture import FEW, Picture, ticks
from mnv3search.report.summary import Judged

WIDTH, HEIGHT = 960, 560
LEFT, TOP, RIGHT, BOTTOM = 62, 14, 946, 508
GLYPH, BOLD_GLYPH, LINE = 7.2, 8.2, 15.0
STAR = "M0-9 2.2-2.8 8.7-2.6 3.6 1.5 5.3 7.4 0 4 -5.3 7.4 -3.6 1.5 -8.7-2.6 -2.2-2.8Z"
DIAMOND = "M0-6 6 0 0 6 -6 0Z"


@dataclass(frozen=True, slots=True)
class Mark:
    """One network on the picture: (x, y) in SVG units, ``css`` its class, ``named`` its printed name or empty."""

    x: float
    y: float
    css: str
    named: str = ""
    x_error: float = 0.0
    y_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Axes:
    """From milliseconds and percent to SVG units."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, latency_ms: float, top1: float) -> tuple[float, float]:
        """The place of a network, rounded to a tenth of a unit."""
        across = (latency_ms - self.x[0]) / (self.x[1] - self.x[0])
        up = (top1 - self.y[0]) / (self.y[1] - self.y[0])
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    def shows(self, latency_ms: float, top1: float) -> bool:
        """Whether a network lies within the axes."""
        return self.x[0] <= latency_ms <= self.x[1] and self.y[0] <= top1 <= self.y[1]

    def mark(self, judged: Judged, css: str, named: str = "") -> Mark:
        """A judged network's mark with its errors."""
        top1 = judged.top1 or 0.0
        x, y = self.at(judged.latency_ms, top1)
        right, _ = self.at(judged.latency_ms + (judged.latency_error_ms or 0.0), top1)
        _, above = self.at(judged.latency_ms, top1 + (judged.top1_std or 0.0))
        return Mark(x, y, css, named, round(right - x, 1), round(y - above, 1))


def scatter_svg(shown: Picture, marks: Sequence[Mark], x_label: str, y_label: str) -> str:
    """The whole picture. A mark's index in ``marks`` is its ``data-i``."""
    axes = Axes(shown.x, shown.y)
    front = [axes.at(c.latency_ms, c.top1) for c in shown.front]
    path = [axes.at(*point) for point in shown.trajectory]
    target_x, _ = axes.at(shown.target_latency_ms, shown.y[0])
    parts = [
        f'<svg id="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" tabindex="0" aria-label="{escape(y_label)} over '
        f'{escape(x_label)}">',
        f'<clipPath id="frame"><rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/></clipPath>',
        *_grid(axes, x_label, y_label),
        *(_dot(i, mark, 2 if len(marks) > FEW else 3.5) for i, mark in enumerate(marks) if mark.css == "dot"),
        f'<line class="target" x1="{target_x}" x2="{target_x}" y1="{TOP}" y2="{BOTTOM}"/>',
        _limit(axes, shown.limit_ms),
        _polyline("front", front),
        _polyline("path", path),
        *(_error_bars(mark) for mark in marks),
        *(_mark(i, mark) for i, mark in enumerate(marks) if mark.css != "dot"),
        *_names(marks, [front, path], target_x, f"target {shown.target_latency_ms:g} ms"),
        '<circle id="ring" r="10" cx="-50" cy="-50"/>',
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _grid(axes: Axes, x_label: str, y_label: str) -> Iterable[str]:
    for value in ticks(axes.x, 9):
        x, _ = axes.at(value, axes.y[0])
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>'
        yield f'<text class="tick" x="{x}" y="{BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
    for value in ticks(axes.y, 7):
        _, y = axes.at(axes.x[0], value)
        yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    yield f'<text class="axis" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    middle = (TOP + BOTTOM) / 2
    yield (
        f'<text class="axis" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escape(y_label)}</text>"
    )


def _polyline(css: str, points: Sequence[tuple[float, float]]) -> str:
    if len(points) < 2:
        return ""
    return f'<polyline class="{css}" clip-path="url(#frame)" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def _limit(axes: Axes, limit_ms: float | None) -> str:
    if limit_ms is None or not axes.shows(limit_ms, axes.y[0]):
        return ""
    x, _ = axes.at(limit_ms, axes.y[0])
    return f'<line class="limit" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>'


def _dot(index: int, mark: Mark, radius: float) -> str:
    return f'<circle data-i="{index}" class="dot" cx="{mark.x}" cy="{mark.y}" r="{radius}"/>'


def _mark(index: int, mark: Mark) -> str:
    shape = {"best": STAR, "finalist": STAR, "reference": DIAMOND}.get(mark.css)
    if shape is None:
        return f'<circle data-i="{index}" class="{mark.css}-point" cx="{mark.x}" cy="{mark.y}" r="3"/>'
    scale = " scale(0.7)" if mark.css == "finalist" else ""
    spoken = escape(mark.named.replace("\n", ", ") or mark.css)
    return (
        f'<path data-i="{index}" class="{mark.css}" d="{shape}" transform="translate({mark.x} {mark.y}){scale}" '
        f'tabindex="0" role="img" aria-label="{spoken}"/>'
    )


def _error_bars(mark: Mark) -> str:
    if not mark.named or not (mark.x_error or mark.y_error):
        return ""
    x, y, dx, dy = mark.x, mark.y, mark.x_error, mark.y_error
    return f'<path class="error {mark.css}-error" d="M{x - dx:.1f} {y}h{2 * dx:.1f}M{x} {y - dy:.1f}v{2 * dy:.1f}"/>'


def _names(
    marks: Sequence[Mark], lines: Sequence[Sequence[tuple[float, float]]], target_x: float, target: str
) -> Iterable[str]:
    """The printed names, the best's first, off one another and off the lines."""
    named = sorted((m for m in marks if m.named), key=lambda m: m.css != "best")
    labels = [_label(m) for m in named]
    bars = [[(m.x - m.x_error, m.y), (m.x + m.x_error, m.y)] for m in named]
    bars += [[(m.x, m.y - m.y_error), (m.x, m.y + m.y_error)] for m in named]
    obstacles = [along(line, 15.0) for line in [*lines, *bars, [(target_x, TOP), (target_x, BOTTOM)]]]
    obstacles.append(np.array([(m.x, m.y, 0.6) for m in marks if not m.named], dtype=float).reshape(-1, 3))
    labels.append(Label(target_x, TOP + 6, GLYPH * len(target), LINE))
    boxes = place_labels(labels, np.concatenate(obstacles), Box(LEFT + 2, TOP, RIGHT, BOTTOM))
    for mark, box in zip(named, boxes, strict=False):
        end_x, end_y = nearest_point(box, mark.x, mark.y)
        if abs(end_x - mark.x) + abs(end_y - mark.y) > LEADER_FROM:
            yield f'<line class="leader" x1="{mark.x}" y1="{mark.y}" x2="{end_x:.1f}" y2="{end_y:.1f}"/>'
        yield from _lines(mark.named, box, f"name {mark.css}-name")
    yield from _lines(target, boxes[-1], "name target-name")


def _label(mark: Mark) -> Label:
    """A name's size, guessed: no font is at hand when the report is written."""
    lines = mark.named.split("\n")
    glyph = BOLD_GLYPH if mark.css == "best" else GLYPH
    return Label(mark.x, mark.y, glyph * max(map(len, lines)), LINE * len(lines))


def _lines(text: str, box: Box, css: str) -> Iterable[str]:
    for number, line in enumerate(text.split("\n")):
        yield f'<text class="{css}" x="{box.x0:.1f}" y="{box.y0 + LINE * number + 11.5:.1f}">{escape(line)}</text>'
